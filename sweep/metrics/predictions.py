"""Predictions of some images: the table that every score, figure and comparison is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.cache import Images
from sweep.metrics.scores import softmax

PROBABILITY, LOGIT = "probability_", "logit_"
SMALLEST = 1e-6  # probability that is written; a network is never certain
# Artifacts of a run: predictions of the validation images, and of these as another machine might have made them.
VALIDATION, STRESSED_VALIDATION = "predictions/validation.csv", "predictions/validation-stressed.csv"


@dataclass(frozen=True)
class Predictions:
    """Logits of some images whose classes are known.

    Attributes:
        images: Their names, N of them.
        patients: The patient of each image; intervals draw whole patients.
        labels: int [N].
        logits: float32 [N, classes], as the network gives them.
        classes: Names in logit order; with two of them the second is the positive one.
    """

    images: Sequence[str]
    patients: Sequence[str]
    labels: np.ndarray
    logits: np.ndarray
    classes: tuple[str, ...]

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """Probabilities, float64 [N, classes], of logits divided by a temperature."""
        return softmax(self.logits / temperature)

    def select(self, images: Sequence[str]) -> Predictions:
        """The predictions of some of the images, in the order asked for."""
        place = {name: row for row, name in enumerate(self.images)}
        rows = [place[name] for name in images]
        patients = [self.patients[row] for row in rows]
        return Predictions(list(images), patients, self.labels[rows], self.logits[rows], self.classes)

    def to_csv(self, temperature: float = 1.0) -> str:
        """Writes them as CSV: image, patient, class, a probability and a logit for each class.

        Probabilities are for people: six digits, and none is 0 or 1, as in a served answer. Logits are exact.
        """
        table = pd.DataFrame({"image": list(self.images), "patient": list(self.patients)})
        table["class"] = [self.classes[label] for label in self.labels]
        table[[f"{PROBABILITY}{name}" for name in self.classes]] = (
            self.probabilities(temperature).round(6).clip(SMALLEST, 1 - SMALLEST)
        )
        table[[f"{LOGIT}{name}" for name in self.classes]] = self.logits.astype(np.float32)
        return table.to_csv(index=False)


def predictions_of(images: Images, logits: np.ndarray, classes: tuple[str, ...]) -> Predictions:
    """The predictions for cached images: a network's logits with the images' names, patients and labels."""
    return Predictions(images.names, images.patients, images.labels, logits, classes)


def read_predictions(path: Path) -> Predictions:
    """Reads a file of `to_csv`; every logit is exactly as it was.

    Raises:
        ValueError: The file is no such table.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    classes = tuple(name.removeprefix(LOGIT) for name in table.columns if name.startswith(LOGIT))
    complete = classes and {"image", "patient", "class"} <= set(table.columns)
    if not complete or not set(table["class"]) <= set(classes):
        raise ValueError(f"{path.name} holds no predictions")
    labels = np.array([classes.index(name) for name in table["class"]], dtype=np.int64)
    logits = table[[f"{LOGIT}{name}" for name in classes]].to_numpy(dtype=np.float32)
    return Predictions(table["image"].tolist(), table["patient"].tolist(), labels, logits, classes)
