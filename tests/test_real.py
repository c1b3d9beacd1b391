"""Whole studies on the real X-rays, as the README types them. Slow, and skipped where the images are not."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.pyfunc import load_model
from safetensors.torch import save_file
from torchvision.models import resnet50

from data.decode import decode
from sweep.metrics.predictions import read_predictions
from tests.helpers.browser import open_report
from tests.helpers.served import text
from tests.helpers.studies import client_of, cold_sweep, states, sweep, trials_of

pytestmark = pytest.mark.slow


SMALL = ("--epochs", 6, "--image-size", 64, "--limit", 1600)  # a third of the training images is enough for it


@pytest.fixture(scope="module")
def cnn1(xrays, tmp_path_factory):
    """A study of cnn1: its folder, and the object that --json printed."""
    folder = tmp_path_factory.mktemp("cnn1")
    done = cold_sweep(folder, "--arch", "cnn1", "--trials", 6, *SMALL, "--data", xrays, "--json", timeout=1500)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)["studies"][0]


def knows_pneumonia(outcome):
    # Validation chooses and workers race, so a run is one draw: 0.90 is what to expect, less the half-width of the
    # 95 % interval of an AUROC on 624 images.
    assert outcome["test"]["test/auroc"] >= 0.90 - 0.015
    assert outcome["model"] == "chest-xray"


def test_six_trials_find_a_network_that_knows_pneumonia(cnn1):
    folder, outcome = cnn1
    knows_pneumonia(outcome)
    assert sum(states(trials_of(folder, "chest-xray/cnn1")).values()) == 6


@pytest.fixture(scope="module")
def four(cnn1, xrays):
    """Studies of all four in the same place: its folder, and what each came to. resnet50 learns from 400 images."""
    folder, outcome = cnn1
    outcomes = {"cnn1": outcome}
    quick = ("--epochs", 1, "--image-size", 64, "--limit", 400, "--search", "batch_size=16,32", "--weights", "none")
    # A space of good configurations, so that two trials are enough: cnn1 has searched the whole one.
    fixed = ("activation=relu", "optimizer=adam", "dropout=0.2", "normalisation=image", "augmentation=both")
    good = (*SMALL, *(part for value in fixed for part in ("--fix", value)))
    good += ("--search", "learning_rate=5e-4..2e-3:log", "--search", "batch_size=64")
    for arch, trials, settings in (("cnn2", 2, good), ("cnn3", 2, good), ("resnet50", 1, quick)):
        arguments = ("--arch", arch, "--trials", trials, *settings, "--data", xrays, "--json")
        done = sweep(folder, *arguments, timeout=1500)
        assert done.returncode == 0, done.stderr
        (outcomes[arch],) = json.loads(done.stdout)["studies"]
    return folder, outcomes


@pytest.mark.parametrize("arch", ["cnn2", "cnn3"])
def test_two_of_a_good_space_do_for_the_others(arch, four):
    knows_pneumonia(four[1][arch])


def test_all_four_are_compared_within_a_minute_without_training(four, page):
    folder, outcomes = four
    started = time.monotonic()
    done = cold_sweep(folder, "compare", "--json", timeout=300)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    print(f"compare took {seconds:.0f} s\n{answer['headline']}")
    assert seconds < 60
    assert answer["missing"] == []
    assert answer["images"] == 624
    tests = [paired_test for paired_test in answer["paired_tests"] if paired_test["against"] == "resnet50"]
    assert sorted(paired_test["arch"] for paired_test in tests) == ["cnn1", "cnn2", "cnn3"]
    assert len(answer["paired_tests"]) == 5  # and the champion against its two other rivals
    for row in answer["scores"]:
        if row["score"] == "AUROC":
            assert row["value"] == pytest.approx(outcomes[row["arch"]]["test"]["test/auroc"])
    # An epoch on 400 images is no match for the others: the tests find what is there to be found.
    assert all(paired_test["auroc"]["p_corrected"] < 0.05 for paired_test in tests)
    assert any("random weights" in note for note in answer["notes"])
    report = Path(answer["report"])
    assert report.stat().st_size < 6_000_000
    assert "data:image/jpeg" not in report.read_text()
    seen = open_report(page, report)
    assert seen.charts >= 25
    assert (seen.errors, seen.requests) == ([], [])


def test_the_registered_model_has_the_logits_of_training_on_every_test_image(cnn1, xrays, monkeypatch):
    """From the files themselves, and over base64 as it is served: 1e-5 on all 624."""
    folder, outcome = cnn1
    monkeypatch.chdir(folder)  # MLflow itself takes locations from where it is
    client = client_of(folder)
    path = client.download_artifacts(outcome["run_id"], "predictions/test.csv", str(folder))
    known = read_predictions(Path(path))
    model = load_model(client.get_model_version_download_uri("chest-xray", outcome["version"]))
    classifier = model.unwrap_python_model()
    files = [xrays / name for name in known.images]

    logits = np.concatenate(
        [
            classifier.logits(np.stack([decode(file, 64) for file in files[start : start + 64]]))
            for start in range(0, len(files), 64)
        ]
    )
    answers = model.predict(pd.DataFrame({"image": [text(file.read_bytes()) for file in files]}))

    assert len(files) == 624
    np.testing.assert_allclose(logits, known.logits, rtol=0, atol=1e-5)
    expected = known.probabilities(outcome["temperature"])[:, 1]
    np.testing.assert_allclose(answers["probability"], expected, rtol=0, atol=1e-5)


def test_an_evaluation_repeats_the_scores_of_the_study(cnn1, xrays):
    folder, outcome = cnn1
    done = sweep(folder, "evaluate", "chest-xray@cnn1", "--data", xrays, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    for row in answer["scores"]:
        assert row["value"] == pytest.approx(outcome["test"][f"test/{row['score']}"], abs=2e-4), row["score"]
    assert answer["images"] == 624
    version = client_of(folder).get_model_version_by_alias("chest-xray", "cnn1")
    assert "one to five years" in version.description


def test_resnet50_is_fine_tuned_from_a_file(xrays, tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "backbone.safetensors"
    save_file(resnet50(weights=None).state_dict(), weights)
    work = tmp_path / "work"
    work.mkdir()
    arguments = (
        "--trials",
        2,
        "--epochs",
        2,
        "--image-size",
        64,
        "--limit",
        400,
        "--data",
        xrays,
        "--weights",
        weights,
    )
    fixed = ("--search", "batch_size=16,32", "--finetune", "layer4")
    done = sweep(work, "--arch", "resnet50", *arguments, *fixed, "--json", timeout=900)
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout)["studies"]
    assert 0 <= outcome["test"]["test/auroc"] <= 1
    version = client_of(work).get_model_version_by_alias("chest-xray", "resnet50")
    assert version.tags["sweep.arch"] == "resnet50"
