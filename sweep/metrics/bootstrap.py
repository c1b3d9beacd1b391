"""Intervals of scores by the bootstrap: how far another draw of patients may lie.

Whole patients are drawn, since two images of one patient are not independent. Every score of a draw is computed with
weights, all draws at once; `tests/metrics/test_bootstrap.py` holds them against scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sweep.metrics.calibration import BINS, bins_of, claims
from sweep.metrics.formatting import format_interval
from sweep.metrics.predictions import Predictions
from sweep.metrics.roc import ON_ROC, at_targets
from sweep.metrics.scores import matthews
from sweep.metrics.threshold import decide

RESAMPLES = 2000
ERROR_RESAMPLES = 500  # a standard error needs fewer than the ends of an interval
CONFIDENCE = 0.95
FEWEST_PATIENTS = 10  # with fewer there is no interval
CHUNK = 2**22  # weights in memory at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """A score or a difference of scores, with its interval.

    Attributes:
        value: On the images themselves.
        low: Lower end of the CONFIDENCE interval; NaN where there are too few images.
        high: Upper end of it.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """As tables in the terminal and in Markdown have it: `0.912 (0.889-0.935)`, or `0.912 (too few)`."""
        return format_interval(self)


def intervals(
    labels: np.ndarray,
    likely: np.ndarray,
    patients: Sequence[str],
    values: Mapping[str, float],
    threshold: float = 0.5,
    seed: int = 0,
) -> dict[str, Interval]:
    """Puts a percentile bootstrap interval to each score.

    That of a calibration error reaches upwards from it, since noise only ever makes it larger.

    Args:
        labels: int [N]; every class occurs.
        likely: Probabilities, float [N, classes].
        patients: Of each image; those of one patient are drawn together.
        values: The scores, from `metrics.all_scores` at the same threshold.
        threshold: With two classes, from which probability on an image is positive.
        seed: Decides the draws.
    """
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in values}
    for weights in draws(patients, seed):
        scores = weighted_scores(labels, likely, weights, threshold)
        for name, chunks in drawn.items():
            chunks.append(scores[name])
    return {name: interval_of(values[name], np.concatenate(chunks), patients) for name, chunks in drawn.items()}


def drawn_score(metric: str) -> str:
    """What `weighted_scores` calls a metric of a study, apart from stress; in the loss each class has the same weight.

    >>> drawn_score("val/stressed_loss"), drawn_score("val/f1")
    ('balanced_log_loss', 'f1')
    """
    score = metric.removeprefix("val/").removeprefix("stressed_")
    return "balanced_log_loss" if score == "loss" else score


