"""Where trials run. An engine takes jobs, trains them elsewhere and streams their epochs back; it knows no store.

    engine.submit(job)
    for event in engine.events(timeout=1.0): ...
    engine.stop(job.number)
    engine.close()

Each job ends with exactly one JobFinished or JobFailed, also when it was stopped or its worker died.
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
    """One trial to train; small enough to be sent anywhere, the pixels stay in their memory map.

    Attributes:
        number: Names the job in events; unique within an engine.
        config: What to train.
        training: Images to learn from.
        validation: Images to stop by.
        folder: Where its checkpoints go, and where it goes on from.
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
        number: Which job.
        result: What the epoch came to.
        node: The machine that trained it; empty where it is this one.
    """

    number: int
    result: EpochResult
    node: str = ""


@dataclass(frozen=True)
class JobFinished:
    """A job trained all that it had to, or was stopped before.

    Attributes:
        number: Which.
        stopped: Whether it was stopped; its checkpoint is that of its last epoch.
    """

    number: int
    stopped: bool = False


@dataclass(frozen=True)
class JobFailed:
    """A job ended before its time.

    Attributes:
        number: Which.
        cause: What kind of end it was.
        message: One sentence for people.
        details: The traceback, if there is one.
    """

    number: int
    cause: Cause
    message: str
    details: str = ""


Event = EpochFinished | JobFinished | JobFailed


class Engine(Protocol):
    """What the orchestrator needs of a place where trials run."""

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now."""
        ...

    def start(self) -> None:
        """Starts the workers, unless they are there; the first job would, too."""
        ...

    def submit(self, job: Job) -> None:
        """Starts a job. Raises RuntimeError when nothing is free, EngineLostError where trials run no more."""
        ...

    def stop(self, number: int, *, after_epoch: bool = False) -> None:
        """Asks a job to end before its next step, or once its epoch is over; nothing happens if it has ended."""
        ...

    def events(self, timeout: float) -> list[Event]:
        """Waits up to `timeout` seconds for something to happen, and returns all that has, oldest first."""
        ...

    def close(self) -> None:
        """Ends every job and worker; returns when they are gone."""
        ...
