"""The error that wrong input from the user raises, wherever it is found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

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


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is like one that there is not; empty where none is.

    >>> [nearest(word, ("learning_rate", "val/auroc", "cnn1")) for word in ("lr", "auroc", "cnn11", "banana")]
    ['learning_rate', 'val/auroc', 'cnn1', '']
    """
    typed, words = word.lower().strip(), list(known)
    initials = {"".join(part[:1] for part in name.split("_")): name for name in reversed(words) if "_" in name}
    last = {name.rpartition("/")[2]: name for name in reversed(words)}
    begun = [name for name in words if len(typed) > 2 and name.lower().startswith(typed)]
    lowered = {name.lower(): name for name in words}
    near = [lowered[name] for name in difflib.get_close_matches(typed, lowered, 1, 0.65)]
    return lowered.get(typed) or last.get(typed) or initials.get(typed) or (begun or near or [""])[0]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about a word that there is not, such as `; did you mean cnn1?`; empty without a nearest."""
    found = nearest(word, known)
    return f"; did you mean {found}?" if found else ""
