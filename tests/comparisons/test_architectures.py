"""Paired tests, sentences, errors by group: what a comparison says of models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sweep.comparisons.architectures import charts
from sweep.comparisons.architectures.analysis import (
    CHOSEN,
    cost_rows,
    errors_by_group,
    paired_tests,
    score_rows,
    selection_bias,
)
from sweep.metrics.markdown import NOTE_LENGTH, note
from sweep.metrics.predictions import Predictions
from sweep.metrics.threshold import decide
from tests.helpers.compared import CLASSES, compared_model, comparison


def spoiled(one, share, arch):
    """A model with some of its answers turned round."""
    found = one.predictions
    wrong = np.random.default_rng(0).random(len(found.labels)) < share
    logits = np.where(wrong[:, None], found.logits[:, ::-1], found.logits)
    return replace(one, arch=arch, predictions=replace(found, logits=logits))


def test_equal_ones_cannot_be_told_apart():
    one = compared_model("resnet50", 0)
    (paired_test,) = paired_tests([replace(one, arch="cnn1"), one], "resnet50")
    assert paired_test.corrected == {"accuracy": 1.0, "auroc": 1.0}
    assert paired_test.sentence.startswith(
        "cnn1 and resnet50 do not differ significantly on 200 images (accuracy +0.0 points"
    )


def test_a_far_worse_one_is_called_worse_and_a_far_better_one_better():
    one = compared_model("resnet50", 0)
    (worse,) = paired_tests([spoiled(one, 0.5, "cnn1"), one], "resnet50")
    assert worse.sentence.startswith("cnn1 is worse in accuracy and AUROC than resnet50 (accuracy -")
    (better,) = paired_tests([one, spoiled(one, 0.5, "cnn1")], "cnn1")
    assert better.sentence.startswith("resnet50 is better in accuracy and AUROC than cnn1 (accuracy +")
    assert better.accuracy.interval.value == pytest.approx(-worse.accuracy.interval.value)
    assert better.accuracy.p == pytest.approx(worse.accuracy.p)


def test_what_differs_in_one_score_alone_is_said_so():
    """A shift of all logits changes who is called what, and ranks none before another."""
    one = compared_model("resnet50", 0)
    shifted = replace(
        one, arch="cnn1", predictions=replace(one.predictions, logits=one.predictions.logits + np.array([[0.0, 2.0]]))
    )
    (paired_test,) = paired_tests([shifted, one], "resnet50")
    assert paired_test.sentence.startswith(
        "cnn1 is worse in accuracy than resnet50, with no significant difference in AUROC"
    )


def test_more_tests_are_corrected_more():
    one = compared_model("resnet50", 0)
    other = spoiled(one, 0.06, "cnn1")
    (alone,) = paired_tests([other, one], "resnet50")
    many = paired_tests([other, replace(one, arch="cnn2"), replace(one, arch="cnn3"), one], "resnet50")
    assert many[0].accuracy.p == alone.accuracy.p
    assert many[0].corrected["accuracy"] >= alone.corrected["accuracy"] >= alone.accuracy.p


def test_the_headline_names_the_champion_and_every_paired_test():
    found = comparison(3)
    assert "Of 3 architectures, cnn3 was selected on validation: accuracy " in found.headline
    assert all(paired_test.sentence in found.headline for paired_test in found.paired_tests)
    assert "cnn3 was selected by a person" in replace(found, chosen=CHOSEN["person"]).headline
    assert "There is cnn1 alone" in comparison(1).headline


def test_errors_are_counted_by_class_and_by_kind():
    found = comparison(2)
    table = errors_by_group(found.models).set_index("group")
    assert list(table.index) == ["NORMAL", "PNEUMONIA, bacterial", "PNEUMONIA, viral"]
    assert table["images"].sum() == 200
    for one in found.models:
        wrong = decide(one.predictions.probabilities()) != one.predictions.labels
        assert table[one.arch].sum() == wrong.sum()
        viral = [bool(miss) for miss, name in zip(wrong, one.predictions.images, strict=True) if "_virus_" in name]
        assert table.loc["PNEUMONIA, viral", one.arch] == sum(viral)


def test_rows_are_plain_and_complete():
    found = comparison(3)
    rows = score_rows(found)
    assert {row["arch"] for row in rows} == {"cnn1", "cnn2", "cnn3"}
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"]
    (accuracy,) = (row for row in rows if (row["arch"], row["score"]) == ("cnn1", "accuracy"))
    assert (accuracy["seeds"], accuracy["seeds_mean"]) == (3, pytest.approx(0.8))
    assert accuracy["seeds_sd"] == pytest.approx(0.01)
    for row, one in zip(cost_rows(found), found.models, strict=True):
        points = 100 * (one.assessment.scores["accuracy"].value - 0.5)  # half of the images are PNEUMONIA
        assert row["seconds_per_point"] == pytest.approx(790.0 / points)


def test_selection_bias_is_the_fall_from_validation_to_test():
    one = compared_model("cnn1", 0)
    chosen, mean = selection_bias(one)
    auroc = one.search.trials[0].test["auroc"]
    assert chosen == pytest.approx(0.98 - auroc)
    assert mean == pytest.approx(np.mean([0.99, 0.98, 0.95]) - auroc)
    assert selection_bias(replace(one, search=None)) is None


def test_more_than_two_classes_are_compared_too():
    found = comparison(2, classes=("a", "b", "c"))
    assert len(found.paired_tests) == 1
    assert {row["score"] for row in score_rows(found)} & {"specificity"} == set()


def test_predictions_of_two_classes_are_called_at_a_half():
    found = Predictions(
        ["a", "b"], ["a", "b"], np.array([0, 1]), np.array([[1.0, 1.0], [1.0, 0.9]], dtype=np.float32), CLASSES
    )
    assert decide(found.probabilities()).tolist() == [1, 0]
    one = replace(comparison(1).models[0], predictions=found)
    assert errors_by_group([one]).set_index("group")["cnn1"].to_dict() == {"NORMAL": 1, "PNEUMONIA": 1}
    assert charts.confusion(one).data[0].customdata == ([0, 1], [1, 0])
    assert [(trace.x, trace.y) for trace in charts.roc([one]).data if trace.mode == "markers"] == [((1.0,), (0.0,))]


def test_a_note_ends_with_a_paragraph_and_names_the_rest():
    text = "\n\n".join(["word " * 100] * 30)
    short = note(text, "x.md")
    assert len(short) <= NOTE_LENGTH
    assert short.endswith("The rest is in `x.md`.")
    assert note("all of it", "x.md") == "all of it"
