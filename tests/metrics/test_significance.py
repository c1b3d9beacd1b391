"""Tests of significance: against scipy's, against every case counted out, against published figures, and in the long run."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from sweep.metrics.bootstrap import difference
from sweep.metrics.significance import another_run, holm, mcnemar, mean_gap, paired_gap


def alone(count):
    return [str(number) for number in range(count)]


@pytest.mark.parametrize("seed", range(6))
def test_with_one_image_a_patient_it_is_mcnemars_exact_test(seed):
    random = np.random.default_rng(seed)
    ours, theirs = random.random(300) < 0.8, random.random(300) < 0.84
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    expected = stats.binomtest(only_ours, only_ours + only_theirs).pvalue
    assert mcnemar(ours, theirs, alone(300)) == pytest.approx(expected, rel=1e-9)


def test_agrestis_ratings_of_the_prime_minister():
    """Agresti (2002), table 10.1: 86 left the approvers, 150 joined them, of 1,600; z = 4.17."""
    ours = np.repeat([True, True, False, False], [794, 150, 86, 570])
    theirs = np.repeat([True, False, True, False], [794, 150, 86, 570])
    found = mcnemar(ours, theirs, alone(1600))
    assert found == pytest.approx(stats.binomtest(86, 236).pvalue, rel=1e-9)
    assert found == pytest.approx(2 * stats.norm.sf(4.17), rel=0.35)  # the book's z is an approximation


def test_whole_patients_are_exchanged():
    """Held against every way to exchange them, counted out."""
    random = np.random.default_rng(0)
    patients = [str(number) for number in random.integers(0, 9, 40)]
    ours, theirs = random.random(40) < 0.9, random.random(40) < 0.6
    leads = [
        sum(int(ours[row]) - int(theirs[row]) for row in range(40) if patients[row] == patient)
        for patient in sorted(set(patients))
    ]
    sums = [sum(sign * lead for sign, lead in zip(signs, leads, strict=True)) for signs in product((1, -1), repeat=9)]
    expected = np.mean([abs(one) >= abs(sum(leads)) for one in sums])
    assert mcnemar(ours, theirs, patients) == pytest.approx(expected)
    # Ten films of one child are not ten opinions.
    ten_alike = [str(row // 10) for row in range(40)]
    better = np.ones(40, dtype=bool)
    assert mcnemar(better, ~better, alone(40)) < 1e-9
    assert mcnemar(better, ~better, ten_alike) == pytest.approx(2 * 0.5**4)


def test_equal_answers_are_not_different():
    right = np.array([True, False] * 20)
    assert mcnemar(right, right, alone(40)) == 1.0


def test_holms_correction_is_that_of_r():
    """R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    corrected = holm([float("nan"), 0.02])
    assert np.isnan(corrected[0])
    assert corrected[1] == 0.02


def test_a_gap_over_seeds_is_welchs():
    ours, theirs = [0.85, 0.87, 0.86, 0.90], [0.84, 0.80, 0.83]
    found = mean_gap([(ours, theirs)])
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.value == pytest.approx(np.mean(ours) - np.mean(theirs))
    twice = mean_gap([(ours, theirs), (ours, theirs)])
    assert twice.high - twice.low < found.high - found.low


def test_one_seed_has_no_spread():
    assert np.isnan(mean_gap([([0.8], [0.7])]).low)
    assert np.isnan(mean_gap([([0.8, 0.8], [0.7, 0.7])]).low)
    assert np.isnan(another_run([0.8]).low)


def test_the_range_of_one_more_run_holds_it():
    random, inside = np.random.default_rng(0), 0
    for _ in range(2000):
        seen = random.normal(0.8, 0.02, 5)
        expected = another_run(seen[:4].tolist())
        inside += expected.low <= seen[4] <= expected.high
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


