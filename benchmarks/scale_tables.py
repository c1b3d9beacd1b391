"""What the studies of `benchmarks.scale` measured, and the tables that show it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.sleeping import EPOCHS
from benchmarks.tables import Table

WAITING = "waiting"
MEGABYTE, KILOBYTE = 1e6, 1e3
# What the last table is computed for, and how busy one orchestrator may be without workers that queue for it.
FLEETS, FLEET_EPOCHS, FLEET_SECONDS, BUSY_ENOUGH = (8, 64, 256, 1_000), 12, (10, 60, 300), 0.7
# Kinds of work that are timed, and methods that are called once per epoch, as `kind/method`.
GROUPS = ("sampler", "report, prune", "tell", "scores", "MLflow", "figures", "files", "best kept")
OF_AN_EPOCH = ("report, prune/report", "report, prune/should_prune", "scores/metrics_of", "MLflow/log_epochs")


@dataclass(frozen=True)
class Load:
    """A study to run.

    Attributes:
        trials: How many it has in the end.
        workers: Trainings at once.
        seconds: What the shortest and the longest epoch take; all lengths in between are as likely.
        sizes: At how many trials the study is looked at while it runs.
    """

    trials: int
    workers: int
    seconds: tuple[float, float]
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Mark:
    """What a study had come to at a moment; what is counted is counted from the start of its process.

    Attributes:
        trials: Complete and pruned ones.
        pruned: Pruned ones among them.
        began: When it was looked at, on the monotonic clock.
        ended: When that was over; taking the size of many files takes a while.
        processor: Seconds of processor time.
        seconds: That each timed method took, without those of other timed methods that it called.
        calls: How often each was called.
        memory: Bytes that the process holds.
        optuna: Bytes of Optuna's store.
        mlflow: Bytes of MLflow's store.
        files: Bytes of the runs' files.
    """

    trials: int
    pruned: int
    began: float
    ended: float
    processor: float
    seconds: Mapping[str, float]
    calls: Mapping[str, int]
    memory: int
    optuna: int
    mlflow: int
    files: int


@dataclass(frozen=True)
class Outcome:
    """How a study went.

    Attributes:
        marks: When it began, at the sizes that were asked for, and once all its runs had ended.
        trained: Seconds of each training.
        last: When the last training ended, on the monotonic clock.
        delays: Seconds from each epoch's end to when the study knew of it.
        peak: Bytes that the process held at most.
    """

    marks: tuple[Mark, ...]
    trained: list[float]
    last: float
    delays: list[float]
    peak: int


def tables(loads: Sequence[Load], long: Outcome, broad: Sequence[Outcome]) -> list[Table]:
    """What the long study, the first of the loads, and the others came to."""
    pairs = list(zip(loads[1:], broad, strict=True))
    return [
        _broad(pairs),
        _costs(
            "scale_costs",
            "Where the orchestrator's time goes: milliseconds a trial",
            "trials at once",
            [(load.workers, study.marks[0], study.marks[-1]) for load, study in pairs],
            "Tell: with what is noted on the trial. MLflow: every call, files copied into runs included.",
            "Best kept: which checkpoints are to go, as --keep best wants it. All: everything but waiting for events.",
        ),
        _costs(
            "scale_growth",
            f"One study, {loads[0].workers} trials at once: milliseconds a trial since the row before",
            "trials",
            [(after.trials, before, after) for before, after in _windows(long)],
            "No row is copied. As many trials as train at once are begun within the first row, and not ended in it.",
        ),
        _sizes(long),
        _fleets(*_windows(long)[-1]),
    ]


def ideal_seconds(trained: Sequence[float], workers: int) -> float:
    """What trainings take on so many workers, if each of them begins when another one ends."""
    free = [0.0] * workers
    for seconds in trained:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def milliseconds(before: Mark, after: Mark) -> dict[str, float]:
    """What each trial between two marks took of the orchestrator, by kind of work; `all` is everything but waiting."""
    seconds = {name: after.seconds[name] - before.seconds.get(name, 0.0) for name in after.seconds}
    groups: dict[str, float] = dict.fromkeys((WAITING, *GROUPS), 0.0)
    for name, value in seconds.items():
        groups[name.partition("/")[0]] += value
    busy = after.began - before.ended - groups.pop(WAITING)
    groups |= {"rest": busy - sum(groups.values()), "all": busy}
    return {group: 1000 * value / (after.trials - before.trials) for group, value in groups.items()}


def _windows(study: Outcome) -> list[tuple[Mark, Mark]]:
    """From each size at which a study was looked at to the next; what came after the last trial is left out."""
    return list(zip(study.marks[:-2], study.marks[1:-1], strict=True))


def _broad(studies: Sequence[tuple[Load, Outcome]]) -> Table:
    rows, values = [], {}
    for load, study in studies:
        first, last = study.marks[0], study.marks[-1]
        seconds = last.began - first.ended
        reached, ideal = load.trials / seconds, load.trials / ideal_seconds(study.trained, load.workers)
        busy = sum(study.trained) / (load.workers * (study.last - first.ended))
        processor = (last.processor - first.processor) / seconds
        delays = 1000 * np.quantile(study.delays, (0.5, 0.95))
        rows.append(
            (
                f"{load.workers:,}",
                f"{reached:.2f}",
                f"{ideal:.2f}",
                f"{100 * reached / ideal:.0f}",
                f"{100 * busy:.0f}",
                f"{100 * processor:.0f}",
                f"{study.peak / MEGABYTE:,.0f}",
                f"{(last.memory - first.memory) / MEGABYTE:,.1f}",
                *(f"{delay:,.0f}" for delay in delays),
                f"{100 * last.pruned / last.trials:.0f}",
            )
        )
        found = {"trials/s": [reached], "ideal trials/s": [ideal], "busy": [busy], "processor": [processor]}
        found |= {"peak": [float(study.peak)], "growth": [float(last.memory - first.memory)], "delays": study.delays}
        values |= {f"{load.workers}/{name}": measured for name, measured in found.items()}
    shortest, longest = studies[0][0].seconds
    trials = ", ".join(f"{load.trials:,}" for load, _ in studies)
    columns = (
        *("trials at once", "trials/s", "ideal", "reached, %", "workers busy, %", "CPU, %", "peak memory, MB"),
        *("growth, MB", "epoch's delay, ms", "95 %", "pruned, %"),
    )
    notes = (
        f"Studies of {trials} trials of at most {EPOCHS} epochs of {shortest:g} to {longest:g} s, one run each.",
        "Ideal: the same trainings one after the other on each worker, with nothing in between.",
        "Trials/s until the last run has ended in MLflow; workers busy until the last training has ended.",
        "Delay: from an epoch's end to when the study knows of it and can say whether to prune.",
    )
    return Table("scale", "One orchestrator, trials at once", columns, rows, values, notes)


def _costs(name: str, title: str, first: str, windows: Sequence[tuple[int, Mark, Mark]], *notes: str) -> Table:
    rows, values = [], {}
    for size, before, after in windows:
        found = milliseconds(before, after)
        rate = (after.trials - before.trials) / (after.began - before.ended)
        rows.append((f"{size:,}", f"{rate:.2f}", *(f"{value:,.1f}" for value in found.values())))
        values |= {f"{size}/trials/s": [rate], **{f"{size}/{group}": [value] for group, value in found.items()}}
    return Table(name, title, (first, "trials/s", *GROUPS, "rest", "all"), rows, values, notes)


def _sizes(study: Outcome) -> Table:
    rows, values = [], {}
    for mark in study.marks[1:-1]:
        sizes = {"optuna.db": mark.optuna, "mlflow.db": mark.mlflow, "mlruns/": mark.files}
        cells = [(f"{size / MEGABYTE:,.1f}", f"{size / mark.trials / KILOBYTE:,.1f}") for size in sizes.values()]
        rows.append((f"{mark.trials:,}", *(cell for pair in cells for cell in pair), f"{mark.memory / MEGABYTE:,.0f}"))
        found = {**sizes, "memory": mark.memory}
        values |= {f"{mark.trials}/{name}": [float(figure)] for name, figure in found.items()}
    columns = (
        *("trials", "optuna.db, MB", "kB a trial", "mlflow.db, MB", "kB a trial", "mlruns/, MB", "kB a trial"),
        "memory, MB",
    )
    return Table("scale_sizes", "... and what it leaves on disk and holds in memory", columns, rows, values)


def _fleets(before: Mark, after: Mark) -> Table:
    """What fleets of workers would need, if a trial and an epoch cost what they did between two marks."""
    of_epochs = sum(after.seconds[name] - before.seconds.get(name, 0.0) for name in OF_AN_EPOCH)
    epoch = of_epochs / (after.calls[OF_AN_EPOCH[0]] - before.calls.get(OF_AN_EPOCH[0], 0))
    trial = milliseconds(before, after)["all"] / 1000 - of_epochs / (after.trials - before.trials)
    rows, values = [], {"trial, ms": [1000 * trial], "epoch, ms": [1000 * epoch]}
    for workers in FLEETS:
        for seconds in FLEET_SECONDS:
            epochs = workers / seconds
            trials = epochs / FLEET_EPOCHS
            share = trials * trial + epochs * epoch
            studies = max(1, math.ceil(share / BUSY_ENOUGH))
            takes = "one" if studies == 1 else f"{studies}, with a study each"
            rows.append(
                (f"{workers:,}", f"{seconds} s", f"{trials:.3f}", f"{epochs:.2f}", f"{100 * share:,.1f}", takes)
            )
            values[f"{workers}/{seconds}"] = [share]
    columns = ("workers", "an epoch", "trials/s", "epochs/s", "of one, %", "orchestrators")
    notes = (
        f"Computed, not run: {1000 * trial:,.0f} ms a trial and {1000 * epoch:,.1f} ms an epoch, as at the last size "
        f"of the study above, {after.trials:,} trials. Trials of {FLEET_EPOCHS} epochs, none of them pruned.",
        f"Above {100 * BUSY_ENOUGH:.0f} % workers queue. Then the work must be split into several studies, in the same "
        "stores on PostgreSQL, each with an orchestrator of its own as its one writer.",
    )
    return Table("scale_fleet", "What a fleet of workers needs", columns, rows, values, notes)
