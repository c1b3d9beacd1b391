"""Whole studies, as a user types them: real processes, real stores, real kills."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from sweep.stores.conversion import attributes_of
from sweep.stores.registry import ON_VERSION
from sweep.stores.shown_params import exact_params
from tests.data.test_sources import medmnist
from tests.helpers.consistent import consistent
from tests.helpers.servers import wait_for
from tests.helpers.studies import artifacts, client_of, cold_sweep, running, runs_of, states, sweep, trials_of

SMALL = ("--image-size", "24", "--epochs", "3", "--search", "batch_size=16,32", "--workers", "2")


@pytest.fixture(scope="module")
def study(pictures, tmp_path_factory):
    """A finished study: folder, and the object that --json printed."""
    folder = tmp_path_factory.mktemp("study")
    # Medians prune from the sixth trial on, so the bad half of these is pruned.
    done = cold_sweep(folder, "--arch", "cnn1", "--trials", 12, "--data", pictures, "--warmup", 1, *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done


def test_the_terminal_gets_plain_lines_and_stdout_one_object(study):
    _, answer, done = study
    assert answer["exit_code"] == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert not re.search(r"Warning|Traceback|INFO|it/s", done.stderr), done.stderr
    assert len(re.findall(r"^cnn1-\d{3} +(?:complete|pruned)", done.stderr, re.M)) == 12
    for following in ("mlflow ui", "mlflow models serve -m models:/blob-pictures@cnn1 --env-manager local -p 5001"):
        assert following in done.stderr


def test_the_study_has_as_many_trials_as_asked(study):
    folder, answer, _ = study
    trials = trials_of(folder)
    assert states(trials) == answer["studies"][0]["counts"]
    assert sum(states(trials).values()) == 12
    assert states(trials)["PRUNED"] >= 1
    best = max((trial for trial in trials if trial.state.name == "COMPLETE"), key=lambda trial: trial.value)
    assert answer["studies"][0]["best"]["trial"] == best.number
    assert len({attributes_of(trial)["run"]["params"]["seed"] for trial in trials}) == 12


def test_mlflow_shows_what_optuna_knows(study):
    folder, _, _ = study
    parents, children = runs_of(folder)
    assert list(parents) == ["cnn1"]
    assert sorted(children) == [f"cnn1-{number:03d}" for number in range(12)]
    status = {"COMPLETE": "FINISHED", "PRUNED": "FINISHED"}
    client = client_of(folder)
    for trial in trials_of(folder):
        run = children[f"cnn1-{trial.number:03d}"]
        assert run.data.tags["sweep.trial"] == str(trial.number)
        assert run.info.status == status[trial.state.name]
        assert run.data.tags["sweep.state"] == trial.state.name
        assert run.data.tags["mlflow.parentRunId"] == parents["cnn1"].info.run_id
        exact = exact_params(run.data.params, run.data.tags)
        for name, value in trial.params.items():
            assert exact[name] == str(value)
            assert run.data.params[name] == (f"{value:.4g}" if name == "dropout" else run.data.params[name])
        logged = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "val/auroc")}
        assert logged == pytest.approx(trial.intermediate_values)
        if trial.state.name == "COMPLETE":
            result = attributes_of(trial)["result"]
            assert run.data.metrics["objective"] == trial.value == logged[result["best_epoch"]]
            losses = [row["val/loss"] for row in result["history"]]
            assert result["best_epoch"] == 1 + int(np.argmin(losses))


def test_runs_say_what_they_were_made_of(study):
    folder, _, _ = study
    parents, children = runs_of(folder)
    for run in (parents["cnn1"], children["cnn1-000"]):
        tags = run.data.tags
        assert {
            "sweep.study",
            "sweep.arch",
            "sweep.data_digest",
            "sweep.split_digest",
            "sweep.version.torch",
        } <= tags.keys()
        assert tags["sweep.study"] == "blob-pictures/cnn1"
        assert [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["blob-pictures"] * 2
    assert {"arch", "seed", "epochs", "patience", "image_size", "precision"} <= children["cnn1-000"].data.params.keys()
    assert children["cnn1-000"].data.params["image_size"] == "24"


def test_every_trial_has_its_files(study):
    folder, _, _ = study
    client = client_of(folder)
    _, children = runs_of(folder)
    complete = {
        "figures/learning_curves.png", "figures/confusion_matrix.png", "figures/roc.png",
        "predictions/validation.csv", "checkpoint/best.safetensors",
    }  # fmt: skip
    for run in children.values():
        found = set(artifacts(client, run.info.run_id))
        if run.data.tags["sweep.state"] == "COMPLETE":
            assert complete <= found
        else:
            assert found == {"figures/learning_curves.png"}


def test_the_study_run_shows_the_search(study):
    folder, _, _ = study
    client = client_of(folder)
    parents, _ = runs_of(folder)
    run = parents["cnn1"]
    names = ("architecture", "class_balance", "history", "importance", "parallel_coordinate", "timeline")
    files = {f"figures/{name}.png" for name in names} | {"leaderboard.json", "sweep.yaml"}
    assert files == set(artifacts(client, run.info.run_id))
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "leaderboard.json", str(folder))).read_text())
    assert len(table["data"]) == 12
    column = table["columns"].index("val/auroc")
    complete = [row[column] for row in table["data"] if row[1] == "COMPLETE"]
    assert complete == sorted(complete, reverse=True)
    assert "is the best of 12 trials" in run.data.tags["mlflow.note.content"]
    assert run.info.status == "FINISHED"


def test_the_test_set_was_opened_for_the_chosen_trial_alone(study):
    folder, answer, _ = study
    _, children = runs_of(folder)
    chosen = f"cnn1-{answer['studies'][0]['best']['trial']:03d}"
    opened = [name for name, run in children.items() if any("test" in key for key in run.data.metrics)]
    assert opened == [chosen]
    assert children[chosen].data.tags["sweep.test_opened"] == "for 1 of this study's trials so far"
    assert 0.5 < answer["studies"][0]["test"]["test/auroc"] <= 1


def test_the_best_is_registered_with_its_scores(study):
    folder, answer, _ = study
    client = client_of(folder)
    for alias in ("cnn1", "champion"):
        version = client.get_model_version_by_alias("blob-pictures", alias)
        assert version.run_id == answer["studies"][0]["run_id"]
        model = client.get_logged_model(version.source.removeprefix("models:/"))
        scores = {metric.key: metric.value for metric in model.metrics}
        assert scores["test/auroc"] == answer["studies"][0]["test"]["test/auroc"]
        assert len(scores) >= 20
        assert {metric.dataset_name for metric in model.metrics} == {"blob-pictures"}
        assert model.params["optimizer"] == answer["studies"][0]["best"]["params"]["optimizer"]
        assert set(version.tags) <= {*ON_VERSION, "val/auroc"}
        assert all(version.tags.values())
        assert "chosen by val/auroc" in version.description


def test_nothing_is_left_in_the_working_directory_but_the_stores(study):
    folder, _, _ = study
    assert {path.name for path in folder.iterdir()} - {"leaderboard.json"} == {
        "mlflow.db", "mlruns", "optuna.db", ".sweep.lock",
    }  # fmt: skip


def test_typed_again_it_does_nothing_and_says_so_and_then_goes_on(study, pictures):
    folder, answer, _ = study
    arguments = ("--arch", "cnn1", "--data", pictures, "--warmup", 1, *SMALL, "--json")
    again = sweep(folder, "--trials", 12, *arguments)
    assert again.returncode == 0, again.stderr
    assert "has 12 of 12 trials; nothing is left to train" in again.stderr
    assert json.loads(again.stdout)["studies"][0]["version"] == answer["studies"][0]["version"]
    client = client_of(folder)
    assert len(client.search_model_versions("name = 'blob-pictures'")) == 1
    assert len(runs_of(folder)[1]) == 12
    more = sweep(folder, "--trials", 14, *arguments)
    assert more.returncode == 0, more.stderr
    assert sum(states(trials_of(folder)).values()) == 14
    first = trials_of(folder)
    assert len({tuple(trial.params.values()) for trial in first}) == 14  # the sampler does not repeat itself


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("--image-size", "32"), "was begun with image size 24, not 32"),
        (("--split-seed", "1"), "was begun with split digest"),
        (("--fix", "activation=relu"), "was begun with space"),
        (("--epochs", "5"), "was begun with epochs 3, not 5"),
    ],
)
def test_a_study_does_not_mix_with_another(study, pictures, changes, said):
    folder, _, _ = study
    before = len(runs_of(folder)[1])
    done = sweep(folder, "--arch", "cnn1", "--trials", 20, "--data", pictures, *SMALL, *changes)
    assert done.returncode == 2
    assert said in done.stderr
    assert "--study NAME" in done.stderr
    assert len(runs_of(folder)[1]) == before


LONG = ("--image-size", "48", "--epochs", "12", "--patience", "0", "--pruner", "none", "--search", "batch_size=16,32")


def in_the_middle(folder):
    """Whether a trial has ended and another one is in its first half, so that whatever ends the sweep ends that too."""
    if not re.search(r"^cnn1-\d{3} +complete ", (folder / "log").read_text(), re.M):
        return False
    with closing(sqlite3.connect(f"{(folder / 'optuna.db').as_uri()}?mode=ro", uri=True)) as database:
        begun = """SELECT trial_id FROM trials JOIN trial_intermediate_values USING (trial_id)
                   WHERE trials.state = 'RUNNING' GROUP BY trial_id HAVING count(*) <= 6"""
        return database.execute(begun).fetchone() is not None


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_ended_in_the_middle_the_same_command_goes_on(pictures, tmp_path, how):
    arguments = ("--arch", "cnn1", "--trials", 4, "--data", pictures, *LONG, "--workers", "2")
    # One of the three as a user types it.
    with running(tmp_path, *arguments, warm=how != signal.SIGKILL) as (process, said):
        wait_for(lambda: in_the_middle(tmp_path), process, said)
        process.send_signal(how)
        code = process.wait(120)  # 20 s for the epochs to end; more where the machine is slow
    if how != signal.SIGKILL:
        assert code == 130, said()
        assert "the same command goes on from here" in said()
        assert "Traceback" not in said()
        assert not states(trials_of(tmp_path))["RUNNING"]
        assert {run.info.status for run in runs_of(tmp_path)[1].values()} <= {"FINISHED", "FAILED"}

    resumable = {path.parent.name for path in (tmp_path / "checkpoints").glob("*/*/last.safetensors")}
    done = sweep(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    (tmp_path / "log").unlink()
    trials = consistent(tmp_path, "blob-pictures/cnn1", 4)
    if how == signal.SIGKILL:
        assert states(trials)["FAIL"] >= 1
    _, children = runs_of(tmp_path)
    for trial in trials:
        if "retry_of" in trial.user_attrs:
            run, first = children[f"cnn1-{trial.number:03d}"], children[f"cnn1-{trial.user_attrs['retry_of']:03d}"]
            assert run.data.tags["sweep.retry_of"] == first.info.run_name
            if "run" in attributes_of(trials[trial.user_attrs["retry_of"]]):
                assert first.data.params == run.data.params  # the seed too
            else:  # cut short before its first note: it had hyperparameters, maybe not all of them, and nothing else
                exact = exact_params(first.data.params, first.data.tags)
                assert exact.items() <= {key: str(value) for key, value in trial.params.items()}.items()
            if f"{trial.user_attrs['origin']:03d}" in resumable:
                assert int(run.data.tags["sweep.resumed_after"]) >= 1

    # Whatever was stopped in between gave the numbers that it would have given in one piece.
    for trial in trials:
        if trial.user_attrs.get("retry_of") is not None and trial.state.name == "COMPLETE":
            again = sweep(tmp_path, "replay", children[f"cnn1-{trial.number:03d}"].info.run_id)
            assert again.returncode == 0, again.stdout
            assert "every one equal" in again.stdout
            break


def test_the_same_seed_finds_the_same(pictures, tmp_path):
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        arguments = ("--arch", "cnn3", "--trials", 2, "--data", pictures, *SMALL[:-1], "1", "--seed", "5")
        done = sweep(tmp_path / name, *arguments)
        assert done.returncode == 0, done.stderr
        found.append(
            [(t.params, t.value, t.intermediate_values) for t in trials_of(tmp_path / name, "blob-pictures/cnn3")]
        )
    assert found[0] == found[1]


def test_five_classes_from_an_npz_go_all_the_way(tmp_path):
    medmnist(tmp_path / "blobs.npz", classes=5)
    work = tmp_path / "work"
    work.mkdir()
    arguments = ("--data", tmp_path / "blobs.npz", "--fix", "batch_size=16", "--epochs", 2, "--image-size", 16)
    done = sweep(work, "--arch", "cnn3", "--trials", 2, *arguments, "--fix", "learning_rate=1e-3", "--json")
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout)["studies"]
    assert outcome["threshold"] is None
    assert outcome["model"] == "blobs"
    assert "test/specificity" not in outcome["test"]


def test_trials_that_all_fail_stop_the_study_and_say_why(pictures, tmp_path):
    fixed = [f"--fix={text}" for text in ("learning_rate=1e9", "optimizer=sgd", "activation=relu", "batch_size=16")]
    done = sweep(tmp_path, "--arch", "cnn3", "--trials", 30, "--data", pictures, "--image-size", 24, *fixed)
    assert done.returncode == 1
    assert "the first 3 configurations all failed, the last one of non-finite loss" in done.stderr
    assert states(trials_of(tmp_path, "blob-pictures/cnn3"))["COMPLETE"] == 0
    parents, children = runs_of(tmp_path)
    assert {run.info.status for run in (*parents.values(), *children.values())} == {"FAILED"}
    causes = Counter(run.data.tags["sweep.cause"] for run in children.values())
    assert causes["non-finite loss"] >= 3
    assert set(causes) <= {"non-finite loss", "interrupted"}
    assert not [run for run in children.values() if "sweep.retry_of" in run.data.tags]


@pytest.mark.slow
def test_an_experiment_named_like_a_path_touches_nothing_there(pictures, tmp_path):
    victim = tmp_path / "victim" / "cnn3"
    victim.mkdir(parents=True)
    (victim / "precious").write_text("x")
    work = tmp_path / "work"
    work.mkdir()
    arguments = ("--data", pictures, *SMALL[:4], "--fix", "batch_size=32", "--experiment", tmp_path / "victim")
    done = sweep(work, "--arch", "cnn3", "--trials", 1, *arguments)
    assert done.returncode == 0, done.stderr
    assert (victim / "precious").exists()
    assert not (work / "checkpoints").exists()
