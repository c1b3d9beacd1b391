"""Whole studies on the real X-rays, as the README types them. Slow, and skipped where the images are not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.pyfunc import load_model
from safetensors.torch import save_file
from torchvision.models import resnet50

from data.decode import decode
from sweep.results.predictions import read_predictions
from tests.served import text
from tests.test_sweep import client_of, states, sweep, trials_of

pytestmark = pytest.mark.slow


SMALL = ("--epochs", 6, "--image-size", 64)


@pytest.fixture(scope="module")
def cnn1(xrays, tmp_path_factory):
    """A study of cnn1: its folder, and the object that --json printed."""
    folder = tmp_path_factory.mktemp("cnn1")
    done = sweep(folder, "--arch", "cnn1", "--trials", 8, *SMALL, "--data", xrays, "--json", timeout=1500)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)["studies"][0]


def knows_pneumonia(outcome):
    # Validation chooses and workers race, so a run is one draw: 0.90 is what to expect, less the half-width of the
    # 95 % interval of an AUROC on 624 images.
    assert outcome["test"]["test/auroc"] >= 0.90 - 0.015
    assert outcome["model"] == "chest-xray"


def test_eight_trials_find_a_network_that_knows_pneumonia(cnn1):
    folder, outcome = cnn1
    knows_pneumonia(outcome)
    assert sum(states(trials_of(folder, "chest-xray/cnn1")).values()) == 8


@pytest.mark.parametrize("arch", ["cnn2", "cnn3"])
def test_five_do_for_the_others(arch, xrays, tmp_path):
    done = sweep(tmp_path, "--arch", arch, "--trials", 5, *SMALL, "--data", xrays, "--json", timeout=1500)
    assert done.returncode == 0, done.stderr
    knows_pneumonia(json.loads(done.stdout)["studies"][0])


def test_the_registered_model_has_the_logits_of_training_on_every_test_image(cnn1, xrays):
    """From the files themselves, and over base64 as it is served: 1e-5 on all 624."""
    folder, outcome = cnn1
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
    expected = known.likely(outcome["temperature"])[:, 1]
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


@pytest.mark.parametrize("start", ["none", "file"])
def test_resnet50_goes_the_same_way(start, xrays, tmp_path):
    weights = start
    if start == "file":
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
    fixed = ("--search", "batch_size=16,32", "--finetune", "all" if start == "none" else "layer4")
    done = sweep(work, "--arch", "resnet50", *arguments, *fixed, "--json", timeout=900)
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout)["studies"]
    assert 0 <= outcome["test"]["test/auroc"] <= 1
    version = client_of(work).get_model_version_by_alias("chest-xray", "resnet50")
    assert version.tags["sweep.arch"] == "resnet50"
