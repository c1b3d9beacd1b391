"""The decision rule, and the threshold that validation chooses."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from sweep.metrics import figures
from sweep.metrics.bootstrap import weighted_scores
from sweep.metrics.predictions import Predictions
from sweep.metrics.threshold import choose_threshold, decide, missed_classes

HALF = np.array([[0.5, 0.5], [0.5000001, 0.4999999], [0.5, 0.5]])


def test_an_image_is_positive_from_the_threshold_on():
    assert decide(HALF).tolist() == [1, 0, 1]
    assert decide(HALF, 0.4999999).tolist() == [1, 1, 1]
    assert decide(HALF, 0.5000001).tolist() == [0, 0, 0]


def test_of_more_classes_the_largest_probability_decides_and_of_equal_ones_the_first():
    likely = np.array([[0.2, 0.3, 0.5], [0.4, 0.4, 0.2]])
    assert decide(likely).tolist() == decide(likely, 0.9).tolist() == [2, 0]


def test_the_bootstrap_decides_alike_at_exactly_the_threshold():
    found = weighted_scores(np.array([1, 0, 1]), HALF, np.ones((1, 3)))
    assert found["accuracy"].tolist() == [1.0]


def test_figures_decide_alike_at_exactly_the_threshold(monkeypatch):
    figure = figures.roc_curve(np.array([1, 0, 1]), HALF, ("NORMAL", "PNEUMONIA"), "a title")
    (point,) = (line for line in figure.axes[0].lines if line.get_label() == "threshold 0.5")
    assert point.get_xydata().tolist() == [[0.0, 1.0]]
    decisions = []
    draw = figures.confusion_matrix
    monkeypatch.setattr(figures, "confusion_matrix", lambda *args: decisions.append(args[1]) or draw(*args))
    equal = Predictions(["a", "b"], ["a", "b"], np.array([0, 1]), np.zeros((2, 2), np.float32), ("NORMAL", "PNEUMONIA"))
    figures.predictions(equal, "validation", "a title")
    assert decisions[0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("labels", "positive", "says"),
    [
        ([1, 1], [0.2, 0.9], r"here are \[1\]"),
        ([0, 1, 2], [0.2, 0.9, 0.9], r"here are \[0, 1, 2\]"),
        ([0, 1], [0.2, np.nan], "not from 0 to 1"),
        ([0, 1], [0.2, 1.1], "not from 0 to 1"),
    ],
)
def test_no_threshold_is_chosen_from_nonsense(labels, positive, says):
    with pytest.raises(ValueError, match=says):
        choose_threshold(np.array(labels), np.array(positive))


def near_perfect(seed):
    """As on validation here: 780 images, AUROC near .997, a few errors that put the best cut anywhere."""
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [200, 580])
    logits = np.where(labels == 1, 4.0, -4.0) + random.normal(0, 2.0, len(labels))
    return labels, 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("seed", range(5))
def test_a_few_errors_do_not_move_the_threshold(seed):
    labels, positive = near_perfect(seed)
    threshold = choose_threshold(labels, positive)
    assert (threshold.value, threshold.supported) == (0.5, False)
    assert threshold.tuned != 0.5
    tuned, half = (sklearn.balanced_accuracy_score(labels, positive >= cut) for cut in (threshold.tuned, 0.5))
    assert tuned >= half  # it looks better on the images that it was chosen by
    assert "does not support" in threshold.reason


def test_a_plain_shift_moves_it():
    labels, positive = near_perfect(0)
    threshold = choose_threshold(labels, positive * 0.3)
    assert threshold.supported
    assert 0.1 < threshold.value < 0.25
    assert threshold.low > 0.2
    assert threshold.reason.startswith("validation supports it")
    assert sklearn.balanced_accuracy_score(labels, positive * 0.3 >= threshold.value) > 0.95


def test_the_threshold_is_the_seeds():
    labels, positive = near_perfect(3)
    assert choose_threshold(labels, positive, seed=1) == choose_threshold(labels, positive, seed=1)
    assert choose_threshold(labels, positive, seed=1).low != choose_threshold(labels, positive, seed=2).low


def test_ties_and_tiny_sets_are_no_trouble():
    same = choose_threshold(np.array([0, 1, 0, 1]), np.full(4, 0.7), resamples=50)
    assert same.value == 0.5
    assert np.isfinite([same.gain, same.low, same.high]).all()


def test_a_half_that_is_as_good_as_any_is_the_best():
    positive = np.concatenate([np.linspace(0.01, 0.2, 50), np.linspace(0.9, 0.99, 50)])
    threshold = choose_threshold(np.repeat([0, 1], 50), positive, resamples=50)
    assert (threshold.tuned, threshold.value, threshold.supported) == (0.5, 0.5, False)
    assert threshold.reason == "no other threshold is better on validation"


def test_a_class_of_one_image_supports_nothing(recwarn):
    threshold = choose_threshold(np.array([0, 1, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4]), resamples=50)
    assert (threshold.value, threshold.supported) == (0.5, False)
    assert "too few images of a class" in threshold.reason
    assert not recwarn.list


def test_the_interval_is_of_the_confidence_and_says_so():
    labels, positive = near_perfect(0)
    wide, narrow = (choose_threshold(labels, positive * 0.3, confidence=level) for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.gain < narrow.high < wide.high
    assert "99 % interval" in wide.reason
    assert "50 % interval" in narrow.reason


@pytest.mark.parametrize(
    ("positive", "threshold", "missed"),
    [
        ([0.6] * 40, 0.5, ["it recognises 0 of 20 validation images of NORMAL (specificity 0.0 %)"]),
        ([0.6] * 40, 0.7, ["it recognises 0 of 20 validation images of ILL (sensitivity 0.0 %)"]),
        ([0.4] + [0.6] * 39, 0.5, []),  # 1 of 20 is 5 %
    ],
)
def test_a_class_that_is_hardly_ever_answered_is_named(positive, threshold, missed):
    labels, positive = np.repeat([0, 1], 20), np.array(positive)
    assert list(missed_classes(labels, np.stack([1 - positive, positive], 1), threshold, ("NORMAL", "ILL"))) == missed


def test_with_several_classes_it_is_the_recall():
    labels = np.repeat([0, 1, 2], 10)
    probabilities = np.eye(3)[np.where(labels == 2, 0, labels)]
    said = missed_classes(labels, probabilities, None, ("a", "b", "c"))
    assert said == ("it recognises 0 of 10 validation images of c (recall 0.0 %)",)
