"""Decision curves: by hand, against a confusion matrix at each threshold, and against treating all or none."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from sweep.metrics.net_benefit import THRESHOLDS, decision_curve


def some(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    positive = 1 / (1 + np.exp(-(random.normal(size=count) + 2 * labels - 1)))
    return labels, positive.round(2), [f"person{row // 2}" for row in range(count)]


def test_net_benefit_counted_by_hand():
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    positive = np.array([0.9, 0.6, 0.1, 0.8, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])
    curve = decision_curve(labels, positive, list("abcdefghij"), np.array([0.2, 0.5]))
    # At 0.2 two of three cases and two others are called; one false alarm costs a quarter of a hit.
    assert curve.net_benefit == pytest.approx([2 / 10 - 2 / 10 / 4, 2 / 10 - 1 / 10])
    assert curve.treat_all == pytest.approx([3 / 10 - 7 / 10 / 4, 3 / 10 - 7 / 10])


def test_net_benefit_is_that_of_a_confusion_matrix_at_every_threshold():
    labels, positive, patients = some()
    curve = decision_curve(labels, positive, patients)
    for place, threshold in enumerate(THRESHOLDS):
        _, alarms, _, hits = metrics.confusion_matrix(labels, positive >= threshold).ravel()
        expected = (hits - alarms * threshold / (1 - threshold)) / len(labels)
        assert curve.net_benefit[place] == pytest.approx(expected, abs=1e-12)


def test_calling_everybody_and_nobody():
    labels, _, patients = some()
    everybody = decision_curve(labels, np.ones(len(labels)), patients)
    assert everybody.net_benefit == pytest.approx(everybody.treat_all)
    assert everybody.treat_all[labels.mean() > THRESHOLDS].min() > 0  # it pays below the prevalence alone
    assert everybody.treat_all[labels.mean() < THRESHOLDS].max() < 0
    assert (decision_curve(labels, np.zeros(len(labels)), patients).net_benefit == 0).all()


def test_intervals_hold_the_value_and_narrow_with_patients():
    labels, positive, patients = some()
    curve = decision_curve(labels, positive, patients)
    assert (curve.low <= curve.net_benefit).all()
    assert (curve.net_benefit <= curve.high).all()
    wider = decision_curve(labels[:80], positive[:80], patients[:80])
    middle = slice(20, 60)
    assert ((wider.high - wider.low)[middle] > (curve.high - curve.low)[middle]).all()
    again = decision_curve(labels, positive, patients)
    assert (again.low == curve.low).all()


def test_an_interval_of_the_mean_is_about_that_of_the_normal_approximation():
    labels, positive, _ = some(2000)
    patients = [str(row) for row in range(2000)]
    curve = decision_curve(labels, positive, patients, np.array([0.5]))
    gain = (positive >= 0.5) * np.where(labels == 1, 1.0, -1.0)
    reach = 1.96 * gain.std() / np.sqrt(2000)
    assert curve.low[0] == pytest.approx(gain.mean() - reach, abs=0.003)
    assert curve.high[0] == pytest.approx(gain.mean() + reach, abs=0.003)


def test_with_few_patients_there_is_no_interval():
    labels, positive, _ = some(40)
    curve = decision_curve(labels, positive, [str(row // 8) for row in range(40)])
    assert np.isnan(curve.low).all()
    assert np.isfinite(curve.net_benefit).all()
