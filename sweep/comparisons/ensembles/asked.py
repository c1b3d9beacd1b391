"""Which trials an ensemble is asked to be made of, as it is typed. Imports nothing that takes time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data.faults import InputError

LEAST_MEMBERS, MOST_MEMBERS = 2, 100


@dataclass(frozen=True)
class Asked:
    """What `--members` names.

    Attributes:
        kind: `top`, `seeds` or `folds`.
        count: The number after the colon; None without one.
    """

    kind: str
    count: int | None = None

    def __str__(self) -> str:
        """As it is typed."""
        return self.kind if self.count is None else f"{self.kind}:{self.count}"


def asked_of(text: str) -> Asked:
    """Reads the value of `--members`.

    Args:
        text: `top:K`, `seeds`, `folds` or `folds:N`.

    Raises:
        InputError: It is none of these.

    >>> asked_of("top:5")
    Asked(kind='top', count=5)
    """
    written = re.fullmatch(r"(top):(\d{1,4})|(seeds)|(folds)(?::(\d{1,4}))?", text)
    if written is None:
        raise InputError(
            f"--members {text}: write top:5 (the five best trials), seeds (the winner's other seeds) or folds (those "
            "of `sweep crossvalidate`; folds:5 where there are several)"
        )
    kind, number = written[1] or written[3] or written[4], written[2] or written[5]
    count = None if number is None else int(number)
    if count is not None and not LEAST_MEMBERS <= count <= MOST_MEMBERS:
        raise InputError(f"--members {text}: give {LEAST_MEMBERS} to {MOST_MEMBERS} members")
    return Asked(kind, count)
