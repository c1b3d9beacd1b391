"""What the report published, held against the report's own arithmetic; the report itself where it is at hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sweep.comparisons.replication.published import CONCLUSIONS, FINAL, ROWS, TEST_IMAGES

REPORT = Path(__file__).parents[3] / "shared" / "report.txt"
ROW = {(row.arch, row.number): row for row in ROWS}


def confusion_of(arch: str, negative: int = 234, positive: int = 390) -> list[tuple[int, int]]:
    """The confusion matrices that would give an architecture's figures in section 4, to all printed digits.

    Args:
        arch: A key of FINAL.
        negative: Test images of NORMAL.
        positive: Of PNEUMONIA.

    Returns:
        True positives and true negatives of each; for the three small networks exactly one.
    """
    printed, matrices = FINAL[arch], []
    total = negative + positive
    for right in range(total + 1):
        if abs(right / total - printed["accuracy"]) > 0.00006:
            continue
        for true_positive in range(max(0, right - negative), min(positive, right) + 1):
            true_negative = right - true_positive
            called, passed = (true_positive + negative - true_negative), (true_negative + positive - true_positive)
            if not called or not passed:
                continue
            precision = (true_positive / called + true_negative / passed) / 2
            f1 = true_positive / (called + positive) + true_negative / (passed + negative)
            if abs(precision - printed["precision_macro"]) < 0.00006 and abs(f1 - printed["f1_macro"]) < 0.00006:
                matrices.append((true_positive, true_negative))
    return matrices


def test_there_are_seventeen_rows():
    assert {arch: sum(row.arch == arch for row in ROWS) for arch in FINAL} == {
        "cnn1": 7,
        "cnn2": 5,
        "cnn3": 5,
        "resnet50": 0,
    }
    assert len({row.name for row in ROWS}) == 17


def test_the_rows_are_those_of_the_report():
    if not REPORT.exists():
        pytest.skip(f"the report is not at {REPORT}")
    text = REPORT.read_text()
    printed = []
    for section, arch in (("3.1.2 Exp", "cnn1"), ("3.2.3 Exp", "cnn2"), ("3.3.2 Exp", "cnn3")):
        table = text[text.rindex(section) :].split("Chosen")[0]
        for line in re.findall(r"^\d\t.*$", table, re.M):
            number, activation, *middle, validation, test = line.split("\t")
            printed.append((arch, int(number), activation.lower(), middle, float(validation), float(test)))
    assert len(printed) == 17
    for arch, number, activation, middle, validation, test in printed:
        row = ROW[arch, number]
        words = {word.lower() for word in middle}
        assert (row.activation, row.validation_accuracy, row.test_accuracy) == (activation, validation, test)
        assert row.optimizer in words
        assert row.early_stopping == bool(words & {"true", "yes"})
        numbers = {float(word) for word in middle if re.fullmatch(r"[\d.]+", word)}
        ours = {row.learning_rate, row.batch_size, row.dropout}
        assert numbers <= ours, row.name


def test_its_final_table_is_of_macro_averages():
    """Exactly one confusion matrix of 624 images gives the three figures of each small network, and none resnet50's."""
    assert confusion_of("cnn1") == [(368, 165)]
    assert confusion_of("cnn2") == [(361, 188)]
    assert confusion_of("cnn3") == [(351, 196)]
    assert confusion_of("resnet50") == []


def test_what_is_called_a_contradiction_is_one():
    def possible(accuracy, images):
        return any(abs(right / images - accuracy) < 0.00011 for right in range(images + 1))

    wrong = [row.name for row in ROWS if not possible(row.test_accuracy, TEST_IMAGES)]
    assert wrong == ["cnn1 row 1", "cnn1 row 2"]
    assert not possible(FINAL["resnet50"]["accuracy"], TEST_IMAGES)
    assert possible(FINAL["resnet50"]["accuracy"], 608)
    sixteenths = [row.arch for row in ROWS if (16 * row.validation_accuracy).is_integer()]
    assert (sixteenths.count("cnn1"), sixteenths.count("cnn3"), len(sixteenths)) == (5, 5, 10)


@pytest.mark.parametrize("conclusion", CONCLUSIONS, ids=lambda conclusion: conclusion.sentence)
def test_the_rows_of_a_conclusion_differ_in_one_thing(conclusion):
    for arch, better, worse in conclusion.pairs:
        one, other = ROW[arch, better], ROW[arch, worse]
        everything = {**one.params, "early_stopping": one.early_stopping}
        differing = [
            key
            for key, value in everything.items()
            if value != {**other.params, "early_stopping": other.early_stopping}[key]
        ]
        assert len(differing) == 1, (arch, better, worse, differing)
