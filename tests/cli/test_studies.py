"""What is in the stores, listed and exported; a study and a trial that are told to end from another terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import optuna
import pandas as pd
import pytest

from sweep.stores.study import stored_studies
from tests.helpers.servers import wait_for
from tests.helpers.studies import LONG, STUDY, client_of, running, sweep, tiny, trials_of


@pytest.fixture(scope="module")
def stored(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    (folder / "given.json").write_text('{"dropout": 0.5}')
    begins = ("--study", "other", "--enqueue", "cnn3", "--enqueue", "given.json", "--trials", "3")
    for more in ((), begins):
        done = sweep(folder, *tiny(pictures, 2, *more), blank_figures=True)
        assert done.returncode == 0, done.stderr
    return folder


def test_studies_are_listed_with_state_best_and_age(stored: Path, typed):
    code, out, err = typed(stored, "studies")
    assert code == 0, err
    lines = {line.split()[0]: line.split() for line in out.splitlines() if "blob-pictures" in line}
    assert lines.keys() == {STUDY, "blob-pictures/other"}
    assert lines[STUDY][1:3] == ["complete", "2"]
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = typed(stored, "studies", "--json")
    rows = {row["study"]: row for row in json.loads(out)["studies"]}
    (best,) = (study.best() for study in stored_studies(f"sqlite:///{stored}/optuna.db") if study.name == STUDY)
    assert rows[STUDY]["best"] == {"trial": best.number, "value": best.value, "params": best.params}
    assert rows[STUDY]["trials"] == {"complete": 2, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}


def test_a_search_begins_with_its_default_configuration_and_with_what_was_given(stored: Path):
    first, other = (trials_of(stored, f"blob-pictures/{name}") for name in ("cnn3", "other"))
    (best,) = (study.best() for study in stored_studies(f"sqlite:///{stored}/optuna.db") if study.name == STUDY)
    default, again, given = sorted(other, key=lambda trial: trial.number)
    assert default.params == first[0].params
    assert again.params == best.params
    assert given.params["dropout"] == 0.5
    client = client_of(stored)
    experiment = client.get_experiment_by_name("blob-pictures").experiment_id
    starts = {run.info.run_name: run.data.tags.get("sweep.start") for run in client.search_runs([experiment])}
    assert starts["cnn3-000"] == starts["other-000"] == "default configuration"
    assert starts["cnn3-001"] is None
    assert starts["other-001"] == f"trial {best.number} of {STUDY}"
    assert starts["other-002"] == "given.json"


def test_trials_are_listed_and_exported_the_best_first(stored: Path, typed):
    values = sorted((trial.value for trial in trials_of(stored, STUDY)), reverse=True)
    code, out, err = typed(stored, "trials", "cnn3")
    assert code == 0, err
    assert [line.split()[2] for line in out.splitlines() if line.startswith("cnn3-")] == [f"{v:.4f}" for v in values]
    _, out, _ = typed(stored, "trials", "cnn3", "--csv")
    table = pd.read_csv(io.StringIO(out))
    assert table["val/auroc"].tolist() == values
    rates = {trial.params["learning_rate"] for trial in trials_of(stored, STUDY)}
    assert set(table["learning_rate"]) == rates  # to the last digit, so that --enqueue can take it
    assert set(table) >= {"trial", "state", "learning_rate", "dropout", "epochs"}
    _, out, _ = typed(stored, "trials", STUDY, "--json")
    assert [row["trial"] for row in json.loads(out)["trials"]] == table["trial"].tolist()
    _, out, _ = typed(stored, "trials", "cnn3", "--latex")
    assert out.startswith("\\begin{tabular}")
    assert "learning\\_rate" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("trials", "cnn33"),
            "cnn33: there is no such study; there are: blob-pictures/cnn3, blob-pictures/other; did ",
        ),
        (("trials",), "there are several studies: blob-pictures/cnn3, blob-pictures/other; name one: sweep trials "),
        (("trials", "cnn3", "--csv", "--latex"), "--csv, --latex, --json: ask for one of them"),
        (("stop",), "no study runs here"),
        (("skip", "0"), "no study runs here, so no trial does"),
    ],
)
def test_what_there_is_not_is_said(stored: Path, typed, arguments, said: str):
    code, _, err = typed(stored, *arguments)
    assert code == 2
    assert said in err


@pytest.mark.parametrize("command", [("studies",), ("trials",), ("stop",), ("skip", "0")])
def test_an_empty_directory_says_how_to_begin(tmp_path: Path, typed, command):
    code, _, err = typed(tmp_path, *command)
    assert code == 2
    assert err == f"error: {tmp_path}: no study here yet; begin one: sweep search --arch cnn1\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_trial_and_then_its_study_are_ended_from_another_terminal(pictures: Path, tmp_path: Path, typed):
    begin = ("--arch", "cnn3", "--data", pictures, "--trials", 40, *LONG, "--epochs", 400)
    with running(tmp_path, *begin) as (process, said):

        def training() -> list[int]:
            found = trials_of(tmp_path, STUDY) if (tmp_path / "optuna.db").exists() else []
            return [one.number for one in found if one.state == optuna.trial.TrialState.RUNNING and one.values is None]

        wait_for(lambda: len(training()) == 2, process, said)
        assert "running" in typed(tmp_path, "studies")[1]
        code, _, err = typed(tmp_path, "skip", 7)
        assert (code, err) == (2, f"error: trial 7 of {STUDY} is not in training; these are: 0, 1\n")
        assert typed(tmp_path, "skip", 0)[0] == 0
        wait_for(lambda: "another program ended it as FAIL" in " ".join(said().split()), process, said)
        wait_for(lambda: training() == [1, 2], process, said)  # another configuration in its place
        code, out, _ = typed(tmp_path, "stop", "cnn3")
        assert code == 0
        assert "it ends after the epochs in training" in " ".join(out.split())
        assert process.wait() == 130
    assert "the same command goes on from here" in said()
    assert "stopped" in typed(tmp_path, "studies")[1]
