"""Decision curves: the net benefit of acting on a model's probabilities (Vickers and Elkin 2006).

At a threshold probability t one acts where the probability is at least t. Who chooses t holds a missed case to be as
bad as (1 - t) / t needless actions, so a false positive counts t / (1 - t) of a true positive:

    net benefit = true positives / N - false positives / N * t / (1 - t)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweep.metrics.bootstrap import CONFIDENCE, FEWEST_PATIENTS, draws

THRESHOLDS = np.arange(1, 100) / 100


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit by threshold probability, on the images that were scored and at their prevalence.

    Attributes:
        thresholds: Threshold probabilities, float [T], between 0 and 1.
        net_benefit: Of the model, float [T], in true positives per image.
        low: Lower end of its CONFIDENCE interval, float [T]; NaN where there are too few patients.
        high: Upper end of it.
        treat_all: Net benefit of calling every image positive; that of calling none positive is 0.
    """

    thresholds: np.ndarray
    net_benefit: np.ndarray
    low: np.ndarray
    high: np.ndarray
    treat_all: np.ndarray


def decision_curve(
    labels: np.ndarray,
    positive: np.ndarray,
    patients: Sequence[str],
    thresholds: np.ndarray = THRESHOLDS,
    seed: int = 0,
) -> DecisionCurve:
    """Computes the decision curve of a model (Vickers and Elkin 2006, doi:10.1177/0272989X06295361).

    Args:
        labels: int [N], 0 or 1.
        positive: Probability of class 1 as it is served, float [N].
        patients: Of each image; those of one patient are drawn together.
        thresholds: Threshold probabilities, float [T], between 0 and 1.
        seed: Decides the bootstrap's draws.
    """
    true, odds = labels == 1, thresholds / (1 - thresholds)
    called = positive[:, None] >= thresholds  # as `decide` has it
    gain = called * np.where(true[:, None], 1.0, -odds)  # of each image at each threshold
    drawn = np.concatenate([weights @ gain / weights.sum(axis=1, keepdims=True) for weights in draws(patients, seed)])
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    if len(set(patients)) < FEWEST_PATIENTS:
        low, high = np.full((2, len(thresholds)), np.nan)
    prevalence = true.mean()
    return DecisionCurve(thresholds, gain.mean(axis=0), low, high, prevalence - (1 - prevalence) * odds)