def delong(labels, ours, theirs):
    """DeLong, DeLong and Clarke-Pearson (1988), as they write it: one placement value an image."""
    areas, placements = [], []
    for likely in (ours, theirs):
        above, below = likely[labels == 1], likely[labels == 0]
        wins = (above[:, None] > below[None]) + 0.5 * (above[:, None] == below[None])
        areas.append(wins.mean())
        placements.append((wins.mean(axis=1), wins.mean(axis=0)))
    variance = sum(
        np.var(placements[0][side] - placements[1][side], ddof=1) / len(placements[0][side]) for side in (0, 1)
    )
    assert areas[0] == pytest.approx(metrics.roc_auc_score(labels, ours))
    return areas[0] - areas[1], float(2 * stats.norm.sf(abs(areas[0] - areas[1]) / np.sqrt(variance)))


def pair(random, ours_noise, theirs_noise, count=400):
    """Two models that see the same images, each through noise of its own."""
    labels = (random.random(count) < 0.6).astype(int)
    seen = 1.2 * (labels - 0.5) + random.normal(0, 0.6, count)
    both = []
    for noise in (ours_noise, theirs_noise):
        positive = 1 / (1 + np.exp(-2 * (seen + random.normal(0, noise, count))))
        both.append(np.stack([1 - positive, positive], axis=1))
    return labels, *both


@pytest.mark.parametrize(("seed", "noise"), [(0, 0.6), (1, 0.75), (2, 0.9), (3, 1.2)])
def test_the_bootstraps_p_is_near_delongs(seed, noise):
    labels, ours, theirs = pair(np.random.default_rng(seed), 0.6, noise)
    gap, expected = delong(labels, ours[:, 1], theirs[:, 1])
    found = difference(labels, ours, theirs, alone(len(labels)), "auroc")
    assert found.interval.value == pytest.approx(gap)
    assert found.p == pytest.approx(expected, abs=0.03 + 0.2 * expected)


def test_equal_models_are_called_different_no_more_often_than_promised():
    """200 pairs of models that are equally good: at most 5 % +- 3 are called different, in accuracy and in AUROC.

    Patients have one to six images, which are alike, so that a test by images would be wrong more often.
    """
    random, apart = np.random.default_rng(0), {"accuracy": 0, "auroc": 0}
    for _ in range(200):
        sizes = random.integers(1, 7, 110)
        patients = np.repeat(np.arange(110), sizes)
        labels = np.repeat((random.random(110) < 0.6).astype(int), sizes)
        seen = 1.2 * (labels - 0.5) + np.repeat(random.normal(0, 0.5, 110), sizes)
        both = []
        for _ in range(2):
            own = np.repeat(random.normal(0, 0.4, 110), sizes) + random.normal(0, 0.3, len(labels))
            positive = 1 / (1 + np.exp(-2 * (seen + own)))
            both.append(np.stack([1 - positive, positive], axis=1))
        names = [str(patient) for patient in patients]
        right = [(likely[:, 1] >= 0.5) == labels for likely in both]
        apart["accuracy"] += mcnemar(right[0], right[1], names) < 0.05
        apart["auroc"] += difference(labels, both[0], both[1], names, "auroc").p < 0.05
    assert apart["accuracy"] / 200 <= 0.08
    assert apart["auroc"] / 200 <= 0.08
    assert apart["auroc"] / 200 >= 0.01  # and it is a test, not a constant


def test_a_better_model_is_found():
    random = np.random.default_rng(0)
    labels, ours, theirs = pair(random, 0.2, 1.5)
    names = alone(len(labels))
    right = [(likely[:, 1] >= 0.5) == labels for likely in (ours, theirs)]
    assert mcnemar(right[0], right[1], names) < 0.01
    assert difference(labels, ours, theirs, names, "auroc").p < 0.01


def test_a_paired_gap_is_students():
    differences = [0.02, -0.01, 0.03, 0.015, 0.01]
    found = paired_gap(differences)
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(differences), expected.low, expected.high))
    for nothing_to_tell in ([0.1], [0.1, 0.1]):
        assert paired_gap(nothing_to_tell).value == pytest.approx(0.1)
        assert np.isnan(paired_gap(nothing_to_tell).low)
