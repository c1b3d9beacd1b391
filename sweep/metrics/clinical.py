"""Diagnostic accuracy of a model with two classes, as it is served: sensitivity, specificity, predictive values.

Every score has a bootstrap interval from drawing whole patients, as in `bootstrap`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.metrics import markdown
from sweep.metrics.bootstrap import Interval, draws, interval_of
from sweep.metrics.formatting import SCORE, Style, format_interval
from sweep.metrics.predictions import Predictions
from sweep.metrics.roc import ON_ROC, at_targets
from sweep.metrics.threshold import decide

# Names of the scores for people.
AT_THRESHOLD = {"sensitivity": "sensitivity", "specificity": "specificity"}
PREDICTIVE = {"ppv": "PPV", "npv": "NPV"}
AT_PREVALENCE = {"ppv_at_prevalence": "PPV", "npv_at_prevalence": "NPV"}
NOTE = (
    "Predictive values depend on the prevalence. At another one than that of the images they are computed from "
    "sensitivity and specificity by Bayes' formula. The specificity at 95 % sensitivity, and the other way round, is "
    "read off the ROC curve of these images; no threshold that is served was chosen for it."
)


@dataclass(frozen=True)
class ClinicalScores:
    """The diagnostic accuracy of a model with two classes.

    Attributes:
        threshold: The model's own; sensitivity, specificity and predictive values are at it.
        prevalence: Share of positive images among those that were scored.
        stated_prevalence: The one that a user stated; None without.
        scores: sensitivity, specificity, ppv, npv, specificity_at_95_sensitivity and sensitivity_at_95_specificity;
            ppv_at_prevalence and npv_at_prevalence too, where a prevalence was stated. A value is NaN where it is not
            defined: the PPV of a model that calls no image positive.
    """

    threshold: float
    prevalence: float
    stated_prevalence: float | None
    scores: Mapping[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for `clinical_scores_of` and for users: one row per score."""
        rows = [{"score": name, **vars(interval)} for name, interval in self.scores.items()]
        return {**vars(self), "scores": rows}

    def values(self) -> dict[str, float]:
        """The scores that are defined, by their names in MLflow: `test_clinical/...`."""
        return {f"test_clinical/{name}": one.value for name, one in self.scores.items() if np.isfinite(one.value)}

    def labels(self) -> dict[str, str]:
        """What people read of each score, in order: `PPV at the test prevalence of 62.5 %`."""
        here = {name: f"{label} at {percent(self.prevalence)} prevalence" for name, label in PREDICTIVE.items()}
        there = {
            name: f"{label} at {percent(self.stated_prevalence or 0)} prevalence"
            for name, label in AT_PREVALENCE.items()
        }
        return {name: label for name, label in (AT_THRESHOLD | here | there | ON_ROC).items() if name in self.scores}


def clinical_scores(
    predictions: Predictions, temperature: float, threshold: float, prevalence: float | None = None, seed: int = 0
) -> ClinicalScores:
    """Scores a model as it is served.

    Args:
        predictions: Of images of two classes, both of which occur.
        temperature: Logits are divided by it.
        threshold: The model's own.
        prevalence: Of another population, between 0 and 1, for predictive values there; None for those of the images.
        seed: Decides the bootstrap's draws.

    Raises:
        ValueError: There are not two classes, or a prevalence is not between 0 and 1.
    """
    if len(predictions.classes) != 2:
        raise ValueError(f"sensitivity needs two classes; here are {len(predictions.classes)}")
    if prevalence is not None and not 0 < prevalence < 1:
        raise ValueError(f"a prevalence is between 0 and 1; here is {prevalence}")
    labels, likely, patients = predictions.labels, predictions.probabilities(temperature), predictions.patients
    whole = weighted_clinical(labels, likely, np.ones((1, len(labels))), threshold, prevalence)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in whole}
    for weights in draws(patients, seed):
        for name, values in weighted_clinical(labels, likely, weights, threshold, prevalence).items():
            drawn[name].append(values)
    scores = {name: _interval(float(whole[name][0]), np.concatenate(drawn[name]), patients) for name in whole}
    return ClinicalScores(threshold, float((labels == 1).mean()), prevalence, scores)


