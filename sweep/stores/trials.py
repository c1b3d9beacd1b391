"""Trials as the rest of the project sees them: enqueued, asked for, recorded and counted. Plain data without Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweep.metrics import pareto
from sweep.space import Value


@dataclass(frozen=True)
class EnqueuedTrial:
    """A trial that is given, not searched.

    Attributes:
        label: What it is, such as `cnn1 row 3`; trials that differ in their seeds alone share one.
        params: Its hyperparameters.
        seed: Of its training.
        patience: Its own instead of the sweep's; None for that.
    """

    label: str
    params: Mapping[str, Value]
    seed: int
    patience: int | None = None


@dataclass(frozen=True)
class StartingPoint:
    """A configuration that a search begins with.

    Attributes:
        source: Where it comes from: `default configuration`, `best.json`, `trial 7 of x-rays/cnn1`, ...
        params: Its hyperparameters; the sampler draws those that are missing.
    """

    source: str
    params: Mapping[str, Value]

    def __str__(self) -> str:
        params = (
            f"{name} {f'{value:g}' if isinstance(value, float) else value}" for name, value in self.params.items()
        )
        return f"{self.source} ({', '.join(params)})"


@dataclass(frozen=True)
class AskedTrial:
    """A trial that Optuna wants to be trained.

    Attributes:
        number: From 0.
        params: Its hyperparameters.
        origin: The first trial of this configuration; its own number where it is the first.
        retry_of: The trial that this one repeats; None where it repeats none.
        failures: How often the configuration has failed before.
        seed: The seed of its training, where it was enqueued with one or an earlier attempt had one.
        patience: Its own, where it was enqueued with one.
        label: What it was called when it was enqueued.
        micro_batch: How many images at once fit into memory, where an earlier attempt found out.
        fault: Why it cannot be trained, where somebody else enqueued it with what the study does not search.
        start: Where its configuration comes from, if the search began with it.
    """

    number: int
    params: dict[str, Any]
    origin: int
    retry_of: int | None
    failures: int
    seed: int | None
    patience: int | None
    label: str | None
    micro_batch: int | None
    fault: str = ""
    start: str | None = None


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the study records it.

    Attributes:
        number: From 0.
        state: `COMPLETE`, `PRUNED`, `FAIL`, `RUNNING` or `WAITING`.
        params: Its hyperparameters.
        value: Its value in the study's metric, of several the first; None where it has none.
        reports: The metric by epoch.
        started: In seconds since 1970; None while it waits.
        ended: In seconds since 1970; None while it runs.
        attributes: What was written down about it: `origin`, `retry_of`, `run`, `result`, `failure`, ...
        values: Its value in each metric, the first one first.
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    reports: dict[int, float]
    started: float | None
    ended: float | None
    attributes: dict[str, Any]
    values: tuple[float, ...] = ()

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        return None if self.started is None or self.ended is None else self.ended - self.started

    @property
    def origin(self) -> int:
        """The first trial of its configuration."""
        return self.attributes.get("origin", self.number)

    @property
    def history(self) -> list[dict[str, float]]:
        """One row of metrics per epoch, once it has ended."""
        return self.attributes.get("result", {}).get("history", [])

    @property
    def validation(self) -> dict[str, float]:
        """Its validation scores at the epoch whose weights were kept, as `auroc` and `loss`, once it has ended."""
        kept = self.history[(self.best_epoch or 1) - 1]
        return {key.removeprefix("val/"): score for key, score in kept.items() if key.startswith("val/")}

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights were kept, from 1, once it has ended."""
        return self.attributes.get("result", {}).get("best_epoch")

    def better_than(self, other: TrialRecord | None, *, maximize: bool) -> bool:
        """Whether its value is better; of equal values the first trial by number, whichever ended first."""
        if other is None or other.value is None or self.value is None:
            return True
        sign = 1 if maximize else -1
        return (sign * self.value, -self.number) > (sign * other.value, -other.number)


@dataclass(frozen=True)
class TrialCounts:
    """How many trials a study has of each state.

    Attributes:
        complete: Trials that trained until their end.
        pruned: Trials that were ended early because others were better.
        failed: Trials that failed.
        running: Trials in training.
        waiting: Trials in the queue.
        best: The complete trial with the best value; None before the first one.
        seconds: How long the complete and pruned ones took, all together.
    """

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    best: TrialRecord | None = None
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Trials that count towards the number that a study is to have."""
        return self.complete + self.pruned

    def plus(self, trial: TrialRecord, *, maximize: bool) -> TrialCounts:
        """The counts with one more trial."""
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
        name = names.get(trial.state, "waiting")
        counts = replace(self, **{name: getattr(self, name) + 1})
        if trial.state in ("COMPLETE", "PRUNED"):
            counts = replace(counts, seconds=self.seconds + (trial.seconds or 0.0))
        if trial.state == "COMPLETE" and trial.better_than(self.best, maximize=maximize):
            counts = replace(counts, best=trial)
        return counts


def chosen_of(metrics: Sequence[str], trials: Sequence[TrialRecord]) -> pareto.Choice | None:
    """How a trial is chosen by several metrics; None where none is complete.

    Args:
        metrics: The study's.
        trials: Its trials.
    """
    points = [
        pareto.Point(trial.number, trial.values, trial.attributes.get("result", {}).get("standard_error", 0.0))
        for trial in trials
        if trial.state == "COMPLETE"
    ]
    return pareto.choose(metrics, points) if points else None
