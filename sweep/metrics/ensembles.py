"""An ensemble's answer from those of its members.

The members' probabilities are averaged, not their logits: the mean of the predicted distributions is what deep
ensembles answer (Lakshminarayanan et al. 2017, arXiv:1612.01474), and no member's confidence outweighs the others'. The
temperature is fitted after that, to the averaged probabilities: members that are each calibrated make an ensemble that
is too unsure of itself (Rahaman and Thiery 2021, arXiv:2007.08792).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sweep.metrics.names import STRESSED
from sweep.metrics.predictions import Predictions
from sweep.metrics.scores import epoch_scores


def log_mean(members: np.ndarray) -> np.ndarray:
    """Logits of the mean of probabilities; a registered ensemble has the same in `sweep/stores/serving_model.py`.

    Args:
        members: Probabilities, float64 [members, N, classes].

    Returns:
        float32 [N, classes], the logarithms of the mean probabilities.

    >>> from sweep.metrics.scores import softmax
    >>> softmax(log_mean(np.array([[[0.2, 0.8]], [[0.6, 0.4]]]))).round(3).tolist()
    [[0.4, 0.6]]
    """
    return np.log(np.maximum(members.mean(axis=0), np.finfo(np.float64).tiny)).astype(np.float32)


def joined(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of several sets of images, none of which has an image of another, one after the other."""
    return Predictions(
        [name for part in parts for name in part.images],
        [patient for part in parts for patient in part.patients],
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.logits for part in parts]),
        parts[0].classes,
    )


def value_of(metric: str, plain: Predictions, stressed: Predictions | None) -> float:
    """The value of a study's metric, as the study computes it of a trial.

    Args:
        metric: A key of `names.METRICS`.
        plain: Predictions of validation images.
        stressed: Those of the same as another machine might have made them; wanted for a stressed metric alone.

    Returns:
        The score; a loss gives each class the same weight, as the training does.
    """
    predictions = stressed if metric in STRESSED and stressed is not None else plain
    likely, labels = predictions.probabilities(), predictions.labels
    name = metric.removeprefix("val/").removeprefix("stressed_")
    if name != "loss":
        return epoch_scores(labels, likely)[name]
    losses = -np.log(np.clip(likely[np.arange(len(labels)), labels], 1e-15, 1))
    return float(np.mean([losses[labels == label].mean() for label in np.unique(labels)]))
