"""Where trials run. An engine takes jobs, trains them in other processes and streams their epochs back.

    engine.submit(job)
    for event in engine.events(timeout=1.0): ...
    engine.stop(job.number)
    engine.close()

Each job ends with exactly one JobFinished or JobFailed, also if it was stopped or its worker died.
Engines know no store.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from data.cache import Images
from sweep.training.config import EpochResult, TrainingConfig

Cause = Literal["worker lost", "out of memory", "non-finite loss", "bad configuration", "disk full", "error"]


@dataclass(frozen=True)
class Job:
    """One trial to train; small enough to be sent to another process: the pixels stay in their memory map.

    Attributes:
        number: Identifies the job in events; unique within an engine.
        config: What to train.
        training: Images to learn from.
        validation: Images to stop by.
        folder: Where its checkpoints are written, and resumed from.
    """

    number: int
    config: TrainingConfig
    training: Images
    validation: Images
    folder: Path


@dataclass(frozen=True)
class EpochFinished:
    """A job finished an epoch, now or before it was interrupted; see `EpochResult.repeated`.

    Attributes:
        number: The job.
        result: The result of the epoch.
        node: The machine that trained it; empty for this one.
    """

    number: int
    result: EpochResult
    node: str = ""


@dataclass(frozen=True)
class JobFinished:
    """A job trained all its epochs, or was stopped before.

    Attributes:
        number: The job.
        stopped: Whether it was stopped; its checkpoint is that of its last epoch.
    """

    number: int
    stopped: bool = False


@dataclass(frozen=True)
class JobFailed:
    """A job failed.

    Attributes:
        number: The job.
        cause: The kind of failure; decides whether the trial is tried again.
        message: One sentence for people.
        details: The traceback, if there is one.
    """

    number: int
    cause: Cause
    message: str
    details: str = ""


Event = EpochFinished | JobFinished | JobFailed


class Engine(Protocol):
    """What the orchestrator needs of an engine."""

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now."""
        ...

    def start(self, jobs: int) -> None:
        """Starts the workers that so many jobs at once need, unless they run; a job would start its own, too."""
        ...

    def submit(self, job: Job) -> None:
        """Starts a job. Raises RuntimeError if no worker is free, EngineLostError if the engine does not answer."""
        ...

    def stop(self, number: int, *, after_epoch: bool = False) -> None:
        """Asks a job to end before its next step, or once its epoch is over; does nothing if it has ended."""
        ...

    def events(self, timeout: float) -> list[Event]:
        """Waits up to `timeout` seconds for an event, and returns all that there are, oldest first."""
        ...

    def close(self) -> None:
        """Ends every job and worker; returns when they have ended."""
        ...
