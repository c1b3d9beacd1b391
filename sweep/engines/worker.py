"""What a worker does with a job, the same on every engine."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from sweep.engines import Cause, EpochFinished, Event, Job, JobFailed, JobFinished
from sweep.system.errors import DISK_FULL
from sweep.training.config import ConfigurationError, NonFiniteLossError

# After these a worker is replaced: an allocator that ran out of memory gives little of it back, and an error of CUDA
# makes the process's context unusable.
REPLACE_AFTER: tuple[Cause, ...] = ("out of memory", "error")


@dataclass(frozen=True)
class Stop:
    """A request that a job ends.

    Attributes:
        number: The job.
        after_epoch: Whether once its epoch is over, rather than before its next step.
    """

    number: int
    after_epoch: bool


class CloseRequestedError(Exception):
    """The engine closes, or the process that owns it is gone."""


def prepare(device: str, threads: int) -> None:
    """Sets up a process that only trains."""
    from sweep.system.hardware import prepare_training_process

    prepare_training_process(device, threads)
    import sweep.training.loop  # noqa: F401 - so that the first trial does not wait for it; after the memory's settings

    # A user can do nothing about it where torch has no deterministic kernel.
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")


def run(job: Job, stop_request: Callable[[], Stop | None], send: Callable[[EpochFinished], None]) -> Event:
    """Trains a job to its end.

    Args:
        job: What to train.
        stop_request: Called before every step; returns a request that the job ends, if there is one. Raises
            CloseRequestedError if the engine is closing.
        send: Receives each epoch.

    Returns:
        How the job ended; an error of the training is a JobFailed.

    Raises:
        CloseRequestedError, EOFError, BrokenPipeError: The engine is closing or gone.
    """
    from sweep.training.loop import train

    request: Stop | None = None
    epoch_over = stopped = False

    def stop() -> bool:
        nonlocal request, stopped
        request = stop_request()
        stopped = request is not None and (epoch_over or not request.after_epoch)
        return stopped

    try:
        for result in train(job.config, job.training, job.validation, job.folder, stop):
            send(EpochFinished(job.number, result))
            epoch_over = request is not None  # after the last epoch nothing asks, and the job is complete
    except (CloseRequestedError, EOFError, BrokenPipeError):
        raise
    except Exception as error:  # whatever goes wrong in a training ends that trial alone
        return failure(job.number, error)
    return JobFinished(job.number, stopped)


def failure(number: int, error: Exception) -> JobFailed:
    """Describes the exception that is being handled as the failure of a job."""
    return JobFailed(number, _cause(error), one_line(error), traceback.format_exc())


def one_line(error: BaseException) -> str:
    r"""The type and the first line of an error: some of torch's go on for pages.

    >>> one_line(ValueError("too large\nshapes: ..."))
    'ValueError: too large'
    """
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


def _cause(error: Exception) -> Cause:
    from sweep.training.optimizers import out_of_memory

    if isinstance(error, NonFiniteLossError):
        return "non-finite loss"
    if isinstance(error, ConfigurationError):
        return "bad configuration"
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return "disk full"
    return "out of memory" if out_of_memory(error) else "error"
