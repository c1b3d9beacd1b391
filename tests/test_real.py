"""Whole studies on the real X-rays, as the README types them. Slow, and skipped where the images are not."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet50

from tests.test_sweep import client_of, states, sweep, trials_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("arch", ["cnn1", "cnn2", "cnn3"])
def test_eight_trials_find_a_network_that_knows_pneumonia(arch, xrays, tmp_path):
    arguments = ("--trials", 8, "--epochs", 6, "--image-size", 64, "--data", xrays, "--json")
    done = sweep(tmp_path, "--arch", arch, *arguments, timeout=1500)
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout)["studies"]
    print(done.stderr)
    # Validation chooses and workers race, so a run is one draw: 0.90 is what to expect, less the half-width of the
    # 95 % interval of an AUROC on 624 images.
    assert outcome["test"]["test/auroc"] >= 0.90 - 0.015
    assert outcome["model"] == "chest-xray"
    assert sum(states(trials_of(tmp_path, f"chest-xray/{arch}")).values()) == 8


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
