"""The model card: its sentences say what its tables show, whatever the temperature and the threshold do."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sweep.lifecycle.model_card import CardData, card_summary
from sweep.metrics.assessment import assess
from sweep.metrics.calibration import Temperature, choose_temperature, plain_log_loss
from sweep.metrics.predictions import Predictions
from sweep.metrics.scores import softmax
from tests.helpers.compared import predictions


def card_of(validation: Predictions, test: Predictions, temperature: Temperature, threshold: float = 0.5) -> CardData:
    return CardData(
        name="chest-xray",
        arch="cnn2",
        parameters=73_694,
        image_size=64,
        classes=("NORMAL", "PNEUMONIA"),
        study="chest-xray/cnn2",
        trial=3,
        run="cnn2-003",
        metric="val/auroc",
        searched={"learning_rate": 0.001},
        fixed={},
        history=[],
        epoch=1,
        counts={},
        patients={},
        split="whole patients",
        validation=assess(validation, temperature.value, threshold),
        test=assess(test, temperature.value, threshold),
        threshold="validation supports it against 0.5",
        opened=1,
        limits=("One hospital",),
        provenance={},
        temperature=temperature.reason,
    )


def calibration_of(card: str) -> tuple[dict[tuple[str, str], list[float]], str]:
    """The figures of the section's table by images and score, and its text."""
    (section,) = re.findall(r"## Calibration\n\n(.*?)\n\n## ", card, re.S)
    rows = re.findall(r"^\|[ \xa0]*(validation|test)[ \xa0]*\|[ \xa0]*(\w[\w ]*\w)[ \xa0]*\|(.+)\|$", section, re.M)
    return {(part, name): [float(cell) for cell in cells.split("|")] for part, name, cells in rows}, section


def test_a_temperature_that_is_used_changes_what_the_table_shows():
    validation, test = predictions(0), predictions(1)
    sure = Predictions(validation.images, validation.patients, validation.labels, validation.logits * 4, test.classes)
    temperature = choose_temperature(sure.labels, sure.logits)
    assert temperature.value != 1

    figures, text = calibration_of(card_summary(card_of(sure, test, temperature)))

    before, after = figures["validation", "log loss"]
    assert after < before
    assert f"log loss there falls from {before:.4f} to {after:.4f}." in text
    before, after = figures["test", "log loss"]  # these logits were not multiplied: the temperature harms them
    assert after > before
    assert f"On test the temperature raises log loss from {before:.4f} to {after:.4f} and " in text
    for part, (verb, score, *ends) in zip(("validation", "test"), changes_of(text), strict=True):
        assert score == "the calibration error"
        assert figures[part, "calibration error"] == [float(end) for end in ends]
        assert (float(ends[1]) < float(ends[0])) == (verb == "lowers")


def changes_of(text: str) -> list[tuple[str, ...]]:
    return re.findall(r"and (lowers|raises) (.+?) from (\S+) to (\S+)\.(?= )", text)


def test_a_temperature_that_is_not_used_is_said_and_shown_nowhere():
    labels = np.arange(200) % 2
    logits = np.where(labels[:, None] == [0, 1], 4.0, -4.0).astype(np.float32)
    names = [str(number) for number in range(200)]
    validation, test = Predictions(names, names, labels, logits, ("NORMAL", "PNEUMONIA")), predictions(1)
    temperature = choose_temperature(labels, logits)

    figures, text = calibration_of(card_summary(card_of(validation, test, temperature)))

    assert all(len(cells) == 1 for cells in figures.values())
    assert figures["validation", "log loss"] == [round(plain_log_loss(labels, logits, 1.0), 4)]
    assert figures["test", "log loss"] == [
        pytest.approx(-np.log(softmax(test.logits)[np.arange(200), test.labels]).mean(), abs=1e-4)
    ]
    assert text.startswith(f"The temperature is 1. One of {temperature.fitted:.3f} was fitted on validation and is not")
    assert "divided" not in text
    assert "as trained" not in text


def test_the_scores_are_those_at_its_own_threshold_and_then_those_at_a_half():
    temperature = Temperature(1.0, 1.0, 0.4, 0.4)
    facts = card_of(predictions(0), predictions(1), temperature, 0.839)

    card = card_summary(facts)

    own = facts.validation.at_threshold, facts.test.at_threshold
    assert own[0] is not None
    assert own[1] is not None
    assert cells_of(card, "score") == ["score", "validation at 0.839", "test at 0.839", "test at 0.5", "all PNEUMONIA"]
    assert cells_of(card, "accuracy") == [
        "accuracy",
        str(own[0]["accuracy"]),
        str(own[1]["accuracy"]),
        str(facts.test.scores["accuracy"]),
        "0.500",
    ]
    assert cells_of(card, "AUROC")[3] == ""  # no threshold changes it
    assert "test at 0.5" not in card_summary(card_of(predictions(0), predictions(1), temperature))


def cells_of(card: str, name: str) -> list[str]:
    line = next(line for line in card.replace("\xa0", " ").splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]
