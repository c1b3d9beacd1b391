"""The reporting checklist: what is filled from the stores, and what is not reported."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest

from sweep.comparisons.architectures import report
from sweep.comparisons.architectures.candidates import BestVersion
from sweep.comparisons.architectures.checklist import page
from sweep.comparisons.architectures.checklist.answers import answers
from sweep.comparisons.architectures.checklist.facts import NOT_APPLICABLE, NOT_REPORTED, REPORTED, Facts
from sweep.comparisons.architectures.checklist.items import CLAIM, TRIPOD
from sweep.comparisons.architectures.stored import StoredModel, evaluated_elsewhere, sections_of
from tests.comparisons.test_report import Elements
from tests.helpers.compared import comparison

CARD = """# chest-xray: cnn1

## Data

| images\u00a0\u00a0 | NORMAL\u00a0\u00a0 | PNEUMONIA\u00a0\u00a0 | patients\u00a0\u00a0 |
| --- | --- | --- | --- |
| train\u00a0\u00a0 | 1,140\u00a0\u00a0 | 3,294\u00a0\u00a0 | 2,411\u00a0\u00a0 |
| test\u00a0\u00a0 | 234\u00a0\u00a0 | 390\u00a0\u00a0 | 427\u00a0\u00a0 |

Validation: whole patients taken from the training images, none of whom is left among them.

## Limits

