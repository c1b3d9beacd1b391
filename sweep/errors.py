"""What can go wrong through no fault of the input; `data.faults.InputError` is for the faults of the input."""


class StudyFailedError(RuntimeError):
    """A study cannot come to an end; the message says why."""


class StudyInterruptedError(RuntimeError):
    """Somebody stopped a study, by Ctrl-C or SIGTERM; its stores are consistent."""
