"""Stores that disagree with one another: `sweep doctor`, runs written again, and trials that are replayed."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
from mlflow import MlflowClient

from sweep.stores.conversion import attributes_of
from tests.helpers.consistent import consistent
from tests.helpers.studies import STUDY, children_of, sweep, tiny, trials_of


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    done = sweep(folder, *tiny(pictures, 3, "--pruner", "none"))
    assert done.returncode == 0, done.stderr
    return folder


def copy_of(folder, place):
    shutil.copytree(folder, place, symlinks=True)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("files", ["kept", "lost"])
def test_the_runs_can_be_written_again_into_an_empty_store(pictures, finished, tmp_path, files):
    work = copy_of(finished, tmp_path / "work")
    before = children_of(work)
    (work / "mlflow.db").unlink()
    if files == "lost":
        shutil.rmtree(work / "mlruns")

    said = sweep(work, "doctor")
    assert said.returncode == 1
    assert f"MLflow has no run of study {STUDY}; `sweep doctor --rebuild` writes all of them again" in said.stdout
    rebuilt = sweep(work, "doctor", "--rebuild", "--json")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert sum("written again from the study" in sentence for sentence in json.loads(rebuilt.stdout)["mended"]) == 3
    again = sweep(work, "doctor", "--rebuild", "--json")
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
                for point in attributes_of(trials_of(work, STUDY)[int(number)])["result"]["history"]
                if metric.startswith(("val/", "train/"))
            ]  # fmt: skip
        found = {entry.path for entry in client.list_artifacts(other.info.run_id)}
        kept = {"figures", "checkpoint", "predictions"} | (
            {"promotions.jsonl"} if "served_test_auroc" in run.data.metrics else set()
        )
        assert found == ({"figures"} if files == "lost" else kept)

    done = sweep(work, *tiny(pictures, 3, "--pruner", "none"))
    assert done.returncode == 0, done.stderr
    assert ("is gone; training it again from its seed" in done.stdout) == (files == "lost")
    assert len(client.search_model_versions("name = 'blob-pictures'")) == 1


def test_doctor_mends_what_a_kill_left_and_then_has_nothing_to_do(pictures, tmp_path):
    died = sweep(tmp_path, *tiny(pictures, 2), fault="after telling:1:SIGKILL")
    assert died.returncode == -signal.SIGKILL
    (tmp_path / "checkpoints" / "blob-pictures-cnn3" / "077").mkdir()
    mended = json.loads(sweep(tmp_path, "doctor", "--json").stdout)["mended"]
    said = "\n".join(mended)
    for sentence in (
        "cnn3-000: its run was RUNNING; ended as COMPLETE",
        "cnn3-000: files were still on disk; logged",
        "077: checkpoints that no trial needs; removed",
        f"study {STUDY}: its run had not ended; ended",
    ):
        assert sentence in said
    assert json.loads(sweep(tmp_path, "doctor", "--json").stdout)["mended"] == []
    assert sweep(tmp_path, *tiny(pictures, 2)).returncode == 0
    consistent(tmp_path, STUDY, 2)


@pytest.mark.slow
def test_a_run_that_somebody_deleted_comes_back(pictures, tmp_path):
    assert sweep(tmp_path, *tiny(pictures, 2)).returncode == 0
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for run in children_of(tmp_path).values():
        client.delete_run(run.info.run_id)
    done = sweep(tmp_path, *tiny(pictures, 2))
    assert done.returncode == 0, done.stderr
    assert "mended: cnn3-000: its run was missing; written again from the study" in done.stdout
    consistent(tmp_path, STUDY, 2)  # one version still


@pytest.mark.parametrize("command_line", [("doctor", "--storage"), ("replay", "x", "--tracking-uri")])
def test_a_store_that_is_not_there_is_not_made(tmp_path, command_line):
    done = sweep(tmp_path, *command_line, f"sqlite:///{tmp_path}/none.db")
    assert done.returncode == 2
    assert "there is no such file" in done.stderr
    assert not list(tmp_path.iterdir())


def test_doctor_without_a_study_says_where_to_go(tmp_path):
    done = sweep(tmp_path, "doctor")
    assert done.returncode == 2
    assert "there is no optuna.db here" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_replay_says_what_differs_and_refuses_what_it_cannot_train(pictures, finished, tmp_path):
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    run = children_of(finished)["1"]
    same = sweep(finished, "replay", run.info.run_id, "--json")
    assert same.returncode == 0, same.stderr
    assert json.loads(same.stdout)["equal"]
    client.log_metric(run.info.run_id, "val/loss", 9.0, step=2)
    other = sweep(finished, "replay", run.info.run_id)
    assert other.returncode == 1
    assert "epoch   2: 1 of 17 metrics differ, most val/loss: 9.000000 then" in other.stdout
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
        done = sweep(finished, "replay", *arguments)
        assert done.returncode == 2, done.stderr
        assert sentence in done.stderr
    assert not (tmp_path / "none.db").exists()
