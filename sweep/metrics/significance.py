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


def holm(chances: Sequence[float]) -> list[float]:
    """Corrects several tests at once for their number (Holm 1979): none is called different by chance too easily.

    Args:
        chances: Uncorrected, 0 to 1; NaN is no test, and stays.

    Returns:
        Corrected, in the same order.
    """
    corrected = [float("nan")] * len(chances)
    tested = sorted((chance, place) for place, chance in enumerate(chances) if not np.isnan(chance))
    largest = 0.0
    for rank, (chance, place) in enumerate(tested):
        largest = max(largest, min(1.0, chance * (len(tested) - rank)))
        corrected[place] = largest
    return corrected


def another_run(values: Sequence[float]) -> Interval:
    """The mean of some seeds, and where one more run is to be expected: a prediction interval by Student's t.

    Args:
        values: A score of each seed, from 0 to 1.

    Returns:
        Ends of NaN for one seed, which tells nothing of others.
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, float("nan"), float("nan"))
    reach = _quantile(count - 1) * float(np.std(values, ddof=1)) * float(np.sqrt(1 + 1 / count))
    return Interval(mean, max(0.0, mean - reach), min(1.0, mean + reach))


def mean_gap(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Interval:
    """The mean over pairs of how much the first of each is better, with its interval over seeds (Welch 1947).

    Args:
        pairs: Scores of the seeds of the one, and of those of the other.

    Returns:
        Ends of NaN where one has a single seed, or where no seed differs from another.
    """
    gap = float(np.mean([np.mean(one) - np.mean(other) for one, other in pairs]))
    sides = [side for pair in pairs for side in pair]
    if min(map(len, sides)) < 2:
        return Interval(gap, float("nan"), float("nan"))
    parts = np.array([np.var(side, ddof=1) / len(side) for side in sides]) / len(pairs) ** 2
    if parts.sum() == 0:  # all of them answer with one class, say: that is no certainty
        return Interval(gap, float("nan"), float("nan"))
    freedom = parts.sum() ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
    reach = _quantile(freedom) * float(np.sqrt(parts.sum()))
    return Interval(gap, gap - reach, gap + reach)


def paired_gap(differences: Sequence[float], overlap: float = 0.0, rivals: int = 1) -> Interval:
    """The mean of differences between pairs that share all but one thing, with its 95 % interval by Student's t.

    Args:
        differences: One a pair, such as a seed.
        overlap: Images that validate by images that train, where the pairs are folds or splits of the same images and
            so hang together (Nadeau and Bengio 2003, "Inference for the generalization error"); 0 where they do not.
        rivals: Of how many such differences this one was picked as the largest (Bonferroni).

    Returns:
        Ends of NaN for a single pair, or where no difference differs from another.
    """
    gap, count = float(np.mean(differences)), len(differences)
    spread = float(np.std(differences, ddof=1)) if count > 1 else 0.0
    if spread == 0:
        return Interval(gap, float("nan"), float("nan"))
    reach = _quantile(count - 1, rivals) * spread * float(np.sqrt(1 / count + overlap))
    return Interval(gap, gap - reach, gap + reach)


def _quantile(freedom: float, tests: int = 1) -> float:
    return float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / tests, freedom))
