"""Scores of predictions. With two classes the second is the positive one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn import metrics

from sweep.metrics.calibration import expected_calibration_error
from sweep.metrics.roc import at_targets
from sweep.metrics.threshold import decide

if TYPE_CHECKING:
    from sweep.training.config import EpochResult


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turns logits, float [N, classes], into probabilities, float64 [N, classes]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def scores(labels: np.ndarray, likely: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """Scores predictions.

    Args:
        labels: int [N]; every class occurs.
        likely: Probabilities, float [N, classes].
        threshold: With two classes, from which probability on an image is positive.

    Returns:
        accuracy, balanced_accuracy, precision, recall, f1, mcc (Matthews' correlation coefficient, -1 to 1, and 0 where
        every answer is the same), auroc, average_precision, brier and log_loss, and with two classes specificity. With
        more, the largest probability decides, precision, recall and f1 are macro averages, and auroc and
        average_precision are macro averages of one class against the rest.

    Raises:
        ValueError: A class does not occur, a label has no class, or a probability is not finite.
    """
    classes = likely.shape[1]
    present = np.unique(labels)
    if not set(present.tolist()) <= set(range(classes)):
        raise ValueError(f"the labels are {present.tolist()}, the probabilities are of {classes} classes")
    if len(present) < classes:
        raise ValueError(f"only the classes {present.tolist()} of {classes} occur; AUROC is not defined")
    if not np.isfinite(likely).all():
        raise ValueError("a probability is not finite")
    two = classes == 2
    predicted = decide(likely, threshold)
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
        "mcc": matthews(np.asarray(hits.sum()), confusion.sum(axis=0), confusion.sum(axis=1)),
        "auroc": metrics.roc_auc_score(labels, likely[:, 1]) if two else metrics.roc_auc_score(one_hot, likely),
        "average_precision": metrics.average_precision_score(
            one_hot[:, 1] if two else one_hot, likely[:, 1] if two else likely
        ),
        "brier": np.square(likely - one_hot).sum(axis=1).mean() / (2 if two else 1),
        "log_loss": -np.log(np.clip(likely[np.arange(len(labels)), labels], 1e-15, 1)).mean(),
    }
    return {name: float(value) for name, value in named.items()}


def matthews(hits: np.ndarray, calls: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Matthews' correlation coefficient for any number of classes (Gorodkin 2004, Comput. Biol. Chem. 28:367).

    Args:
        hits: Images with the right answer, float [...].
        calls: Answers of each class, float [..., classes].
        support: Images of each class, float [..., classes].

    Returns:
        float [...], -1 to 1; 0 where all answers, or all images, are of one class.

    >>> float(matthews(np.array(3), np.array([2, 2]), np.array([1, 3])).round(4))
    0.5774
    """
    total = support.sum(axis=-1)
    covariance = hits * total - (calls * support).sum(axis=-1)
    of_calls, of_support = (np.float64(total**2 - np.square(counts).sum(axis=-1)) for counts in (calls, support))
    product = np.sqrt(of_calls * of_support)
    return np.where(product > 0, covariance / np.where(product > 0, product, 1.0), 0.0)


def epoch_scores(labels: np.ndarray, likely: np.ndarray) -> dict[str, float]:
    """Scores the predictions of an epoch: all that a study can choose by but the loss.

    Args:
        labels: int [N]; every class occurs.
        likely: Probabilities, float [N, classes].

    Returns:
        The result of `scores` at a threshold of 0.5, ece, and with two classes the points of the ROC curve.

    Raises:
        ValueError: As `scores`.
    """
    base = scores(labels, likely)
    points = at_targets(labels == 1, likely[:, 1], np.ones((1, len(labels)))) if likely.shape[1] == 2 else {}
    on_roc = {name: float(value[0]) for name, value in points.items()}
    return {**base, **on_roc, "ece": expected_calibration_error(labels, likely)}


def all_scores(labels: np.ndarray, likely: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """Scores predictions of a chosen model with all scores, slow ones too.

    Args:
        labels: int [N]; every class occurs.
        likely: Probabilities, float [N, classes].
        threshold: With two classes, from which probability on an image is positive.

    Returns:
        The result of `scores`; precision and f1 as macro and weighted averages too, since the report does not say which
        it means (those of recall are balanced_accuracy and accuracy); and ece, the expected calibration error.

    Raises:
        ValueError: As `scores`.
    """
    base = scores(labels, likely, threshold)
    predicted = decide(likely, threshold)
    averages = {}
    for average in ("macro", "weighted"):
        precision, _, f1, _ = metrics.precision_recall_fscore_support(
            labels,
            predicted,
            average=average,
            zero_division=0,  # pyright: ignore[reportArgumentType] - its hints know "warn" alone
            labels=range(likely.shape[1]),
        )
        averages |= {f"precision_{average}": float(precision), f"f1_{average}": float(f1)}
    return {**base, **averages, "ece": expected_calibration_error(labels, likely)}


def metrics_of(result: EpochResult, labels: np.ndarray) -> dict[str, float]:
    """The metrics of an epoch, by the names that every store has them under.

    Args:
        result: The epoch.
        labels: Of the validation images, int [N].
    """
    validation = epoch_scores(labels, softmax(result.validation_logits))
    named = {
        "train/loss": result.train_loss,
        "train/accuracy": result.train_accuracy,
        "val/loss": result.validation_loss,
        **{f"val/{name}": value for name, value in validation.items()},
    }
    if result.stressed_logits is not None and result.stressed_loss is not None:
        stressed = scores(labels, softmax(result.stressed_logits))
        named |= {"val/stressed_loss": result.stressed_loss, "val/stressed_auroc": stressed["auroc"]}
    return named