def standard_error(metric: str, predictions: Predictions, seed: int = 0) -> float:
    """The standard error of a metric: how much it varies where patients are drawn anew.

    Args:
        metric: A key of `names.METRICS`.
        predictions: Of the images that it was computed from, those under stress for a stressed one.
        seed: Decides the draws.

    Returns:
        0 or more; 0 where a class is too rare to draw.
    """
    score, labels, likely = drawn_score(metric), predictions.labels, predictions.probabilities()
    drawn = np.concatenate(
        [
            weighted_scores(labels, likely, weights, only=score)[score]
            for weights in draws(predictions.patients, seed, ERROR_RESAMPLES)
        ]
    )
    defined = drawn[np.isfinite(drawn)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else 0.0


@dataclass(frozen=True)
class Difference:
    """By how much one model's score is above another's.

    Attributes:
        interval: The difference, with its interval.
        p: The p-value, two-sided, 0 to 1: how often drawing patients alone gives so large a difference; NaN where
            there are too few images. At its smallest 2 / (RESAMPLES + 1).
    """

    interval: Interval
    p: float


def difference(
    labels: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    patients: Sequence[str],
    score: str,
    seed: int = 0,
    thresholds: tuple[float, float] = (0.5, 0.5),
) -> Difference:
    """How much one model's score is above another's on the same images: a paired bootstrap.

    Args:
        labels: int [N]; every class occurs.
        ours: Probabilities of one model, float [N, classes].
        theirs: Of the other.
        patients: Of each image; those of one patient are drawn together.
        score: A key of what `weighted_scores` returns.
        seed: Decides the draws.
        thresholds: With two classes, from which probability on an image is positive: for the one and for the other.
    """

    def gap(weights: np.ndarray) -> np.ndarray:
        first, second = (
            weighted_scores(labels, likely, weights, threshold, only=score)[score]
            for likely, threshold in zip((ours, theirs), thresholds, strict=True)
        )
        return first - second

    drawn = np.concatenate([gap(weights) for weights in draws(patients, seed)])
    interval = interval_of(float(gap(np.ones((1, len(labels))))[0]), drawn, patients)
    if np.isnan(interval.low):
        return Difference(interval, float("nan"))
    return Difference(interval, p_value(drawn))


def p_value(drawn: np.ndarray) -> float:
    """How often drawing patients alone gives a difference as large from 0, two-sided, 0 to 1.

    Args:
        drawn: The difference in each draw, float [RESAMPLES]; NaN where it is not defined.
    """
    defined = drawn[~np.isnan(drawn)]
    beyond = min((defined <= 0).sum(), (defined >= 0).sum())
    return min(1.0, 2 * float(beyond + 1) / (len(defined) + 1))


def draws(patients: Sequence[str], seed: int, count: int = RESAMPLES) -> Iterator[np.ndarray]:
    """Draws as many patients as there are, with replacement, many times.

    Args:
        patients: Of each of N images.
        seed: Decides the draws.
        count: How many draws.

    Yields:
        float64 [some, N]: how often each image was drawn.

    >>> [weights.shape for weights in draws(["a", "a", "b"], seed=0, count=5)]
    [(5, 3)]
    """
    _, group = np.unique(np.asarray(patients), return_inverse=True)
    groups = int(group.max()) + 1
    step = max(1, CHUNK // len(group))
    if count <= step:
        yield _counts(groups, seed, count)[:, group]
        return
    random = np.random.default_rng(seed)
    for start in range(0, count, step):
        size = min(step, count - start)
        yield random.multinomial(groups, np.full(groups, 1 / groups), size)[:, group].astype(np.float64)


@lru_cache(maxsize=1)
def _counts(groups: int, seed: int, count: int) -> np.ndarray:
    """How often each group is in each draw; kept, since all scores of a test set are computed from the same draws."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), count).astype(np.float64)


def weighted_scores(
    labels: np.ndarray, likely: np.ndarray, weights: np.ndarray, threshold: float = 0.5, only: str | None = None
) -> dict[str, np.ndarray]:
    """Computes every score of `metrics.all_scores` for many weightings of the same predictions.

    Args:
        labels: int [N].
        likely: Probabilities, float [N, classes].
        weights: float [draws, N], how often each image counts.
        threshold: With two classes, from which probability on an image is positive.
        only: The only one of the slow scores to compute, or a point of the ROC curve; None computes all but these.

    Returns:
        name -> float [draws], NaN where a class was not drawn; balanced_log_loss too, the mean over the classes of
        their mean log loss.
    """
    classes = likely.shape[1]
    two = classes == 2
    predicted = decide(likely, threshold)
    one_hot = np.eye(classes)[labels]
    decided = np.eye(classes)[predicted]
    total = weights.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        support = weights @ one_hot  # [draws, classes]
        hits = weights @ (one_hot * decided)
        calls = weights @ decided
        everywhere = np.where((support > 0).all(axis=1), 1.0, np.nan)
        recalls = hits / support
        precisions = np.where(calls > 0, hits / calls, 0.0)
        f1s = 2 * hits / (calls + support)
        shares = support / total[:, None]
        losses = -np.log(np.clip(likely[np.arange(len(labels)), labels], 1e-15, 1))
        ranked = [1] if two else range(classes)
        slow = {
            "auroc": lambda label: _auroc(one_hot[:, label], likely[:, label], weights),
            "average_precision": lambda label: _average_precision(one_hot[:, label], likely[:, label], weights),
        }
        wanted = {name: score for name, score in slow.items() if only in (None, name)}
        by_rank = {name: np.mean([score(label) for label in ranked], axis=0) for name, score in wanted.items()}
        squares = np.square(likely - one_hot).sum(axis=1) / (2 if two else 1)
        scores = {
            "accuracy": hits.sum(axis=1) / total,
            "balanced_accuracy": recalls.mean(axis=1),
            "precision": precisions[:, 1] if two else precisions.mean(axis=1),
            "recall": recalls[:, 1] if two else recalls.mean(axis=1),
            **({"specificity": recalls[:, 0]} if two else {}),
            "f1": f1s[:, 1] if two else f1s.mean(axis=1),
            "mcc": matthews(hits.sum(axis=1), calls, support),
            **by_rank,
            "brier": weights @ squares / total,
            "log_loss": weights @ losses / total,
            "balanced_log_loss": ((weights * losses) @ one_hot / support).mean(axis=1),
            "precision_macro": precisions.mean(axis=1),
            "precision_weighted": (shares * precisions).sum(axis=1),
            "f1_macro": f1s.mean(axis=1),
            "f1_weighted": (shares * f1s).sum(axis=1),
            **({"ece": _calibration_error(labels, likely, weights)} if only in (None, "ece") else {}),
            **(at_targets(labels == 1, likely[:, 1], weights) if only in ON_ROC else {}),
        }
    return {name: values * everywhere for name, values in scores.items()}


def _auroc(positive: np.ndarray, likely: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The chance that a positive image is ranked above a negative one; ties count half."""
    order, starts = _ranks(likely)
    above = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    below = np.add.reduceat(weights[:, order] * (1 - positive[order]), starts, axis=1)
    # Ranks rise: negatives before a rank are those that its positives beat.
    beaten = np.cumsum(below, axis=1) - below / 2
    return (above * beaten).sum(axis=1) / (above.sum(axis=1) * below.sum(axis=1))


def _average_precision(positive: np.ndarray, likely: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of the precision at each threshold, weighted by the recall that it adds."""
    order, starts = _ranks(-likely)
    true = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    every = np.add.reduceat(weights[:, order], starts, axis=1)
    above = np.cumsum(every, axis=1)
    precision = np.where(above > 0, np.cumsum(true, axis=1) / above, 0.0)
    return (true * precision).sum(axis=1) / true.sum(axis=1)


def _ranks(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of values, and where in it each new value begins."""
    order = np.argsort(values, kind="stable")
    return order, np.flatnonzero(np.diff(values[order], prepend=-np.inf))


def _calibration_error(labels: np.ndarray, likely: np.ndarray, weights: np.ndarray) -> np.ndarray:
    probability, true = claims(labels, likely)
    members = np.eye(BINS)[bins_of(probability)]
    gaps = np.abs(weights @ (members * (probability - true)[:, None])).sum(axis=1)
    return gaps / weights.sum(axis=1)


def interval_of(value: float, drawn: np.ndarray, patients: Sequence[str]) -> Interval:
    """The interval of a score from its draws.

    Args:
        value: The score of the images themselves.
        drawn: Of each draw, float [RESAMPLES]; NaN where it is not defined.
        patients: Of each image.

    Returns:
        Its ends are NaN with fewer than FEWEST_PATIENTS patients, or where more than 5 % of the draws are not defined.
    """
    # Where a class is hardly ever drawn, what is left says nothing.
    if len(set(patients)) < FEWEST_PATIENTS or np.isnan(drawn).mean() > 0.05:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.nanquantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, min(float(low), value), max(float(high), value))
