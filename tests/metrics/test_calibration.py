"""Probabilities that come true, and the temperature that brings them there."""

from __future__ import annotations

import numpy as np
import pytest

from sweep.metrics.calibration import (
    COLDEST,
    HOTTEST,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from sweep.metrics.scores import softmax


def honest(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose probabilities come true, and labels drawn from them."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2, size=(count, classes))
    likely = softmax(logits)
    labels = (likely.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1)
    return labels, logits


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("wrong_by", [0.25, 1.0, 3.0])
def test_finds_the_temperature_that_was_put_in(classes, wrong_by):
    labels, logits = honest(20_000, classes)

    assert fit_temperature(labels, logits * wrong_by) == pytest.approx(wrong_by, rel=0.06)


@pytest.mark.parametrize("classes", [2, 3])
def test_it_lowers_the_error_and_changes_no_answer(classes):
    labels, logits = honest(4000, classes)
    sure = logits * 3

    temperature = fit_temperature(labels, sure)

    before, after = softmax(sure), softmax(sure / temperature)
    assert expected_calibration_error(labels, after) < 0.5 * expected_calibration_error(labels, before)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()


def test_a_validation_without_an_error_does_not_make_it_certain():
    labels = np.arange(60) % 2
    logits = np.where(labels[:, None] == [0, 1], 4.0, -4.0)

    temperature = fit_temperature(labels, logits)

    assert temperature > COLDEST * 2
    assert softmax(logits / temperature).max() < 0.99  # of 30 right in 30: (30 + 1) / (30 + 2)
    assert fit_temperature(labels, -logits) == pytest.approx(HOTTEST, rel=0.01)  # always wrong: knows nothing


def test_what_is_not_finite_is_said():
    with pytest.raises(ValueError, match="not finite"):
        fit_temperature(np.array([0, 1]), np.array([[0.0, np.nan], [0.0, 1.0]]))


def test_the_error_by_hand():
    likely = np.array([[0.1, 0.9], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9], [0.8, 0.2], [0.8, 0.2]])
    labels = np.array([1, 1, 0, 0, 0, 0])

    found = reliability(labels, likely)

    np.testing.assert_allclose(found.predicted, [0.2, 0.9])
    np.testing.assert_allclose(found.observed, [0.0, 0.5])
    np.testing.assert_allclose(found.images, [2, 4])
    assert expected_calibration_error(labels, likely) == pytest.approx((2 * 0.2 + 4 * 0.4) / 6)


def test_with_more_classes_it_is_about_the_likeliest():
    likely = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])

    assert expected_calibration_error(np.array([0, 1]), likely) == pytest.approx(0.2)


def test_certainty_falls_into_the_last_bin():
    assert expected_calibration_error(np.array([1, 0]), np.array([[0.0, 1.0], [1.0, 0.0]])) == 0
