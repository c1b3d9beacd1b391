"""The error that wrong input from the user raises, wherever it is found."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 10  # faults of one kind that are spelled out


class InputError(ValueError):
    """What the user gave cannot be used; one sentence for each fault.

    Attributes:
        faults: The sentences. Each names the option, file or value, and says what would be right.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def named(faults: Sequence[str]) -> list[str]:
    """The first faults of one kind, and how many more there are."""
    more = len(faults) - NAMED
    return [*faults[:NAMED], *([f"... and {more:,} more of this kind"] if more > 0 else [])]
