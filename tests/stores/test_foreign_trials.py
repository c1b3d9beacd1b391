"""Trials that another program enqueued, added or ended (Optuna's API, its dashboard) cost a study nothing but themselves."""

from __future__ import annotations

from types import SimpleNamespace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from sweep.orchestrator.retries import LEFT_RUNNING, requeue
from sweep.orchestrator.study_run import can_ask, missing_trials
from sweep.space import SPACES, study_space
from sweep.system.errors import StudyFailedError, TrialEndedElsewhereError

GOOD = {"activation": "gelu", "optimizer": "sgd", "learning_rate": 0.01, "batch_size": 64, "dropout": 0.1}
CHOICES = {"activation": "relu, sigmoid, gelu, silu", "batch_size": "32, 64, 128, 256"}
TRAINED = {"history": [{"epoch": 1, "val/auroc": 0.5}], "best_epoch": 1}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"activation": "tanh"}, f"activation 'tanh', which is not one of {CHOICES['activation']}"),
        ({"activation": 3}, f"activation '3', which is not one of {CHOICES['activation']}"),
        ({"activation": None}, f"activation 'None', which is not one of {CHOICES['activation']}"),
        ({"activation": ["relu"]}, f"activation \"['relu']\", which is not one of {CHOICES['activation']}"),
        ({"batch_size": "64"}, f"batch_size '64', which is not one of {CHOICES['batch_size']}"),
        ({"batch_size": 48}, f"batch_size '48', which is not one of {CHOICES['batch_size']}"),
        ({"learning_rate": 5.0}, "learning_rate '5.0', which is not a number from 1e-05 to 0.1, logarithmic"),
        ({"learning_rate": -1}, "learning_rate '-1', which is not a number from 1e-05 to 0.1, logarithmic"),
        ({"learning_rate": "0.01"}, "learning_rate '0.01', which is not a number from 1e-05 to 0.1, logarithmic"),
        ({"learning_rate": float("nan")}, "learning_rate 'nan', which is not a number from 1e-05 to 0.1, logarithmic"),
        ({"dropout": True}, "dropout 'True', which is not a number from 0 to 0.6"),
        ({"momentum": 0.9}, "'momentum', which the study does not search"),
        (
            {"dropout": 2, "x": 1},
            "dropout '2', which is not a number from 0 to 0.6; 'x', which the study does not search",
        ),
    ],
)
def test_a_trial_that_the_study_does_not_search_is_not_trained_and_not_queued_again(open_sqlite, changes, fault):
    study = open_sqlite()
    study._study.enqueue_trial({**GOOD, **changes})
    asked = study.ask()
    assert (asked.number, asked.fault) == (0, fault)
    assert not study.retry(asked.number)  # as the next start does, where this process is killed here
    study.fail(asked.number)
    following = study.ask()
    assert (following.number, following.fault) == (1, "")
    assert following.params.keys() == SPACES["cnn1"].keys()


def test_what_is_missing_is_drawn_and_numbers_get_the_studys_own_type(open_sqlite):
    study = open_sqlite()
    study._study.enqueue_trial({"batch_size": 64.0, "dropout": 0})
    asked = study.ask()
    assert asked.fault == ""
    assert asked.params.keys() == SPACES["cnn1"].keys()
    assert (repr(asked.params["batch_size"]), repr(asked.params["dropout"])) == ("64", "0.0")


def test_a_value_other_than_the_fixed_one_is_refused(open_sqlite):
    study = open_sqlite(space=study_space("cnn1", fix=["dropout=0"]))
    study._study.enqueue_trial({**GOOD, "dropout": 0.1})
    assert study.ask().fault == "dropout '0.1', which is not one of 0"


def test_a_waiting_trial_of_other_distributions_is_refused(open_sqlite):
    study = open_sqlite()
    wide = {"learning_rate": FloatDistribution(1e-9, 10, log=True)}
    for rate in (9.0, 0.01):
        waiting = create_trial(state=TrialState.WAITING, params={"learning_rate": rate}, distributions=wide)
        study._study.add_trial(waiting)
    assert study.ask().fault == "learning_rate '9.0', which is not a number from 1e-05 to 0.1, logarithmic"
    study.fail(0)
    asked = study.ask()
    assert (asked.fault, asked.params["learning_rate"]) == ("", 0.01)


