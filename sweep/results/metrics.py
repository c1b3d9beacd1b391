"""What predictions are worth: scores and the decision threshold. With two classes the second is the positive one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn import metrics


@dataclass(frozen=True)
class Threshold:
    """A decision threshold and what speaks for it.

    Attributes:
        value: From 0 to 1; an image is positive where its probability is at least this.
        supported: Whether validation supports another threshold than 0.5 beyond its own noise.
        gain: Mean gain of balanced accuracy over 0.5, on images that the threshold was not chosen by.
        low: Lower end of the gain's interval.
        high: Upper end of it.
        tuned: The threshold with the highest balanced accuracy on validation, whether it is supported or not.
    """

    value: float
    supported: bool
    gain: float
    low: float
    high: float
    tuned: float

    @property
    def reason(self) -> str:
        """One sentence for people."""
        gained = (
            f"{100 * self.gain:+.1f} points of balanced accuracy, 95 % interval {100 * self.low:+.1f} to "
            f"{100 * self.high:+.1f}, on images left out of the choice"
        )
        if self.supported:
            return f"validation supports it against 0.5 ({gained})"
        return f"validation does not support {self.tuned:.3f}, its own best, against 0.5 ({gained})"


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Turns logits [N, classes] into float64 probabilities [N, classes]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def scores(labels: np.ndarray, likely: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """Scores predictions.

    Args:
        labels: int [N]; every class occurs.
        likely: Probabilities, float [N, classes].
        threshold: With two classes, from which probability on an image is positive.

    Returns:
        accuracy, balanced_accuracy, precision, recall, f1, auroc, average_precision, brier and log_loss, and with two
        classes specificity. With more, the largest probability decides, precision, recall and f1 are macro averages,
        and auroc and average_precision are macro averages of one class against the rest.

    Raises:
        ValueError: A class does not occur, or a probability is not finite.
    """
    classes = likely.shape[1]
    present = np.unique(labels)
    if len(present) < classes:
        raise ValueError(f"only the classes {present.tolist()} of {classes} occur; AUROC is not defined")
    if not np.isfinite(likely).all():
        raise ValueError("a probability is not finite")
    two = classes == 2
    predicted = (likely[:, 1] >= threshold).astype(int) if two else likely.argmax(axis=1)
    confusion = metrics.confusion_matrix(labels, predicted, labels=range(classes))
    hits = np.diag(confusion)
    recalls = hits / confusion.sum(axis=1)
    precisions = hits / np.maximum(confusion.sum(axis=0), 1)
    f1s = 2 * hits / (confusion.sum(axis=0) + confusion.sum(axis=1))
    one_hot = np.eye(classes)[labels]
    named = {
        "accuracy": hits.sum() / len(labels),
        "balanced_accuracy": recalls.mean(),
        "precision": precisions[1] if two else precisions.mean(),
        "recall": recalls[1] if two else recalls.mean(),
        **({"specificity": recalls[0]} if two else {}),
        "f1": f1s[1] if two else f1s.mean(),
        "auroc": metrics.roc_auc_score(labels, likely[:, 1]) if two else metrics.roc_auc_score(one_hot, likely),
        "average_precision": metrics.average_precision_score(
            one_hot[:, 1] if two else one_hot, likely[:, 1] if two else likely
        ),
        "brier": np.square(likely - one_hot).sum(axis=1).mean() / (2 if two else 1),
        "log_loss": -np.log(np.clip(likely[np.arange(len(labels)), labels], 1e-15, 1)).mean(),
    }
    return {name: float(value) for name, value in named.items()}


def choose_threshold(
    labels: np.ndarray, positive: np.ndarray, *, seed: int = 0, resamples: int = 1000, confidence: float = 0.95
) -> Threshold:
    """Chooses a decision threshold: 0.5 unless validation supports another beyond its noise.

    On each bootstrap resample the threshold of the highest balanced accuracy is chosen, and compared with 0.5 on the
    images that the resample left out, so that the choice does not grade itself. Only if the interval of these gains
    lies above 0 the best threshold of the whole set is taken. A few validation errors otherwise put it anywhere.

    Args:
        labels: int [N], 0 or 1, both occur.
        positive: Probability of class 1, float [N].
        seed: Decides the resamples.
        resamples: How many.
        confidence: Of the interval.
    """
    random = np.random.default_rng(seed)
    candidates = np.unique(positive)
    # Between two neighbours lies the threshold that is as far from both as it can be.
    cuts = np.concatenate([[candidates[0] / 2], (candidates[1:] + candidates[:-1]) / 2, [(candidates[-1] + 1) / 2]])
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
    low, high = np.nanquantile(gains, [(1 - confidence) / 2, (1 + confidence) / 2])
    tuned = _best_cut(labels, positive, np.ones(len(labels)), cuts)
    supported = bool(low > 0)
    return Threshold(
        float(tuned) if supported else 0.5, supported, float(np.nanmean(gains)), float(low), float(high), float(tuned)
    )


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
    hit = (positive >= threshold) == (labels == 1)
    totals = [weights[labels == label].sum() for label in (0, 1)]
    if min(totals) == 0:
        return float("nan")
    return float(np.mean([(weights * hit)[labels == label].sum() / totals[label] for label in (0, 1)]))
