"""Kill anything at any moment: the same command goes on, and every trial is accounted for once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest

from tests.helpers.consistent import consistent
from tests.helpers.faulty import CONCLUDING, RECOVERY, TRAINING, WORKER

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
ROOT = Path(__file__).parents[2]
STUDY = "blob-pictures/cnn3"


def sweep(folder: Path, *arguments, fault: str = "", timeout: float = 240):
    """Runs a sweep, with a fault in it; `mark` is there afterwards if the fault happened."""
    environment = {**os.environ, **faulty(folder, fault), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.helpers.faulty", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, start_new_session=True
    )


def faulty(folder, fault):
    mark = folder / "mark"
    mark.unlink(missing_ok=True)
    return {"SWEEP_FAULT": fault, "SWEEP_FAULT_MARK": str(mark)}


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@contextmanager
def warm_sweeps():
    """`sweep` above, from a process that has imported everything already."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.helpers.faulty", "--serve"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def sweep(folder, *arguments, fault=""):
        asked = {"arguments": list(map(str, arguments)), "folder": str(folder), "environment": faulty(folder, fault)}
        print(json.dumps(asked), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        said = [(folder / name).read_text() for name in ("out", "err")]
        for name in ("out", "err"):
            (folder / name).unlink()
        return Done(code, *said)

    with server:
        yield sweep
        server.stdin.close()


def for_every_signal(folder, chain):
    """Runs a chain of sweeps for each signal, side by side: most of their time they wait for one another."""

    def run(how):
        place = folder / how
        place.mkdir()
        with warm_sweeps() as sweep:
            chain(sweep, place, how)

    with ThreadPoolExecutor(len(SIGNALS)) as pool:
        list(pool.map(run, SIGNALS))


def tiny(pictures, trials, *more, batch="16,32"):
    small = ("--image-size", 24, "--epochs", 2, "--search", f"batch_size={batch}", "--workers", 1, "--pruner", "none")
    return ("--arch", "cnn3", "--data", pictures, "--trials", trials, *small, *more)


def killed(done, folder, place, how):
    """Asserts that a fault happened and that the process ended as its signal has it; returns what it said."""
    said = f"--- {place}: exit code {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
    assert (folder / "mark").exists(), f"{place} was not reached\n{said}"
    if how == "SIGKILL":
        assert done.returncode == -signal.SIGKILL, said
    else:
        assert done.returncode in (0, 130), said  # 0 where nothing was left to do but to end well
        assert "Traceback" not in done.stderr, said
        for study in optuna.get_all_study_names(f"sqlite:///{folder / 'optuna.db'}"):
            trials = optuna.load_study(study_name=study, storage=f"sqlite:///{folder / 'optuna.db'}").trials
            assert not [trial for trial in trials if trial.state.name == "RUNNING"], said
    return said


@pytest.mark.slow
def test_killed_anywhere_in_training_it_goes_on(pictures, tmp_path):
    """One study, killed at every place in turn, each time with one trial more to find; checked when it is done."""

    def chain(sweep, folder, how):
        log, wanted = "", 1
        for place in ("run created", "run described"):  # of the study's own run, at its very first start
            first = folder.parent / f"{how}-{place.split()[1]}"
            first.mkdir()
            killed(sweep(first, *tiny(pictures, 1), fault=f"{place}:1:{how}"), first, place, how)
            done = sweep(first, *tiny(pictures, 1))
            assert done.returncode == 0, done.stderr
            consistent(first, STUDY, 1)
        for place in (*TRAINING, *RECOVERY):
            wanted += 1
            if place in RECOVERY:  # something must have been left behind to be recovered
                died = sweep(folder, *tiny(pictures, wanted), fault="epoch received:1:SIGKILL")
                log += killed(died, folder, "epoch received", "SIGKILL")
            done = sweep(folder, *tiny(pictures, wanted), fault=f"{place}:1:{how}")
            log += killed(done, folder, place, how)
            if place in ("after telling", *RECOVERY):
                done = sweep(folder, *tiny(pictures, wanted))
                assert done.returncode == 0, log + done.stderr
                consistent(folder, STUDY, wanted)
        done = sweep(folder, *tiny(pictures, wanted))
        assert done.returncode == 0, log + done.stderr
        trials = consistent(folder, STUDY, wanted)
        assert len(trials) > wanted

    for_every_signal(tmp_path, chain)


@pytest.mark.slow
def test_killed_anywhere_in_its_conclusion_it_registers_once(pictures, tmp_path):
    def chain(sweep, folder, how):
        # A first SIGTERM or SIGINT only asks, and here is nobody left to ask: half of the places each will do.
        places = {"SIGKILL": list(CONCLUDING), "SIGTERM": list(CONCLUDING)[::2], "SIGINT": list(CONCLUDING)[1::2]}
        for place in places[how]:
            study = f"cnn3-{place.replace(' ', '-')}"
            done = sweep(folder, *tiny(pictures, 1, "--study", study), fault=f"{place}:1:{how}")
            said = killed(done, folder, place, how)
            done = sweep(folder, *tiny(pictures, 1, "--study", study))
            assert done.returncode == 0, said + done.stderr
            consistent(folder, f"blob-pictures/{study}", 1)

    for_every_signal(tmp_path, chain)


@pytest.mark.slow
def test_a_worker_killed_anywhere_costs_nothing_but_its_attempt(pictures, tmp_path):
    def chain(sweep, folder, how):
        for wanted, place in enumerate(WORKER, 1):
            done = sweep(folder, *tiny(pictures, wanted), fault=f"{place}:1:{how}")
            assert done.returncode == 0, f"{place}: {done.stderr}"
            assert (folder / "mark").exists(), f"{place} was not reached"
            trials = consistent(folder, STUDY, wanted)
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

    for_every_signal(tmp_path, chain)
