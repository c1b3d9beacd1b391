"""What goes wrong in the middle of a study, made to go wrong for real: memory, disks, other sweeps, lost stores."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from sweep.orchestrator.mlflow_mirror import Mirror
from sweep.orchestrator.retries import next_attempt
from tests.helpers.consistent import consistent
from tests.helpers.servers import wait_for
from tests.helpers.stocked import stocked
from tests.orchestrator.test_kills import STUDY, sweep, tiny

ROOT = Path(__file__).parents[2]


def command(folder, *arguments, **options):
    if "--trials" in arguments and "--dry-run" not in arguments and not options:
        stocked(folder)
    return subprocess.run(
        [sys.executable, "-m", "sweep", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=240, **options,
    )  # fmt: skip


def trials_of(folder, study=STUDY):
    return optuna.load_study(study_name=study, storage=f"sqlite:///{folder / 'optuna.db'}").trials


def children_of(folder, uri=None):
    client = MlflowClient(uri or f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("blob-pictures").experiment_id
    return {run.data.tags["sweep.trial"]: run for run in client.search_runs([experiment], "tags.`sweep.trial` != 'x'")}


@contextmanager
def running(folder, *arguments, environment=None):
    """A sweep in the background, and what it has said so far."""
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "sweep", *map(str, arguments)],
            cwd=folder, stdout=file, stderr=file, start_new_session=True, env={**os.environ, **(environment or {})},
        )  # fmt: skip
        try:
            yield process, log.read_text
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


LONG = (
    "--image-size",
    48,
    "--epochs",
    12,
    "--patience",
    0,
    "--pruner",
    "none",
    "--search",
    "batch_size=16,32",
    "--workers",
    2,
)


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
    replayed = command(tmp_path, "replay", third.info.run_id)
    assert replayed.returncode == 0, replayed.stdout


@pytest.mark.slow
def test_retries_have_an_end_and_the_first_trials_alike_end_the_study(pictures, tmp_path):
    done = sweep(tmp_path, *tiny(pictures, 9, "--retries", 1, batch="32"), fault="memory:8")
    assert done.returncode == 1
    assert "the first 3 configurations all failed, the last one of out of memory" in done.stderr
    assert "given up after 2 attempts" in done.stdout
    assert len(trials_of(tmp_path)) == 6
    assert {trial.state.name for trial in trials_of(tmp_path)} == {"FAIL"}
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_a_bad_configuration_stops_the_study_before_any_training(pictures, tmp_path):
    home = Path(os.environ["XDG_CACHE_HOME"]) / "sweep"
    assert command(tmp_path, *tiny(pictures, 1, "--dry-run")).returncode == 0
    with running(tmp_path, *tiny(pictures, 5, "--image-size", 26)) as (process, said):
        # The cache goes while the sweep starts, as a disk that is unmounted.
        wait_for(lambda: (tmp_path / "optuna.db").exists(), process, said)
        for cache in home.glob("blob-pictures-26-*"):
            shutil.rmtree(cache)
        assert process.wait(90) == 1, said()
    assert "bad configuration: ConfigurationError: FileNotFoundError" in said()
    assert "no trial can begin" in said()
    assert [trial.state.name for trial in trials_of(tmp_path)] == ["FAIL"]


@pytest.mark.slow
def test_a_second_sweep_is_refused_and_told_who_runs_the_first(pictures, tmp_path):
    arguments = ("--arch", "cnn3", "--data", pictures, "--trials", 400, *LONG)
    other = tmp_path / "other"
    other.mkdir(exist_ok=True)
    shared = {"OPTUNA_STORAGE": f"sqlite:///{tmp_path / 'optuna.db'}"}
    with running(tmp_path, *arguments, environment=shared) as (process, said):
        wait_for(lambda: "trial    state" in said(), process, said)
        second = command(tmp_path, *arguments)
        assert second.returncode == 2, second.stderr
        named = f"process {process.pid} on {socket.gethostname()}, since 20"
        assert named in second.stderr
        assert "in this directory" in second.stderr
        elsewhere = command(other, *arguments, env={**os.environ, **shared})
        assert elsewhere.returncode == 2, elsewhere.stderr
        assert f"study {STUDY} is run by {named}" in elsewhere.stderr
        doctored = command(tmp_path, "doctor")
        assert doctored.returncode == 2
        assert named in doctored.stderr
        process.kill()
        process.wait()
    ended = sum(trial.state.name == "COMPLETE" for trial in trials_of(tmp_path))
    done = command(tmp_path, *arguments[:4], "--trials", ended + 2, *arguments[6:])  # the dead one is not in the way
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
    assert json.loads(command(tmp_path, "doctor", "--json").stdout)["mended"] == []


@pytest.mark.parametrize(
    "place",
    ["_ship", pytest.param("_end_trial", marks=pytest.mark.slow), pytest.param("trial_ended", marks=pytest.mark.slow)],
)
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
    arguments = ("--arch", "cnn3", "--data", pictures, "--trials", 40, *LONG)
    done = command(tmp_path, *arguments, "--budget", "25s")
    assert done.returncode == 0, done.stderr
    assert "the budget is used up after" in done.stdout
    assert "its budget ended" in done.stdout
    trials = trials_of(tmp_path)
    complete = sum(trial.state.name == "COMPLETE" for trial in trials)
    assert 1 <= complete < 40
    begun = [trial for trial in trials if trial.datetime_start]  # the others wait
    spent = max(trial.datetime_complete for trial in begun) - min(trial.datetime_start for trial in begun)
    assert spent.total_seconds() < 26
    assert [path.name for path in (tmp_path / "checkpoints").rglob("last.safetensors")]
    more = command(tmp_path, *arguments[:4], "--trials", complete + 2, *arguments[6:])
    assert more.returncode == 0, more.stderr
    ended = consistent(tmp_path, STUDY, complete + 2)
    assert any(trial.user_attrs.get("result", {}).get("resumed_after") for trial in ended)


@pytest.mark.slow
def test_only_the_best_checkpoint_and_registered_ones_are_kept(pictures, tmp_path):
    done = command(tmp_path, *tiny(pictures, 4, "--keep", "best"))
    assert done.returncode == 0, done.stderr
    client, runs = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}"), children_of(tmp_path)

    def kept():
        return {number for number, run in runs.items() if client.list_artifacts(run.info.run_id, "checkpoint")}

    values = {str(trial.number): trial.value for trial in trials_of(tmp_path)}
    first = max(values, key=lambda number: values[number])
    assert kept() == {first}
    assert command(tmp_path, *tiny(pictures, 9, "--keep", "best")).returncode == 0
    runs = children_of(tmp_path)
    values = {str(trial.number): trial.value for trial in trials_of(tmp_path)}
    assert kept() == {first, max(values, key=lambda number: values[number])}  # the first best one is registered


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    done = command(folder, *tiny(pictures, 3, "--pruner", "none"))
    assert done.returncode == 0, done.stderr
    return folder


def copy_of(folder, place):
    """Stores hold absolute paths, so a copy is looked at in the place of the original."""
    shutil.copytree(folder, place, symlinks=True)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("files", ["kept", "lost"])
def test_the_runs_can_be_written_again_into_an_empty_store(pictures, finished, tmp_path, files):
    work = copy_of(finished, tmp_path / "work")
    before = children_of(work)
    (work / "mlflow.db").unlink()
    if files == "lost":
        shutil.rmtree(finished / "mlruns", ignore_errors=True)
    shutil.rmtree(work / "mlruns")

    said = command(work, "doctor")
    assert said.returncode == 1
    assert f"MLflow has no run of study {STUDY}; `sweep doctor --rebuild` writes all of them again" in said.stdout
    rebuilt = command(work, "doctor", "--rebuild", "--json")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert sum("written again from the study" in sentence for sentence in json.loads(rebuilt.stdout)["mended"]) == 3
    again = command(work, "doctor", "--rebuild", "--json")
    assert json.loads(again.stdout) == {"exit_code": 0, "studies": [STUDY], "mended": [], "missing": []}

    uri = f"sqlite:///{work}/./mlflow.db"  # under its first name this process still has the old file open
    after, client = children_of(work, uri), MlflowClient(uri)
    assert not after.keys() ^ before.keys()
    for number, run in before.items():
        other = after[number]
        assert other.info.run_id != run.info.run_id
        assert other.data.metrics == run.data.metrics  # the test scores of the chosen one too
        assert other.data.params == run.data.params
        assert other.info.status == run.info.status
        assert abs(other.info.start_time - run.info.start_time) < 10_000
        assert abs(other.info.end_time - run.info.end_time) < 10_000
        own = {"mlflow.parentRunId", "mlflow.user"}
        assert {key: value for key, value in other.data.tags.items() if key not in own} == {
            key: value for key, value in run.data.tags.items() if key not in own
        }
        for metric in run.data.metrics:
            assert [(p.step, p.value, p.timestamp) for p in client.get_metric_history(other.info.run_id, metric)
                    if metric.startswith(("val/", "train/"))] == [
                (point["epoch"], point[metric], int(point["time"] * 1000))
                for point in trials_of(work)[int(number)].user_attrs["result"]["history"]
                if metric.startswith(("val/", "train/"))
            ]  # fmt: skip
        found = {entry.path for entry in client.list_artifacts(other.info.run_id)}
        kept = {"figures", "checkpoint", "predictions"} | (
            {"promotions.jsonl"} if "test/auroc" in run.data.metrics else set()
        )
        assert found == ({"figures"} if files == "lost" else kept)

    done = command(work, *tiny(pictures, 3, "--pruner", "none"))
    assert done.returncode == 0, done.stderr
    assert ("is gone; training it again from its seed" in done.stdout) == (files == "lost")
    assert len(client.search_model_versions("name = 'blob-pictures'")) == 1


def test_doctor_mends_what_a_kill_left_and_then_has_nothing_to_do(pictures, tmp_path):
    died = sweep(tmp_path, *tiny(pictures, 2), fault="after telling:1:SIGKILL")
    assert died.returncode == -signal.SIGKILL
    (tmp_path / "checkpoints" / "blob-pictures-cnn3" / "077").mkdir()
    mended = json.loads(command(tmp_path, "doctor", "--json").stdout)["mended"]
    said = "\n".join(mended)
    for sentence in (
        "cnn3-000: its run was RUNNING; ended as COMPLETE",
        "cnn3-000: files were still on disk; logged",
        "077: checkpoints that no trial needs; removed",
        f"study {STUDY}: its run had not ended; ended",
    ):
        assert sentence in said
    assert json.loads(command(tmp_path, "doctor", "--json").stdout)["mended"] == []
    assert command(tmp_path, *tiny(pictures, 2)).returncode == 0
    consistent(tmp_path, STUDY, 2)


@pytest.mark.slow
def test_a_run_that_somebody_deleted_comes_back(pictures, tmp_path):
    assert command(tmp_path, *tiny(pictures, 2)).returncode == 0
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for run in children_of(tmp_path).values():
        client.delete_run(run.info.run_id)
    done = command(tmp_path, *tiny(pictures, 2))
    assert done.returncode == 0, done.stderr
    assert "mended: cnn3-000: its run was missing; written again from the study" in done.stdout
    consistent(tmp_path, STUDY, 2)  # one version still


@pytest.mark.parametrize("command_line", [("doctor", "--storage"), ("replay", "x", "--tracking-uri")])
def test_a_store_that_is_not_there_is_not_made(tmp_path, command_line):
    done = command(tmp_path, *command_line, f"sqlite:///{tmp_path}/none.db")
    assert done.returncode == 2
    assert "there is no such file" in done.stderr
    assert not list(tmp_path.iterdir())


def test_doctor_without_a_study_says_where_to_go(tmp_path):
    done = command(tmp_path, "doctor")
    assert done.returncode == 2
    assert "there is no optuna.db here" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_replay_says_what_differs_and_refuses_what_it_cannot_train(pictures, finished, tmp_path):
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    run = children_of(finished)["1"]
    same = command(finished, "replay", run.info.run_id, "--json")
    assert same.returncode == 0, same.stderr
    assert json.loads(same.stdout)["equal"]
    client.log_metric(run.info.run_id, "val/loss", 9.0, step=2)
    other = command(finished, "replay", run.info.run_id)
    assert other.returncode == 1
    assert "epoch   2: 1 of 13 metrics differ, most val/loss: 9.000000 then" in other.stdout
    assert "machine, versions and commit are the same" in other.stdout or "what differs around it" in other.stdout

    parent = run.data.tags["mlflow.parentRunId"]
    smaller = tmp_path / "Blob_Pictures"
    shutil.copytree(pictures, smaller)
    next((smaller / "train" / "NORMAL").iterdir()).unlink()
    for arguments, sentence in (
        ((parent,), "is not a trial's"),
        (("0" * 32,), f"has no run {'0' * 32}"),
        ((run.info.run_id, "--data", smaller), "its data digest is"),
        ((run.info.run_id, "--tracking-uri", f"sqlite:///{tmp_path}/none.db"), "there is no such file"),
    ):
        done = command(finished, "replay", *arguments)
        assert done.returncode == 2, done.stderr
        assert sentence in done.stderr
    assert not (tmp_path / "none.db").exists()


@pytest.mark.slow
def test_four_workers_finish_forty_trials(pictures, tmp_path):
    small = ("--image-size", 24, "--epochs", 3, "--search", "batch_size=16,32", "--warmup", 1, "--workers", 4)
    done = command(tmp_path, "--arch", "cnn3", "--data", pictures, "--trials", 40, *small)
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
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "sweep", *map(str, arguments)], cwd=small_disk, stdout=file, stderr=file
        )
        wait_for(lambda: " complete " in log.read_text(), process, log.read_text)
        with pytest.raises(OSError, match="No space left"):
            fill(small_disk / "filler")
        assert process.wait(90) == 1, log.read_text()
    assert "full" in log.read_text()
    assert "make room, and the same command goes on from here" in log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()
    (small_disk / "filler").unlink()
    done = command(small_disk, *arguments)
    assert done.returncode == 0, done.stderr
    consistent(small_disk, STUDY, 6)


@pytest.mark.slow
def test_training_goes_on_while_the_tracking_server_is_away(pictures, tmp_path, server):
    work = tmp_path / "work"
    work.mkdir()
    environment = {"MLFLOW_TRACKING_URI": server.uri}
    arguments = ("--arch", "cnn3", "--data", pictures, "--trials", 24, *LONG)
    away = command(work, *arguments, env={**os.environ, **environment})
    assert away.returncode == 2
    assert f"--tracking-uri {server.uri}: cannot be opened" in away.stderr
    assert "Traceback" not in away.stderr

    server.start()
    with running(work, *arguments, environment=environment) as (process, said):
        wait_for(lambda: "complete" in said(), process, said)
        server.kill()
        before = said().count(" complete ")
        wait_for(
            lambda: said().count(" complete ") >= before + 3, process, said
        )  # also some that begin and end meanwhile
        assert "does not answer" in said()
        assert "nothing is lost, the runs are completed once it is back" in said()
        server.start()
        wait_for(lambda: "MLflow answers again" in said(), process, said)
        assert process.wait(240) == 0, said()
    (work / "log").unlink()
    consistent(work, STUDY, 24, uri=server.uri)


@pytest.mark.slow
def test_a_server_that_is_away_at_the_end_is_waited_for(pictures, tmp_path, server):
    work = tmp_path / "work"
    work.mkdir()
    server.start()
    arguments = ("--arch", "cnn3", "--data", pictures, "--trials", 4, *LONG)
    with running(work, *arguments, environment={"MLFLOW_TRACKING_URI": server.uri}) as (process, said):
        wait_for(lambda: "complete" in said(), process, said)
        server.kill()
        wait_for(lambda: "waiting for it, since the study ends there" in said(), process, said)
        server.start()
        assert process.wait(240) == 0, said()
    (work / "log").unlink()
    consistent(work, STUDY, 4, uri=server.uri)


@pytest.mark.slow
def test_with_a_server_stdout_belongs_to_one_object_and_nothing_stays_in_temp(pictures, tmp_path, server):
    """MLflow prints the address of each run that ends, and downloads models to places of its own."""
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    server.start()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server.uri, "TMPDIR": str(temporary)}
    for arguments in (
        tiny(pictures, 2),
        ("predict", "blob-pictures", pictures / "test"),
        ("evaluate", "blob-pictures@cnn3", "--data", pictures),
        ("promote", "blob-pictures/1", "--as", "clinic"),
    ):
        done = command(work, *arguments, "--json", env=environment)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["exit_code"] == 0
    left = [path for path in temporary.iterdir() if not path.name.startswith("torchinductor_")]  # torch's, and empty
    assert not left
    server.kill()
    away = command(work, "evaluate", "blob-pictures", "--data", pictures, env=environment)
    assert away.returncode == 2
    assert "Traceback" not in away.stderr
