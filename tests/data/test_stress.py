"""A study may choose by how a network stands validation images as another machine might have made them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data import cache
from data.augment import stress
from data.cache import images_of
from data.recipe import STRESS
from data.sources import open_source
from data.splits import split_source
from sweep.metrics.names import METRICS, STRESSED
from sweep.metrics.predictions import read_predictions
from sweep.metrics.scores import scores
from sweep.stores.conversion import attributes_of
from sweep.training.config import BEST, LAST
from sweep.training.inference import compute_logits, restore
from tests.helpers.consistent import consistent
from tests.helpers.studies import client_of, runs_of, sweep
from tests.training.test_loop import CONFIG, goes_on_as, interrupted, run, state

ASKED = replace(CONFIG, stress=True, averaging="ema")


@pytest.fixture(scope="module")
def images(pictures):
    source = open_source(pictures)
    cache.build(source, 24)
    return images_of(source, split_source(source), 24)


def stressed(images):
    part = images["validation"]
    return stress(torch.from_numpy(part.pixels()), torch.from_numpy(part.rows), STRESS)


def test_each_image_goes_through_a_draw_of_its_own_and_always_the_same(images):
    pixels, once = torch.from_numpy(images["validation"].pixels()), stressed(images)
    assert torch.equal(once, stressed(images))
    assert once.shape == (len(images["validation"]), 24, 24)
    assert once.dtype == torch.uint8
    changed = (once != pixels[torch.from_numpy(images["validation"].rows)]).flatten(1).any(1)
    assert changed.all()
    twins = stress(pixels, torch.zeros(20, dtype=torch.int64), STRESS)
    assert len(twins.unique(dim=0)) == 20


def test_the_loss_on_stressed_images_decides_which_weights_are_kept(images, tmp_path):
    results = run(replace(ASKED, epochs=5), images, tmp_path)
    plain = run(replace(ASKED, epochs=5, stress=False), images, tmp_path / "plain")
    # Nothing but the judgement differs.
    assert [result.validation_loss for result in results] == [result.validation_loss for result in plain]
    assert all(result.stressed_loss is None for result in plain)
    losses = [result.stressed_loss for result in results]
    assert [result.judged_by for result in results] == losses
    best = restore(tmp_path / BEST)
    assert best.epoch == 1 + int(np.argmin(losses))
    rows = torch.arange(len(images["validation"]))
    again = compute_logits(best.network, best.config, stressed(images), rows)
    assert np.allclose(again, results[best.epoch - 1].stressed_logits, atol=1e-5)


def test_it_goes_on_bit_for_bit(images, tmp_path):
    whole = run(ASKED, images, tmp_path / "whole")
    interrupted(ASKED, images, tmp_path / "cut")
    goes_on_as(whole, ASKED, images, tmp_path)
    kept = state(tmp_path / "whole", LAST)["stressed"].numpy()
    assert np.array_equal(kept, np.stack([result.stressed_logits for result in whole]))


def test_a_study_chooses_by_it_says_so_and_can_be_replayed(pictures, tmp_path):
    assert set(METRICS) >= STRESSED
    asked = ("--arch", "cnn3", "--data", pictures, "--trials", 2, "--epochs", 2, "--image-size", 24, "--workers", 2)
    extras = ("--search", "batch_size=16,32", "--search", "augmentation=own,wide", "--fix", "normalisation=image")
    done = sweep(tmp_path, *asked, *extras, "--metric", "val/stressed_auroc", "--pruner", "none")
    assert done.returncode == 0, done.stderr
    trials = consistent(tmp_path, "blob-pictures/cnn3", 2)
    for trial in trials:
        history, best = attributes_of(trial)["result"]["history"], trial.user_attrs["result"]["best_epoch"]
        assert best == 1 + int(np.argmin([row["val/stressed_loss"] for row in history]))
        assert trial.value == history[best - 1]["val/stressed_auroc"]
    _, children = runs_of(tmp_path)
    chosen = max(trials, key=lambda trial: trial.value).number
    run = children[f"cnn3-{chosen:03d}"]
    # Its threshold is of the images that it was chosen by; the gate can look at them again.
    assert "validation under stress" in run.data.tags["sweep.threshold_reason"]
    path = client_of(tmp_path).download_artifacts(run.info.run_id, "predictions/validation-stressed.csv", str(tmp_path))
    logged = read_predictions(Path(path))
    kept = attributes_of(trials[chosen])["result"]["history"][trials[chosen].user_attrs["result"]["best_epoch"] - 1]
    assert scores(logged.labels, logged.probabilities())["auroc"] == pytest.approx(kept["val/stressed_auroc"], abs=1e-6)
    replayed = sweep(tmp_path, "replay", run.info.run_id, "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["exit_code"] == 0
