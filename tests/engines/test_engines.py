"""One contract for every engine: real processes, real kills."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from data import cache
from data.cache import images_of
from data.sources import open_source
from data.splits import split_source
from sweep.engines import EpochFinished, Job, JobFailed, JobFinished
from sweep.engines.local import LocalEngine
from sweep.engines.ray import RayEngine
from sweep.engines.ray_cluster import ray
from sweep.system.processes import start_time
from sweep.training.config import BEST, TrainingConfig
from sweep.training.inference import restore
from sweep.training.loop import train

CONFIG = TrainingConfig("cnn1", "relu", "adam", 1e-3, 32, 0.2, seed=1, epochs=2, patience=0, image_size=24, classes=2)
ENDLESS = replace(CONFIG, epochs=100_000)


@pytest.fixture(scope="module")
def images(pictures):
    source = open_source(pictures)
    cache.build(source, 24)
    return images_of(source, split_source(source), 24)


KINDS = [pytest.param(LocalEngine, id="local"), pytest.param(RayEngine, id="ray", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=KINDS)
def make(request):
    """Makes an engine of a kind, for trials of one thread on a CPU: of so many workers."""
    if request.param is RayEngine:
        ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield lambda workers: request.param(workers, "cpu", 1)
    ray.shutdown()


@pytest.fixture(scope="module")
def engine(make):
    engine = make(2)
    yield engine
    engine.close()


def processes(engine):
    """The processes of an engine's workers, once they have all started."""
    if isinstance(engine, LocalEngine):
        return [worker.process.pid for worker in engine._workers]
    return ray.get([worker.actor.ready.remote() for worker in engine._workers])


def process_of(engine, number):
    """The process that trains a job."""
    numbers = [
        worker.job if isinstance(engine, LocalEngine) else worker.job and worker.job.number
        for worker in engine._workers
    ]
    return processes(engine)[numbers.index(number)]


