"""What only the Ray engine does: files for nodes that lack them, shared folders, and what a cluster has room for."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from data.faults import InputError
from sweep.engines import EpochFinished, JobFailed, JobFinished
from sweep.engines import ray as engines_ray
from sweep.engines.ray import RayEngine, _describe_loss
from sweep.engines.ray_cluster import _room, connect, on_a_worker, ray, survey
from sweep.training.config import BEST, LAST
from sweep.training.loop import train
from tests.engines.test_engines import CONFIG, ENDLESS, images, job, until_ended, until_epochs

__all__ = ["images"]  # a fixture
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """Ray as the sweep itself starts it, with secrets in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTUNA_STORAGE", "postgresql://ann:hunter2@db/sweep")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
        connect(None)
    yield
    ray.shutdown()


@pytest.fixture
def engine(cluster, tmp_path):
    engine = RayEngine(1, "cpu", 1, shared=tmp_path / "shared")
    yield engine
    engine.close()


def test_a_node_that_lacks_the_images_gets_them_once(engine, images, tmp_path, home, monkeypatch):
    # As on another machine, where a file of that name, if there is one, is another file.
    monkeypatch.setattr(engines_ray, "_key", lambda path: f"elsewhere-{path.stem}")
    fetched = home / "cache" / "sweep" / "fetched" / f"elsewhere-train-{images['train'].path.name}"
    written = []
    for number in (0, 1):
        engine.submit(job(number, images, tmp_path))
        events = until_ended(engine, [number])
        assert isinstance(events[-1], JobFinished)
        assert fetched.read_bytes() == images["train"].path.read_bytes()
        written.append(fetched.stat().st_mtime_ns)
    assert written[0] == written[1]
    plain = train(CONFIG, images["train"], images["validation"], tmp_path / "plain")
    losses = [event.result.train_loss for event in events if isinstance(event, EpochFinished)]
    assert losses == [result.train_loss for result in plain]


def test_checkpoints_come_back_or_stay_where_all_nodes_share_a_folder(engine, images, tmp_path):
    shared = tmp_path / "shared"
    engine.submit(job(0, images, shared))
    (failed,) = until_ended(engine, [0])
    assert isinstance(failed, JobFailed)
    assert failed.cause == "bad configuration"
    assert f"--work-dir {shared}: is not there on node " in failed.message

    shared.mkdir()
    for number, folder in ((1, shared), (2, tmp_path)):
        engine.submit(job(number, images, folder))
        assert isinstance(until_ended(engine, [number])[-1], JobFinished)
        assert {path.name for path in (folder / str(number)).iterdir()} >= {BEST, LAST}


def test_a_job_stopped_before_a_worker_has_it_never_begins(engine, images, tmp_path):
    engine.submit(job(0, images, tmp_path, ENDLESS))
    engine.stop(0)
    assert until_ended(engine, [0]) == [JobFinished(0, stopped=True)]
    engine.submit(job(1, images, tmp_path))
    assert isinstance(until_ended(engine, [1])[-1], JobFinished)


def test_a_full_disk_on_this_side_fails_the_job_as_one(engine, images, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    engine.submit(job(0, images, tmp_path, ENDLESS))
    until_epochs(engine, {0})
    monkeypatch.setattr(engines_ray, "write_bytes", full)
    (failed,) = [event for event in until_ended(engine, [0]) if isinstance(event, JobFailed)]
    assert failed.cause == "disk full"


def test_weights_of_this_machine_are_found_by_their_place_on_the_node(images, tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"weights")
    config = replace(CONFIG, arch="resnet50", options={"weights": str(weights), "finetune": "all"})
    given = job(0, images, tmp_path, config)
    files = {path: ("another", [None]) for path in engines_ray._files_of(given)}
    places = [engines_ray.user_cache_path("sweep") / "fetched" / f"another-{path.name}" for path in files]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")

    here = engines_ray._on_this_node(given, files, tmp_path / "folder")

    pixels, found = places  # those of validation are in the same file
    assert (here.training.path, here.validation.path, here.config.options["weights"]) == (pixels, pixels, str(found))
    assert here.folder == tmp_path / "folder"
    for place in places:
        place.unlink()


def test_workers_are_given_no_way_into_the_stores(cluster):
    for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_PASSWORD"):
        assert on_a_worker(os.getenv, name, cpus=1, gpus=0) is None


def test_a_cluster_says_what_it_has_room_for(cluster):
    machine, gpus = survey(None, 1, None, "auto", "auto", None)
    assert (machine.device, machine.threads, gpus) == ("cpu", 1, 0)
    assert machine.workers == ray.cluster_resources()["CPU"]
    assert machine.precision in ("float32", "bfloat16")
    with pytest.raises(InputError, match="no node of the Ray cluster has 999 CPUs for a trial"):
        survey(None, 999, None, "auto", "float32", None)
    with pytest.raises(InputError, match="has 1 CPUs and 1 GPUs for a trial"):
        survey(None, 1, None, "cuda", "float32", None)
    grown, gpus = survey(None, 4, 0.5, "auto", "float32", 7)  # once nodes have come that have them
    assert (grown.device, grown.workers, grown.threads, gpus) == ("cuda", 7, 4, 0.5)


@pytest.mark.parametrize(
    ("node", "cpus", "gpus", "room"),
    [
        ({"CPU": 8}, 3, 0, 2),
        ({"CPU": 8}, 1, 1, 0),
        ({"CPU": 64, "GPU": 4}, 1, 1, 4),
        ({"CPU": 6, "GPU": 4}, 4, 1, 1),
        ({"CPU": 64, "GPU": 2}, 1, 0.5, 4),
        ({"CPU": 64, "GPU": 2}, 1, 0.4, 4),  # a trial does not lie across two of them
        ({"CPU": 64, "GPU": 2}, 1, 0.1, 20),
        ({"CPU": 64, "GPU": 7}, 1, 2, 3),
    ],
)
def test_trials_find_room_on_a_node(node, cpus, gpus, room):
    assert _room(node, cpus, gpus) == room


def test_how_a_worker_was_lost_is_one_sentence():
    died = ray.exceptions.ActorDiedError()
    assert _describe_loss(died).startswith("ActorDiedError: ")
    assert "\n" not in _describe_loss(died)


def test_only_the_latest_of_several_last_checkpoints_travels():
    worker = engines_ray._Worker.__new__(engines_ray._Worker)
    worker._outbox = engines_ray.SimpleQueue()
    for epoch in (1, 2, 3):
        worker._outbox.put((epoch, {LAST: np.full(1, epoch)}))
    worker._outbox.put(("end", {BEST: np.zeros(1)}))
    happened = worker.events()
    assert [(event, sorted(files)) for event, files in happened] == [(1, []), (2, []), (3, [LAST]), ("end", [BEST])]
