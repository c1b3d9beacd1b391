"""The error that wrong input from the user raises, wherever it is found."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used; one sentence for each fault.

    Attributes:
        faults: The sentences. Each names the option, file or value, and says what would be right.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
