"""A study whose test images are also training images, and whose network calls everything one class: said everywhere."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from tests.conftest import blob
from tests.helpers.studies import scores_of, sweep

pytestmark = pytest.mark.slow
MODEL = "leaky-films"
SHARED = "10 of 32 test images are identical to images of train"
ARGUMENTS = ("--arch", "cnn3", "--image-size", 24, "--epochs", 1, "--trials", 1, "--workers", 1, "--pruner", "none",
             "--fix", "batch_size=16", "--fix", "learning_rate=1e-6", "--fix", "activation=sigmoid")  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of two classes that nobody can tell apart; ten of the test films are training films under other names."""
    root = tmp_path_factory.mktemp("films") / "leaky films"
    random = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 16)):
        for label in ("NORMAL", "PNEUMONIA"):
            (root / split / label).mkdir(parents=True)
            for row in range(count):
                blob(random, 0).save(root / split / label / f"{label}-{split}-{row:02d}.png")
    for row in range(10):
        shutil.copy(
            root / "test" / "NORMAL" / f"NORMAL-test-{row:02d}.png", root / "train" / "NORMAL" / f"new-{row}.png"
        )
    return root


@pytest.fixture(scope="module")
def store(films: Path, tmp_path_factory: pytest.TempPathFactory):
    """A working directory: refused first, then allowed; what the second command said."""
    folder = tmp_path_factory.mktemp("store")
    refused = sweep(folder, *ARGUMENTS, "--data", films)
    assert refused.returncode == 2
    assert SHARED in refused.stderr
    assert "train/NORMAL/new-0.png = test/NORMAL/NORMAL-test-00.png" in refused.stderr
    assert not (folder / "optuna.db").exists()
    done = sweep(folder, *ARGUMENTS, "--data", films, "--allow-leakage", "--json", blank_figures=True)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


@pytest.fixture
def run(store, typed):
    return partial(typed, store[0])


@pytest.fixture
def client(store) -> MlflowClient:
    return MlflowClient(f"sqlite:///{store[0]}/mlflow.db")


def test_a_dry_run_says_it(films: Path, typed, tmp_path: Path):
    code, out, err = typed(tmp_path, *ARGUMENTS, "--data", films, "--allow-leakage", "--dry-run", "--json")

    assert code == 0, err
    assert json.loads(out)["leakage"] == [f"{SHARED}: test scores are optimistic"]
    assert f"warning: {SHARED}" in err


def test_what_was_allowed_is_written_on_everything(store, client: MlflowClient):
    _, answer, err = store
    sentence = f"{SHARED}: test scores are optimistic"
    assert f"warning: {sentence}" in err
    assert answer["studies"][0]["warnings"][0] == sentence
    version = client.get_model_version(MODEL, "1")
    experiment = client.get_experiment_by_name(MODEL).experiment_id
    for run in client.search_runs([experiment]):
        assert run.data.tags["sweep.leakage"] == f"{sentence} (used by --allow-leakage)"
        assert run.data.params["allow_leakage"] == "True"
    assert version.tags["sweep.leakage"] == f"{sentence} (used by --allow-leakage)"
    card = (store[0] / client.get_model_version_download_uri(MODEL, "1") / "model_card.md").read_text()
    assert f"**Warning:** {sentence}." in card
    assert f"**Warning:** {sentence}." in version.description


def test_it_goes_on_where_it_is_typed_again(store, films: Path, run):
    code, _, err = run(*ARGUMENTS, "--data", films)
    assert code == 2
    assert SHARED in err


def test_a_network_of_one_class_is_no_champion(store, client: MlflowClient, run):
    _, answer, err = store
    missed = answer["studies"][0]["warnings"][1]
    assert missed.startswith("it recognises 0 of ")
    assert client.get_model_version(MODEL, "1").tags["sweep.missed_classes"] == missed
    assert f"warning: {missed}" in err
    assert answer["studies"][0]["aliases"]["cnn3"] == f"version 1 takes it: nobody held it, but {missed}"
    assert answer["studies"][0]["aliases"]["champion"].startswith(
        "nobody holds it: version 1 is not fit, it recognises"
    )
    assert set(client.get_registered_model(MODEL).aliases) == {"cnn3"}
    assert f"**Warning:** {missed}." in client.get_model_version(MODEL, "1").description

    code, out, _ = run("promote", f"{MODEL}/1", "--as", "champion")

    assert code == 1
    assert "sweep promote leaky-films/1 --as champion --force" in out
    assert set(client.get_registered_model(MODEL).aliases) == {"cnn3"}


