import numpy as np
import pytest
from sklearn import metrics as sklearn

from sweep.metrics.scores import choose_threshold, scores, softmax


def two(positive):
    positive = np.asarray(positive, dtype=float)
    return np.stack([1 - positive, positive], axis=1)


def test_scores_counted_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    got = scores(labels, two([0.1, 0.2, 0.7, 0.6, 0.9, 0.4, 0.8, 0.5]))
    assert got["accuracy"] == 6 / 8
    assert got["precision"] == 4 / 5
    assert got["recall"] == 4 / 5
    assert got["specificity"] == pytest.approx(2 / 3)
    assert got["f1"] == pytest.approx(0.8)
    assert got["balanced_accuracy"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert got["auroc"] == pytest.approx(12 / 15)  # pairs in the right order
    assert got["brier"] == pytest.approx(np.mean([0.01, 0.04, 0.49, 0.16, 0.01, 0.36, 0.04, 0.25]))


def test_a_threshold_moves_decisions_and_not_ranks():
    labels = np.array([0, 0, 1, 1])
    low, high = (scores(labels, two([0.1, 0.3, 0.35, 0.9]), cut) for cut in (0.32, 0.5))
    assert (low["accuracy"], high["accuracy"]) == (1.0, 0.75)
    assert low["auroc"] == high["auroc"] == 1.0


def test_calling_everything_positive_scores_without_a_warning(recwarn):
    got = scores(np.array([0, 1, 1]), two([0.9, 0.9, 0.9]))
    assert (got["specificity"], got["recall"], got["balanced_accuracy"]) == (0, 1, 0.5)
    nothing = scores(np.array([0, 1, 1]), two([0.1, 0.1, 0.1]))
    assert (nothing["precision"], nothing["f1"]) == (0, 0)
    assert not recwarn.list


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_are_scikit_learns(classes):
    random = np.random.default_rng(classes)
    labels = random.integers(0, classes, 300)
    likely = softmax(random.normal(size=(300, classes)) + 2 * np.eye(classes)[labels])
    got = scores(labels, likely)
    predicted = likely.argmax(1)
    average = "binary" if classes == 2 else "macro"
    assert got["precision"] == pytest.approx(sklearn.precision_score(labels, predicted, average=average))
    assert got["recall"] == pytest.approx(sklearn.recall_score(labels, predicted, average=average))
    assert got["f1"] == pytest.approx(sklearn.f1_score(labels, predicted, average=average))
    assert got["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(labels, predicted))
    assert got["log_loss"] == pytest.approx(sklearn.log_loss(labels, likely))
    if classes == 2:
        assert got["brier"] == pytest.approx(sklearn.brier_score_loss(labels, likely[:, 1]))
        assert got["auroc"] == sklearn.roc_auc_score(labels, likely[:, 1])
        assert got["average_precision"] == sklearn.average_precision_score(labels, likely[:, 1])
    else:
        assert "specificity" not in got
        assert got["auroc"] == pytest.approx(sklearn.roc_auc_score(labels, likely, multi_class="ovr"))


def test_what_cannot_be_scored_says_why():
    with pytest.raises(ValueError, match=r"only the classes \[1\] of 2 occur"):
        scores(np.array([1, 1]), two([0.5, 0.6]))
    with pytest.raises(ValueError, match="not finite"):
        scores(np.array([0, 1]), two([0.5, np.nan]))
    with pytest.raises(ValueError, match=r"labels are \[0, 1, 2\], the probabilities are of 2 classes"):
        scores(np.array([0, 1, 2]), two([0.5, 0.6, 0.7]))


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


def test_probabilities_of_large_logits_are_finite():
    got = softmax(np.array([[1000.0, 0.0], [-1000.0, -1001.0]], dtype=np.float32))
    assert got.sum(axis=1) == pytest.approx([1, 1])
    assert got[0, 0] == 1


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
