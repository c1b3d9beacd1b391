"""Networks of timm and of one's own, from the search to the comparison. Slow: torch exports each of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from data import cache
from data.cache import images_of
from data.sources import open_source
from data.splits import split_source
from models import architecture
from sweep.stores.heat_map import heat_maps
from sweep.stores.packaging import export_network
from sweep.training.config import BEST, TrainingConfig
from sweep.training.inference import normalise, predict, restore
from sweep.training.loop import train
from tests.helpers.studies import client_of, sweep, trials_of
from tests.models.test_own import NETWORK

pytestmark = pytest.mark.slow

FAMILIES = ("tf_efficientnet_lite0", "resnet50", "densenet121", "vit_tiny_patch16_224", "convnext_atto")
SMALL = ("--image-size", 64, "--epochs", 1, "--limit", 96, "--search", "batch_size=16,32", "--workers", 1)


@pytest.fixture(scope="module")
def images(pictures):
    source = open_source(pictures)
    cache.build(source, 64)
    split = split_source(source)
    return images_of(source, replace(split, train=split.train[::4], validation=split.validation[::2]), 64)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_of_each_family_is_trained_exported_and_shows_where_it_looks(name: str, images, tmp_path: Path):
    row = architecture(f"timm:{name}")
    config = TrainingConfig(
        f"timm:{name}", "own", "adamw", 1e-3, 16, 0.1, 7, 1, 0, 64, 2, options={"weights": None, "finetune": "all"}
    )
    (result,) = train(config, images["train"], images["validation"], tmp_path)
    trained = restore(tmp_path / BEST)
    assert np.isfinite(result.validation_loss)
    np.testing.assert_allclose(
        trained.validation_logits, predict(trained.network, config, images["validation"]), atol=1e-5
    )

    export_network(trained.network, 64, tmp_path / "network.pt2")
    served = torch.export.load(tmp_path / "network.pt2").module()
    pixels = images["validation"].pixels()[images["validation"].rows]
    with torch.no_grad():
        logits = served(normalise(torch.from_numpy(pixels).unsqueeze(1).float() / 255, row.mean, row.std)).numpy()
    np.testing.assert_allclose(logits, trained.validation_logits, atol=1e-5)

    about = {"mean": row.mean, "std": row.std, "classes": ["NORMAL", "PNEUMONIA"], "positive": None}
    own, random = heat_maps(served, about, pixels[:4], (None, 0))
    assert own.shape[1] == own.shape[2] > 1  # places, not channels
    assert ((own >= 0) & (own <= 1)).all()
    assert own.max() == 1
    assert not np.allclose(own, random)


def save_weights(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), path)


OWN = ("--arch", "my_model.py:build", "--trials", 1)
TIMM = ("--arch", "timm:tf_efficientnet_lite0", "--weights", "weights.safetensors", "--trials", 2)


@pytest.fixture(scope="module")
def studies(pictures, tmp_path_factory: pytest.TempPathFactory):
    """Studies of a network of one's own, and of one of timm's that begins with the weights of a file.

    The folder, and what --json printed of each.
    """
    folder = tmp_path_factory.mktemp("others")
    (folder / "my_model.py").write_text(NETWORK)
    save_weights(folder / "weights.safetensors", seed=0)
    outcomes = []
    for asked in (OWN, TIMM):
        done = sweep(folder, *asked, "--data", pictures, *SMALL, "--json")
        assert done.returncode == 0, done.stderr
        outcomes += json.loads(done.stdout)["studies"]
    return folder, outcomes


def test_they_are_searched_registered_and_compared(studies):
    folder, outcomes = studies
    names = [outcome["arch"] for outcome in outcomes]
    assert names == ["my_model", "timm-tf_efficientnet_lite0"]
    client = client_of(folder)
    aliases = client.get_registered_model("blob-pictures").aliases
    assert set(aliases) - {"champion"} == set(names)  # one that never answers some class does not become champion
    runs = {run.info.run_name: run.data for run in client.search_runs(["1"])}
    assert runs["my_model-000"].params["source_digest"] == architecture(f"{folder / 'my_model.py'}:build").digest
    assert runs["timm-tf_efficientnet_lite0-000"].params["activation"] == "own"

    done = sweep(folder, "compare", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {row["arch"] for row in answer["costs"]} == {"my_model", "timm-tf_efficientnet_lite0"}
    assert {row["arch"] for row in answer["heat_maps"]} == {"my_model", "timm-tf_efficientnet_lite0"}
    assert not any("cnn1" in note or "resnet50" in note for note in answer["notes"])  # which nobody asked for


def run_of(folder: Path) -> str:
    """The run of the trial of the network of one's own."""
    return next(run.info.run_id for run in client_of(folder).search_runs(["1"]) if run.info.run_name == "my_model-000")


