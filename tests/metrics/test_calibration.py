"""Probabilities that come true, and the temperature that brings them there."""

from __future__ import annotations

import numpy as np
import pytest

from sweep.metrics.calibration import (
    COLDEST,
    HOTTEST,
    Temperature,
    choose_temperature,
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


def test_a_temperature_that_pays_is_used():
    labels, logits = honest(4000, 2)

    chosen = choose_temperature(labels, logits * 3)

    assert chosen.value == chosen.fitted == fit_temperature(labels, logits * 3)
    assert chosen.fitted_loss < chosen.untouched_loss
    assert chosen.untouched_loss == pytest.approx(log_loss(labels, softmax(logits * 3)))
    assert chosen.reason == (
        f"Logits are divided by {chosen.value:.3f}, which was fitted on validation: log loss there falls from "
        f"{chosen.untouched_loss:.4f} to {chosen.fitted_loss:.4f}."
    )


def test_a_temperature_that_raises_the_plain_loss_is_not_used():
    """Smoothed targets ask a network without an error for more doubt, which plain log loss punishes."""
    labels = np.arange(60) % 2
    logits = np.where(labels[:, None] == [0, 1], 4.0, -4.0)

    chosen = choose_temperature(labels, logits)

    assert (chosen.value, chosen.fitted) == (1.0, fit_temperature(labels, logits))
    assert chosen.fitted > 2
    assert chosen.fitted_loss == pytest.approx(log_loss(labels, softmax(logits / chosen.fitted)))
    assert chosen.reason == (
        f"The temperature is 1. One of {chosen.fitted:.3f} was fitted on validation and is not used: log loss there "
        f"would rise from 0.0003 to {chosen.fitted_loss:.4f}."
    )


def test_a_gain_that_four_digits_do_not_show_is_none():
    labels, logits = honest(20_000, 2)
    logits = logits / fit_temperature(labels, logits) * 1.001

    chosen = choose_temperature(labels, logits)

    assert chosen.value == 1
    assert "would stay at" in chosen.reason
    kept = Temperature(chosen.fitted, chosen.fitted, chosen.untouched_loss, chosen.fitted_loss)  # an earlier release
    assert "log loss there stays at" in kept.reason


def log_loss(labels: np.ndarray, likely: np.ndarray) -> float:
    return float(-np.log(likely[np.arange(len(labels)), labels]).mean())


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
