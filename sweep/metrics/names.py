"""Names of metrics and scores, and which way each is better. Nothing of the project is imported here."""

from __future__ import annotations

from typing import Literal

# What a study can choose by.
METRICS: dict[str, Literal["maximize", "minimize"]] = {
    "val/auroc": "maximize",
    "val/loss": "minimize",
    "val/accuracy": "maximize",
    "val/balanced_accuracy": "maximize",
    "val/average_precision": "maximize",
    "val/f1": "maximize",
    "val/stressed_auroc": "maximize",
    "val/stressed_loss": "minimize",
}
# Of validation images as another machine might have made them.
STRESSED = frozenset({"val/stressed_auroc", "val/stressed_loss"})
# Scores that look at probabilities alone: no decision threshold changes them.
THRESHOLD_FREE = frozenset({"auroc", "average_precision", "brier", "log_loss", "ece"})
# Scores that a temperature changes. With two classes it moves no image across 0.5 and none before another.
CALIBRATED = ("ece", "brier", "log_loss")
# Of all test scores those that the chosen trial's run shows: MLflow draws each as a chart, above the learning curves.
MAIN_TEST_SCORES = ("test/accuracy", "test/auroc", "test/balanced_accuracy")
LABELS = {"accuracy": "accuracy", "auroc": "AUROC", "loss": "loss", "stressed_auroc": "stressed AUROC"}  # for people

NOT_A_DEVICE = "**Not a medical device: for research alone, and no basis for any decision about a patient.**"


def sign_of(metric: str) -> int:
    """1 where more of a metric is better, else -1.

    >>> sign_of("val/auroc"), sign_of("val/loss")
    (1, -1)
    """
    return 1 if METRICS[metric] == "maximize" else -1