def test_its_own_test_images_are_scored_and_named(run, films: Path, client: MlflowClient):
    code, out, err = run("evaluate", f"{MODEL}@cnn3", "--json")

    assert code == 0, err
    answer = json.loads(out)
    assert (answer["data"], answer["split"], answer["images"]) == (str(films), "test", 32)
    assert answer["counts"] == {"NORMAL": 16, "PNEUMONIA": 16}
    assert (
        "the test set is used once more: selecting a model by these scores is selecting on test data" in answer["notes"]
    )
    assert any(SHARED in warning for warning in answer["warnings"])
    assert "10 of these 32 images are identical to images of its training data" in " ".join(answer["warnings"])
    scores = {row["score"]: row["value"] for row in answer["scores"]}
    version = client.get_model_version(MODEL, "1")
    assert scores["auroc"] == pytest.approx(scores_of(client, version)["test/auroc"], abs=2e-6)
    tags = client.get_run(answer["run_id"]).data.tags
    assert {"sweep.leakage", "sweep.missed_classes"} <= tags.keys()


def test_training_images_as_a_test_set_are_noticed(run, films: Path):
    code, out, err = run("evaluate", f"{MODEL}@cnn3", "--data", films / "train", "--json")

    assert code == 0, err
    answer = json.loads(out)
    assert "130 of these 130 images are identical to images of its training data" in " ".join(answer["warnings"])
    assert "these are not the images that it was tested on: they are others" in " ".join(answer["notes"])


def test_data_that_are_gone_or_changed_are_said(run, films: Path):
    moved = films.with_name("moved")
    films.rename(moved)
    try:
        code, _, err = run("evaluate", f"{MODEL}@cnn3")
        assert code == 2
        assert f"the model's images were at {films}, which is not here; say where with --data" in err
        code, out, err = run("evaluate", f"{MODEL}@cnn3", "--data", moved, "--json")
        assert code == 0, err
        assert "the test set is used once more" in " ".join(json.loads(out)["notes"])
        assert "whether it learned from any of them is not known" in " ".join(json.loads(out)["notes"])
    finally:
        moved.rename(films)
    extra = films / "test" / "NORMAL" / "extra.png"
    shutil.copy(films / "test" / "PNEUMONIA" / "PNEUMONIA-test-00.png", extra)
    try:
        code, out, err = run("evaluate", f"{MODEL}@cnn3", "--json")
    finally:
        extra.unlink()
    assert code == 0, err
    assert f"not the images that it was tested on: {films} has changed (digest " in " ".join(json.loads(out)["notes"])


def test_a_replay_goes_on_and_says_it(run, films: Path, client: MlflowClient):
    code, out, err = run("replay", client.get_model_version(MODEL, "1").run_id)

    assert code == 0, out + err
    assert f"epochs on {films}, data digest " in out
    assert f"warning: {SHARED}" in out


def test_the_report_and_predict_say_it(run, store, films: Path):
    code, out, err = run("compare", "--against", "cnn3", "--json")
    assert code == 0, err
    notes = " ".join(json.loads(out)["notes"])
    assert f"cnn3: in its study {SHARED}" in notes
    assert "cnn3: it recognises 0 of " in notes
    assert f"test images: leaky-films from {films}, data digest " in err
    page = (store[0] / "reports" / "leaky-films-comparison.html").read_text()
    assert SHARED in page

    code, out, _ = run("predict", f"{MODEL}@cnn3", films / "test" / "NORMAL" / "NORMAL-test-00.png")

    assert code == 0
    assert f"warning: in its study {SHARED}" in out
    assert "learned from leaky-films, data digest " in out