def test_trials_that_were_not_trained_here_do_not_count(open_sqlite):
    study = open_sqlite()
    for value in (0.5, 0.6):
        asked = study.ask()
        study.note_trial(asked.number, run={"params": asked.params})
        study.complete(asked.number, value, TRAINED)
    wide = {**study._distributions, "learning_rate": FloatDistribution(1e-9, 1e9, log=True)}
    added = [
        (GOOD, study._distributions),
        ({**GOOD, "learning_rate": 5e5}, wide),
        ({**GOOD, "momentum": 0.9}, {**study._distributions, "momentum": FloatDistribution(0, 1)}),
        ({"momentum (Nesterov)": 1.0}, {"momentum (Nesterov)": FloatDistribution(0, 1)}),
        ({}, {}),
    ]
    for params, distributions in added:
        for state, value in (
            (TrialState.COMPLETE, 1e9),
            (TrialState.COMPLETE, float("inf")),
            (TrialState.PRUNED, None),
        ):
            trial = create_trial(state=state, params=params, distributions=distributions, value=value)
            study._study.add_trial(trial)
    study = open_sqlite()
    assert (study.counts().done, study.counts().failed) == (2, 15)
    assert study.space().keys() == SPACES["cnn1"].keys()

    for value in (0.7, 0.65):  # TPE looks at trials from the eleventh on
        asked = study.ask()
        study.report(asked.number, 1, 0.5)
        study.should_prune(asked.number)
        study.complete(asked.number, value, TRAINED)

    assert (study.counts().done, study.counts().failed) == (4, 15)
    assert (study.best().number, study.best().value) == (17, 0.7)
    assert study.importances().keys() == SPACES["cnn1"].keys()
    figure = study.figures("val/auroc")["history"]
    assert max(line.get_ydata().max() for line in figure.axes[0].lines) == 0.7
    record = study.trial(2)
    assert (record.state, record.value, record.history) == ("FAIL", None, [])
    assert record.attributes["failure"]["reason"].startswith("another program ended or added it as COMPLETE")
    assert open_sqlite().counts() == study.counts()


def test_trials_with_which_optuna_allows_none_of_ours_are_said(open_sqlite):
    study = open_sqlite()
    params, distributions = {"activation": "tanh"}, {"activation": CategoricalDistribution(["tanh", "relu"])}
    study._study.add_trial(create_trial(params=params, distributions=distributions, value=1.0))
    with pytest.raises(StudyFailedError, match=r"^study x-rays/cnn1: another program added trials .* --study NAME$"):
        open_sqlite().ask()


@pytest.mark.parametrize(
    ("value", "state", "shown"),
    [(0.9, None, "COMPLETE"), (float("nan"), None, "FAIL"), (None, TrialState.PRUNED, "PRUNED")],
)
def test_a_trial_that_somebody_ends_while_it_trains_is_given_up(open_sqlite, value, state, shown):
    study = open_sqlite()
    asked, other = study.ask(), study.ask()
    optuna.load_study(study_name=study.name, storage=study._study._storage).tell(asked.number, value, state=state)

    for change in (
        lambda: study.report(asked.number, 1, 0.5),
        lambda: study.note_trial(asked.number, run={}),
    ):
        with pytest.raises((TrialEndedElsewhereError, KeyError)):
            change()
    for change in (study.complete, study.prune, study.fail):
        with pytest.raises(TrialEndedElsewhereError, match=f"^another program ended it as {shown}; it does not count$"):
            change(asked.number, *([0.5] if change == study.complete else []))

    study.complete(other.number, 0.7, TRAINED)
    assert (study.counts().done, study.counts().failed, study.counts().running) == (1, 1, 0)
    assert study.best().number == other.number
    assert study.ask().number == 2


def test_a_trial_that_another_tool_left_running_is_queued_again_only_if_it_can_be_trained(open_sqlite):
    study = open_sqlite()
    study._study.ask({"momentum": FloatDistribution(0, 1)})
    study._study.ask({"dropout": FloatDistribution(0, 0.6)})

    repaired = requeue(study, LEFT_RUNNING)

    assert [sentence.rpartition("; ")[2] for sentence in repaired] == ["failed", "queued again"]
    assert study.ask().retry_of == 1


def test_attributes_of_another_program_that_share_a_name_with_ours_are_not_ours(open_sqlite):
    study = open_sqlite()
    study._study.enqueue_trial(
        GOOD, user_attrs={"seed": "lucky", "origin": [1], "label": 7, "patience": None, "run": 3}
    )
    asked = study.ask()
    assert (asked.seed, asked.origin, asked.label, asked.patience) == (None, 0, None, None)
    assert study.trial(0).attributes == {}


def test_an_added_trial_with_a_result_that_is_none_of_ours_does_not_count(open_sqlite):
    study = open_sqlite()
    study._study.add_trial(create_trial(state=TrialState.COMPLETE, value=1e9, user_attrs={"result": 0.93}))
    study = open_sqlite()
    assert study.counts().done == 0
    assert study.best() is None


def test_a_trial_enqueued_while_the_study_runs_is_trained_by_it(open_sqlite):
    study = open_sqlite()
    study.claim(shared=False)
    study.fail(study.ask().number)
    study._study.enqueue_trial(GOOD)
    study._owner["seen"] = 0.0  # the next look at who owns the study is due
    study.renew()
    assert study.ask().params == GOOD


def test_a_trial_that_another_program_trains_is_not_made_up_for_where_trials_were_given(open_sqlite):
    study, planned = open_sqlite(), SimpleNamespace(enqueued=(1, 2), trials=2)
    for _ in range(2):
        study._study.enqueue_trial(GOOD)
    assert can_ask(planned, study, 0)
    study.ask()
    study._study.ask()
    study._counts = None
    assert missing_trials(planned, study) == 2
    assert not can_ask(planned, study, 1)
