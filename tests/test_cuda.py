"""Trains on a GPU of NVIDIA's: `pytest -m cuda`, some minutes. Skipped where torch finds none."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from mlflow.pyfunc import load_model

from data import cache
from data.cache import images_of
from data.decode import decode
from data.sources import open_source
from data.splits import split_source
from sweep.engines import EpochFinished, Job, JobFinished
from sweep.engines.local import LocalEngine
from sweep.metrics.predictions import read_predictions
from sweep.system.hardware import prepare_training_process
from sweep.training.config import BEST
from sweep.training.inference import predict, restore
from sweep.training.loop import OPTIMIZERS, train
from tests.helpers.studies import client_of, sweep, trials_of
from tests.helpers.trainings import CONFIG, EXTRA, goes_on_as, interrupted, run

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU of NVIDIA's here"),
]
GPU = replace(CONFIG, device="cuda")


@pytest.fixture(scope="module", autouse=True)
def as_in_a_worker():
    """Deterministic, as workers are; what is global is put back, since other tests share the process."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    prepare_training_process("cuda", 1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="module")
def images(pictures):
    source = open_source(pictures)
    cache.build(source, 24)
    return images_of(source, split_source(source), 24)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(optimizer, precision, images, tmp_path):
    config = replace(GPU, arch="cnn2", optimizer=optimizer, dropout=0.5, precision=precision)
    whole = run(config, images, tmp_path / "whole")
    interrupted(config, images, tmp_path / "cut")
    goes_on_as(whole, config, images, tmp_path)


@pytest.mark.parametrize("arch", ["cnn1", "cnn3", "resnet50", "timm:tf_efficientnet_lite0"])
def test_with_extra_hyperparameters_it_resumes_bit_for_bit_on_every_kind_of_network(arch, images, tmp_path):
    given = {} if arch.startswith("cnn") else {"options": {"weights": None, "finetune": "all"}}
    activation = "own" if arch.startswith("timm") else "gelu"
    extra = {name: value for name, value in EXTRA.items() if arch.startswith("cnn") or name != "pooling"}
    config = replace(GPU, arch=arch, activation=activation, dropout=0.5, **extra, **given)
    whole = run(config, images, tmp_path / "whole")
    interrupted(config, images, tmp_path / "cut")
    goes_on_as(whole, config, images, tmp_path)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_numbers_are_those_of_the_cpu_but_for_rounding(optimizer, images, tmp_path):
    # Without dropout, whose draws each device makes for itself; the augmentation's are made on the host.
    config = replace(GPU, optimizer=optimizer, dropout=0.0, epochs=1, learning_rate=1e-4)
    (ours,) = run(config, images, tmp_path / "cuda")
    (theirs,) = run(replace(config, device="cpu"), images, tmp_path / "cpu")
    assert ours.train_loss == pytest.approx(theirs.train_loss, rel=0.01)
    assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=0.02)
    best = restore(tmp_path / "cuda" / BEST)
    assert predict(best.network, best.config, images["validation"]) == pytest.approx(best.validation_logits, abs=1e-2)


def test_two_workers_train_on_the_gpus_at_once_and_give_the_numbers_of_one(images, tmp_path):
    engine = LocalEngine(2, "cuda", 1)
    try:
        for number in (0, 1):
            config = replace(GPU, seed=number)
            engine.submit(Job(number, config, images["train"], images["validation"], tmp_path / str(number)))
        events = []
        while engine.free < 2:
            events += engine.events(1.0)
    finally:
        engine.close()
    assert [event for event in events if not isinstance(event, EpochFinished | JobFinished)] == []
    for number in (0, 1):
        losses = [event.result.train_loss for event in events if event.number == number and hasattr(event, "result")]
        plain = train(replace(GPU, seed=number), images["train"], images["validation"], tmp_path / f"plain{number}")
        assert losses == [result.train_loss for result in plain]


@pytest.fixture(scope="module")
def study(pictures, tmp_path_factory):
    """A study on the GPU, its trials two at once: its folder, and what --json said of it."""
    folder = tmp_path_factory.mktemp("gpu")
    asked = ("--arch", "cnn3", "--data", pictures, "--trials", 4, "--epochs", 4, "--image-size", 32)
    asked += ("--search", "batch_size=16,32", "--workers", 2, "--device", "cuda", "--json")
    done = sweep(folder, *asked)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)["studies"][0]


def test_what_a_gpu_trained_answers_on_a_cpu_as_it_did_there(study, pictures, monkeypatch):
    folder, outcome = study
    monkeypatch.chdir(folder)
    client = client_of(folder)
    known = read_predictions(client.download_artifacts(outcome["run_id"], "predictions/test.csv", str(folder)))
    model = load_model(client.get_model_version_download_uri("blob-pictures", outcome["version"]))
    logits = model.unwrap_python_model().logits(np.stack([decode(pictures / name, 32) for name in known.images]))
    np.testing.assert_allclose(logits, known.logits, rtol=0, atol=1e-4)


def test_a_run_of_a_gpu_is_trained_again_to_the_same_numbers(study):
    folder, outcome = study
    done = sweep(folder, "replay", outcome["run_id"], "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["equal"] is True


def test_a_batch_too_large_for_the_gpu_is_taken_in_parts(pictures, tmp_path):
    """With as much memory as half of the batch needs, and a little."""
    source = open_source(pictures)
    cache.build(source, 160)
    images = images_of(source, split_source(source), 160)
    peaks = {}
    for micro_batch in (128, 64):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        config = replace(GPU, batch_size=128, micro_batch=micro_batch, image_size=160, epochs=1, precision="float32")
        run(config, images, tmp_path / str(micro_batch))
        peaks[micro_batch] = torch.cuda.max_memory_reserved()
    assert peaks[64] < 0.8 * peaks[128]
    between = (peaks[64] + peaks[128]) // 2
    asked = ("--arch", "cnn1", "--data", pictures, "--trials", 1, "--epochs", 1, "--image-size", 160)
    asked += ("--search", "batch_size=128", "--workers", 1, "--device", "cuda", "--precision", "float32")
    done = sweep(tmp_path, *asked, fault=f"gpu:{between}")
    assert done.returncode == 0, done.stderr
    assert re.search(r"out of memory: .*again with 64 images at once", done.stdout.replace("\n", " "))
    states = [trial.state.name for trial in trials_of(tmp_path)]
    assert states == ["FAIL", "COMPLETE"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_workers_are_spread_over_the_gpus(images, tmp_path):
    """Each of two long trainings takes memory on a card of its own."""
    before = [torch.cuda.mem_get_info(index)[0] for index in range(2)]
    engine = LocalEngine(2, "cuda", 1)
    try:
        for number in (0, 1):
            config = replace(GPU, epochs=100_000)
            engine.submit(Job(number, config, images["train"], images["validation"], tmp_path / str(number)))
        seen = set()
        while seen != {0, 1}:
            seen |= {event.number for event in engine.events(1.0)}
        assert all(torch.cuda.mem_get_info(index)[0] < before[index] - 2**27 for index in range(2))
    finally:
        engine.close()
