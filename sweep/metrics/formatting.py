"""Scores, times and counts as people write them."""

from __future__ import annotations

import numpy as np

from sweep.metrics.bootstrap import Interval
from sweep.metrics.names import LABELS

SPACE = "\u00a0"


def format_interval(interval: Interval) -> str:
    """A score as people write it: `0.912 (0.889-0.935)` with an en dash, or `0.912 (too few to tell)`."""
    if np.isnan(interval.low) or np.isnan(interval.high):
        return f"{interval.value:.3f} (too few to tell)"
    return f"{interval.value:.3f} ({interval.low:.3f}\u2013{interval.high:.3f})"


def format_difference(interval: Interval) -> str:
    """A difference of two scores as people write it, in points: `+1.2 (-0.3 to +2.7)` with a minus sign."""
    value, low, high = (
        f"{100 * end:+.1f}".replace("-", "\u2212") for end in (interval.value, interval.low, interval.high)
    )
    return f"{value} (too few to tell)" if np.isnan(interval.low) else f"{value} ({low} to {high})"


def format_p_value(p: float) -> str:
    """A p-value as people write it."""
    if np.isnan(p):
        return "not known"
    return "<\u00a00.001" if p < 0.001 else f"{p:.3f}"


def format_metric(name: str) -> str:
    """What a study chose by, in words."""
    score = name.removeprefix("val/")
    return f"validation {LABELS.get(score, score.replace('_', ' '))}"


def format_seconds(seconds: float) -> str:
    """A time in the unit that people would choose."""
    for unit, length, most in (("s", 1, 60), ("min", 60, 60), ("h", 3600, 48)):
        # What rounds to a whole one of the next unit is told as such.
        if round(seconds / length) < most:
            return f"{_short(seconds / length)}{SPACE}{unit}"
    return f"{_short(seconds / 86400)}{SPACE}d"


def format_count(count: float) -> str:
    """A large number in thousands, millions or billions, to three digits."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{SPACE}{unit}"
    return f"{count:.0f}"


def _short(number: float) -> str:
    """With one decimal where it says something: `1.5`, `2`, `17`."""
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}".removesuffix(".0")
