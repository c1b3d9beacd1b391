"""How far one orchestrator goes: hundreds of trainings at once, and a study of thousands of trials.

The trainings take time and do no work, so that two cores are enough for hundreds of them: an engine hands out recorded
curves when they are due. All else is the sweep itself: its loop, Optuna's and MLflow's stores, figures and files. Each
study runs in a process of its own, whose memory and processor time are then those of the orchestrator alone. No row
is copied and no size is extrapolated but in the last table, which says how. Linux only: it reads /proc.
"""

from __future__ import annotations

import heapq
import json
import math
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.overhead import CHECKPOINT_BYTES, Silent, cache_in
from benchmarks.tables import Options, Table
from data import cache
from sweep.engines import EpochFinished, Event, Job, JobFinished
from sweep.metrics import figures
from sweep.orchestrator import loop as orchestrator
from sweep.orchestrator.artifacts import Artifacts
from sweep.orchestrator.figure_pool import FigurePool
from sweep.orchestrator.mlflow_mirror import Mirror
from sweep.orchestrator.runner import open_studies, run_study
from sweep.orchestrator.study_run import SweepRun
from sweep.orchestrator.workdir import mlflow_in, optuna_in
from sweep.plan import make_plan
from sweep.settings import Settings
from sweep.stores.mlflow_stores import open_tracking
from sweep.stores.study import Study
from sweep.stores.tracking import Tracking
from sweep.training.config import BEST, EpochResult

# Validation loss and AUROC of five epochs, the worst trial first, as mlruns.example/mlflow.db has them.
CURVES: tuple[tuple[tuple[float, float], ...], ...] = (
    ((0.692, 0.9041), (0.691, 0.9194), (0.690, 0.9246), (0.690, 0.9276), (0.689, 0.9295)),  # cnn3-002
    ((10.517, 0.9441), (0.400, 0.9908), (0.289, 0.9887), (0.236, 0.9851), (1.101, 0.9817)),  # cnn1-002
    ((0.419, 0.9323), (0.401, 0.9665), (0.205, 0.9779), (0.184, 0.9798), (0.185, 0.9826)),  # cnn3-000
    ((1.131, 0.9437), (0.233, 0.9768), (0.243, 0.9804), (0.193, 0.9847), (0.191, 0.9858)),  # cnn2-000
    ((0.774, 0.9309), (0.878, 0.9523), (0.388, 0.9738), (0.181, 0.9824), (0.253, 0.9860)),  # cnn1-000
    ((1.090, 0.9509), (1.295, 0.9760), (0.262, 0.9815), (0.188, 0.9844), (0.164, 0.9867)),  # cnn2-005
    ((0.548, 0.9271), (0.283, 0.9657), (0.175, 0.9819), (0.225, 0.9816), (0.130, 0.9887)),  # cnn3-006
    ((3.311, 0.9782), (0.272, 0.9832), (0.757, 0.9845), (0.610, 0.9887), (0.238, 0.9889)),  # cnn1-001
    ((29.952, 0.5000), (18.911, 0.7257), (0.924, 0.9888), (0.914, 0.9884), (0.215, 0.9910)),  # cnn1-005
    ((0.273, 0.9787), (0.218, 0.9868), (0.151, 0.9903), (0.143, 0.9918), (0.142, 0.9922)),  # cnn2-003
    ((0.212, 0.9845), (0.134, 0.9899), (0.128, 0.9903), (0.228, 0.9922), (0.181, 0.9937)),  # cnn1-003
    ((4.211, 0.9549), (2.090, 0.9876), (0.130, 0.9943), (0.146, 0.9930), (0.096, 0.9950)),  # cnn2-002
)  # fmt: skip
EPOCHS = len(CURVES[0])
STEP_SECONDS = 0.02  # what a training that is told to stop still computes
WAITING = "waiting"
MEGABYTE, KILOBYTE = 1e6, 1e3
# What the last table is computed for, and how busy one orchestrator may be without workers that queue for it.
FLEETS, FLEET_EPOCHS, FLEET_SECONDS, BUSY_ENOUGH = (8, 64, 256, 1_000), 12, (10, 60, 300), 0.7


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


