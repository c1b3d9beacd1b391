"""Figures drawn aside: the same ones, whatever becomes of the process that draws."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from sweep.metrics.predictions import Predictions
from sweep.orchestrator.figure_pool import Drawer, draw
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


def test_a_trial_is_drawn_aside_as_it_is_drawn_here(trial):
    here = draw(*trial)
    pictures = {f"figures/{name}.png" for name in ("learning_curves", "confusion_matrix", "roc")}
    assert here.keys() == {*pictures, "predictions/validation.csv"}
    aside = Drawer(1)
    try:
        aside.begin(7, *trial)
        assert aside.take(7, *trial) == here
        assert aside.take(8, *trial) == here  # which was not begun
        aside.begin(9, *trial)
        (pid,) = aside._pool._processes
        os.kill(pid, signal.SIGINT)  # as a Ctrl-C does, which the whole process group gets
        assert aside.take(9, *trial) == here
        assert start_time(pid)
        os.kill(pid, signal.SIGKILL)
        while start_time(pid):
            pass
        aside.begin(10, *trial)
        assert aside.take(10, *trial) == here
    finally:
        aside.close()
    assert not start_time(pid)


def test_a_drawer_without_processes_starts_none(trial):
    drawer = Drawer()
    drawer.begin(7, *trial)
    assert drawer.take(7, *trial) == draw(*trial)
    assert not drawer._begun
    drawer.close()
