"""The decision: from which probability on an image is positive, and how validation chooses that threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def decide(probabilities: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Decides the class of each image: the one decision rule of the project.

    A registered model has the same rule in `sweep/stores/serving_model.py`, which travels with it.

    Args:
        probabilities: float [N, classes]. With two classes the second is the positive one.
        threshold: With two classes, an image is positive where its probability is at least this. With more classes it
            is not used: the largest probability decides, and of equal ones the first.

    Returns:
        int [N], the index of a class.

    >>> decide(np.array([[0.5, 0.5], [0.6, 0.4]])).tolist()
    [1, 0]
    >>> decide(np.array([[0.5, 0.5], [0.6, 0.4]]), threshold=0.4).tolist()
    [1, 1]
    >>> decide(np.array([[0.2, 0.4, 0.4]])).tolist()
    [1]
    """
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= threshold).astype(int)
    return probabilities.argmax(axis=1)


LEAST_RECALL = 0.05  # a network that recognises less of a class answers with the others, whatever it is shown


def missed_classes(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float | None, classes: Sequence[str]
) -> tuple[str, ...]:
    """Says which classes a network hardly ever answers: sensitivity, specificity or recall below LEAST_RECALL.

    Args:
        labels: int [N].
        probabilities: float [N, classes].
        threshold: As `decide` takes it; None for more than two classes.
        classes: Names in label order.

    Returns:
        A sentence without its end for each such class.

    >>> missed_classes(np.array([0, 0, 1]), np.array([[0.1, 0.9]] * 3), 0.5, ("NORMAL", "PNEUMONIA"))
    ('it recognises 0 of 2 validation images of NORMAL (specificity 0.0 %)',)
    """
    answers = decide(probabilities, 0.5 if threshold is None else threshold)
    names = ("specificity", "sensitivity") if len(classes) == 2 else ("recall",) * len(classes)
    sentences = []
    for label, (name, score) in enumerate(zip(classes, names, strict=True)):
        ours = labels == label
        hits, count = int((answers[ours] == label).sum()), int(ours.sum())
        if count and hits / count < LEAST_RECALL:
            of = f"{count:,} validation images of {name}"
            sentences.append(f"it recognises {hits:,} of {of} ({score} {100 * hits / count:.1f} %)")
    return tuple(sentences)


@dataclass(frozen=True)
class Threshold:
    """A decision threshold and what speaks for it.

    Attributes:
        value: From 0 to 1; an image is positive where its probability is at least this.
        supported: Whether validation supports another threshold than 0.5 beyond its own noise.
        gain: Mean gain of balanced accuracy over 0.5, on images that the threshold was not chosen by; NaN where a class
            has one image, which is never left out.
        low: Lower end of the gain's interval.
        high: Upper end of it.
        tuned: The threshold with the highest balanced accuracy on validation, whether it is supported or not.
        confidence: Of the interval, from 0 to 1.
        on: Which images it was chosen on, in words.
    """

    value: float
    supported: bool
    gain: float
    low: float
    high: float
    tuned: float
    confidence: float = 0.95
    on: str = "validation"

    @property
    def reason(self) -> str:
        """One sentence for people."""
        if np.isnan(self.gain):
            return f"{self.on} has too few images of a class to support another threshold than 0.5"
        if self.tuned == 0.5:
            return f"no other threshold is better on {self.on}"
        gained = (
            f"{100 * self.gain:+z.1f} points of balanced accuracy, {100 * self.confidence:g} % interval "
            f"{100 * self.low:+z.1f} to {100 * self.high:+z.1f}, on images left out of the choice"
        )
        if self.supported:
            return f"{self.on} supports it against 0.5 ({gained})"
        return f"{self.on} does not support {self.tuned:.4g}, its own best, against 0.5 ({gained})"


def choose_threshold(
    labels: np.ndarray,
    positive: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
    on: str = "validation",
) -> Threshold:
    """Chooses a decision threshold: 0.5 unless validation supports another beyond its noise.

    On each bootstrap resample the threshold of the highest balanced accuracy is chosen, and compared with 0.5 on the
    images that the resample left out, so that the choice does not grade itself. Only if the interval of these gains
    lies above 0 the best threshold of the whole set is taken. A few validation errors otherwise put it anywhere.
    The method is the leave-one-out bootstrap of Efron and Tibshirani (1997), stratified by class.

    Args:
        labels: int [N], 0 or 1, both occur.
        positive: Probability of class 1, float [N].
        seed: Decides the resamples.
        resamples: How many.
        confidence: Of the interval, from 0 to 1.
        on: Which images these are, in words.

    Returns:
        The threshold, with what speaks for it.

    Raises:
        ValueError: A label is neither 0 nor 1, one of them does not occur, or a probability is not from 0 to 1.
    """
    present = np.unique(labels).tolist()
    if present != [0, 1]:
        raise ValueError(f"a threshold is chosen between labels 0 and 1; here are {present}")
    if not ((positive >= 0) & (positive <= 1)).all():
        raise ValueError("a probability is not from 0 to 1")
    random = np.random.default_rng(seed)
    candidates = np.unique(positive)
    # Between two neighbours lies the threshold that is as far from both as it can be; 0.5 stands for its own gap.
    middles = np.concatenate([[candidates[0] / 2], (candidates[1:] + candidates[:-1]) / 2, [(candidates[-1] + 1) / 2]])
    cuts = np.union1d(middles, 0.5)
    gains = np.empty(resamples)
    members = [np.flatnonzero(labels == label) for label in (0, 1)]
    for index in range(resamples):
        drawn = [random.integers(0, len(rows), len(rows)) for rows in members]
        # How often each image was drawn; those drawn never are left to grade the choice.
        counts = np.zeros(len(labels))
        for rows, draw in zip(members, drawn, strict=True):
            counts[rows] = np.bincount(draw, minlength=len(rows))
        chosen = _best_cut(labels, positive, counts, cuts)
        left = (counts == 0).astype(float)
        gains[index] = _balanced(labels, positive, left, chosen) - _balanced(labels, positive, left, 0.5)
    graded = gains[~np.isnan(gains)]
    gain = low = high = float("nan")
    if len(graded):
        gain = float(graded.mean())
        low, high = np.quantile(graded, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    tuned = _best_cut(labels, positive, np.ones(len(labels)), cuts)
    supported = low > 0 and tuned != 0.5
    return Threshold(tuned if supported else 0.5, supported, gain, low, high, tuned, confidence, on)


def _best_cut(labels: np.ndarray, positive: np.ndarray, weights: np.ndarray, cuts: np.ndarray) -> float:
    """The cut with the highest weighted balanced accuracy; of several, the one nearest to 0.5."""
    order = np.searchsorted(cuts, positive, side="right")  # an image is positive at the first `order` cuts
    total = [weights[labels == label].sum() for label in (0, 1)]
    above = [
        np.cumsum(np.bincount(order[labels == label], weights[labels == label], len(cuts) + 1)[::-1])[::-1][1:]
        for label in (0, 1)
    ]
    balanced = above[1] / total[1] + 1 - above[0] / total[0]
    best = cuts[balanced >= balanced.max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])


def _balanced(labels: np.ndarray, positive: np.ndarray, weights: np.ndarray, threshold: float) -> float:
    """Weighted balanced accuracy; NaN where a class has no weight."""
    hit = (positive >= threshold) == (labels == 1)
    totals = [weights[labels == label].sum() for label in (0, 1)]
    if min(totals) == 0:
        return float("nan")
    return float(np.mean([(weights * hit)[labels == label].sum() / totals[label] for label in (0, 1)]))
