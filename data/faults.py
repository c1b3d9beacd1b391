"""The one error that a user's own input raises, in every room of the house."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used; every fault found, a sentence each.

    Attributes:
        faults: The sentences. Each names the option, file or value, and says what would be right.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
