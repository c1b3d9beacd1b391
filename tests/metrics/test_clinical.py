"""Diagnostic accuracy: by hand, against scikit-learn, by Bayes' formula, and with the bootstrap's draws."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics

from sweep.metrics.assessment import assess, assessment_of
from sweep.metrics.clinical import ClinicalScores, clinical_scores, clinical_table, predictive_values, weighted_clinical
from sweep.metrics.predictions import Predictions

CLASSES = ("NORMAL", "PNEUMONIA")


def some(count: int = 300, seed: int = 0, decimals: int = 1, per_patient: int = 2) -> Predictions:
    """Predictions with ties; every second patient has two images."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    logits = np.zeros((count, 2), dtype=np.float32)
    logits[:, 1] = (random.normal(size=count) + 2 * labels - 1).round(decimals)
    patients = [f"person{row // per_patient}" for row in range(count)]
    return Predictions([f"{row}.png" for row in range(count)], patients, labels, logits, CLASSES)


def counted(tp: int, fn: int, fp: int, tn: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat([1, 1, 0, 0], [tp, fn, fp, tn])
    positive = np.repeat([0.9, 0.1, 0.9, 0.1], [tp, fn, fp, tn])
    return labels, np.stack([1 - positive, positive], axis=1)


def test_a_table_of_two_by_two_counted_by_hand():
    labels, likely = counted(tp=90, fn=10, fp=30, tn=70)
    found = weighted_clinical(labels, likely, np.ones((1, 200)), 0.5, prevalence=0.05)
    values = {name: float(value[0]) for name, value in found.items()}
    assert values["sensitivity"] == 0.9
    assert values["specificity"] == 0.7
    assert values["ppv"] == 90 / 120
    assert values["npv"] == 70 / 80
    # Of 100,000 people 5,000 are ill: 4,500 hits and 28,500 false alarms; 66,500 right rejections and 500 misses.
    assert values["ppv_at_prevalence"] == pytest.approx(4_500 / 33_000)
    assert values["npv_at_prevalence"] == pytest.approx(66_500 / 67_000)
    # There are two probabilities: 95 % of the ill are found by calling everybody ill alone.
    assert values["specificity_at_95_sensitivity"] == 0.0
    assert values["sensitivity_at_95_specificity"] == 0.0


def test_bayes_at_the_prevalence_of_the_images_gives_what_is_counted_there():
    labels, likely = counted(tp=37, fn=5, fp=11, tn=64)
    prevalence = float(labels.mean())
    found = weighted_clinical(labels, likely, np.ones((1, len(labels))), 0.5, prevalence)
    assert found["ppv_at_prevalence"][0] == pytest.approx(found["ppv"][0], abs=1e-15)
    assert found["npv_at_prevalence"][0] == pytest.approx(found["npv"][0], abs=1e-15)


def test_predictive_values_of_a_test_that_knows_nothing_are_the_prevalence():
    ppv, npv = predictive_values(np.array([0.3]), np.array([0.7]), 0.05)
    assert ppv[0] == pytest.approx(0.05)
    assert npv[0] == pytest.approx(0.95)


@pytest.mark.parametrize("threshold", [0.5, 0.31, 0.839])
def test_scores_as_served_are_scikit_learns(threshold):
    found = some()
    temperature = 1.7
    scores = clinical_scores(found, temperature, threshold).scores
    positive = 1 / (1 + np.exp(-found.logits[:, 1].astype(float) / temperature))
    called = (positive >= threshold).astype(int)
    for name, label, score in (
        ("sensitivity", 1, metrics.recall_score),
        ("specificity", 0, metrics.recall_score),
        ("ppv", 1, metrics.precision_score),
        ("npv", 0, metrics.precision_score),
    ):
        assert scores[name].value == pytest.approx(score(found.labels, called, pos_label=label), abs=1e-12)
    false, true, _ = metrics.roc_curve(found.labels, positive, drop_intermediate=False)
    assert scores["specificity_at_95_sensitivity"].value == pytest.approx(1 - false[true >= 0.95].min(), abs=1e-12)
    assert scores["sensitivity_at_95_specificity"].value == pytest.approx(true[false <= 0.05 + 1e-9].max(), abs=1e-12)


def test_weights_are_images_drawn_more_than_once():
    found = some(90)
    likely = found.probabilities()
    counts = np.random.default_rng(1).integers(0, 4, (4, 90))
    weighted = weighted_clinical(found.labels, likely, counts.astype(float), 0.4, 0.1)
    for row, drawn in enumerate(counts):
        rows = np.repeat(np.arange(90), drawn)
        repeated = weighted_clinical(found.labels[rows], likely[rows], np.ones((1, len(rows))), 0.4, 0.1)
        for name, values in repeated.items():
            assert weighted[name][row] == pytest.approx(values[0], abs=1e-12)


def test_intervals_are_those_of_the_other_scores_of_the_same_patients():
    found = some()
    assessment = assess(found, 1.3, 0.4, prevalence=0.05)
    assert assessment.clinical is not None
    assert assessment.at_threshold is not None
    scores, tuned = assessment.clinical.scores, assessment.at_threshold
    for name, known in (("sensitivity", "recall"), ("specificity", "specificity"), ("ppv", "precision")):
        assert vars(scores[name]) == pytest.approx(vars(tuned[known]), abs=1e-12)
    assert all(interval.low < interval.value < interval.high for interval in scores.values())
    # At a fixed prevalence Bayes' formula rises with both, so an interval lies between those of the corners.
    for place, name in enumerate(("ppv_at_prevalence", "npv_at_prevalence")):
        ends = [getattr(scores[part], end) for end in ("low", "high") for part in ("sensitivity", "specificity")]
        low, high = (predictive_values(*np.array([pair]).T, 0.05)[place][0] for pair in (ends[:2], ends[2:]))
        assert low <= scores[name].low < scores[name].high <= high


def test_ppv_is_not_defined_where_nothing_is_called_positive():
    found = some()
    scores = clinical_scores(found, 1.0, 1.0, 0.05).scores
    assert np.isnan([scores["ppv"].value, scores["ppv"].low, scores["ppv_at_prevalence"].value]).all()
    assert scores["sensitivity"].value == 0
    assert scores["npv_at_prevalence"].value == pytest.approx(0.95)


def test_with_few_patients_there_is_no_interval():
    found = some(20, per_patient=4)
    assert np.isnan(clinical_scores(found, 1.0, 0.5).scores["sensitivity"].low)


def test_labels_name_the_prevalence_and_there_are_none_for_three_classes():
    scores = assess(some(), 1.0, 0.5, prevalence=0.05).clinical
    assert scores is not None
    prevalence = f"{100 * scores.prevalence:.3g} %"
    assert list(scores.labels().values()) == [
        "sensitivity",
        "specificity",
        f"PPV at {prevalence} prevalence",
        f"NPV at {prevalence} prevalence",
        "PPV at 5 % prevalence",
        "NPV at 5 % prevalence",
        "specificity at 95 % sensitivity",
        "sensitivity at 95 % specificity",
    ]
    three = Predictions(["a", "b", "c"], ["a", "b", "c"], np.arange(3), np.eye(3, dtype=np.float32), ("A", "B", "C"))
    assert assess(three, 1.0, None).clinical is None
    with pytest.raises(ValueError, match="two classes"):
        clinical_scores(three, 1.0, 0.5)


@pytest.mark.parametrize("prevalence", [0, 1, -0.1, float("nan")])
def test_a_prevalence_is_between_0_and_1(prevalence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        clinical_scores(some(), 1.0, 0.5, prevalence)


def test_a_stored_assessment_comes_back_and_an_older_one_has_no_clinical_scores():
    assessment = assess(some(), 1.0, 0.4, prevalence=0.05)
    stored = json.loads(json.dumps(assessment.to_dict()))
    assert assessment_of(stored) == assessment
    assert isinstance(assessment_of(stored).clinical, ClinicalScores)
    del stored["clinical"]
    assert assessment_of(stored).clinical is None


def test_the_table_of_the_card_has_a_row_for_each_score():
    scores = clinical_scores(some(), 1.0, 0.4, 0.05)
    written = clinical_table(scores)
    assert "as served, threshold 0.4" in written
    for name, label in scores.labels().items():
        assert f"| {label}\u00a0\u00a0 | {scores.scores[name]}\u00a0\u00a0 |" in written
