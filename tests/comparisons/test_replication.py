"""The report's rows beside ours: pure arithmetic here; `test_comparing.py` trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sweep.comparisons.replication.analysis import (
    Replica,
    final_table,
    judge,
    selection_bias,
    side_by_side,
    to_markdown,
)
from sweep.comparisons.replication.published import CONCLUSIONS, ROWS
from sweep.comparisons.seed_result import SeedResult
from sweep.metrics.predictions import Predictions

CLASSES = ("NORMAL", "PNEUMONIA")
ROW = {(row.arch, row.number): row for row in ROWS}


def result(accuracy, seed=0, validation=0.9, images=400):
    """A training that is right on this share of the images."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    wrong = random.permutation(images)[: round((1 - accuracy) * images)]
    called = labels.copy()
    called[wrong] = 1 - called[wrong]
    logits = np.where(called[:, None] == np.arange(2), 2.0, 0.0) + random.normal(0, 0.1, (images, 2))
    names = [f"test/{number}" for number in range(images)]
    patients = [str(number // 2) for number in range(images)]
    found = Predictions(names, patients, labels, logits.astype(np.float32), CLASSES)
    return SeedResult(seed, 8, {"auroc": validation, "accuracy": accuracy + 0.05}, found)


def replicas(accuracies, seeds=3):
    """Every row with the accuracy that a function of it gives."""
    return [
        Replica(row, tuple(result(accuracies(row) + 0.005 * (seed - 1), seed) for seed in range(seeds))) for row in ROWS
    ]


def test_theirs_lies_in_our_spread_or_not():
    found = side_by_side(replicas(lambda row: 0.85)).set_index("row")
    assert found.loc["cnn1 row 3", "ours"] == pytest.approx(0.85, abs=0.002)
    assert found.loc["cnn1 row 3", "difference"] == pytest.approx(0.85 - 0.8542, abs=0.002)
    assert found.loc["cnn1 row 3", "within"] == "yes"
    assert found.loc["cnn3 row 4", "within"] == "no"
    single = side_by_side(replicas(lambda row: 0.85, seeds=1)).set_index("row")
    assert single.loc["cnn1 row 3", "within"] == ""  # one seed is one draw


@pytest.mark.parametrize(
    ("sigmoid", "relu", "verdict"), [(0.90, 0.80, "held up"), (0.80, 0.90, "contradicted"), (0.85, 0.85, "undecided")]
)
def test_a_conclusion_is_held_up_contradicted_or_undecided(sigmoid, relu, verdict):
    found = judge(CONCLUSIONS[0], replicas(lambda row: sigmoid if row.activation == "sigmoid" else relu))
    assert found.verdict == verdict
    assert found.accuracy.value == pytest.approx(sigmoid - relu, abs=0.01)
    one = judge(CONCLUSIONS[0], replicas(lambda row: sigmoid if row.activation == "sigmoid" else relu, seeds=1))
    assert one.verdict == "undecided"


def test_rows_that_are_missing_decide_nothing():
    only = [Replica(ROW["cnn1", 3], (result(0.9), result(0.8, 1)))]
    assert judge(CONCLUSIONS[0], only).verdict == "undecided"
    assert judge(CONCLUSIONS[0], only).accuracy is None
    none = [Replica(ROW["cnn1", 3], ())]
    assert side_by_side(none)["seeds"].tolist() == [0]
    assert selection_bias("cnn1", none) is None
    assert "none ended" in to_markdown(none, {"data": "x"}, "ours")


def test_choosing_by_test_flatters_where_rows_are_equally_good():
    equal = [Replica(row, tuple(result(0.8, 10 * index + seed) for seed in range(3))) for index, row in enumerate(ROWS)]
    found = selection_bias("cnn1", equal)
    assert found.halves > 0.01  # the half that chose looks better than the half that did not
    best = [replace(one, results=(result(0.99, 1), result(0.99, 2))) if one.row.number == 1 else one for one in equal]
    assert abs(selection_bias("cnn1", best).halves) < 0.005  # one row is far better: nobody is flattered


def test_validation_chooses_its_own_row():
    rows = [ROW["cnn2", number] for number in (1, 2)]
    found = selection_bias(
        "cnn2", [Replica(rows[0], (result(0.9, validation=0.5),)), Replica(rows[1], (result(0.7, validation=0.6),))]
    )
    assert (found.by_test, found.by_validation) == (pytest.approx(0.9), pytest.approx(0.7))


def test_a_probability_of_exactly_a_half_is_positive_there_too():
    names = [str(number) for number in range(40)]
    equal = Predictions(names, names, np.repeat([0, 1], [10, 30]), np.zeros((40, 2), np.float32), CLASSES)
    rows = [Replica(ROW["cnn2", number], (SeedResult(0, 8, {"auroc": 0.5}, equal),)) for number in (1, 2)]
    assert selection_bias("cnn2", rows).by_test == 0.75 == rows[0].scores("accuracy")[0]


def test_the_page_has_every_row_and_is_careful_with_the_other_protocol():
    every = replicas(lambda row: 0.85)
    written = to_markdown(every, {"data": "chest-xray", "pixels": "64 x 64"}, "ours")
    for row in ROWS:
        assert f"| {row.name}" in written
    for conclusion in CONCLUSIONS:
        assert conclusion.sentence in written
    assert "These figures are optimistic" not in written
    assert "These figures are optimistic" in to_markdown(every, {"data": "chest-xray"}, "report")
    final = final_table(every)
    assert len(final) == 12
    assert final[final["arch"] == "resnet50"]["ours"].isna().all()
