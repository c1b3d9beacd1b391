"""Assess a model on some images: every score with its interval, beside the scores of always the same answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.metrics.bootstrap import Interval, intervals
from sweep.metrics.clinical import ClinicalScores, clinical_scores, clinical_scores_of
from sweep.metrics.names import CALIBRATED
from sweep.metrics.predictions import Predictions
from sweep.metrics.scores import all_scores


@dataclass(frozen=True)
class Assessment:
    """Scores of a model as it is served, with its temperature.

    Attributes:
        images: Number of images.
        patients: Number of patients.
        temperature: The logits were divided by it.
        threshold: The model's own; None for more than two classes.
        scores: At a threshold of 0.5; with more than two classes the likeliest one is the answer.
        at_threshold: At the model's own threshold, where that is not 0.5.
        baseline: Scores of answering `always` for every image, without those of probabilities.
        always: The positive class, or with more than two the most frequent.
        uncalibrated: CALIBRATED scores before the temperature.
        clinical: Diagnostic accuracy as the model is served; None for more than two classes, and where an earlier
            release stored the assessment.
    """

    images: int
    patients: int
    temperature: float
    threshold: float | None
    scores: Mapping[str, Interval]
    at_threshold: Mapping[str, Interval] | None
    baseline: Mapping[str, float]
    always: str
    uncalibrated: Mapping[str, float]
    clinical: ClinicalScores | None = None

    @property
    def served(self) -> Mapping[str, Interval]:
        """Scores at the threshold that the model is served with, which is 0.5 unless there are `at_threshold`."""
        return self.scores if self.at_threshold is None else self.at_threshold

    def values(self, prefix: str) -> dict[str, float]:
        """Scores by name, `prefix/...`, and `prefix_at_threshold/...` where the threshold is not 0.5."""
        named = {f"{prefix}/{name}": interval.value for name, interval in self.scores.items()}
        at_threshold = self.at_threshold or {}
        return named | {f"{prefix}_at_threshold/{name}": interval.value for name, interval in at_threshold.items()}

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for `assessment_of`."""

        def ends(scores: Mapping[str, Interval] | None) -> dict[str, list[float]] | None:
            return None if scores is None else {name: [i.value, i.low, i.high] for name, i in scores.items()}

        clinical = None if self.clinical is None else self.clinical.to_dict()
        return {
            **vars(self),
            "scores": ends(self.scores),
            "at_threshold": ends(self.at_threshold),
            "clinical": clinical,
        }


def assess(
    predictions: Predictions,
    temperature: float,
    threshold: float | None,
    seed: int = 0,
    prevalence: float | None = None,
) -> Assessment:
    """Assesses predictions.

    Args:
        predictions: Of images in which every class occurs.
        temperature: Logits are divided by it.
        threshold: The model's own; None for more than two classes.
        seed: Decides the bootstrap's draws.
        prevalence: Of another population, for predictive values there; None without, and for more than two classes.
    """
    labels, likely, patients = predictions.labels, predictions.probabilities(temperature), predictions.patients
    classes = len(predictions.classes)
    always = 1 if classes == 2 else int(np.bincount(labels).argmax())
    constant = np.eye(classes)[np.full(len(labels), always)]

    def scored(threshold: float) -> dict[str, Interval]:
        return intervals(labels, likely, patients, all_scores(labels, likely, threshold), threshold, seed)

    return Assessment(
        len(labels),
        len(set(patients)),
        temperature,
        threshold,
        scored(0.5),
        None if threshold in (None, 0.5) else scored(float(threshold)),
        {name: value for name, value in all_scores(labels, constant).items() if name not in CALIBRATED},
        predictions.classes[always],
        {name: value for name, value in all_scores(labels, predictions.probabilities()).items() if name in CALIBRATED},
        None if threshold is None else clinical_scores(predictions, temperature, threshold, prevalence, seed),
    )


def assessment_of(data: Mapping[str, Any]) -> Assessment:
    """Makes an assessment from the result of `Assessment.to_dict`."""

    def intervals_of(ends: Mapping[str, Any] | None) -> dict[str, Interval] | None:
        return None if ends is None else {name: Interval(*three) for name, three in ends.items()}

    clinical = data.get("clinical")  # an earlier release stored none
    return Assessment(
        **{
            **data,
            "scores": intervals_of(data["scores"]),
            "at_threshold": intervals_of(data["at_threshold"]),
            "clinical": None if clinical is None else clinical_scores_of(clinical),
        }
    )
