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
from sweep.training import BEST, TrainingConfig, restore, train

CONFIG = TrainingConfig("cnn1", "relu", "adam", 1e-3, 32, 0.2, seed=1, epochs=2, patience=0, image_size=24, classes=2)
ENDLESS = replace(CONFIG, epochs=100_000)


@pytest.fixture(scope="module")
def images(pictures):
    source = open_source(pictures)
    cache.build(source, 24)
    return images_of(source, split_source(source), 24)


@pytest.fixture(scope="module", params=[LocalEngine])
def engine(request):
    engine = request.param(2, "cpu", 1)
    yield engine
    engine.close()


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


def wait_for_an_epoch(engine, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for event in engine.events(1.0):
            if isinstance(event, EpochFinished):
                return event
    raise AssertionError("no epoch ended")


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
    first = wait_for_an_epoch(engine)
    engine.stop(5)
    events = until_ended(engine, [5])
    assert isinstance(events[-1], JobFinished)
    assert all(event.result.epoch < first.result.epoch + 200 for event in events[:-1])
    engine.stop(5)  # once it has ended nothing happens
    assert engine.events(0.1) == []


def test_a_job_asked_to_end_after_its_epoch_ends_there_and_can_go_on(engine, images, tmp_path):
    engine.submit(job(5, images, tmp_path, ENDLESS))
    wait_for_an_epoch(engine)
    engine.stop(5, after_epoch=True)
    events = until_ended(engine, [5])
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
    seen = {}
    for number in (0, 1):
        engine.submit(job(number, images, tmp_path, ENDLESS))
    while len(seen) < 2:
        seen |= {event.number: event for event in engine.events(1.0) if isinstance(event, EpochFinished)}
    held = [mapping(worker.process.pid, images["train"].path) for worker in engine._workers]
    for number in (0, 1):
        engine.stop(number)
    until_ended(engine, [0, 1])
    for kilobytes in held:
        assert kilobytes["Rss"] > 0
        assert kilobytes["Private_Dirty"] == 0  # nobody has a copy of its own
        assert kilobytes["Pss"] <= 0.6 * kilobytes["Rss"]


def test_a_killed_worker_takes_only_its_own_job_along(images, tmp_path):
    engine = LocalEngine(2, "cpu", 1)
    try:
        for number in (0, 1):
            engine.submit(job(number, images, tmp_path, ENDLESS))
        wait_for_an_epoch(engine)
        os.kill(engine._workers[0].process.pid, signal.SIGKILL)
        (event,) = [event for event in until_ended(engine, [0]) if event.number == 0 and isinstance(event, JobFailed)]
        assert event.cause == "worker lost"
        assert "SIGKILL" in event.message
        assert engine.free == 1
        assert wait_for_an_epoch(engine).number == 1
        engine.submit(job(2, images, tmp_path))  # a fresh worker has taken its place
        assert isinstance(until_ended(engine, [2])[-1], JobFinished)
    finally:
        engine.close()


def test_a_worker_that_dies_idle_is_replaced(images, tmp_path):
    engine = LocalEngine(1, "cpu", 1)
    engine.start()
    try:
        os.kill(engine._workers[0].process.pid, signal.SIGKILL)
        engine._workers[0].process.join()
        engine.submit(job(0, images, tmp_path))
        assert isinstance(until_ended(engine, [0])[-1], JobFinished)
    finally:
        engine.close()


def test_no_process_is_started_before_there_is_something_to_train(images, tmp_path):
    before = set(multiprocessing.active_children())
    engine = LocalEngine(2, "cpu", 1)
    assert engine.free == 2
    assert set(multiprocessing.active_children()) == before
    engine.close()
    try:
        engine = LocalEngine(2, "cpu", 1)
        engine.start()
        engine.start()
        assert len(set(multiprocessing.active_children()) - before) == 2
        assert engine.free == 2
    finally:
        engine.close()
    assert set(multiprocessing.active_children()) == before


def test_closing_ends_running_jobs_and_every_process(images, tmp_path):
    engine = LocalEngine(2, "cpu", 1)
    engine.start()
    processes = [worker.process for worker in engine._workers]
    engine.submit(job(0, images, tmp_path, ENDLESS))
    wait_for_an_epoch(engine)
    started = time.monotonic()
    engine.close()
    assert time.monotonic() - started < 12
    assert not any(process.is_alive() for process in processes)
