"""What goes wrong in the middle of a study, made to go wrong for real: memory, disks, other sweeps, a Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sweep.orchestrator.mlflow_mirror import Mirror
from sweep.orchestrator.retries import next_attempt
from tests.helpers.consistent import consistent
from tests.helpers.servers import wait_for
from tests.helpers.studies import LONG, STUDY, children_of, running, sweep, tiny, trials_of


@pytest.mark.parametrize(
    ("cause", "failures", "at_once", "again"),
    [
        ("worker lost", 0, 32, {"failures": 1}),
        ("worker lost", 1, 32, {"failures": 2}),
        ("worker lost", 2, 32, None),
        ("out of memory", 0, 32, {"failures": 1, "micro_batch": 16}),
        ("out of memory", 1, 5, {"failures": 2, "micro_batch": 3}),
        ("out of memory", 0, 1, None),
        ("out of memory", 2, 32, None),
        ("disk full", 2, 32, {}),  # nobody's fault
        ("non-finite loss", 0, 32, None),
        ("bad configuration", 0, 32, None),
        ("error", 0, 32, None),
    ],
)
def test_the_cause_decides_about_another_attempt(cause, failures, at_once, again):
    assert next_attempt(cause, failures, retries=2, at_once=at_once)[0] == again
    # Memory that others took is nobody's failure, and nothing is wrong with the batch.
    fewer = next_attempt(cause, failures, retries=2, at_once=at_once, fewer=2)[0]
    assert fewer == ({} if cause == "out of memory" else again)


@pytest.mark.slow
def test_memory_that_is_too_small_for_so_many_trials_at_once_is_enough_for_fewer(pictures, tmp_path):
    done = sweep(tmp_path, *tiny(pictures, 3, "--workers", 2), fault="crowded")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "another one has it; again as it is, with 1 trial at once from now on" in said
    consistent(tmp_path, STUDY, 3)
    trials = trials_of(tmp_path, STUDY)
    assert sorted(trial.state.name for trial in trials) == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]
    assert not any("micro_batch" in run.data.params for run in children_of(tmp_path).values())


@pytest.mark.slow
def test_out_of_memory_halves_what_passes_at_once_and_keeps_the_batch(pictures, tmp_path):
    done = sweep(tmp_path, *tiny(pictures, 1, batch="32"), fault="memory:8")
    assert done.returncode == 0, done.stderr
    assert "out of memory: OutOfMemoryError: 32 images are too many; again with 16 images at once" in done.stdout
    consistent(tmp_path, STUDY, 1)
    first, second, third = (children_of(tmp_path)[number] for number in "012")
    assert [run.data.tags.get("sweep.cause") for run in (first, second, third)] == ["out of memory"] * 2 + [None]
    assert [run.data.params.get("micro_batch") for run in (first, second, third)] == [None, "16", "8"]
    assert {run.data.params["batch_size"] for run in (first, second, third)} == {"32"}
    assert {run.data.params["seed"] for run in (first, second, third)} == {first.data.params["seed"]}
    assert third.data.tags["sweep.retry_of"] == "cnn3-001"
    replayed = sweep(tmp_path, "replay", third.info.run_id)
    assert replayed.returncode == 0, replayed.stdout


@pytest.mark.slow
def test_retries_have_an_end_and_the_first_trials_alike_end_the_study(pictures, tmp_path):
    done = sweep(tmp_path, *tiny(pictures, 9, "--retries", 1, batch="32"), fault="memory:8")
    assert done.returncode == 1
    assert "the first 3 configurations all failed, the last one of out of memory" in done.stderr
    assert "given up after 2 attempts" in done.stdout
    assert len(trials_of(tmp_path, STUDY)) == 6
    assert {trial.state.name for trial in trials_of(tmp_path, STUDY)} == {"FAIL"}
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_a_bad_configuration_stops_the_study_before_any_training(pictures, tmp_path):
    home = Path(os.environ["XDG_CACHE_HOME"]) / "sweep"
    assert sweep(tmp_path, *tiny(pictures, 1, "--dry-run")).returncode == 0
    # The cache goes while the sweep starts, as a disk that is unmounted: between the making of the two stores.
    with running(tmp_path, *tiny(pictures, 5, "--image-size", 26), warm=False) as (process, said):
        wait_for(lambda: (tmp_path / "optuna.db").exists(), process, said)
        for cache in home.glob("blob-pictures-26-*"):
            shutil.rmtree(cache)
        assert process.wait(240) == 1, said()
    assert "bad configuration: ConfigurationError: FileNotFoundError" in said()
    assert "no trial can begin" in said()
    assert [trial.state.name for trial in trials_of(tmp_path, STUDY)] == ["FAIL"]


@pytest.mark.slow
def test_a_second_sweep_is_refused_and_told_who_runs_the_first(pictures, tmp_path):
    arguments = ("--arch", "cnn3", "--data", pictures, "--trials", 400, *LONG)
    other = tmp_path / "other"
    other.mkdir(exist_ok=True)
    shared = {"OPTUNA_STORAGE": f"sqlite:///{tmp_path / 'optuna.db'}"}
    with running(tmp_path, *arguments, environment=shared) as (process, said):
        wait_for(lambda: "trial    state" in said(), process, said)
        second = sweep(tmp_path, *arguments)
        assert second.returncode == 2, second.stderr
        named = f"process {process.pid} on {socket.gethostname()}, since 20"
        assert named in second.stderr
        assert "in this directory" in second.stderr
        elsewhere = sweep(other, *arguments, environment=shared)
        assert elsewhere.returncode == 2, elsewhere.stderr
        assert f"study {STUDY} is run by {named}" in elsewhere.stderr
        doctored = sweep(tmp_path, "doctor")
        assert doctored.returncode == 2
        assert named in doctored.stderr
        process.kill()
        process.wait()
    ended = sum(trial.state.name == "COMPLETE" for trial in trials_of(tmp_path, STUDY))
    done = sweep(tmp_path, *arguments[:4], "--trials", ended + 2, *arguments[6:])  # the dead one is not in the way
    assert done.returncode == 0, done.stderr
    other.rmdir()
    (tmp_path / "log").unlink()
    consistent(tmp_path, STUDY, ended + 2)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_it_at_once_and_nothing_is_torn(pictures, tmp_path):
    slow_epochs = ("--image-size", 160, "--epochs", 9, "--fix", "batch_size=16", "--workers", 2)
    arguments = ("--arch", "cnn1", "--data", pictures, "--trials", 2, *slow_epochs)
    with running(tmp_path, *arguments) as (process, said):
        wait_for(lambda: "trial    state" in said(), process, said)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        wait_for(lambda: "once more to stop at once" in said(), process, said)
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130, said()
        assert time.monotonic() - asked < 12
    assert "Traceback" not in said()
    assert {trial.state.name for trial in trials_of(tmp_path, "blob-pictures/cnn1")} == {"FAIL", "WAITING"}
    assert {run.info.status for run in children_of(tmp_path).values()} == {"FAILED"}
    assert json.loads(sweep(tmp_path, "doctor", "--json").stdout)["mended"] == []


@pytest.mark.slow
@pytest.mark.parametrize("place", ["_ship", "_end_trial", "trial_ended"])
def test_a_ctrl_c_while_a_run_ends_leaves_none_running(place, pictures, tmp_path, typed, monkeypatch):
    untouched, raised = getattr(Mirror, place), []

    def interrupted(mirror, *arguments):
        if not raised:  # once, as a person's second Ctrl-C: here it comes while a trial's files are logged
            raised.append(place)
            raise KeyboardInterrupt
        return untouched(mirror, *arguments)

    monkeypatch.setattr(Mirror, place, interrupted)
    code, _, error = typed(tmp_path, *tiny(pictures, 3))
    assert code == 130, error
    assert raised
    assert {run.info.status for run in children_of(tmp_path).values()} <= {"FINISHED", "KILLED", "FAILED"}
    assert json.loads(typed(tmp_path, "doctor", "--json")[1])["mended"] == []
    assert typed(tmp_path, *tiny(pictures, 3))[0] == 0
    consistent(tmp_path, STUDY, 3)


@pytest.mark.slow
def test_a_budget_ends_in_time_and_the_rest_goes_on_later(pictures, tmp_path):
    # So long that some trial is in training when the time is over.
    arguments = ("--arch", "cnn3", "--data", pictures, "--trials", 40, *LONG, "--epochs", 24)
    done = sweep(tmp_path, *arguments, "--budget", "25s")
    assert done.returncode == 0, done.stderr
    assert "the budget is used up after" in done.stdout
    assert "its budget ended" in done.stdout
    trials = trials_of(tmp_path, STUDY)
    complete = sum(trial.state.name == "COMPLETE" for trial in trials)
    assert 1 <= complete < 40
    begun = [trial for trial in trials if trial.datetime_start]  # the others wait
    spent = max(trial.datetime_complete for trial in begun) - min(trial.datetime_start for trial in begun)
    assert spent.total_seconds() < 26
    assert [path.name for path in (tmp_path / "checkpoints").rglob("last.safetensors")]
    more = sweep(tmp_path, *arguments[:4], "--trials", complete + 2, *arguments[6:])
    assert more.returncode == 0, more.stderr
    ended = consistent(tmp_path, STUDY, complete + 2)
    assert any(trial.user_attrs.get("result", {}).get("resumed_after") for trial in ended)


@pytest.mark.slow
def test_only_the_best_checkpoint_and_registered_ones_are_kept(pictures, tmp_path):
    done = sweep(tmp_path, *tiny(pictures, 4, "--keep", "best"))
    assert done.returncode == 0, done.stderr
    client, runs = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}"), children_of(tmp_path)

    def kept():
        return {number for number, run in runs.items() if client.list_artifacts(run.info.run_id, "checkpoint")}

    values = {str(trial.number): trial.value for trial in trials_of(tmp_path, STUDY)}
    first = max(values, key=lambda number: values[number])
    assert kept() == {first}
    assert sweep(tmp_path, *tiny(pictures, 9, "--keep", "best")).returncode == 0
    runs = children_of(tmp_path)
    values = {str(trial.number): trial.value for trial in trials_of(tmp_path, STUDY)}
    assert kept() == {first, max(values, key=lambda number: values[number])}  # the first best one is registered


@pytest.mark.slow
def test_four_workers_finish_forty_trials(pictures, tmp_path):
    small = ("--image-size", 24, "--epochs", 3, "--search", "batch_size=16,32", "--warmup", 1, "--workers", 4)
    done = sweep(tmp_path, "--arch", "cnn3", "--data", pictures, "--trials", 40, *small)
    assert done.returncode == 0, done.stderr
    assert "database is locked" not in done.stdout + done.stderr
    trials = consistent(tmp_path, STUDY, 40)
    assert len(trials) == 40
    assert sum(trial.state.name == "PRUNED" for trial in trials) >= 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 120 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=120m", "none", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(path):
    with path.open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)  # little by little: the last page too


@pytest.mark.slow
def test_a_full_disk_stops_the_study_and_it_goes_on_when_there_is_room(pictures, tmp_path, small_disk):
    arguments = ("--arch", "cnn3", "--data", pictures, "--trials", 6, *LONG)
    with running(small_disk, *arguments, log=tmp_path / "log") as (process, said):
        wait_for(lambda: " complete " in said(), process, said)
        with pytest.raises(OSError, match="No space left"):
            fill(small_disk / "filler")
        assert process.wait(240) == 1, said()
    assert "full" in said()
    assert "make room, and the same command goes on from here" in said()
    assert "Traceback" not in said(), said()
    (small_disk / "filler").unlink()
    done = sweep(small_disk, *arguments)
    assert done.returncode == 0, done.stderr
    consistent(small_disk, STUDY, 6)
