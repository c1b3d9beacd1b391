"""Studies by several metrics: no reports, no pruning, a trial chosen by the rule, in a study that is opened again."""

from __future__ import annotations

from itertools import product

import pytest

from data.faults import InputError
from sweep.settings import FINITE, SAMPLERS
from sweep.space import SPACES
from sweep.stores import bounded_study
from tests.stores.test_samplers import FINITE_SPACE

SEVERAL = {
    "direction": ["maximize", "minimize"],
    "fingerprint": {"metric": "val/auroc", "further metrics": ["cost/parameters"]},
}
VALUES = [(0.90, 500.0), (0.88, 200.0), (0.70, 100.0), (0.60, 300.0)]


def told(study, values=VALUES, error=0.03):
    """Asks and completes a trial with each of some values; the first metric has the same standard error in all."""
    params = []
    for pair in values:
        asked = study.ask()
        params.append(tuple(asked.params.values()))
        study.report(asked.number, 1, 0.1)
        assert not study.should_prune(asked.number)
        history = [{"val/auroc": pair[0], "cost/parameters": pair[1]}]
        study.complete(asked.number, pair, {"history": history, "best_epoch": 1, "standard_error": error})
    return params


def test_the_cheapest_trial_within_one_standard_error_is_the_best_one(open_it):
    told(open_it(**SEVERAL))
    study = open_it(**SEVERAL)
    assert study.best().number == 1
    assert (study.best().value, study.best().values) == (VALUES[1][0], VALUES[1])
    assert study.counts().best.number == 0  # of the first metric alone, for the live table
    assert [point.number for point in study.choice().front] == [0, 1, 2]
    assert study.how_chosen().startswith("chosen among 3 of 4 trials, the Pareto front: trial 1, the best by cost/")
    told(study, [(0.95, 900.0)], error=0.01)
    assert study.best().number == 4
    assert all(trial.reports == {} for trial in study.trials())


def test_one_metric_is_chosen_by_as_it_was(open_sqlite):
    study = open_sqlite()
    assert (study.choice(), study.how_chosen(), study.best()) == (None, "", None)
    number = study.ask().number
    study.report(number, 1, 0.4)
    study.complete(number, 0.5)
    assert (study.best().value, study.best().values, study.best().reports) == (0.5, (0.5,), {1: 0.4})


def test_other_metrics_are_another_study(open_sqlite):
    told(open_sqlite(**SEVERAL))
    with pytest.raises(InputError, match=r"begun with further metrics cost/parameters, not none"):
        open_sqlite(fingerprint={"metric": "val/auroc"})


def test_a_study_that_a_refused_command_left_gets_the_metrics_of_the_next_one(open_sqlite):
    assert open_sqlite(fingerprint={"metric": "val/loss"}, direction="minimize").trials() == []
    study = open_sqlite(**SEVERAL)
    told(study)
    assert study.best().number == 1


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "cmaes"])
def test_each_sampler_but_one_draws_for_several_metrics(open_sqlite, sampler, recwarn):
    space = FINITE_SPACE if sampler in FINITE else SPACES["cnn1"]
    values = [(0.9, 5.0), (0.8, 3.0), (0.7, 2.0)]
    first = told(open_sqlite(**SEVERAL, space=space, sampler=sampler), values)
    both = first + told(open_sqlite(**SEVERAL, space=space, sampler=sampler), values)
    assert len(set(both)) == 6
    if sampler in FINITE:
        assert set(both) == set(product(*(domain.values for domain in space.values())))
    assert not [warning for warning in recwarn if "optuna" in str(warning.category.__module__)]


def test_of_a_long_study_the_sampler_sees_the_latest_trials_and_the_best_by_the_first_metric(open_sqlite, monkeypatch):
    for name, value in {"LATEST": 4, "BEST_EARLIER": 1, "REFRESH_EVERY": 2}.items():
        monkeypatch.setattr(bounded_study, name, value)
    study = open_sqlite(**SEVERAL, sampler="random")
    told(study, [(0.5, 1.0), (0.9, 2.0), *[(0.1, 3.0)] * 6])
    assert [trial for trial in study.recently_complete() if trial < 4] == [1]


def test_the_front_is_drawn_beside_the_figures_of_the_first_metric(open_sqlite):
    study = open_sqlite(**SEVERAL)
    told(study)
    drawn = study.figures("val/auroc")
    assert set(drawn) == {"history", "timeline", "importance", "parallel_coordinate", "pareto_front"}
    (axes,) = drawn["pareto_front"].axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("parameters", "validation AUROC")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "chosen: trial 1" in labels
    assert [text.get_text() for text in axes.texts] == ["2", "1", "0"]  # from the cheapest on
    assert sum(study.importances().values()) == pytest.approx(1)
