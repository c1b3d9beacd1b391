"""Figures drawn in another process: the same ones, whatever happens to that process."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from sweep.metrics.predictions import Predictions
from sweep.orchestrator.figure_pool import FigurePool, draw
from sweep.system.processes import start_time

HISTORY = [
    {"epoch": epoch, "train/loss": 1 / epoch, "train/accuracy": 0.5, "val/loss": 1 / epoch, "val/accuracy": 0.6, "val/auroc": 0.7}
    for epoch in (1, 2, 3)
]  # fmt: skip


@pytest.fixture
def trial(tmp_path):
    logits = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    names = [f"{index}.png" for index in range(20)]
    found = Predictions(names, names, np.arange(20) % 2, logits, ("NORMAL", "PNEUMONIA"))
    table = tmp_path / "validation.csv"
    table.write_text(found.to_csv())
    return HISTORY, 2, table, "cnn1-007"


def test_a_trial_is_drawn_by_another_process_as_it_is_drawn_here(trial):
    here = draw(*trial)
    pictures = {f"figures/{name}.png" for name in ("learning_curves", "confusion_matrix", "roc")}
    assert here.keys() == {*pictures, "predictions/validation.csv"}
    pool = FigurePool(1)
    try:
        pool.begin(7, *trial)
        assert pool.take(7, *trial) == here
        assert pool.take(8, *trial) == here  # which was not begun
        pool.begin(9, *trial)
        (pid,) = pool._pool._processes
        os.kill(pid, signal.SIGINT)  # as a Ctrl-C does, which the whole process group gets
        assert pool.take(9, *trial) == here
        assert start_time(pid)
        os.kill(pid, signal.SIGKILL)
        while start_time(pid):
            pass
        pool.begin(10, *trial)
        assert pool.take(10, *trial) == here
    finally:
        pool.close()
    assert not start_time(pid)


def test_a_pool_without_processes_starts_none(trial):
    pool = FigurePool()
    pool.begin(7, *trial)
    assert pool.take(7, *trial) == draw(*trial)
    assert not pool._begun
    pool.close()


def test_where_processes_cannot_share_a_lock_this_one_draws(trial, monkeypatch):
    """Without a /dev/shm there are none."""

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("sweep.orchestrator.figure_pool.ProcessPoolExecutor", lambda *_, **__: refuse())
    pool = FigurePool(2)
    pool.begin(7, *trial)
    assert pool.take(7, *trial).keys() == draw(*trial).keys()
    pool.close()