def gone(pid, seconds=5):
    """Whether a process ends within a moment."""
    deadline = time.monotonic() + seconds
    while start_time(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not start_time(pid)


def job(number, images, folder, config=CONFIG):
    return Job(number, config, images["train"], images["validation"], folder / str(number))


def until_ended(engine, numbers, seconds=60):
    """All events until each of these jobs has ended."""
    events, waiting, deadline = [], set(numbers), time.monotonic() + seconds
    while waiting:
        assert time.monotonic() < deadline, f"jobs {waiting} did not end"
        for event in engine.events(1.0):
            events.append(event)
            if not isinstance(event, EpochFinished):
                waiting.remove(event.number)
    return events


def until_epochs(engine, numbers, seconds=60):
    """All epochs until each of these jobs has ended one."""
    events, waiting, deadline = [], set(numbers), time.monotonic() + seconds
    while waiting:
        assert time.monotonic() < deadline, f"no epoch of {waiting} ended"
        events += [event for event in engine.events(1.0) if isinstance(event, EpochFinished)]
        waiting -= {event.number for event in events}
    return events


def test_jobs_run_side_by_side_and_give_the_numbers_of_a_plain_call(engine, images, tmp_path):
    assert engine.free == 2
    for number in (0, 1):
        engine.submit(job(number, images, tmp_path, replace(CONFIG, seed=number)))
    assert engine.free == 0
    with pytest.raises(RuntimeError, match="no worker is free"):
        engine.submit(job(2, images, tmp_path))
    events = until_ended(engine, [0, 1])
    assert engine.free == 2
    for number in (0, 1):
        mine = [event for event in events if event.number == number]
        assert [type(event) for event in mine] == [EpochFinished, EpochFinished, JobFinished]
        plain = train(replace(CONFIG, seed=number), images["train"], images["validation"], tmp_path / f"plain{number}")
        assert [event.result.train_loss for event in mine[:2]] == [result.train_loss for result in plain]
        assert restore(tmp_path / str(number) / BEST).config.seed == number


def test_a_job_that_is_stopped_ends_soon(engine, images, tmp_path):
    engine.submit(job(5, images, tmp_path, ENDLESS))
    seen = until_epochs(engine, {5})[-1].result.epoch
    engine.stop(5)
    events = until_ended(engine, [5])
    assert isinstance(events[-1], JobFinished)
    assert all(event.result.epoch < seen + 200 for event in events[:-1])
    engine.stop(5)  # once it has ended nothing happens
    assert engine.events(0.1) == []


def test_a_job_asked_to_end_after_its_epoch_ends_there_and_can_go_on(engine, images, tmp_path):
    engine.submit(job(5, images, tmp_path, ENDLESS))
    events = until_epochs(engine, {5})
    engine.stop(5, after_epoch=True)
    events += until_ended(engine, [5])
    assert events[-1] == JobFinished(5, stopped=True)
    last = events[-2].result.epoch
    engine.submit(job(5, images, tmp_path, ENDLESS))
    again = []
    while not again or again[-1].result.repeated:
        again += [event for event in engine.events(1.0) if isinstance(event, EpochFinished)]
    engine.stop(5)
    until_ended(engine, [5])
    assert [event.result.epoch for event in again if event.result.repeated] == list(range(1, last + 1))


def test_a_job_asked_to_end_after_its_last_epoch_is_complete(engine, images, tmp_path):
    engine.submit(job(5, images, tmp_path, replace(CONFIG, epochs=1)))
    engine.stop(5, after_epoch=True)
    events = until_ended(engine, [5])
    assert [type(event) for event in events] == [EpochFinished, JobFinished]
    assert not events[-1].stopped
    assert (tmp_path / "5" / BEST).is_file()


def test_a_job_that_fails_says_why_and_its_worker_goes_on(engine, images, tmp_path):
    engine.submit(job(6, images, tmp_path, replace(CONFIG, arch="cnn3", optimizer="sgd", learning_rate=1e9)))
    (event,) = until_ended(engine, [6])
    assert isinstance(event, JobFailed)
    assert event.cause == "non-finite loss"
    assert "not finite in epoch 1" in event.message
    assert "Traceback" in event.details
    engine.submit(job(7, images, tmp_path))
    assert isinstance(until_ended(engine, [7])[-1], JobFinished)


def test_a_missing_cache_fails_that_job_alone(engine, images, tmp_path):
    lost = replace(images["train"], path=tmp_path / "gone.npy")
    engine.submit(Job(8, CONFIG, lost, images["validation"], tmp_path / "8"))
    engine.submit(job(9, images, tmp_path))
    events = until_ended(engine, [8, 9])
    failed = next(event for event in events if event.number == 8)
    assert isinstance(failed, JobFailed)
    assert failed.cause == "bad configuration"
    assert "gone.npy" in failed.message


def mapping(pid, path):
    """What a process's mapping of a file holds, in kB, by /proc's names."""
    found: dict[str, int] = {}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if " kB" not in rest:
            inside = str(path) in line
        elif inside:
            found[name] = found.get(name, 0) + int(rest.split()[0])
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc/PID/smaps")
def test_workers_share_the_pages_of_the_images(engine, images, tmp_path):
    for number in (0, 1):
        engine.submit(job(number, images, tmp_path, ENDLESS))
    until_epochs(engine, {0, 1})
    held = [mapping(pid, images["train"].path) for pid in processes(engine)]
    for number in (0, 1):
        engine.stop(number)
    until_ended(engine, [0, 1])
    for kilobytes in held:
        assert kilobytes["Rss"] > 0
        assert kilobytes["Private_Dirty"] == 0  # nobody has a copy of its own
        assert kilobytes["Pss"] <= 0.6 * kilobytes["Rss"]


def test_a_killed_worker_takes_only_its_own_job_along(make, images, tmp_path):
    engine = make(2)
    try:
        for number in (0, 1):
            engine.submit(job(number, images, tmp_path, ENDLESS))
        until_epochs(engine, {0, 1})
        os.kill(process_of(engine, 0), signal.SIGKILL)
        (event,) = [event for event in until_ended(engine, [0]) if event.number == 0 and isinstance(event, JobFailed)]
        assert event.cause == "worker lost"
        assert "died" in event.message or "SIGKILL" in event.message
        assert engine.free == 1
        until_epochs(engine, {1})
        engine.submit(job(2, images, tmp_path))  # a fresh worker takes its place
        assert isinstance(until_ended(engine, [2])[-1], JobFinished)
        engine.submit(job(0, images, tmp_path, ENDLESS))  # and goes on where the dead one was
        again = [event for event in until_epochs(engine, {0}) if event.number == 0]
        assert again[0].result.repeated
    finally:
        engine.close()


def test_a_worker_that_dies_idle_is_replaced(make, images, tmp_path):
    engine = make(1)
    try:
        engine.submit(job(0, images, tmp_path))
        until_ended(engine, [0])
        (pid,) = processes(engine)
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)
        time.sleep(0.5)  # its threads may take a moment longer
        engine.submit(job(1, images, tmp_path))
        assert isinstance(until_ended(engine, [1])[-1], JobFinished)
    finally:
        engine.close()


def test_closing_ends_running_jobs_and_every_process(make, images, tmp_path):
    engine = make(2)
    engine.start(2)
    engine.submit(job(0, images, tmp_path, ENDLESS))
    until_epochs(engine, {0})
    pids = processes(engine)
    started = time.monotonic()
    engine.close()
    assert time.monotonic() - started < 12
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_no_process_is_started_before_there_is_something_to_train():
    before = set(multiprocessing.active_children())
    engine = LocalEngine(2, "cpu", 1)
    assert engine.free == 2
    assert set(multiprocessing.active_children()) == before
    engine.close()
    try:
        engine = LocalEngine(2, "cpu", 1)
        for jobs, workers in ((-1, 0), (1, 1), (9, 2), (1, 2)):
            engine.start(jobs)
            assert len(set(multiprocessing.active_children()) - before) == workers
        assert engine.free == 2
    finally:
        engine.close()
    assert set(multiprocessing.active_children()) == before
