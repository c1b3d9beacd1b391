"""What a worker does with a job, whoever started it and however one talks to it."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from sweep.engines import Cause, EpochFinished, Event, Job, JobFailed, JobFinished
from sweep.system.errors import DISK_FULL
from sweep.training.config import ConfigurationError, NonFiniteLossError

# After these a process is of little use: an allocator that ran out of memory gives little of it back, and an error of
# CUDA's takes its context along.
SPOILING: tuple[Cause, ...] = ("out of memory", "error")


@dataclass(frozen=True)
class Stop:
    """Somebody wants a job to end.

    Attributes:
        number: Which.
        after_epoch: Once its epoch is over, and not before its next step.
    """

    number: int
    after_epoch: bool


class CloseRequestedError(Exception):
    """The engine closes, or the process that owned it is gone."""


def prepare(device: str, threads: int) -> None:
    """Sets up a process that does nothing but train."""
    from sweep.system.hardware import prepare_training_process

    prepare_training_process(device, threads)
    # AskedTrial for where it exists; where torch has no deterministic kernel there is nothing a user could do about it.
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")


def run(job: Job, asked: Callable[[], Stop | None], send: Callable[[EpochFinished], None]) -> Event:
    """Trains a job to its end.

    Args:
        job: What to train.
        asked: Says before every step whether somebody wants the job to end, and raises CloseRequestedError where
            nobody waits for it any more.
        send: Takes each epoch.

    Returns:
        How it ended, which is no exception's business.
    """
    from sweep.training.loop import train

    request: Stop | None = None
    epoch_over = stopped = False

    def stop() -> bool:
        nonlocal request, stopped
        request = asked()
        stopped = request is not None and (epoch_over or not request.after_epoch)
        return stopped

    try:
        for result in train(job.config, job.training, job.validation, job.folder, stop):
            send(EpochFinished(job.number, result))
            epoch_over = request is not None  # unless that was its last epoch, and it is complete
    except (CloseRequestedError, EOFError, BrokenPipeError):
        raise
    except Exception as error:  # whatever a training runs into ends that trial alone
        return failed(job.number, error)
    return JobFinished(job.number, stopped)


def failed(number: int, error: Exception) -> JobFailed:
    """What an exception that is being handled means for a job."""
    return JobFailed(number, _cause(error), sentence(error), traceback.format_exc())


def sentence(error: BaseException) -> str:
    """The first line of what an error says: some of torch's go on for pages."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


def _cause(error: Exception) -> Cause:
    from sweep.training.loop import out_of_memory

    if isinstance(error, NonFiniteLossError):
        return "non-finite loss"
    if isinstance(error, ConfigurationError):
        return "bad configuration"
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return "disk full"
    return "out of memory" if out_of_memory(error) else "error"