BROAD = tuple(Load(trials, workers, (0.5, 1.5)) for trials, workers in ((120, 8), (240, 64), (320, 256)))
QUICK_BROAD = (Load(5, 2, (0.0, 0.2)),)
LONG = Load(10_000, 256, (0.0, 0.5), (100, 1_000, 2_500, 5_000, 7_500, 10_000))
QUICK_LONG = Load(8, 4, (0.0, 0.1), (3, 8))


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


def measure(options: Options) -> list[Table]:
    """Runs studies with more and more trainings at once, and a long one; `repeats` is not looked at."""
    loads = (QUICK_LONG, *QUICK_BROAD) if options.quick else (LONG, *BROAD)
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(index) for index in range(len(loads))]
        # A process a study, or its memory would be that of the studies before it, too; quickly, one will do.
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=None if options.quick else 1) as pool:
            long, *broad = pool.map(run, loads, repeat(options.seed), folders)
    return tables(loads, long, broad)


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


def run(load: Load, seed: int, folder: Path) -> Outcome:
    """Runs a study around an engine that sleeps.

    Args:
        load: The study.
        seed: Every random draw comes from it; which trial ends first is the machine's.
        folder: The working directory, which is made; decoded images go beside it, and serve the next study, too.
    """
    folder.mkdir()
    os.chdir(folder)  # MLflow's files go where the process is
    settings = Settings(
        ("cnn3",),
        trials=load.trials,
        epochs=EPOCHS,
        image_size=16,  # nobody looks at the pixels
        seed=seed,
        pruner="median",
        warmup=3,
        keep="best",
        workers=load.workers,
        device="cpu",
    )
    with cache_in(folder.parent / "cache"):
        plan = make_plan(settings, fetch=False)
        cache.build(plan.source, settings.image_size)
        images = cache.images_of(plan.source, plan.split, settings.image_size)
        (planned,), (study,) = plan.studies, open_studies(plan, optuna_in(folder))
        tracking = open_tracking(mlflow_in(folder), plan.experiment)
        engine = SleepingEngine(load.workers, load.seconds, images["validation"].labels)
        meter, delays = Meter(), []
        watch = _Watch(study, meter, load.sizes, folder)
        with meter.all_timed(), patch.object(Study, "report", _answering(Study.report, engine.due, delays)):
            run_study(SweepRun(plan, engine, tracking, folder, Silent(), watch.stopping), planned, study, watch.finish)
        study.release()
    return Outcome(tuple(watch.marks), engine.trained, engine.last, delays, memory_of_this("VmHWM"))


