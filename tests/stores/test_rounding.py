"""Served probabilities: six digits, never 0 or 1, with a sum of 1, and always on the label's side of the threshold."""

from __future__ import annotations

import numpy as np
import pytest

from sweep.metrics.predictions import Predictions
from sweep.metrics.scores import softmax
from sweep.metrics.threshold import decide
from sweep.stores.serving_model import rounded


def many(classes: int, spread: float) -> np.ndarray:
    """Probabilities of random networks; with a wide spread many of them are within 1e-12 of 0 and 1."""
    return softmax(np.random.default_rng(classes).normal(scale=spread, size=(20_000, classes)))


@pytest.mark.parametrize("spread", [0.001, 1.0, 40.0])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.839, 0.8391234567891, 0.123456, 1.0])
def test_two_classes_keep_their_label_and_agree_with_it(spread, threshold):
    likely = many(2, spread)
    likely[:400, 1] = threshold + np.linspace(-2e-6, 2e-6, 400)  # next to the threshold, and on it
    likely[400, 1] = threshold
    likely[:, 1] = likely[:, 1].clip(0, 1)
    likely[:, 0] = 1 - likely[:, 1]
    decided = decide(likely, threshold)

    shown = rounded(likely, decided, threshold)

    np.testing.assert_allclose(shown, likely, rtol=0, atol=2e-6)
    np.testing.assert_allclose(shown.sum(axis=1), 1, rtol=0, atol=3e-16)
    assert (shown >= 1e-6).all()
    assert (shown <= 1 - 1e-6).all()
    assert (shown == shown.round(6)).all()
    if 1e-6 < threshold < 1 - 1e-6:
        assert (decide(shown, threshold) == decided).all()


@pytest.mark.parametrize("spread", [1e-7, 1.0, 40.0])
@pytest.mark.parametrize("classes", [3, 4, 15])
def test_more_classes_keep_the_likeliest(classes, spread):
    likely = many(classes, spread)
    decided = decide(likely)

    shown = rounded(likely, decided, None)

    np.testing.assert_allclose(shown, likely, rtol=0, atol=classes * 1e-6)
    np.testing.assert_allclose(shown.sum(axis=1), 1, rtol=0, atol=1e-15)
    assert (shown >= 1e-6).all()
    assert (shown < 1).all()
    assert (shown.argmax(axis=1) == decided).all()


def test_a_network_that_is_sure_is_not_certain():
    sure = np.array([[1.6e-12, 0.9999999999984], [1.0, 0.0]])
    assert rounded(sure, decide(sure), 0.5).tolist() == [[0.000001, 0.999999], [0.999999, 0.000001]]
    logits = np.array([[-30.0, 30.0], [30.0, -30.0]], dtype=np.float32)
    written = Predictions(["a", "b"], ["a", "b"], np.array([1, 0]), logits, ("NORMAL", "PNEUMONIA")).to_csv()
    assert [line.split(",")[3:5] for line in written.splitlines()[1:]] == [["1e-06", "0.999999"], ["0.999999", "1e-06"]]
