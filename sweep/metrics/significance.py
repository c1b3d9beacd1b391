"""Whether a difference is more than chance: between two models on the same images, and between several seeds of each.

Images of one patient are not independent, so patients are exchanged whole. With one image a patient the test of
accuracies is the exact test of McNemar (1947).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from sweep.metrics.bootstrap import CONFIDENCE, Interval


def mcnemar(ours: np.ndarray, theirs: np.ndarray, patients: Sequence[str]) -> float:
    """Tests whether two models are right equally often on the same images, exactly.

    If they are, it is a coin's toss for each patient which of them has which answers. A patient on whose images one
    model is right d times more often then counts d for either with equal chance; the distribution of the sum is
    computed by folding, not drawn.

    Args:
        ours: Whether the one model is right, bool [N].
        theirs: Likewise of the other.
        patients: Of each image.

    Returns:
        The chance of a difference at least as large, from both sides, 0 to 1.
    """
    _, group = np.unique(np.asarray(patients), return_inverse=True)
    leads = np.abs(np.bincount(group, ours.astype(int) - theirs.astype(int)).round().astype(int))
    observed = abs(int(ours.sum()) - int(theirs.sum()))
    chances = np.ones(1)  # of a sum of -total, ..., total, every other one
    for lead in leads[leads > 0]:
        longer = np.zeros(len(chances) + 2 * lead)
        longer[: len(chances)] += chances / 2
        longer[2 * lead :] += chances / 2
        chances = longer
    sums = np.arange(len(chances)) - len(chances) // 2
    return min(1.0, float(chances[np.abs(sums) >= observed].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects the p-values of several tests for the number of tests (Holm 1979).

    Args:
        p_values: Uncorrected, 0 to 1; NaN is no test, and stays.

    Returns:
        Corrected, in the same order.

    >>> holm([0.01, 0.04, float("nan")])
    [0.02, 0.04, nan]
    """
    corrected = [float("nan")] * len(p_values)
    tested = sorted((p, place) for place, p in enumerate(p_values) if not np.isnan(p))
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        corrected[place] = largest
    return corrected


def another_run(values: Sequence[float]) -> Interval:
    """The mean of some seeds and the range that one more run is expected in: a prediction interval by Student's t.

    Args:
        values: A score of each seed, from 0 to 1.

    Returns:
        The mean with the range; its ends are NaN for one seed.
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, float("nan"), float("nan"))
    reach = _quantile(count - 1) * float(np.std(values, ddof=1)) * float(np.sqrt(1 + 1 / count))
    return Interval(mean, max(0.0, mean - reach), min(1.0, mean + reach))


def mean_gap(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Interval:
    """The mean over pairs of the difference of their means, with its interval over seeds (Welch 1947).

    Args:
        pairs: For each pair the scores of the seeds of the first, and of those of the second.

    Returns:
        The difference; its ends are NaN where one has a single seed, or where no seed differs from another.
    """
    gap = float(np.mean([np.mean(first) - np.mean(second) for first, second in pairs]))
    sides = [side for pair in pairs for side in pair]
    if min(map(len, sides)) < 2:
        return Interval(gap, float("nan"), float("nan"))
    parts = np.array([np.var(side, ddof=1) / len(side) for side in sides]) / len(pairs) ** 2
    if parts.sum() == 0:  # all of them answer with one class, for example, which is no certainty
        return Interval(gap, float("nan"), float("nan"))
    freedom = parts.sum() ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
    reach = _quantile(freedom) * float(np.sqrt(parts.sum()))
    return Interval(gap, gap - reach, gap + reach)


def paired_gap(differences: Sequence[float], overlap: float = 0.0, rivals: int = 1) -> Interval:
    """The mean of differences between pairs that share all but one thing, with its 95 % interval by Student's t.

    Args:
        differences: One per pair, such as a seed.
        overlap: Validation images divided by training images, where the pairs are folds or splits of the same images
            and so are correlated (Nadeau and Bengio 2003, "Inference for the generalization error"); 0 elsewhere.
        rivals: Number of such differences of which this one was picked as the largest (Bonferroni).

    Returns:
        The mean; its ends are NaN for a single pair, or where no difference differs from another.
    """
    gap, count = float(np.mean(differences)), len(differences)
    spread = float(np.std(differences, ddof=1)) if count > 1 else 0.0
    if spread == 0:
        return Interval(gap, float("nan"), float("nan"))
    reach = _quantile(count - 1, rivals) * spread * float(np.sqrt(1 / count + overlap))
    return Interval(gap, gap - reach, gap + reach)


def _quantile(freedom: float, tests: int = 1) -> float:
    return float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / tests, freedom))
