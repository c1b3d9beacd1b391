"""Several metrics at once: the trials that no other one beats in all of them, and which of these is chosen.

The choice is the one-standard-error rule (Breiman, Friedman, Olshen and Stone 1984, "Classification and Regression
Trees", section 3.4.3; Hastie, Tibshirani and Friedman 2009, "The Elements of Statistical Learning", section 7.10): of
the models whose score lies within one standard error of the best one's, which chance may have put first, the cheapest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.metrics.names import direction_of


@dataclass(frozen=True)
class Point:
    """A complete trial among others.

    Attributes:
        number: The trial's.
        values: Its metrics, in the order in which they were named.
        error: The standard error of the first one, 0 or more.
    """

    number: int
    values: tuple[float, ...]
    error: float = 0.0


@dataclass(frozen=True)
class Choice:
    """Which trial is chosen, and among which.

    Attributes:
        metrics: What they were chosen by, in the order in which they were named.
        chosen: The chosen trial.
        best: The trial with the best first metric; of equals the one that is best by the others.
        front: The trials that no other one beats: as good in every metric and better in one. The best by the first
            metric come first.
        within: Those of the front whose first metric is within one standard error of the best.
        points: All complete trials, in the order of their numbers.
    """

    metrics: tuple[str, ...]
    chosen: Point
    best: Point
    front: tuple[Point, ...]
    within: tuple[Point, ...]
    points: tuple[Point, ...]

    @property
    def sentence(self) -> str:
        """Which trial was chosen and why, a sentence without its end."""
        first, others = self.metrics[0], " and then ".join(self.metrics[1:])
        among = (
            f"chosen among {len(self.front)} of {len(self.points)} trials, the Pareto front: trial {self.chosen.number}"
        )
        error = f"one standard error ({self.best.error:.4f})"
        if len(self.within) == 1:
            return f"{among}, which has the best {first}, {self.best.values[0]:.4f}; no other on it is within {error}"
        return (
            f"{among}, the best by {others} of the {len(self.within)} whose {first} is within {error} of the best, "
            f"{self.best.values[0]:.4f} of trial {self.best.number}"
        )

    def rows(self) -> list[dict[str, float]]:
        """The trials of the front: `trial` and each metric, the best by the first metric first."""
        return [{"trial": point.number, **dict(zip(self.metrics, point.values, strict=True))} for point in self.front]


def choose(metrics: Sequence[str], points: Sequence[Point]) -> Choice:
    """Chooses a trial by the one-standard-error rule.

    Of the trials whose first metric is within one standard error of the best, that which is best by the second metric;
    of equals by the third and so on, then by the first, then the lowest number. It is always on the Pareto front. The
    standard error is that of the trial with the best first metric.

    Args:
        metrics: The metrics, the one that is to be kept up first.
        points: The complete trials, at least one, with a value for each metric.

    >>> points = [Point(0, (0.95, 900.0), 0.01), Point(1, (0.945, 200.0), 0.01), Point(2, (0.90, 100.0), 0.02)]
    >>> choose(("val/auroc", "cost/parameters"), points).chosen.number
    1
    """
    signs = [1 if direction_of(metric) == "maximize" else -1 for metric in metrics]

    def gains(point: Point) -> tuple[float, ...]:
        return tuple(sign * value for sign, value in zip(signs, point.values, strict=True))

    def by_first(point: Point) -> tuple[float, ...]:
        return (*gains(point), -point.number)

    def by_others(point: Point) -> tuple[float, ...]:
        first, *others = gains(point)
        return (*others, first, -point.number)

    front: list[Point] = []
    for point in sorted(points, key=by_first, reverse=True):  # whatever beats a point comes before it
        if not any(_beats(gains(other), gains(point)) for other in front):
            front.append(point)
    best = front[0]
    within = [point for point in front if gains(point)[0] >= gains(best)[0] - best.error]
    chosen = max(within, key=by_others)
    return Choice(
        tuple(metrics), chosen, best, tuple(front), tuple(within), tuple(sorted(points, key=lambda point: point.number))
    )


def _beats(ours: tuple[float, ...], theirs: tuple[float, ...]) -> bool:
    """Whether some gains are as good as others everywhere, and better somewhere."""
    return ours != theirs and all(our >= their for our, their in zip(ours, theirs, strict=True))
