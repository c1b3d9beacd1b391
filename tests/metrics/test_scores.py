import numpy as np
import pytest
from sklearn import metrics as sklearn

from sweep.metrics.clinical import weighted_clinical
from sweep.metrics.names import METRICS, STRESSED, TWO_CLASSES
from sweep.metrics.scores import all_scores, epoch_scores, scores, softmax


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


def test_a_probability_of_exactly_the_threshold_is_positive():
    labels = np.array([0, 1])
    assert scores(labels, two([0.2, 0.5]))["recall"] == 1.0
    assert all_scores(labels, two([0.2, 0.5]))["precision_macro"] == 1.0
    assert all_scores(labels, two([0.2, 0.3]), 0.3)["f1_weighted"] == 1.0


def test_calling_everything_positive_scores_without_a_warning(recwarn):
    got = scores(np.array([0, 1, 1]), two([0.9, 0.9, 0.9]))
    assert (got["specificity"], got["recall"], got["balanced_accuracy"]) == (0, 1, 0.5)
    nothing = scores(np.array([0, 1, 1]), two([0.1, 0.1, 0.1]))
    assert (nothing["precision"], nothing["f1"], nothing["mcc"]) == (0, 0, 0)
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
    assert got["mcc"] == pytest.approx(sklearn.matthews_corrcoef(labels, predicted))
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


def test_probabilities_of_large_logits_are_finite():
    got = softmax(np.array([[1000.0, 0.0], [-1000.0, -1001.0]], dtype=np.float32))
    assert got.sum(axis=1) == pytest.approx([1, 1])
    assert got[0, 0] == 1


@pytest.mark.parametrize("classes", [2, 3])
def test_an_epoch_has_every_score_that_a_study_can_choose_by(classes):
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, 200)
    likely = softmax(random.normal(size=(200, classes)) + np.eye(classes)[labels])

    got = epoch_scores(labels, likely)

    metrics = set(METRICS) - STRESSED - {"val/loss"} - (set() if classes == 2 else TWO_CLASSES)
    assert {f"val/{name}" for name in got} == metrics
    assert got["ece"] == all_scores(labels, likely)["ece"]
    if classes == 2:  # as reports have them
        clinical = weighted_clinical(labels, likely, np.ones((1, 200)), 0.5)
        on_roc = [name.removeprefix("val/") for name in TWO_CLASSES]
        assert {name: got[name] for name in on_roc} == pytest.approx({name: clinical[name][0] for name in on_roc})