- All images are of children from one hospital.
- It knows its classes and nothing else, and answers with one of them to any picture.
"""
FULL = StoredModel(
    tags={
        "sweep.arch": "cnn1",
        "sweep.data": "chest-xray",
        "sweep.data_digest": "6ed0f11b55fca413",
        "sweep.split_digest": "d068",
        "sweep.version": "0.1.0",
        "sweep.version.torch": "2.15.0",
        "mlflow.source.git.commit": "adba4b4",
        "sweep.threshold_reason": "validation supports it",
        "sweep.leakage": "2 images of test are in train, too",
    },
    version_tags={"sweep.metric": "val/auroc", "sweep.promotion.champion": "version 1 takes it"},
    study="cnn1",
    study_params={"metric": "val/auroc", "pruner": "median"},
    about={"image_size": 64, "mean": 0.0, "std": 1.0, "temperature": 1.38, "threshold": 0.84},
    card=sections_of(CARD),
    validation_patients=frozenset({"person0", "somebody else"}),
    elsewhere=(("evaluate-cnn1-v1", "other-hospital"),),
    begun=datetime(2026, 11, 26, tzinfo=UTC),
    ended=datetime(2026, 11, 26, tzinfo=UTC),
)
EMPTY = StoredModel({}, {}, "", {}, {}, {}, None, (), None, None)
SECTIONS = {"data": "The data", "provenance": "Provenance", "known": "What is to be known"}


def rows(stored: StoredModel, count: int = 2, **options) -> dict[str, page.Row]:
    """The rows of both checklists, `claim 1`, ..."""
    compared = comparison(count, **options)
    given = answers(Facts(compared, {model.arch: stored for model in compared.models}, SECTIONS))
    lists = {checklist.key: page.rows_of(checklist, given, SECTIONS) for checklist in (CLAIM, TRIPOD)}
    return {f"{key} {row.item.number}": row for key, some in lists.items() for row in some}


def test_items_are_numbered_as_published():
    assert [item.number for item in CLAIM.items] == [str(number) for number in range(1, 45)]
    numbers = [item.number for item in TRIPOD.items]
    assert len(numbers) == len(set(numbers)) == 52
    assert list(dict.fromkeys(int(re.sub(r"\D", "", number)) for number in numbers)) == list(range(1, 28))


def test_every_topic_of_an_item_has_an_answer_somewhere():
    models = [replace(model, params={**model.params, "train_images": "70"}) for model in comparison(2).models]
    compared = replace(comparison(2), models=tuple(models))
    given = answers(Facts(compared, dict.fromkeys(("cnn1", "cnn2"), FULL), SECTIONS))
    assert given["subset"].text == "All training images (no param `limit`)."
    assert {item.topic for item in (*CLAIM.items, *TRIPOD.items)} - {""} == given.keys()


@pytest.mark.parametrize(
    ("number", "text", "place"),
    [
        ("claim 7", "Data set chest-xray, digest 6ed0f11b55fca413. All images are of children", "`sweep.data_digest` of runs cnn1-001, cnn2-001"),
        ("claim 9", "values from 0 to 1.\n64 x 64 pixels.", "`artifacts/model.json`, `artifacts/decode.py` of versions 1, 2"),
        ("claim 19", "Train: 70 images of 2,411 patients (30 NORMAL, 40 PNEUMONIA)", "tag `sweep.split_digest`"),
        ("claim 20", "1 of the 120 patient names of test is among the 2 of validation", "`predictions/validation.csv`"),
        ("claim 20", "2 images of test are in train, too", "tag `sweep.leakage` of runs cnn1-001, cnn2-001"),
        ("claim 23", "sweep 0.1.0, torch 2.15.0.", "tag `sweep.version.torch`"),
        ("claim 26", "Trials by validation AUROC alone (5 trials, 3 complete). Of the architectures cnn2 was selected on validation.", "params `metric`, `pruner` of runs cnn1, cnn1"),
        ("claim 30", "Trained again with other seeds: 3.", ""),
        ("claim 33", "evaluate-cnn1-v1 on other-hospital", "runs evaluate-cnn1-v1"),
        ("tripod 6a", "All images are of children from one hospital.", "`model_card.md`"),
        ("tripod 15", "(1.38).\nThreshold: 0.84 (validation supports it).", "tag `sweep.threshold_reason`"),
        ("tripod 18f", "Commit adba4b4.", "`mlflow.source.git.commit`"),
        ("tripod 21", "test: 70 images of 427 patients (30 NORMAL, 40 PNEUMONIA)", ""),
        ("tripod 27a", "to any picture", "`model_card.md` of versions 1, 2"),
    ],
)  # fmt: skip
def test_what_the_stores_hold_is_filled_in_with_its_place(number, text, place):
    row = rows(FULL)[number]
    assert row.status in (REPORTED, page.PARTLY)
    assert text in row.text
    assert place in " ".join(row.places)


def test_scores_are_those_at_the_model_s_own_threshold():
    compared = comparison(2)
    scores = compared.of("cnn2").assessment.scores
    row = rows(FULL)["claim 38"]
    assert row.status == REPORTED
    assert f"sensitivity {scores['recall'].value:.3f} (" in row.text
    assert f"specificity {scores['specificity'].value:.3f} (" in row.text
    assert rows(FULL, classes=("COVID", "NORMAL", "PNEUMONIA"))["claim 38"].status == NOT_REPORTED


@pytest.mark.parametrize("stored", [FULL, EMPTY], ids=["full", "empty"])
def test_what_no_store_can_know_is_not_reported(stored):
    filled = rows(stored)
    for number in ("claim 5", "claim 8", "claim 11", "claim 16", "claim 18", "claim 34", "claim 41", "claim 44"):
        assert (filled[number].status, filled[number].text) == (NOT_REPORTED, ""), number
    for number in ("tripod 3a", "tripod 5b", "tripod 8b", "tripod 12d", "tripod 14", "tripod 17", "tripod 18a"):
        assert (filled[number].status, filled[number].text) == (NOT_REPORTED, ""), number
    assert filled["claim 14"].status == NOT_REPORTED
    assert "how they were obtained is not stored" in filled["claim 14"].text
    assert filled["tripod 9c"].status == filled["tripod 24"].status == NOT_APPLICABLE


def test_what_an_old_store_lacks_is_not_reported_and_names_no_place():
    filled = rows(EMPTY, seeds=False, search=False)
    for number in ("claim 9", "claim 20", "claim 23", "claim 30", "claim 33", "tripod 6a", "tripod 15", "tripod 18f"):
        assert filled[number].status == NOT_REPORTED, number
    assert all("``" not in place and " of runs" not in place[:8] for row in filled.values() for place in row.places)
    assert all(place for row in filled.values() for place in row.places)


def test_an_answer_that_lacks_something_is_one_in_part():
    filled = rows(FULL)
    assert filled["claim 4"].status == page.PARTLY  # hypotheses are in no store
    assert filled["claim 6"].status == REPORTED
    assert filled["claim 6"].text == filled["claim 4"].text


def test_synthetic_images_need_no_reader():
    drawn = replace(FULL, tags={**FULL.tags, "sweep.data": "synthetic"})
    assert rows(drawn)["claim 14"].status == REPORTED
    assert "drawn by a program" in rows(drawn)["claim 14"].text


def test_the_page_is_well_formed_links_to_sections_that_exist_and_promises_nothing():
    compared = comparison(2)
    shown = report.to_html(compared, {})
    stored = dict.fromkeys(("cnn1", "cnn2"), replace(FULL, tags={**FULL.tags, "sweep.data": "<b>x</b>"}))
    made = datetime(2026, 11, 27, 4, 5, tzinfo=UTC)
    written = page.to_html(compared, stored, shown, "report.html", made)
    assert page.to_html(compared, stored, shown, "report.html", made) == written
    elements = Elements(written)
    assert elements.open == []
    assert elements.all("script", "b") == []
    links = {attrs["href"] for attrs in elements.all("a")}
    own = {link for link in links if link.startswith("#")}
    doi = {f"https://doi.org/{checklist.doi}" for checklist in (CLAIM, TRIPOD)}
    anchors = {link.partition("#")[2] for link in links - own - doi}
    assert doi < links
    assert anchors - {""} <= page.sections_of_report(shown).keys()
    assert {"data", "errors", "seeds"} <= anchors
    assert "diagrams" not in anchors  # this report has none
    assert "Made 2026-11-27 04:05 UTC." in elements.text
    assert "an aid, not a certificate" in elements.text
    assert "Not in the stores: hypotheses." in elements.text
    assert len(elements.all("tr")) == 2 + 44 + 52 + sum(
        len(page._parts(page.rows_of(x, {}, {}))) for x in (CLAIM, TRIPOD)
    )


def test_an_evaluation_on_the_model_s_own_test_images_is_none_on_others():
    digests = {"own-copy": "same", "hospital": "other"}
    runs = [
        SimpleNamespace(
            name=name,
            tags={"sweep.model": "chest-xray", "sweep.data": name, "sweep.data_digest": f"of {name}"},
            params={"test_digest": digest},
        )
        for name, digest in digests.items()
    ]
    best = SimpleNamespace(
        version=SimpleNamespace(name="chest-xray", version="1"),
        past=SimpleNamespace(tags={"sweep.data_digest": "whole"}),
        tracking=SimpleNamespace(search=lambda condition: runs),
    )
    about = {"provenance": {"test digest": "same"}}
    assert evaluated_elsewhere(cast(BestVersion, best), about) == (("hospital", "hospital"),)
    assert len(evaluated_elsewhere(cast(BestVersion, best), {})) == 2  # an earlier release recorded no such digest
