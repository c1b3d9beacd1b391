"""placeholder until the report lands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweep.results.comparison import Comparison


@dataclass(frozen=True)
class Picture:
    """A picture."""

    name: str
    label: str
    called: str
    probability: float
    jpeg: bytes


def html(comparison: Comparison, diagrams: Mapping[str, str], pictures: Sequence[Picture] = ()) -> str:
    """HTML."""
    return "<html></html>"


def markdown(comparison: Comparison) -> str:
    """Markdown."""
    return comparison.headline