class SleepingEngine:
    """So many trainings at once that take their time and do no work; what comes back are recorded curves.

    A real worker trains on whether anybody listens or not. Epochs are therefore due at moments that nothing delays,
    and only a job that follows another one begins late where the loop is.
    """

    def __init__(self, workers: int, seconds: tuple[float, float], labels: np.ndarray) -> None:
        """Makes the engine.

        Args:
            workers: Trainings at once.
            seconds: What the shortest and the longest epoch take.
            labels: Of the validation images, int [N].
        """
        self._workers, self._seconds = workers, seconds
        self._logits = [[logits_of(labels, auroc) for _, auroc in curve] for curve in CURVES]
        self._sleeping: dict[int, _Sleeping] = {}
        self._heap: list[tuple[float, int, int]] = []  # when, which job, which epoch; the one past the last is the end
        self.due: dict[tuple[int, int], float] = {}  # of epochs that were told: job and epoch -> when it ended
        self.trained: list[float] = []  # seconds of each job that has ended
        self.last = 0.0  # when the latest one ended

    def start(self) -> None:
        """Nothing has to start."""

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now."""
        return self._workers - len(self._sleeping)

    def submit(self, job: Job) -> None:
        """Decides when a job's epochs end and what comes of them, by the trial's seed."""
        draws, now = np.random.default_rng(job.config.seed), time.monotonic()
        ends = (now + draws.uniform(*self._seconds, EPOCHS).cumsum()).tolist()
        self._sleeping[job.number] = _Sleeping(job, now, ends, ends[-1], curve_of(job.config.learning_rate, draws))
        for epoch, end in enumerate([*ends, ends[-1]], start=1):
            heapq.heappush(self._heap, (end, job.number, epoch))

    def stop(self, number: int, *, after_epoch: bool = False) -> None:
        """Has a job end after a moment or with its epoch; nothing happens if it has ended."""
        if (sleeping := self._sleeping.get(number)) is None:
            return
        now = time.monotonic()
        until = next((end for end in sleeping.ends if end > now), now) if after_epoch else now + STEP_SECONDS
        if until < sleeping.until:
            sleeping.until = until
            heapq.heappush(self._heap, (until, number, EPOCHS + 1))

    def events(self, timeout: float) -> list[Event]:
        """Waits up to `timeout` seconds for something to be due, and returns all that is, oldest first."""
        events: list[Event] = []
        until = time.monotonic() + timeout
        while self._heap and not events:
            time.sleep(max(0.0, min(self._heap[0][0], until) - time.monotonic()))
            now = time.monotonic()
            while self._heap and self._heap[0][0] <= now:
                events += self._happened(*heapq.heappop(self._heap))
            if now >= until:
                break
        return events

    def close(self) -> None:
        """Nothing is open."""

    def _happened(self, end: float, number: int, epoch: int) -> list[Event]:
        sleeping = self._sleeping.get(number)
        if sleeping is None or end > sleeping.until:  # what a job that was stopped would have come to
            return []
        job = sleeping.job
        if epoch > EPOCHS:
            del self._sleeping[number]
            self.trained.append(end - sleeping.began)
            self.last = max(self.last, end)
            stopped = end < sleeping.ends[-1]
            if not stopped:
                job.folder.mkdir(parents=True, exist_ok=True)
                (job.folder / BEST).write_bytes(bytes(CHECKPOINT_BYTES))
            return [JobFinished(number, stopped)]
        self.due[number, epoch] = end
        curve, index = CURVES[sleeping.curve], epoch - 1
        loss, auroc = curve[index]
        seconds = end - (sleeping.ends[index - 1] if index else sleeping.began)
        result = EpochResult(
            epoch,
            train_loss=loss,  # what training came to is drawn in a figure, and decides nothing
            train_accuracy=auroc,
            validation_loss=loss,
            validation_logits=self._logits[sleeping.curve][index],
            improved=loss < min((before for before, _ in curve[:index]), default=math.inf),
            seconds=seconds,
            images_per_second=len(job.training) / seconds,
            ended=time.time() - (time.monotonic() - end),
        )
        return [EpochFinished(number, result)]


@dataclass
class _Sleeping:
    job: Job
    began: float
    ends: list[float]  # of its epochs
    until: float  # the last of them, or earlier if it was stopped
    curve: int


def curve_of(learning_rate: float, draws: np.random.Generator) -> int:
    """Which of the curves a trial has.

    Trials near a learning rate of 0.001 do better, so that there is something to search. Were they all alike, nearly
    all would be pruned in the end: only the better half goes into the median, which rises without the trials.
    """
    best = len(CURVES) - 1
    return int(np.clip(round(best - 3 * abs(math.log10(learning_rate) + 3) + draws.normal(0, 1.5)), 0, best))


def logits_of(labels: np.ndarray, auroc: float) -> np.ndarray:
    """Makes logits that give an AUROC, and are calibrated.

    Args:
        labels: 0 or 1, int [N].
        auroc: From 0.5 to 1; it is met as closely as the pairs of so many images can.

    Returns:
        float32 [N, 2].
    """
    noise = np.random.default_rng(0).normal(size=len(labels))
    # How far positives must be moved up for so large a share of the pairs to be in order.
    shift = np.quantile(noise[labels == 0][None, :] - noise[labels == 1][:, None], auroc)
    scores = shift * (noise + shift * labels - shift / 2)
    return np.stack([np.zeros(len(labels)), scores], axis=1).astype(np.float32)


class Meter:
    """Seconds and calls of methods, by name; of nested ones each has its own seconds alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._inner = [0.0]  # seconds of the timed calls within each one that is under way

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed.

        Args:
            name: What its seconds are counted under.
            function: Any function or method.
        """

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            began = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.monotonic() - began
                self.seconds[name] += took - self._inner.pop()
                self._inner[-1] += took
                self.calls[name] += 1

        return timed

    @contextmanager
    def all_timed(self) -> Iterator[None]:
        """Times what the loop calls, by kind of work."""
        tracking = [name for name, method in vars(Tracking).items() if callable(method) and not name.startswith("_")]
        timed = (
            (WAITING, SleepingEngine, ("events",)),
            ("sampler", Study, ("ask",)),
            ("report, prune", Study, ("report", "should_prune")),
            ("tell", Study, ("note_trial", "complete", "prune", "fail")),
            ("scores", orchestrator, ("metrics_of",)),
            ("MLflow", Tracking, [name for name in tracking if name != "reaching"]),  # a context, which takes no time
            ("figures", figures, ("learning_curves", "predictions", "png")),
            ("figures", FigurePool, ("begin", "take")),  # what is drawn aside is waited for here, if at all
            ("files", Artifacts, ("keep_files",)),
            ("best kept", Mirror, ("thin",)),
        )
        with ExitStack() as stack:
            for group, owner, names in timed:
                for name in names:
                    wrapped = self.timed(f"{group}/{name}", getattr(owner, name))
                    stack.enter_context(patch.object(owner, name, wrapped))
            yield


GROUPS = ("sampler", "report, prune", "tell", "scores", "MLflow", "figures", "files", "best kept")
OF_AN_EPOCH = ("report, prune/report", "report, prune/should_prune", "scores/metrics_of", "MLflow/log_epochs")


def _answering(
    report: Callable[..., None], due: dict[tuple[int, int], float], delays: list[float]
) -> Callable[..., None]:
    """Notes how long after its end an epoch is known to the study."""

    @wraps(report)
    def answering(study: Study, number: int, epoch: int, value: float) -> None:
        report(study, number, epoch, value)
        delays.append(time.monotonic() - due.pop((number, epoch)))

    return answering


class _Watch:
    """Looks at a study when it begins, whenever it has grown to a size, and when it has ended."""

    def __init__(self, study: Study, meter: Meter, sizes: Iterable[int], folder: Path) -> None:
        self._study, self._meter, self._folder = study, meter, folder
        self._sizes = list(sizes)
        self.marks: list[Mark] = []

    def stopping(self) -> bool:
        """Says that the study is to go on: the loop asks before everything else it does."""
        trials = self._study.counts().done
        if not self.marks or (self._sizes and trials >= self._sizes[0]):
            self._sizes = [size for size in self._sizes if size > trials]
            self._look()
        return False

    def finish(self, *_: Any) -> None:
        """Concludes nothing."""
        self._look()

    def _look(self) -> None:
        began, counts, folder = time.monotonic(), self._study.counts(), self._folder
        counted = (time.process_time(), dict(self._meter.seconds), dict(self._meter.calls), memory_of_this("VmRSS"))
        sizes = [_bytes(folder.glob(pattern)) for pattern in ("optuna.db*", "mlflow.db*", "mlruns/**/*")]
        self.marks.append(Mark(counts.done, counts.pruned, began, time.monotonic(), *counted, *sizes))
        # It takes long, and what was found should outlive an interruption.
        print(json.dumps(asdict(self.marks[-1])), file=sys.stderr, flush=True)


def memory_of_this(figure: str) -> int:
    """Bytes that this process holds (`VmRSS`), or has held at most (`VmHWM`)."""
    # resource.getrusage would give a new process the peak of the one that started it.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{figure}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(f"/proc/self/status has no {figure}")


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.lstat().st_blocks * 512 for path in paths)


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
