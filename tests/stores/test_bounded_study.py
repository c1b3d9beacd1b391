"""What Optuna's sampler and pruner see of a study, and what Optuna's private attributes must do for that."""

from __future__ import annotations

import ast
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from sweep.space import SPACES
from sweep.stores.bounded_study import enqueued_params, read_trial, set_trial_attributes
from sweep.stores.study import Pruning

ROOT = Path(__file__).parents[2]
OWNER = ROOT / "sweep" / "stores" / "bounded_study.py"
# The tests below say what each of them must do; what sampler and pruner do is looked at in `test_the_store_is_...`.
PRIVATE = {
    "_storage": optuna.Study,
    "_study_id": optuna.Study,
    "_get_trials": optuna.Study,
    "_pop_waiting_trial_id": optuna.Study,
    "_trial_id": optuna.Trial,
    "_cached_frozen_trial": optuna.Trial,
    "_suggest": optuna.Trial,
}

# What sampler and pruner see ------------------------------------------------------------------------------------------


def test_sampler_and_pruner_of_a_long_study_look_at_the_latest_and_the_best(open_it, monkeypatch):
    monkeypatch.setattr("sweep.stores.bounded_study.LATEST", 20)
    monkeypatch.setattr("sweep.stores.bounded_study.BEST_EARLIER", 3)
    monkeypatch.setattr("sweep.stores.bounded_study.REFRESH_EVERY", 10)
    study = open_it()
    values = [number % 17 / 17 for number in range(45)]
    for number, value in enumerate(values):
        assert study.ask().number == number
        if number == 33:
            study.report(number, 1, value)
            study.prune(number)
        else:
            study.complete(number, value)

    seen = [trial.number for trial in study._search.get_trials(deepcopy=False)]
    complete = [trial.number for trial in study._search.get_trials(states=(TrialState.COMPLETE,))]

    # 20 and up to 10 more of the latest; 14, 15 and 16 are the best of the first twenty.
    assert seen == [14, 15, 16, *range(20, 45)]
    assert complete == [number for number in seen if number != 33]
    assert [trial.number for trial in study.trials()] == list(range(45))
    assert study.best().number == 16
    assert len(study.importances()) == len(SPACES["cnn1"])  # of all of them


def test_nothing_is_left_out_of_a_study_of_ordinary_length(open_it):
    study = open_it()
    for _ in range(12):
        study.complete(study.ask().number, 0.5)
    assert len(study._search.get_trials()) == 12


def test_the_store_is_read_once_however_often_sampler_and_pruner_ask(open_sqlite, monkeypatch):
    study = open_sqlite(pruning=Pruning("median", warmup=1, epochs=9))

    def train(value):
        trial = study.ask()
        for epoch in (1, 2):
            study.report(trial.number, epoch, value)
        return trial.number, study.should_prune(trial.number)

    for _ in range(12):  # more than TPE and the median pruner begin with
        study.complete(train(0.9)[0], 0.9)

    def refuse(*_, **__):
        raise AssertionError("the store is read again")

    with monkeypatch.context() as patch:
        patch.setattr(study._search._storage, "get_all_trials", refuse)
        bad, pruned = train(0.1)
        assert pruned
        study.prune(bad)
        good, pruned = train(0.95)
        assert not pruned
        study.complete(good, 0.95)
    remembered, stored = study._search.get_trials(), study._study.get_trials()
    assert [
        (trial.number, trial.state, trial.value, trial.params, trial.intermediate_values) for trial in remembered
    ] == [(trial.number, trial.state, trial.value, trial.params, trial.intermediate_values) for trial in stored]


# What Optuna keeps private --------------------------------------------------------------------------------------------


def private_names(path: Path) -> set[str]:
    """Attributes with a leading underscore of anything but the object itself, and overridden methods of Optuna's."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            names.add(node.attr)
        elif isinstance(node, ast.FunctionDef) and hasattr(optuna.Study, node.name):
            names.add(node.name)
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_one_file_touches_what_optuna_keeps_private():
    assert private_names(OWNER) == PRIVATE.keys()
    others = [path for folder in ("sweep", "benchmarks") for path in (ROOT / folder).rglob("*.py") if path != OWNER]
    touching = {path.name: names for path in others if (names := private_names(path) & PRIVATE.keys())}
    assert touching == {}


@pytest.fixture
def plain() -> optuna.Study:
    """The second study of its store, so that a trial's id is not its number."""
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="first").ask()
    return optuna.create_study(storage=storage, study_name="second")


def test_a_trial_has_an_id_in_the_store(plain):
    trial = plain.ask()
    assert trial._trial_id != trial.number
    assert plain._storage.get_trial_id_from_study_id_trial_number(plain._study_id, trial.number) == trial._trial_id
    for key in (trial, trial.number):
        assert read_trial(plain, key) == plain.get_trials()[0]
        set_trial_attributes(plain, key, {type(key).__name__: 1})
    assert plain.trials[0].user_attrs == {"Trial": 1, "int": 1}


def test_a_running_trial_follows_itself_without_the_store(plain):
    trial = plain.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.report(0.5, 1)
    cached, stored = trial._cached_frozen_trial, plain.get_trials()[0]
    assert (cached.number, cached.state) == (stored.number, TrialState.RUNNING)
    assert cached.params == stored.params != {}
    assert cached.distributions == stored.distributions
    assert cached.intermediate_values == stored.intermediate_values == {1: 0.5}


def test_the_queue_is_asked_once_for_each_trial(plain, monkeypatch):
    plain.enqueue_trial({"x": 0.25})
    popped, real = [], optuna.Study._pop_waiting_trial_id
    monkeypatch.setattr(optuna.Study, "_pop_waiting_trial_id", lambda self: popped.append(real(self)) or popped[-1])
    assert enqueued_params(plain.get_trials()[0]) == {"x": 0.25}
    first, second = plain.ask(), plain.ask()
    assert popped == [first._trial_id, None]
    assert enqueued_params(plain.get_trials()[second.number]) == {}


def test_trials_are_read_through_one_method(plain, monkeypatch):
    asked, real = [], optuna.Study._get_trials

    def watched(self, deepcopy=True, states=None, use_cache=False):
        asked.append((deepcopy, states))
        return real(self, deepcopy, states, use_cache)

    monkeypatch.setattr(optuna.Study, "_get_trials", watched)
    plain.tell(plain.ask(), 0.5)
    asked.clear()
    assert [trial.number for trial in plain.get_trials(False, (TrialState.COMPLETE,))] == [0]
    assert asked == [(False, (TrialState.COMPLETE,))]
