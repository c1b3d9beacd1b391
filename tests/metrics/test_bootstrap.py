"""Error bars: every weighted score against scikit-learn's, intervals that cover, differences that are found."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from sweep.metrics.bootstrap import Difference, Interval, difference, draws, intervals, weighted_scores
from sweep.metrics.scores import all_scores


def some(
    count: int, classes: int, seed: int = 0, skill: float = 1.2, decimals: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities with ties, as networks that are sure of themselves give them."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes))
    logits[np.arange(count), labels] += skill
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    likely[:, 0] = likely[:, 0].round(decimals)
    return labels, likely / likely.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_weighted_scores_are_the_scores_of_the_images_drawn(classes, threshold):
    labels, likely = some(90, classes)
    counts = np.random.default_rng(1).integers(0, 4, (5, 90))

    found = weighted_scores(labels, likely, counts.astype(float), threshold)

    for row, drawn in enumerate(counts):
        rows = np.repeat(np.arange(90), drawn)
        expected = all_scores(labels[rows], likely[rows], threshold)
        assert {name: found[name][row] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_ranks_with_weights_are_scikit_learns():
    labels, likely = some(200, 2, decimals=1)  # many ties
    weights = np.random.default_rng(2).random((3, 200))

    found = weighted_scores(labels, likely, weights)

    for row, weight in enumerate(weights):
        auroc = metrics.roc_auc_score(labels, likely[:, 1], sample_weight=weight)
        precision = metrics.average_precision_score(labels, likely[:, 1], sample_weight=weight)
        assert found["auroc"][row] == pytest.approx(auroc, abs=1e-12)
        assert found["average_precision"][row] == pytest.approx(precision, abs=1e-12)


def test_balanced_log_loss_gives_each_class_the_same_say():
    labels, likely = np.array([0, 0, 0, 1]), np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.9, 0.1]])

    found = weighted_scores(labels, likely, np.ones((1, 4)))["balanced_log_loss"][0]

    assert found == pytest.approx((-np.log(0.5) - np.log(0.1)) / 2)


def test_whole_patients_are_drawn():
    patients = ["a", "b", "b", "c", "c", "c"]

    weights = np.concatenate(list(draws(patients, seed=0, count=500)))

    assert weights.shape == (500, 6)
    assert (weights[:, 1] == weights[:, 2]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[:, 0] + weights[:, 1] + weights[:, 3] == 3).all()  # as many patients as there are
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.15)


def test_the_same_seed_draws_the_same():
    labels, likely = some(60, 2)
    values, patients = all_scores(labels, likely), [str(row) for row in range(60)]

    first, second = (intervals(labels, likely, patients, values, seed=4) for _ in range(2))

    assert first == second
    assert first != intervals(labels, likely, patients, values, seed=5)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    truth = all_scores(*some(200_000, 2, seed=99, decimals=6))["auroc"]
    covered = []
    for seed in range(120):
        labels, likely = some(150, 2, seed=seed, decimals=6)
        found = intervals(labels, likely, [str(row) for row in range(150)], all_scores(labels, likely))["auroc"]
        covered.append(found.low <= truth <= found.high)

    assert 0.88 <= np.mean(covered) <= 1


def test_patients_with_many_films_make_it_wider():
    random = np.random.default_rng(0)
    labels = np.repeat(random.integers(0, 2, 60), 5)  # five films of each patient, all alike
    right = np.repeat(random.random(60) < 0.8, 5)
    likely = np.where(right == (labels == 1), 0.9, 0.1)
    likely = np.stack([1 - likely, likely], axis=1)
    values = all_scores(labels, likely)

    by_film = intervals(labels, likely, [str(row) for row in range(300)], values)["accuracy"]
    by_patient = intervals(labels, likely, [str(row // 5) for row in range(300)], values)["accuracy"]

    assert by_patient.high - by_patient.low > 1.7 * (by_film.high - by_film.low)


def test_a_paired_difference_is_narrower_than_two_intervals():
    labels, theirs = some(400, 2, seed=3, decimals=6)
    ours = theirs.copy()
    wrong = np.flatnonzero((theirs[:, 1] >= 0.5) != labels)[:12]
    ours[wrong] = ours[wrong][:, ::-1]  # right where they were wrong
    patients = [str(row) for row in range(400)]

    found = difference(labels, ours, theirs, patients, "accuracy")

    assert found.interval.value == pytest.approx(12 / 400)
    assert 0 < found.interval.low < found.interval.value < found.interval.high
    assert found.p < 0.01
    single = intervals(labels, ours, patients, all_scores(labels, ours))["accuracy"]
    assert found.interval.high - found.interval.low < 0.5 * (single.high - single.low)
    assert difference(labels, theirs, theirs, patients, "auroc") == Difference(Interval(0.0, 0.0, 0.0), 1.0)


def test_too_few_of_a_class_have_no_interval():
    labels, likely = np.array([0, 1, 1, 1, 1, 1]), np.tile([0.4, 0.6], (6, 1))

    found = intervals(labels, likely, list("abcdef"), all_scores(labels, likely))

    assert np.isnan([found["auroc"].low, found["auroc"].high]).all()


def test_a_few_patients_tell_nothing_of_others():
    labels, likely = some(80, 2)
    few, enough = ([str(row % count) for row in range(80)] for count in (9, 10))

    assert np.isnan(difference(labels, likely, likely[:, ::-1], few, "auroc").interval.low)
    assert difference(labels, likely, likely[:, ::-1], enough, "auroc").interval.low > 0
    assert str(intervals(labels, likely, few, all_scores(labels, likely))["auroc"]).endswith("(too few)")


def test_a_calibration_error_lies_within_its_own_interval():
    """Noise only ever makes it larger, so percentiles alone would leave it out."""
    inside = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        positive = random.random(300)
        labels, likely = (random.random(300) < positive).astype(int), np.stack([1 - positive, positive], axis=1)
        found = intervals(labels, likely, [str(row) for row in range(300)], all_scores(labels, likely))["ece"]
        inside.append(found.low <= found.value < found.high)
    assert all(inside)