def test_a_network_of_one_s_own_is_trained_again_to_the_same_numbers(studies):
    folder, _ = studies
    done = sweep(folder, "replay", run_of(folder), "--json")
    assert done.returncode == 0, done.stderr


def test_a_changed_file_goes_on_with_no_older_study_and_replays_nothing(studies, pictures):
    folder, _ = studies
    path = folder / "my_model.py"
    path.write_text(NETWORK.replace("Conv2d(1, 4, 3", "Conv2d(1, 4, 5"))
    try:
        more = sweep(folder, *OWN[:-1], 2, "--data", pictures, *SMALL)
        again = sweep(folder, "replay", run_of(folder))
        compared = sweep(folder, "compare", "--json")
    finally:
        path.write_text(NETWORK)
    assert (more.returncode, again.returncode) == (2, 2)
    assert "source_digest" in more.stderr
    assert len(trials_of(folder, "blob-pictures/my_model")) == 1
    assert "has changed" in again.stderr
    assert compared.returncode == 0, compared.stderr
    answer = json.loads(compared.stdout)
    assert {row["arch"] for row in answer["scores"]} == {"my_model", "timm-tf_efficientnet_lite0"}
    assert any("my_model has no diagram: --arch" in note and "has changed" in note for note in answer["notes"])


def test_a_study_whose_folder_was_moved_goes_on_with_the_file_that_moved_with_it(studies, pictures, tmp_path: Path):
    folder, _ = studies
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    (moved / "my_model.py").rename(moved / "elsewhere.py")
    gone = sweep(moved, *OWN, "--data", pictures, *SMALL)
    (moved / "elsewhere.py").rename(moved / "my_model.py")
    done = sweep(moved, *OWN, "--data", pictures, *SMALL, "--json")
    assert (gone.returncode, done.returncode) == (2, 0), gone.stderr + done.stderr
    assert "there is no file" in gone.stderr
    (outcome,) = json.loads(done.stdout)["studies"]
    assert outcome["best"]["trial"] == 0


def test_without_the_weights_that_trainings_began_with_an_ensemble_is_made_but_nothing_is_replayed(studies, pictures):
    folder, outcomes = studies
    run, weights = outcomes[1]["run_id"], folder / "weights.safetensors"
    weights.rename(folder / "elsewhere.safetensors")
    made = sweep(folder, "ensemble", "timm-tf_efficientnet_lite0", "--members", "top:2", "--json")
    gone = sweep(folder, "replay", run)
    save_weights(weights, seed=1)
    changed = sweep(folder, "replay", run)
    more = sweep(folder, *TIMM[:-1], 3, "--data", pictures, *SMALL)
    (folder / "elsewhere.safetensors").replace(weights)
    again = sweep(folder, "replay", run, "--json")
    assert made.returncode == 0, made.stderr
    assert len(json.loads(made.stdout)["members"]) == 2
    assert (gone.returncode, changed.returncode, more.returncode) == (2, 2, 2)
    assert "no such file; the run began with it" in " ".join(gone.stderr.split())
    assert "has changed: its SHA-256 begins with" in " ".join(changed.stderr.split())
    assert "SHA-256 of the weights" in " ".join(more.stderr.split())
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("nn.Linear(4, classes)", "gives [2, 5] for 2 images of 64 x 64 pixels in training, not logits [2, 2]"),
        ("nn.AdaptiveAvgPool2d(1)", "takes no images of 64 x 64 pixels"),
        ("nn.Flatten()", "torch cannot export it"),
    ],
)
def test_what_a_network_breaks_is_said_before_training(pictures, tmp_path: Path, typed, change: str, said: str):
    other = {
        "nn.Linear(4, classes)": "nn.Linear(4, 5)",
        "nn.AdaptiveAvgPool2d(1)": "nn.AdaptiveAvgPool2d(3)",
        "nn.Flatten()": "Branch()",
    }[change]
    branch = (
        "class Branch(nn.Module):\n    def forward(self, x):\n        x = x.flatten(1)\n"
        "        return x if x.sum() > 0 else -x\n"
    )
    text = NETWORK.replace(change, other).replace("\ndef build", f"\n{branch}\ndef build", 1)
    (tmp_path / "my_model.py").write_text(text)
    arguments = ("--arch", "my_model.py", "--trials", 1, "--data", pictures, *SMALL, "--dry-run")
    code, _, err = typed(tmp_path, *arguments)
    assert code == 2
    assert said in " ".join(err.split())
