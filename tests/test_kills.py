"""Kill anything at any moment: the same command goes on, and every trial is accounted for once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from tests.consistent import consistent
from tests.faulty import ORCHESTRATOR, RECOVERY, WORKER

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
ROOT = Path(__file__).parents[1]
STUDY = "blob-pictures/cnn3"


def sweep(folder: Path, *arguments, fault: str = "", timeout: float = 240):
    """Runs a sweep, with a fault in it; `mark` is there afterwards if the fault happened."""
    mark = folder / "mark"
    mark.unlink(missing_ok=True)
    environment = {**os.environ, "SWEEP_FAULT": fault, "SWEEP_FAULT_MARK": str(mark), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.faulty", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, start_new_session=True
    )


def tiny(pictures, trials, *more, batch="16,32"):
    small = ("--image-size", 24, "--epochs", 2, "--search", f"batch_size={batch}", "--workers", 1, "--pruner", "none")
    return ("--arch", "cnn3", "--data", pictures, "--trials", trials, *small, *more)


@pytest.mark.slow
@pytest.mark.parametrize("how", SIGNALS)
def test_killed_anywhere_it_goes_on(pictures, tmp_path, how):
    """One study, killed at every place in turn, each time with one trial more to find; checked when it is done."""
    log, kills, wanted = [], 0, 1
    for place in (*ORCHESTRATOR, *RECOVERY):
        if place in RECOVERY:  # something must have been left behind to be recovered
            died = sweep(tmp_path, *tiny(pictures, wanted + 1), fault="epoch received:1:SIGKILL")
            assert died.returncode == -signal.SIGKILL, died.stderr
            kills += 1
        done = sweep(tmp_path, *tiny(pictures, wanted + 1), fault=f"{place}:1:{how}")
        log.append(f"--- {place}: {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
        assert (tmp_path / "mark").exists(), f"{place} was not reached\n{log[-1]}"
        kills += 1
        if how == "SIGKILL":
            assert done.returncode == -signal.SIGKILL, log[-1]
        else:
            assert done.returncode in (0, 130), log[-1]  # 0 where nothing was left but to end well
            assert "Traceback" not in done.stderr, log[-1]
            left = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{tmp_path / 'optuna.db'}").trials
            assert not [trial for trial in left if trial.state.name == "RUNNING"], log[-1]
        if place in ("after telling", "all done") or place in RECOVERY:
            done = sweep(tmp_path, *tiny(pictures, wanted + 1))
            assert done.returncode == 0, f"{''.join(log[-3:])}\n{done.stderr}"
            consistent(tmp_path, STUDY, wanted + 1)
        wanted += 1
    assert kills >= len(ORCHESTRATOR) + 2 * len(RECOVERY)
    done = sweep(tmp_path, *tiny(pictures, wanted))
    assert done.returncode == 0, f"{''.join(log)}\n{done.stderr}"
    consistent(tmp_path, STUDY, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("how", SIGNALS)
def test_a_worker_killed_anywhere_costs_nothing_but_its_attempt(pictures, tmp_path, how):
    for wanted, place in enumerate(WORKER, 1):
        done = sweep(tmp_path, *tiny(pictures, wanted), fault=f"{place}:1:{how}")
        assert done.returncode == 0, f"{place}: {done.stderr}"
        assert (tmp_path / "mark").exists(), f"{place} was not reached"
        trials = consistent(tmp_path, STUDY, wanted)
        failed = [trial for trial in trials if trial.state.name == "FAIL"]
        if how == "SIGKILL" and place != "worker idle":
            assert "worker lost: its process was killed by SIGKILL" in done.stdout
            assert failed[-1].user_attrs["failure"]["cause"] == "worker lost"
            retry = trials[-1].user_attrs
            assert (retry["retry_of"], retry["failures"]) == (failed[-1].number, 1)
            epochs_before = {"worker after a checkpoint": 1, "worker at its end": 2}.get(place, 0)
            assert retry["result"]["resumed_after"] == epochs_before, place
        elif how != "SIGKILL":  # they may reach the whole process group; the orchestrator decides
            assert not failed
