"""Every sampler and pruner draws from the space, in a study that is closed and opened again."""

from __future__ import annotations

from itertools import product

import pytest

from data.faults import InputError
from sweep.settings import FINITE, PRUNERS, SAMPLERS, Settings, check
from sweep.space import SPACES, Choice
from sweep.stores.pruning import Pruning

FINITE_SPACE = {"activation": Choice(("relu", "gelu")), "batch_size": Choice((16, 32, 64))}


def drawn(study, count: int) -> list[tuple]:
    configurations = []
    for _ in range(count):
        asked = study.ask()
        assert not asked.fault
        configurations.append(tuple(asked.params.values()))
        study.complete(asked.number, 0.1 * (asked.number % 4))
    return configurations


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_sampler_draws_from_the_space_and_goes_on_where_it_was(open_sqlite, sampler):
    space = FINITE_SPACE if sampler in FINITE else SPACES["cnn1"]
    first = drawn(open_sqlite(space=space, sampler=sampler), 3)
    study = open_sqlite(space=space, sampler=sampler)
    both = first + drawn(study, 3)
    assert len(study.trials()) == 6
    assert len(set(both)) == 6  # no draw is repeated after the study was opened again
    if sampler in FINITE:
        assert set(both) == set(product(*(domain.values for domain in space.values())))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_draws_the_same(open_sqlite, open_it_elsewhere, sampler):
    space = FINITE_SPACE if sampler in FINITE else SPACES["cnn1"]
    ours, theirs, others = (
        drawn(open_study(space=space, sampler=sampler, seed=seed), 4)
        for open_study, seed in ((open_sqlite, 3), (open_it_elsewhere(1), 3), (open_it_elsewhere(2), 4))
    )
    assert ours == theirs
    assert sampler == "brute" or ours != others  # whose order has few possibilities


@pytest.mark.parametrize("rule", PRUNERS)
def test_each_pruner_ends_what_falls_behind_and_nothing_before_its_warm_up(open_sqlite, rule):
    study = open_sqlite(pruning=Pruning(rule, warmup=1, epochs=6))
    ended = {}
    for number in range(12):
        asked = study.ask()
        for epoch in range(1, 7):
            study.report(asked.number, epoch, 0.2 - 0.01 * epoch if number >= 6 else 0.9 + 0.01 * epoch)
            if study.should_prune(asked.number):
                ended[number] = epoch
                study.prune(asked.number)
                break
        else:
            study.complete(asked.number, 0.9)
    assert all(epoch > 1 for epoch in ended.values())
    assert bool({number for number in ended if number >= 6}) == (rule != "none")
    if rule in ("median", "patient"):
        assert set(ended) == set(range(6, 12))
        assert set(ended.values()) == ({2} if rule == "median" else {4})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "--sampler grid: learning_rate, dropout of cnn1 are ranges without end; list values, such as --search "),
        (
            {"fix": ("learning_rate=0.1", "dropout=0", "activation=relu", "optimizer=adam"), "trials": 5},
            "--trials 5: the space of cnn1 has 4 combinations, which --sampler grid tries once each; give --trials 4 or",
        ),
    ],
)
def test_a_sampler_of_combinations_wants_a_finite_space(options, said):
    with pytest.raises(InputError) as raised:
        check(Settings(archs=("cnn1",), sampler="grid", **options))
    assert said in str(raised.value)
