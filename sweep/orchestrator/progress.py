"""What a study looks like while it runs, and the view that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # a command makes its view before it knows whether it will need any of them
    import numpy as np

from sweep.orchestrator.trial_table import TrialTable
from sweep.stores.trials import AskedTrial, TrialCounts
from sweep.training.config import EpochResult, TrainingConfig


@dataclass
class RunningTrial:
    """A trial that is being trained.

    Attributes:
        asked: What Optuna asked for.
        config: What the engine trains.
        folder: Its checkpoints.
        started: On the monotonic clock, in seconds.
        history: A row of metrics per epoch.
        best: The row of the epoch with the lowest validation loss, or stressed loss where that decides.
        best_logits: Of the validation images at that epoch, float32 [N, classes].
        best_stressed: Likewise of the stressed ones; None where they are not scored.
        repeated: Epochs that came from the checkpoint of an earlier attempt.
        pruned: Whether it has been told to stop, and counts as ended.
        stopped: Why it has been told to stop for now; the next start goes on with it.
        node: The machine that trained its latest epoch; empty where it is this one.
        costs: Of its network, those that the study chooses by.
    """

    asked: AskedTrial
    config: TrainingConfig
    folder: Path
    started: float
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None
    best_logits: np.ndarray | None = None
    best_stressed: np.ndarray | None = None
    repeated: int = 0
    pruned: bool = False
    stopped: str = ""
    node: str = ""
    costs: dict[str, float] = field(default_factory=dict)

    def epoch_ended(self, result: EpochResult, labels: np.ndarray, node: str) -> dict[str, float]:
        """Adds an epoch.

        Args:
            result: Of the epoch.
            labels: Of the validation images.
            node: The machine that trained it; empty where it is this one.

        Returns:
            Its row of metrics.
        """
        from sweep.metrics.scores import metrics_of

        row = {
            "epoch": result.epoch,
            "time": result.ended,
            **metrics_of(result, labels),
            **self.costs,
            "images_per_second": result.images_per_second,
            "epoch_seconds": result.seconds,
        }
        self.history.append(row)
        self.repeated += result.repeated
        self.node = node
        if result.improved:
            self.best, self.best_logits, self.best_stressed = row, result.validation_logits, result.stressed_logits
        return row

    @property
    def result(self) -> dict[str, Any]:
        """What is stored on the trial when it ends."""
        best_epoch = int(self.best["epoch"]) if self.best else None
        node = {"node": self.node} if self.node else {}
        return {"history": self.history, "best_epoch": best_epoch, "resumed_after": self.repeated, **node}


@dataclass(frozen=True)
class Progress:
    """What a study looks like at the moment.

    Attributes:
        study: The study's short name.
        wanted: Trials that it is to have.
        done: Those of them that need no more training: complete and pruned ones, and failed ones that are not replaced.
        counts: Its trials by state, and the best complete one so far.
        running: Those in training.
        metric: What the study chooses by.
        epochs: Epochs of a trial at most.
        seconds_left: Estimated time to the end; None before there is anything to go by.
        budget_left: Seconds of the budget that are left; None without one.
        table: The table of its finished trials.
        studies: `wanted` and `done` of every study that the command runs, one after the other.
    """

    study: str
    wanted: int
    done: int
    counts: TrialCounts
    running: tuple[RunningTrial, ...]
    metric: str
    epochs: int
    seconds_left: float | None
    budget_left: float | None
    table: TrialTable
    studies: Sequence[tuple[int, int]]

    @property
    def begun(self) -> float:
        """What the trials in training have done already, in trials."""
        return min(self.wanted - self.done, sum(len(running.history) / self.epochs for running in self.running))


def seconds_left(
    counts: TrialCounts, training: Sequence[RunningTrial], missing: int, workers: int, epochs: int
) -> float | None:
    """Estimates how long a study still takes.

    Trials that ended took the mean time, whether they were pruned, stopped early or trained to the end; a trial in
    training is expected to take as long, but at least one more epoch unless it has all, and at most those it lacks.

    Args:
        counts: Its trials.
        training: Those in training.
        missing: Trials that it lacks, those in training among them.
        workers: Trials at once.
        epochs: Epochs of a trial at most.

    Returns:
        Seconds, at least 1 while a trial is missing; None before any trial has ended or finished an epoch.
    """
    if missing <= 0:
        return 0.0
    known = [running for running in training if running.history]
    if counts.done:
        mean = counts.seconds / counts.done
    elif known:
        mean = epochs * sum(map(_epoch_seconds, known)) / len(known)
    else:
        return None
    begun = [_trial_seconds_left(running, mean, epochs) for running in training]
    waiting = max(0, missing - len(training)) * mean
    return max(1.0, (waiting + sum(begun)) / workers, *begun)


def _trial_seconds_left(running: RunningTrial, mean: float, epochs: int) -> float:
    """How long a trial in training still takes, if trials take `mean` seconds."""
    rest = max(0.0, mean - (time.monotonic() - running.started))
    if not running.history:
        return rest
    each = _epoch_seconds(running)
    return min((epochs - len(running.history)) * each, max(rest, each))


def _epoch_seconds(running: RunningTrial) -> float:
    return sum(row["epoch_seconds"] for row in running.history) / len(running.history)


class View(Protocol):
    """Where a command shows what happens; the terminal is one."""

    def say(self, text: str) -> None:
        """Shows a line."""
        ...

    def update(self, progress: Progress) -> None:
        """Shows the study as it is now; called often."""
        ...

    def live(self) -> AbstractContextManager[None]:
        """Keeps what `update` shows visible meanwhile."""
        ...

    def counting(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Shows how far something is; yields what is told how many of the total are done."""
        ...
