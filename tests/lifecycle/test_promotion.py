"""The gate: an alias moves where validation says so beyond chance, or a person does, and all of it is written down."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from sweep.lifecycle.promotion import LOG, promote, settle
from sweep.metrics.predictions import Predictions, read_predictions
from sweep.stores.registry import Version, alias_holder, find_version, set_alias
from sweep.stores.tracking import Tracking

CLASSES = ("NORMAL", "PNEUMONIA")


def predictions(skill: float, *, seed: int = 0, count: int = 240, first: int = 0) -> Predictions:
    """Of validation images, numbered from `first`; two films a patient. Whoever has more skill tells them apart better."""
    random = np.random.default_rng(100)
    labels = (np.arange(first, first + count) // 2) % 3 > 0
    noise = random.normal(size=count) + 0.3 * np.random.default_rng(seed).normal(size=count)
    score = skill * (2 * labels - 1) + noise
    logits = np.stack([-score, score], axis=1).astype(np.float32)
    images = [f"train/{'PNEUMONIA' if label else 'NORMAL'}/{row}.png" for row, label in enumerate(labels, first)]
    patients = [f"patient {row // 2}" for row in range(first, first + count)]
    return Predictions(images, patients, labels.astype(np.int64), logits, CLASSES)


@pytest.fixture
def registry(tracking: Tracking, request: pytest.FixtureRequest):
    """Makes versions of a model of its own for each test."""
    name = f"model-{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    tracking.client.create_registered_model(name)

    def new(
        found: Predictions | None,
        stressed: Predictions | None = None,
        *,
        data: str = "a",
        split: str = "c",
        metric: str = "val/auroc",
    ) -> Version:
        run = tracking.start("cnn1-000", {})
        for file, what in (("validation.csv", found), ("validation-stressed.csv", stressed)):
            if what is not None:
                tracking.log_files(run.run_id, {f"predictions/{file}": what.to_csv()})
        tags = {"sweep.metric": metric, "sweep.data_digest": data, "sweep.split_digest": split}
        tags["sweep.model_sha256"] = "0"
        made = tracking.client.create_model_version(name, "somewhere", run_id=run.run_id, tags=tags)
        return find_version(tracking.client, f"{name}/{made.version}")

    return new


def log_of(tracking: Tracking, version: Version, folder: Path) -> list[dict]:
    path = tracking.fetch(version.run_id, LOG, folder)
    return [] if path is None else [json.loads(line) for line in path.read_text().splitlines()]


def test_predictions_come_back_from_csv_as_they_were(tmp_path: Path):
    found = predictions(1.0)
    (tmp_path / "validation.csv").write_text(found.to_csv(1.7))

    again = read_predictions(tmp_path / "validation.csv")

    assert (again.images, again.patients, again.classes) == (found.images, found.patients, CLASSES)
    np.testing.assert_array_equal(again.labels, found.labels)
    np.testing.assert_array_equal(again.logits, found.logits)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other.csv holds no predictions"):
        read_predictions(tmp_path / "other.csv")


def test_an_empty_seat_is_taken(tracking: Tracking, registry, tmp_path: Path):
    version = registry(predictions(1.0))

    decision = promote(tracking, version, "champion")

    assert decision.moves
    assert decision.reason == "version 1 takes it: nobody held it"
    held = alias_holder(tracking.client, version.name, "champion")
    assert held is not None
    assert held.version == "1"
    assert held.tags["sweep.promotion.champion"] == decision.reason
    (entry,) = log_of(tracking, version, tmp_path)
    assert (entry["alias"], entry["moves"], entry["by"], entry["holder"]) == ("champion", True, "gate", None)
    assert entry["at"].endswith("+00:00")
    assert promote(tracking, version, "champion").reason == "version 1 holds it"
    assert len(log_of(tracking, version, tmp_path)) == 1


ROC_POINT = "val/specificity_at_95_sensitivity"


@pytest.mark.parametrize("metric", ["val/auroc", "val/loss", "val/accuracy", "val/mcc", ROC_POINT])
@pytest.mark.parametrize(("ours", "theirs", "moves"), [(1.5, 0.5, True), (0.5, 1.5, False), (0.52, 0.5, False)])
def test_it_moves_where_validation_says_so_beyond_chance(tracking, registry, metric, ours, theirs, moves):
    holder, candidate = registry(predictions(theirs), metric=metric), registry(predictions(ours, seed=7), metric=metric)
    promote(tracking, holder, "cnn1")

    decision = promote(tracking, candidate, "cnn1")

    assert decision.moves is moves, decision.reason
    assert decision.low < decision.difference < decision.high
    assert (decision.low > 0) is moves
    assert (decision.images, decision.metric) == (240, metric)
    assert "on the same 240 validation images" in decision.reason
    held = alias_holder(tracking.client, candidate.name, "cnn1")
    assert held.version == ("2" if moves else "1")
    tags = find_version(tracking.client, f"{candidate.name}/2").tags
    assert float(tags["sweep.promotion.cnn1.difference"]) == pytest.approx(decision.difference, rel=1e-4)
    assert tags["sweep.promotion.cnn1.images"] == "240"


def test_the_same_network_twice_does_not_move_it(tracking: Tracking, registry):
    holder, candidate = registry(predictions(1.0)), registry(predictions(1.0))
    promote(tracking, holder, "champion")

    decision = promote(tracking, candidate, "champion")

    assert not decision.moves
    assert (decision.difference, decision.low, decision.high) == (0, 0, 0)


WEAK, STRONG = predictions(0.3), predictions(2.0, seed=7)


@pytest.mark.parametrize("metric", ["auroc", "loss"])
@pytest.mark.parametrize(
    ("theirs", "split", "by"),
    [
        ((STRONG, WEAK), "c", "val/stressed_{}"),
        ((STRONG, None), "c", "val/{}"),  # registered by a study that chose otherwise
        ((STRONG, WEAK), "d", "val/{}"),  # each image was stressed in another way
    ],
    ids=["both", "one", "other split"],
)
def test_who_was_chosen_under_stress_is_compared_under_stress_where_that_can_be(
    tracking: Tracking, registry, metric, theirs, split, by
):
    holder = registry(*theirs, split=split)
    candidate = registry(WEAK, STRONG, metric=f"val/stressed_{metric}")
    promote(tracking, holder, "champion")

    decision = promote(tracking, candidate, "champion")

    assert decision.metric == by.format(metric)
    assert decision.moves is ("stressed" in by)
    assert by.format(metric) in decision.reason


def test_a_plain_choice_is_compared_on_plain_images(tracking: Tracking, registry):
    holder, candidate = registry(WEAK, STRONG, metric="val/stressed_auroc"), registry(STRONG)
    promote(tracking, holder, "champion")

    decision = promote(tracking, candidate, "champion")

    assert decision.moves
    assert decision.metric == "val/auroc"


def test_only_images_that_both_validated_on_count(tracking: Tracking, registry):
    holder, candidate = registry(predictions(0.3)), registry(predictions(2.0, first=120))
    promote(tracking, holder, "champion")

    decision = promote(tracking, candidate, "champion")

    assert decision.images == 120
    assert decision.moves


@pytest.mark.parametrize(
    ("theirs", "data", "said"),
    [
        (predictions(0.1), "b", "other data"),
        (None, "a", "predictions of one are gone"),
        (predictions(0.1, first=10_000), "a", "0 validation images in common are too few"),
        (predictions(0.1, first=150), "a", "90 validation images in common are too few"),
    ],
    ids=["other data", "no predictions", "nothing in common", "hardly anything"],
)
def test_what_does_not_compare_does_not_move(tracking: Tracking, registry, theirs, data, said):
    holder, candidate = registry(theirs, data=data), registry(predictions(3.0))
    promote(tracking, holder, "champion")

    decision = promote(tracking, candidate, "champion")

    assert not decision.moves
    assert said in decision.reason
    assert f"sweep promote {candidate.name}/2 --as champion --force" in decision.reason
    assert alias_holder(tracking.client, candidate.name, "champion").version == "1"


def test_a_person_decides_otherwise_and_it_is_on_record(tracking: Tracking, registry, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("LOGNAME", "curie")
    holder, candidate = registry(predictions(2.0)), registry(predictions(0.5))
    promote(tracking, holder, "champion")
    refused = promote(tracking, candidate, "champion")

    decision = promote(tracking, candidate, "champion", force=True, reason="smaller, and good enough")

    assert not refused.moves
    assert decision.moves
    assert decision.reason.startswith("version 2 takes it by decision of a person: smaller, and good enough (version 1")
    assert alias_holder(tracking.client, candidate.name, "champion").version == "2"
    first, second = log_of(tracking, candidate, tmp_path)
    assert (first["by"], first["moves"], second["by"], second["moves"]) == ("gate", False, "curie", True)
    assert second["low"] < 0
    assert find_version(tracking.client, f"{candidate.name}/2").tags["sweep.promotion.champion"] == decision.reason


def test_what_a_person_says_is_on_record_where_the_gate_agrees_too(tracking: Tracking, registry, monkeypatch):
    monkeypatch.setenv("LOGNAME", "curie")
    version = registry(predictions(1.0))

    decision = promote(tracking, version, "champion", force=True, reason="ticket 4711")

    assert decision.by == "curie"
    assert (
        decision.reason
        == "version 1 takes it by decision of a person: ticket 4711 (version 1 takes it: nobody held it)"
    )


def test_no_study_typed_again_undoes_what_a_person_decided(tracking: Tracking, registry, tmp_path: Path):
    first, second = registry(predictions(0.5)), registry(predictions(2.0))
    assert settle(tracking, first, "champion") == "version 1 takes it: nobody held it"
    assert settle(tracking, second, "champion").startswith("version 2 takes it: val/auroc better")
    first, second = (find_version(tracking.client, f"{first.name}/{number}") for number in (1, 2))
    promote(tracking, first, "champion", force=True, reason="the clinic knows it")

    assert settle(tracking, second, "champion") == "version 1 holds it"
    assert alias_holder(tracking.client, first.name, "champion").version == "1"
    promote(tracking, second, "champion")  # a person asks the gate once more, and that is on record too
    assert alias_holder(tracking.client, first.name, "champion").version == "2"
    assert [entry["moves"] for entry in log_of(tracking, second, tmp_path)] == [True, True]


def test_figures_of_an_earlier_decision_do_not_stay(tracking: Tracking, registry):
    holder, candidate = registry(predictions(2.0)), registry(predictions(0.5))
    promote(tracking, holder, "champion")
    promote(tracking, candidate, "champion")
    tracking.client.delete_registered_model_alias(candidate.name, "champion")

    promote(tracking, candidate, "champion")

    tags = find_version(tracking.client, f"{candidate.name}/2").tags
    assert tags["sweep.promotion.champion"] == "version 2 takes it: nobody held it"
    assert not {f"sweep.promotion.champion.{key}" for key in ("difference", "low", "high")} & tags.keys()


def test_a_decision_is_written_before_the_alias_moves_and_once(tracking: Tracking, registry, tmp_path, monkeypatch):
    """Killed in between, the next attempt finds the log as it would have written it."""
    version = registry(predictions(1.0))
    with monkeypatch.context() as patch:
        patch.setattr("sweep.lifecycle.promotion.set_alias", lambda *_: (_ for _ in ()).throw(SystemExit("killed")))
        with pytest.raises(SystemExit, match="killed"):
            promote(tracking, version, "champion")
    assert alias_holder(tracking.client, version.name, "champion") is None
    version = find_version(tracking.client, f"{version.name}/1")

    promote(tracking, version, "champion")

    assert alias_holder(tracking.client, version.name, "champion").version == "1"
    assert len(log_of(tracking, version, tmp_path)) == 1


def test_a_holder_whose_run_was_thrown_away_is_compared_all_the_same(tracking: Tracking, registry):
    holder, candidate = registry(predictions(0.1)), registry(predictions(3.0))
    set_alias(tracking.client, holder.name, "champion", holder.version)
    tracking.client.delete_run(holder.run_id)  # MLflow's bin keeps its files

    assert promote(tracking, candidate, "champion").images == 240


# A version that hardly ever answers some class -------------------------------------------------------------------------

MISSED = "it recognises 0 of 80 validation images of NORMAL (specificity 0.0 %)"


def tagged(tracking: Tracking, version: Version, missed: str = "") -> Version:
    for key, value in {"sweep.arch": "cnn1", **({"sweep.missed_classes": missed} if missed else {})}.items():
        tracking.client.set_model_version_tag(version.name, version.version, key, value)
    return find_version(tracking.client, f"{version.name}/{version.version}")


def test_it_takes_its_own_architectures_free_alias_and_no_other(tracking: Tracking, registry):
    version = tagged(tracking, registry(predictions(2.0)), MISSED)

    own, champion = promote(tracking, version, "cnn1"), promote(tracking, version, "champion")

    assert (own.moves, own.reason) == (True, f"version 1 takes it: nobody held it, but {MISSED}")
    assert not champion.moves
    assert champion.reason.startswith(f"nobody holds it: version 1 is not fit, {MISSED}; a person may decide otherwise")
    assert alias_holder(tracking.client, version.name, "champion") is None
    forced = promote(tracking, version, "champion", force=True, reason="for a demonstration")
    assert forced.moves
    assert MISSED in forced.reason
    assert alias_holder(tracking.client, version.name, "champion").version == "1"


@pytest.mark.parametrize("alias", ["cnn1", "champion"])
def test_it_takes_no_alias_from_another_and_loses_it_to_any(tracking: Tracking, registry, alias):
    good, better = tagged(tracking, registry(predictions(0.5))), tagged(tracking, registry(predictions(2.0)), MISSED)
    promote(tracking, good, alias)

    decision = promote(tracking, better, alias)

    assert not decision.moves
    assert decision.reason.startswith(f"version 1 keeps it: of version 2, {MISSED}; a person may decide otherwise")
    set_alias(tracking.client, better.name, alias, "2")
    decision = promote(tracking, good, alias)
    assert (decision.moves, decision.reason) == (True, f"version 1 takes it: of version 2, {MISSED}")
    promote(tracking, better, alias, force=True)  # but not from a version that a person has chosen
    assert not promote(tracking, good, alias).moves
