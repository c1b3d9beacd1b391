"""Names of metrics and scores, and which way each is better. Nothing of the project is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

# What a study can choose by: every score of validation that is logged after an epoch, those that most choose by first.
METRICS: dict[str, Literal["maximize", "minimize"]] = {
    "val/auroc": "maximize",
    "val/loss": "minimize",
    "val/accuracy": "maximize",
    "val/balanced_accuracy": "maximize",
    "val/average_precision": "maximize",
    "val/f1": "maximize",
    "val/mcc": "maximize",
    "val/recall": "maximize",
    "val/specificity": "maximize",
    "val/precision": "maximize",
    "val/specificity_at_95_sensitivity": "maximize",
    "val/sensitivity_at_95_specificity": "maximize",
    "val/brier": "minimize",
    "val/log_loss": "minimize",
    "val/ece": "minimize",
    "val/stressed_auroc": "maximize",
    "val/stressed_loss": "minimize",
}
# Other names of the same scores, by which users may ask for what is logged under the second one.
SYNONYMS = {"val/sensitivity": "val/recall", "val/ppv": "val/precision"}
# Those that need a positive class, and so exist with two classes alone.
TWO_CLASSES = frozenset({"val/specificity", "val/specificity_at_95_sensitivity", "val/sensitivity_at_95_specificity"})
# What a network costs, of which less is better; a study can choose by these after a score.
COSTS = ("cost/parameters", "cost/mflops", "cost/ms_per_image")
# Of validation images as another machine might have made them.
STRESSED = frozenset({"val/stressed_auroc", "val/stressed_loss"})
# Scores that look at probabilities alone: no decision threshold changes them.
THRESHOLD_FREE = frozenset({"auroc", "average_precision", "brier", "log_loss", "ece"})
# Scores that a temperature changes. With two classes it moves no image across 0.5 and none before another.
CALIBRATED = ("ece", "brier", "log_loss")
SCORES = {
    "recall": "sensitivity",
    "precision": "precision (PPV)",
    "auroc": "AUROC",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "calibration error",
    "mcc": "MCC",
    "specificity_at_95_sensitivity": "specificity at 95 % sensitivity",
    "sensitivity_at_95_specificity": "sensitivity at 95 % specificity",
    "mflops": "million operations per image",
    "ms_per_image": "milliseconds per image",
    "precision_macro": "macro precision",
    "precision_weighted": "weighted precision",
    "f1_macro": "macro F1",
    "f1_weighted": "weighted F1",
}  # for people, where that is more than the name without underscores
# Of all test scores those that the chosen trial's run shows, since MLflow draws each as a chart. No slash is in their
# names: MLflow puts such charts below the learning curves, and those of a group called `test` above them.
MAIN_TEST_SCORES = {f"served_test_{score}": score for score in ("accuracy", "auroc", "balanced_accuracy")}
LABELS = {"accuracy": "accuracy", "auroc": "AUROC", "loss": "loss", "stressed_auroc": "stressed AUROC"}  # for people

NOT_A_DEVICE = "**Not a medical device: for research alone, and no basis for any decision about a patient.**"


def label_of(score: str, *, two: bool) -> str:
    """What people call a score.

    Args:
        score: Its name in MLflow, without what stands before the slash.
        two: Whether there are two classes; with more of them recall and precision are averages.

    >>> label_of("recall", two=True), label_of("recall", two=False), label_of("balanced_accuracy", two=True)
    ('sensitivity', 'recall', 'balanced accuracy')
    """
    return score if score in ("recall", "precision") and not two else SCORES.get(score, score.replace("_", " "))


def main_test_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """The main test scores of a model as it is served.

    Args:
        scores: All of its test scores: `test/...` at 0.5, `test_at_threshold/...` where it has another threshold.

    >>> main_test_scores({"test/accuracy": 0.8, "test_at_threshold/accuracy": 0.9, "test/auroc": 0.95, "test/f1": 0.8})
    {'served_test_accuracy': 0.9, 'served_test_auroc': 0.95}
    """
    served = {
        name: scores.get(f"test_at_threshold/{score}", scores.get(f"test/{score}"))
        for name, score in MAIN_TEST_SCORES.items()
    }
    return {name: value for name, value in served.items() if value is not None}


def sign_of(metric: str) -> int:
    """1 where more of a metric is better, else -1.

    >>> sign_of("val/auroc"), sign_of("val/loss"), sign_of("cost/parameters")
    (1, -1, -1)
    """
    return 1 if direction_of(metric) == "maximize" else -1


def direction_of(metric: str) -> Literal["maximize", "minimize"]:
    """Which way a metric or a cost is better."""
    return "minimize" if metric in COSTS else METRICS[metric]
