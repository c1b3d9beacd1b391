"""Errors that are no fault of the user's input; those are `data.faults.InputError`."""

from __future__ import annotations

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class StudyFailedError(RuntimeError):
    """A study cannot be finished; the message says why."""


class StudyInterruptedError(RuntimeError):
    """A study was stopped by Ctrl-C or SIGTERM; its stores are consistent."""


class TrialEndedElsewhereError(RuntimeError):
    """Another program has ended a trial that was being trained."""


class EngineLostError(RuntimeError):
    """The engine, such as a Ray cluster, does not answer any more; the message names it."""


class TrackingAwayError(RuntimeError):
    """The MLflow server does not answer at the moment."""


def disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk is full.

    >>> disk_full(OSError(errno.ENOSPC, "No space left on device"))
    True
    """
    while error is not None:
        # SQLite has a message of its own, which SQLAlchemy, Optuna and MLflow pass on.
        if (isinstance(error, OSError) and error.errno in DISK_FULL) or "disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
