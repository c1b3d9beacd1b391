"""The study in Optuna's own store."""

from __future__ import annotations

import pytest

from data.faults import InputError
from sweep.space import SPACES, study_space
from sweep.stores.study import open_study


@pytest.fixture
def open_it(tmp_path):
    def open_it(**changes):
        given = {
            "direction": "maximize",
            "fingerprint": {"image size": 64},
            "seed": 0,
            "pruner": "median",
            "warmup": 3,
            "epochs": 9,
        }
        space = changes.pop("space", SPACES["cnn1"])
        return open_study(f"sqlite:///{tmp_path / 'optuna.db'}", "x-rays/cnn1", space, **{**given, **changes})

    return open_it


def test_a_retry_has_the_parameters_and_the_seed_of_the_first_attempt(open_it):
    study = open_it()
    first = study.ask()
    study.note_trial(first.number, seed=17)
    study.fail(first.number)
    study.retry(first.number)
    again = study.ask()
    assert (again.params, again.seed, again.retry_of) == (first.params, 17, 0)


def test_a_retry_that_ended_before_it_got_its_parameters_is_still_the_same(open_it):
    study = open_it()
    first = study.ask()
    study.note_trial(first.number, seed=17)
    study.fail(first.number)
    study.retry(first.number)
    popped = study._study.ask()  # as a process killed between taking a trial from the queue and its parameters
    assert popped.params == {}
    later = open_it()
    later.fail(popped.number)
    later.retry(popped.number)
    assert later.ask().params == first.params


@pytest.mark.parametrize("warmup", [1, 3])
def test_no_trial_is_pruned_within_the_warm_up(open_it, warmup):
    study = open_it(warmup=warmup)
    for _ in range(6):
        trial = study.ask()
        for epoch in range(1, 9):
            study.report(trial.number, epoch, 0.9)
        study.complete(trial.number, 0.9)
    bad = study.ask()
    verdicts = [study.report(bad.number, epoch, 0.1) for epoch in range(1, warmup + 2)]
    assert verdicts == [False] * warmup + [True]


def test_a_study_says_what_differs(open_it):
    open_it()
    with pytest.raises(InputError) as caught:
        open_it(fingerprint={"image size": 32}, space=study_space("cnn1", fix=["dropout=0"]))
    said = "\n".join(caught.value.faults)
    assert "image size 64, not 32" in said
    assert "begun with space" in said


def test_a_resumed_study_does_not_draw_the_same_again(open_it):
    study = open_it()
    first = [study.ask().params for _ in range(3)]
    more = open_it()
    assert all(more.ask().params not in first for _ in range(3))


def test_a_store_that_cannot_be_opened_is_named():
    with pytest.raises(InputError, match="--storage bogus://x: cannot be opened"):
        open_study(
            "bogus://x", "a", SPACES["cnn1"],
            direction="maximize", fingerprint={}, seed=0, pruner="none", warmup=0, epochs=1,
        )  # fmt: skip
