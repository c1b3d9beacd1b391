"""What Optuna's dashboard shows: the metric's name, a link to MLflow on each trial, attributes of one line."""

from __future__ import annotations

import json
from typing import Any, cast

import optuna
import pytest

from sweep.stores.bounded_study import given_params
from sweep.stores.conversion import attributes_of
from sweep.stores.links import run_link
from sweep.stores.tracking import Run, Tracking

FULL_HD = 90  # characters that one line of a trial's page has room for in a window of 1280 pixels
HISTORY = [{"epoch": epoch, "val/auroc": 0.123456789, "val/loss": 0.123456789} for epoch in range(1, 31)]
RESULT = {"history": HISTORY, "best_epoch": 21, "resumed_after": 7}
RUN = {"params": {"seed": 17, "arch": "cnn1"}, "tags": {"sweep.study": "x-rays/cnn1"}, "artifacts": "./mlruns/1"}
FAILURE = {"cause": "worker lost", "reason": "its process was killed by SIGKILL", "details": "Traceback\n" * 99}
LINK = "[cnn1-000 in MLflow](http://127.0.0.1:5000/#/experiments/1/runs/a5)"


def notes_of(study) -> dict[str, object]:
    attributes = study._study._storage.get_study_system_attrs(study._study._study_id)
    return {name: value for name, value in attributes.items() if name.startswith("dashboard:")}


def test_what_is_long_is_stored_where_no_page_shows_it_and_read_back_whole(open_sqlite):
    study = open_sqlite()
    first, second = study.ask(), study.ask()
    for asked in (first, second):
        study.note_trial(asked.number, run=RUN)
    study.complete(first.number, 0.9, RESULT)
    study.note_trial(second.number, failure=FAILURE)
    study.fail(second.number)

    complete, failed = open_sqlite().trials()
    assert complete.attributes == {"run": RUN, "result": RESULT}
    assert failed.attributes == {"run": RUN, "failure": FAILURE}
    assert (complete.history, complete.best_epoch) == (HISTORY, 21)
    for trial in study._study.trials:
        assert all(len(f"{name} {json.dumps(value)}") <= FULL_HD for name, value in trial.user_attrs.items())
    assert study._study.trials[0].user_attrs == {"result": {"best_epoch": 21, "resumed_after": 7}}


def test_a_trial_of_an_earlier_version_is_read_and_repeated_alike(open_sqlite):
    study = open_sqlite()
    asked = study.ask()
    trial = study._asked[asked.number]
    for name, value in {"run": RUN, "result": RESULT}.items():
        trial.set_user_attr(name, value)
    study.retry(asked.number)
    study._tell(asked.number, optuna.trial.TrialState.COMPLETE, 0.9)

    assert study.trials()[0].attributes == {"run": RUN, "result": RESULT}
    assert study.best() == study.trials()[0]
    assert study.ask().seed == 17


def test_system_attributes_of_others_are_none_of_a_trial(open_sqlite):
    study = open_sqlite()
    study._study.enqueue_trial({}, user_attrs={"result": 3})
    trial = study._study.ask()
    assert given_params(trial) == {}
    study._study._storage.set_trial_system_attr(trial._trial_id, "sweep:result", {"history": HISTORY})
    assert "result" not in attributes_of(study._study.trials[0])


def test_the_objective_has_the_name_of_the_metric_also_in_a_study_that_began_without(open_it, storage):
    assert open_it(fingerprint={"metric": "val/auroc"})._study.metric_names == ["val/auroc"]

    plain = optuna.load_study(storage=storage, study_name="x-rays/cnn1")
    plain._storage.set_study_system_attr(plain._study_id, "study:metric_names", None)
    again = open_it(fingerprint={"metric": "val/auroc"})
    assert again._study.metric_names == ["val/auroc"]
    again.complete(again.ask().number, 0.5, RESULT)
    assert again.best().value == 0.5


def test_a_trial_links_to_its_run(open_it):
    study = open_it()
    asked = study.ask()
    study.show_note(asked.number, LINK)

    identifier = study._study.trials[0]._trial_id
    expected = {f"dashboard:{identifier}:note_str:0": LINK, f"dashboard:{identifier}:note_ver": 1}
    assert notes_of(study) == expected


def test_what_a_person_wrote_about_a_trial_stays(open_sqlite):
    study = open_sqlite()
    study._study.enqueue_trial({})
    waiting = study._study.trials[0]
    text, version = f"dashboard:{waiting._trial_id}:note_str:0", f"dashboard:{waiting._trial_id}:note_ver"
    storage, number = study._study._storage, study._study._study_id
    storage.set_study_system_attr(number, text, "why not?")
    storage.set_study_system_attr(number, version, 4)
    asked = study.ask()
    study.show_note(asked.number, LINK)
    assert notes_of(study) == {text: "why not?", version: 4}

    storage.set_study_system_attr(number, text, f"{LINK} looks good")
    study.show_note(asked.number, LINK.replace("a5", "b6"))  # its run was lost, and written again
    assert notes_of(study) == {text: f"{LINK.replace('a5', 'b6')} looks good", version: 5}


@pytest.mark.parametrize(
    ("uri", "base"),
    [
        ("sqlite:////home/ann/mlflow.db", "http://127.0.0.1:5000"),
        ("https://ann:hunter2@mlflow.example/", "https://mlflow.example"),
        ("http://mlflow.example:5000", "http://mlflow.example:5000"),
    ],
)
def test_a_link_names_the_server_without_its_password(uri, base):
    tracking = Tracking(cast(Any, None), uri, "synthetic", "1")
    run = Run("a5", "cnn1-000", "RUNNING", {}, {}, {}, "", 0.0)
    assert run_link(run, tracking) == f"[cnn1-000 in MLflow]({base}/#/experiments/1/runs/a5)"
