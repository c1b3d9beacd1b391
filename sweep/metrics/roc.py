"""Points of the ROC curve that are stated in practice: one rate where the other one is high enough."""

from __future__ import annotations

import numpy as np

from sweep.metrics.names import SCORES

TARGET = 0.95  # of the sensitivity, or of the specificity, at which the other one is given
# Names of these scores for people. They depend on no threshold.
ON_ROC = {name: SCORES[name] for name in ("specificity_at_95_sensitivity", "sensitivity_at_95_specificity")}


def at_targets(true: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The best specificity with a sensitivity of TARGET or more, and the other way round, over all thresholds.

    Args:
        true: Whether each image is positive, bool [N].
        positive: The probability of that, float [N].
        weights: float [draws, N], how often each image counts.

    Returns:
        By the names of ON_ROC, float [draws], from 0 to 1; NaN where a class has no weight.
    """
    order = np.argsort(-positive, kind="stable")
    ends = np.flatnonzero(np.diff(-positive[order], append=np.inf))  # the last image at each threshold
    sums = [np.cumsum(weights[:, order] * some[order], axis=1) for some in (true, ~true)]
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, alarms = (total[:, ends] / total[:, -1:] for total in sums)
    specificity = 1 - alarms
    defined = np.where(np.isnan(sensitivity[:, -1] + specificity[:, -1]), np.nan, 1.0)
    enough = TARGET - 1e-12
    # Above every probability the sensitivity is 0 and the specificity 1, and so it can be reached always.
    values = (
        np.where(sensitivity >= enough, specificity, 0.0).max(axis=1) * defined,
        np.where(specificity >= enough, sensitivity, 0.0).max(axis=1) * defined,
    )
    return dict(zip(ON_ROC, values, strict=True))
