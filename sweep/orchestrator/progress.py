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

from sweep.stores.trials import AskedTrial, TrialCounts, TrialRecord
from sweep.training.config import TrainingConfig


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
        done: Trials that are complete or pruned.
        pruned: Pruned ones among them.
        failed: Trials that failed.
        running: Those in training.
        best: The best complete trial so far.
        metric: What the study chooses by.
        epochs: Epochs of a trial at most.
        seconds_left: Estimated time to the end; None before there is anything to go by.
        budget_left: Seconds of the budget that are left; None without one.
    """

    study: str
    wanted: int
    done: int
    pruned: int
    failed: int
    running: tuple[RunningTrial, ...]
    best: TrialRecord | None
    metric: str
    epochs: int
    seconds_left: float | None
    budget_left: float | None


def seconds_left(counts: TrialCounts, training: Sequence[RunningTrial], missing: int, workers: int) -> float | None:
    """Estimates how long a study still takes; None before a trial has ended.

    Args:
        counts: Its trials.
        training: Those in training.
        missing: Trials that it lacks, those in training among them.
        workers: Trials at once.
    """
    if not counts.done:
        return None
    mean, now = counts.seconds / counts.done, time.monotonic()
    waiting = max(0, missing - len(training)) * mean
    begun = sum(max(0.0, mean - (now - running.started)) for running in training)
    return (waiting + begun) / workers


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
