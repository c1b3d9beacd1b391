"""What can go wrong through no fault of the input; `data.faults.InputError` is for the faults of the input."""

from __future__ import annotations

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class StudyFailedError(RuntimeError):
    """A study cannot come to an end; the message says why."""


class StudyInterruptedError(RuntimeError):
    """Somebody stopped a study, by Ctrl-C or SIGTERM; its stores are consistent."""


class EngineLostError(RuntimeError):
    """Where trials run does not answer any more; the message names it."""


class TrackingAwayError(RuntimeError):
    """MLflow's server does not answer at the moment."""


def disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk is full."""
    while error is not None:
        # SQLite has words of its own, which SQLAlchemy, Optuna and MLflow pass on.
        if (isinstance(error, OSError) and error.errno in DISK_FULL) or "disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
