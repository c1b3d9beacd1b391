"""Whole studies in which another program enqueues, adds and ends trials: each costs itself and nothing else."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from sweep.stores.study import Study
from tests.helpers.studies import STUDY, client_of, runs_of, states, sweep, tiny, trials_of


def foreign(folder) -> optuna.Study:
    return optuna.load_study(study_name=STUDY, storage=f"sqlite:///{folder / 'optuna.db'}")


@pytest.fixture(scope="module")
def begun(pictures, tmp_path_factory):
    """A study of one trial."""
    folder = tmp_path_factory.mktemp("foreign")
    done = sweep(folder, *tiny(pictures, 1), blank_figures=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_what_cannot_be_trained_fails_once_and_the_study_goes_on(begun, pictures):
    study = foreign(begun)
    study.enqueue_trial({"activation": "tanh", "learning_rate": 1e-3})
    study.enqueue_trial({"learning_rate": "high", "momentum (Nesterov)": 0.9})
    study.enqueue_trial({"activation": "gelu", "batch_size": 16.0}, user_attrs={"origin": "the dashboard"})
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=1e9))

    done = sweep(begun, *tiny(pictures, 3, "--json"), blank_figures=True)

    assert done.returncode == 0, done.stderr
    assert "cnn3-001 failed enqueued with activation 'tanh', which is not one of relu, sigmoid, gelu, silu; not" in (
        done.stderr
    )
    assert "learning_rate 'high', which is not a number from 1e-05 to 0.1, logarithmic; 'momentum (N" in done.stderr
    trials = trials_of(begun, STUDY)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert trials[1].user_attrs["failure"]["cause"] == "not in the space"
    assert trials[3].params["activation"] == "gelu"
    (outcome,) = json.loads(done.stdout)["studies"]
    assert outcome["counts"] == {"COMPLETE": 3, "FAIL": 3}
    assert outcome["best"]["trial"] != 4
    _, children = runs_of(begun)
    assert [children[f"cnn3-00{number}"].info.status for number in range(6)] == [
        "FINISHED", "FAILED", "FAILED", "FINISHED", "FAILED", "FINISHED",
    ]  # fmt: skip
    assert children["cnn3-001"].data.tags["sweep.reason"].startswith("enqueued with activation 'tanh'")
    assert children["cnn3-004"].data.tags["sweep.reason"].startswith("another program ended or added it as COMPLETE")
    again = sweep(begun, *tiny(pictures, 3), blank_figures=True)
    assert again.returncode == 0, again.stderr
    assert "has 3 of 3 trials; nothing is left to train" in again.stdout
    assert "mended" not in again.stdout
    assert len(trials_of(begun, STUDY)) == 6


@pytest.mark.slow
def test_a_trial_ended_by_hand_while_it_trains_is_stopped_and_another_is_trained(
    pictures, tmp_path, typed, monkeypatch
):
    told, report = [], Study.report

    def ended_by_hand(self, number, epoch, value):
        if not told:
            told.append(number)
            foreign(tmp_path).tell(number, 0.999)
        report(self, number, epoch, value)

    monkeypatch.setattr(Study, "report", ended_by_hand)
    code, said, err = typed(tmp_path, *tiny(pictures, 2))
    assert code == 0, err
    assert "cnn3-000 stopped another program ended it as COMPLETE; it does not count" in said
    assert states(trials_of(tmp_path, STUDY)) == {"COMPLETE": 3}
    parents, children = runs_of(tmp_path)
    assert [children[f"cnn3-00{number}"].info.status for number in range(3)] == ["FAILED", "FINISHED", "FINISHED"]
    (version,) = client_of(tmp_path).search_model_versions("name = 'blob-pictures'")
    assert version.run_id != children["cnn3-000"].info.run_id
    assert not (tmp_path / "checkpoints").exists()
    assert list(parents) == ["cnn3"]


@pytest.mark.slow
def test_a_study_in_which_all_trials_are_pruned_has_no_best_and_says_so(pictures, tmp_path):
    assert sweep(tmp_path, *tiny(pictures, 2), blank_figures=True).returncode == 0
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as database, database:
        database.execute("UPDATE trials SET state = 'PRUNED'")

    done = sweep(tmp_path, *tiny(pictures, 2), blank_figures=True)

    assert done.returncode == 1
    assert "every trial was pruned or failed, so there is no best one; allow more with a larger --trials" in done.stderr
    assert "Traceback" not in done.stderr
    more = sweep(tmp_path, *tiny(pictures, 3), blank_figures=True)
    assert more.returncode == 0, more.stderr
    assert states(trials_of(tmp_path, STUDY)) == {"PRUNED": 2, "COMPLETE": 1}
