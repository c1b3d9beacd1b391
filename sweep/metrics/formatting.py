"""Scores, intervals, times and counts as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweep.metrics.names import COSTS, LABELS, label_of

if TYPE_CHECKING:
    from sweep.metrics.bootstrap import Interval

SPACE = "\u00a0"


@dataclass(frozen=True)
class Style:
    """How an interval is written.

    Attributes:
        number: Format of each of its numbers.
        known: Template with `{value}`, `{low}` and `{high}`.
        unknown: Template with `{value}`, where the ends are NaN.
        factor: What each number is multiplied by; 100 writes shares as points.
        minus: The minus sign.
    """

    number: str
    known: str
    unknown: str
    factor: float = 1
    minus: str = "-"


SCORE = Style(".3f", "{value} ({low}-{high})", "{value} (too few)")
SCORE_IN_PRINT = Style(".3f", "{value} ({low}\u2013{high})", "{value} (too few to tell)")
ENDS_IN_PRINT = Style(".3f", "{low}\u2013{high}", "too few")
POINTS_IN_PRINT = Style("+.1f", "{value} ({low} to {high})", "{value} (too few to tell)", 100, "\u2212")
POINTS_IN_SENTENCE = Style("+.1f", "{value} points, {low} to {high}", "{value} points", 100)
GAIN = Style("+.4f", "{value} ({low} to {high})", "{value}")
GAIN_IN_SENTENCE = Style("+.4f", "{value} (95 % interval {low} to {high})", "{value}")
GAP = Style("+.3f", "{value} ({low} to {high})", "{value} (no spread)")


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it is not one.

    >>> counted(1, "trial"), counted(1200, "trial")
    ('1 trial', '1,200 trials')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_interval(interval: Interval, style: Style = SCORE) -> str:
    """Writes a score or a difference with its interval.

    >>> from sweep.metrics.bootstrap import Interval
    >>> format_interval(Interval(0.912, 0.889, 0.935))
    '0.912 (0.889-0.935)'
    >>> format_interval(Interval(0.012, -0.003, 0.027), POINTS_IN_SENTENCE)
    '+1.2 points, -0.3 to +2.7'
    >>> format_interval(Interval(0.9, float("nan"), float("nan")))
    '0.900 (too few)'
    """
    value, low, high = (
        f"{style.factor * end:{style.number}}".replace("-", style.minus)
        for end in (interval.value, interval.low, interval.high)
    )
    template = style.unknown if np.isnan(interval.low) or np.isnan(interval.high) else style.known
    return template.format(value=value, low=low, high=high)


def format_spread(values: Sequence[float]) -> str:
    """Writes the mean of two or more values and their standard deviation.

    >>> format_spread([0.8, 0.82])
    '0.810 (sd 0.014)'
    """
    return f"{np.mean(values):.3f} (sd {np.std(values, ddof=1):.3f})"


def format_p_value(p: float) -> str:
    """Writes a p-value; those below 0.001 as such."""
    if np.isnan(p):
        return "not known"
    return "<\u00a00.001" if p < 0.001 else f"{p:.3f}"


def format_probability(probability: float) -> str:
    """Writes a probability with three digits, and never as certainty.

    >>> format_probability(0.9876), format_probability(0.99996), format_probability(0.0001)
    ('0.988', '>0.999', '<0.001')
    """
    if probability > 0.9995:
        return ">0.999"
    return "<0.001" if probability < 0.0005 else f"{probability:.3f}"


def format_metric(name: str) -> str:
    """Writes what a study chose by.

    >>> format_metric("val/balanced_accuracy")
    'validation balanced accuracy'
    >>> format_metric("val/specificity_at_95_sensitivity")
    'validation specificity at 95 % sensitivity'
    >>> format_metric("cost/ms_per_image")
    'milliseconds per image'
    """
    score = name.rpartition("/")[2]
    return f"{'' if name in COSTS else 'validation '}{LABELS.get(score, label_of(score, two=False))}"


def format_seconds(seconds: float) -> str:
    """Writes a time in one unit, with at most one decimal: `54 s`, `1.2 min`, `24 h`."""
    for unit, length, most in (("s", 1, 60), ("min", 60, 60), ("h", 3600, 48)):
        # What rounds to a whole one of the next unit is written in that unit.
        if round(seconds / length) < most:
            return f"{_short(seconds / length)}{SPACE}{unit}"
    return f"{_short(seconds / 86400)}{SPACE}d"


def format_duration(seconds: float) -> str:
    """Writes a time in whole units, from 90 minutes on in two: for estimates and tables in the terminal.

    >>> format_duration(45), format_duration(720), format_duration(12000)
    ('45 s', '12 min', '3 h 20 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_count(count: float) -> str:
    """A large number in thousands, millions or billions, to three digits."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{SPACE}{unit}"
    return f"{count:.0f}"


def _short(number: float) -> str:
    """With one decimal where it says something: `1.5`, `2`, `17`."""
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}".removesuffix(".0")