def clinical_scores_of(data: Mapping[str, Any]) -> ClinicalScores:
    """Makes scores from the result of `ClinicalScores.to_dict`."""
    scores = {row["score"]: Interval(row["value"], row["low"], row["high"]) for row in data["scores"]}
    return ClinicalScores(**{**data, "scores": scores})


def weighted_clinical(
    labels: np.ndarray, likely: np.ndarray, weights: np.ndarray, threshold: float, prevalence: float | None = None
) -> dict[str, np.ndarray]:
    """Computes every score of ClinicalScores for many weightings of the same predictions.

    Args:
        labels: int [N], 0 or 1.
        likely: Probabilities, float [N, 2].
        weights: float [draws, N], how often each image counts.
        threshold: From which probability on an image is positive.
        prevalence: Of another population; None for none.

    Returns:
        name -> float [draws], NaN where it is not defined.
    """
    called, true = decide(likely, threshold) == 1, labels == 1
    hits, misses = weights @ (called & true), weights @ (~called & true)
    alarms, rejections = weights @ (called & ~true), weights @ (~called & ~true)
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity = hits / (hits + misses), rejections / (rejections + alarms)
        both = np.where(np.isnan(sensitivity + specificity), np.nan, 1.0)  # NaN where a class was not drawn
        scores = {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": hits / (hits + alarms) * both,
            "npv": rejections / (rejections + misses) * both,
        }
    if prevalence is not None:
        at = predictive_values(sensitivity, specificity, prevalence)
        scores |= dict(zip(AT_PREVALENCE, at, strict=True))
    return scores | at_targets(true, likely[:, 1], weights)


def predictive_values(
    sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float
) -> tuple[np.ndarray, np.ndarray]:
    """The predictive values in a population, by Bayes' formula (Altman and Bland 1994, BMJ 309:102).

    Sensitivity and specificity are taken to be the same there, which another mix of patients or machines can change.

    Args:
        sensitivity: float [draws], 0 to 1.
        specificity: Likewise.
        prevalence: Share of positives in that population, between 0 and 1.

    Returns:
        PPV and NPV, float [draws]; NaN where no image is called so.

    >>> [round(float(value[0]), 4) for value in predictive_values(np.array([0.9]), np.array([0.8]), 0.05)]
    [0.1915, 0.9935]
    """
    hits, misses = sensitivity * prevalence, (1 - sensitivity) * prevalence
    alarms, rejections = (1 - specificity) * (1 - prevalence), specificity * (1 - prevalence)
    with np.errstate(divide="ignore", invalid="ignore"):
        return hits / (hits + alarms), rejections / (rejections + misses)


def percent(share: float) -> str:
    """A share as people read it.

    >>> percent(0.625), percent(0.05), percent(0.0012)
    ('62.5 %', '5 %', '0.12 %')
    """
    return f"{100 * share:.3g} %"


def written(interval: Interval, style: Style = SCORE) -> str:
    """Writes a score with its interval; one that is not defined as such.

    >>> written(Interval(float("nan"), float("nan"), float("nan")))
    'not defined'
    """
    return "not defined" if np.isnan(interval.value) else format_interval(interval, style)


def clinical_table(clinical: ClinicalScores) -> str:
    """Writes the scores in Markdown, with what they hold for."""
    rows = [(label, written(clinical.scores[name])) for name, label in clinical.labels().items()]
    return f"{markdown.table((f'as served, threshold {clinical.threshold:.3g}', 'value'), rows)}\n\n{NOTE}"


def _interval(value: float, drawn: np.ndarray, patients: Any) -> Interval:
    return interval_of(value, drawn, patients) if np.isfinite(value) else Interval(value, np.nan, np.nan)
