"""An ensemble's answer from its members': probabilities are averaged, not logits."""

from __future__ import annotations

import numpy as np
import pytest

from sweep.metrics.ensembles import joined, log_mean, value_of
from sweep.metrics.predictions import Predictions
from sweep.metrics.scores import softmax

CLASSES = ("NORMAL", "PNEUMONIA")


def predictions(positive, labels, first=0):
    likely = np.stack([1 - np.array(positive), np.array(positive)], axis=1)
    names = [f"{number}.png" for number in range(first, first + len(labels))]
    return Predictions(names, names, np.array(labels), np.log(likely).astype(np.float32), CLASSES)


def test_the_mean_is_of_probabilities_and_a_sure_member_does_not_outvote_the_others():
    members = np.array([[[0.4, 0.6]], [[0.3, 0.7]], [[0.999999, 0.000001]]])
    logits = log_mean(members)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(softmax(logits), members.mean(axis=0), atol=1e-7)
    of_logits = softmax(np.log(members).mean(axis=0))  # which the sure one decides
    assert softmax(logits)[0, 1] == pytest.approx(0.4333, abs=1e-4)
    assert of_logits[0, 1] == pytest.approx(0.0149, abs=1e-3)


def test_certainty_stays_finite():
    assert np.isfinite(log_mean(np.array([[[0.0, 1.0]], [[0.0, 1.0]]]))).all()


def test_members_of_folds_answer_one_after_the_other():
    parts = [predictions([0.2, 0.7], [0, 1]), predictions([0.9], [1], first=2)]
    together = joined(parts)
    assert together.images == ["0.png", "1.png", "2.png"]
    assert together.labels.tolist() == [0, 1, 1]
    np.testing.assert_allclose(together.probabilities()[:, 1], [0.2, 0.7, 0.9], atol=1e-6)
    assert together.classes == CLASSES


def test_the_value_is_what_a_study_would_compute():
    plain, stressed = predictions([0.2, 0.4, 0.9], [0, 1, 1]), predictions([0.9, 0.4, 0.8], [0, 1, 1])
    assert value_of("val/auroc", plain, None) == 1.0
    assert value_of("val/accuracy", plain, None) == pytest.approx(2 / 3)
    assert value_of("val/specificity_at_95_sensitivity", plain, None) == 1.0
    assert value_of("val/stressed_auroc", plain, stressed) == 0.0
    # Each class weighs the same, as in the training loss: the mean over NORMAL, and that over PNEUMONIA.
    expected = (-np.log(0.8) + (-np.log(0.4) - np.log(0.9)) / 2) / 2
    assert value_of("val/loss", plain, None) == pytest.approx(expected, abs=1e-6)
    expected = (-np.log(0.1) + (-np.log(0.4) - np.log(0.8)) / 2) / 2
    assert value_of("val/stressed_loss", plain, stressed) == pytest.approx(expected, abs=1e-6)
