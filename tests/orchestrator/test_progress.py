"""How long a study still takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest

from sweep.orchestrator.progress import RunningTrial, seconds_left
from sweep.stores.trials import AskedTrial, TrialCounts

EPOCHS = 10


def running(elapsed: float, epochs: int, each: float) -> RunningTrial:
    asked = AskedTrial(0, {}, 0, None, 0, None, None, None, None)
    history = [{"epoch": float(epoch), "epoch_seconds": each} for epoch in range(1, epochs + 1)]
    return RunningTrial(asked, cast(Any, None), Path(), time.monotonic() - elapsed, history)


def left(done: int, seconds: float, training: list[RunningTrial], missing: int, workers: int = 1) -> float | None:
    return seconds_left(TrialCounts(complete=done, seconds=seconds), training, missing, workers, EPOCHS)


def test_nothing_is_known_before_the_first_epoch():
    assert left(0, 0, [running(5, 0, 0)], 3) is None


def test_before_any_trial_has_ended_all_epochs_are_expected():
    assert left(0, 0, [running(4, 2, 2.0)], 3) == pytest.approx(2 * 20 + 8 * 2)


def test_trials_take_the_mean_time_of_those_that_ended():
    assert left(4, 40, [running(4, 1, 4.0)], 3) == pytest.approx(2 * 10 + 6, abs=0.5)


def test_a_trial_that_took_longer_than_the_mean_still_has_an_epoch_before_it():
    assert left(4, 40, [running(60, 9, 7.0)], 1) == pytest.approx(7)


def test_a_trial_lacks_no_more_than_its_epochs():
    assert left(4, 400, [running(9, 9, 1.0)], 1) == pytest.approx(1)


def test_it_is_never_nothing_while_a_trial_is_missing():
    assert left(4, 0.04, [running(60, 0, 0)], 1) == 1
    assert left(4, 0.04, [], 1, workers=8) == 1


def test_the_last_trial_is_not_divided_by_workers_that_have_nothing_to_do():
    assert left(4, 40, [running(0, 0, 0)], 1, workers=4) == pytest.approx(10, abs=0.5)


def test_a_study_that_has_its_trials_takes_no_longer():
    assert left(4, 40, [], 0) == 0
