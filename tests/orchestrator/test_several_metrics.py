"""A search by several metrics: what a network costs, and the whole way from the command to the registered model."""

from __future__ import annotations

import json

import numpy as np
import pytest

import sweep
from models import architecture
from sweep.orchestrator.several_metrics import costs_of
from sweep.stores.attributes import TIMES
from sweep.stores.study import Pruning, open_study
from sweep.training.config import TrainingConfig
from tests.helpers.studies import children_of, client_of, tiny, trials_of
from tests.helpers.studies import sweep as typed_sweep
from tests.test_api import Silent

METRICS = ("val/auroc", "cost/parameters", "cost/mflops", "cost/ms_per_image")
SEVERAL = [text for metric in METRICS[:3] for text in ("--metric", metric)]


def config(pooling: str, **changes) -> TrainingConfig:
    given = {"arch": "cnn3", "activation": "relu", "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 16}
    given |= {"dropout": 0.1, "seed": 0, "epochs": 1, "patience": 0, "image_size": 32, "classes": 2}
    return TrainingConfig(**given, pooling=pooling, **changes)


def test_costs_are_those_of_the_network_and_a_time_is_kept_for_each_network(tmp_path):
    def opened():
        directions = ["maximize", *["minimize"] * 3]
        pruning = Pruning("none", 3, 1)
        storage = f"sqlite:///{tmp_path / 'optuna.db'}"
        return open_study(storage, "s", {}, direction=directions, fingerprint={}, seed=0, pruning=pruning)

    study = opened()
    own, average = (costs_of(config(pooling), METRICS, study) for pooling in ("own", "average"))

    for pooling, costs in (("own", own), ("average", average)):
        network = architecture("cnn3").build("relu", 0.1, 2, 32, "fixed", pooling)
        assert costs["cost/parameters"] == sum(parameter.numel() for parameter in network.parameters())
        assert tuple(costs) == METRICS[1:]
        assert costs["cost/mflops"] > 0.1
        assert 0 < costs["cost/ms_per_image"] < 5000
    assert own["cost/parameters"] > average["cost/parameters"]
    assert own["cost/mflops"] > average["cost/mflops"]
    # The same network has the same time, whatever else its trial has, and in the next process.
    assert costs_of(config("own"), METRICS, opened()) == own
    assert len(study.noted(TIMES)) == 2
    assert costs_of(config("own"), ("val/auroc", "val/ece"), study) == {}


@pytest.mark.slow
def test_a_search_by_several_metrics_goes_all_the_way_and_on(pictures, tmp_path, monkeypatch):
    pooling = ("--search", "pooling=own,average", "--epochs", 1)
    done = typed_sweep(tmp_path, *tiny(pictures, 2, *SEVERAL), *pooling, "--json")
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout)["studies"]
    chosen = chosen_by_hand(trials_of(tmp_path, "blob-pictures/cnn3"))
    assert outcome["best"]["trial"] == chosen
    assert f"the Pareto front: trial {chosen}" in outcome["choice"]
    assert chosen in [row["trial"] for row in outcome["front"]]

    monkeypatch.chdir(tmp_path)
    found = sweep.search(  # the same study, with more trials
        "cnn3", data=pictures, trials=4, metric=METRICS[:3], image_size=24, epochs=1, workers=1, view=Silent(),
        space={"batch_size": (16, 32), "pooling": ("own", "average")},
    )  # fmt: skip
    trials = trials_of(tmp_path, "blob-pictures/cnn3")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert found.best_trial == chosen_by_hand(trials)
    assert list(found.trials["trial"][found.trials["front"] == "chosen"]) == [f"cnn3-{found.best_trial:03d}"]
    assert np.isfinite(found.trials[list(METRICS[:3])].to_numpy()).all()
    assert sweep.replay(found.run_id, view=Silent()).equal

    runs, client = children_of(tmp_path), client_of(tmp_path)
    for trial in trials:
        metrics = runs[str(trial.number)].data.metrics
        assert [metrics[name] for name in METRICS[:3]] == pytest.approx(trial.values)
    parent = client.get_run(found.study_run_id)
    assert parent.data.params["further_metrics"] == "cost/parameters, cost/mflops"
    assert parent.data.params["pruner"] == "none"
    assert found.choice in parent.data.tags["mlflow.note.content"]
    figures = {file.path for file in client.list_artifacts(found.study_run_id, "figures")}
    assert "figures/pareto_front.png" in figures


def chosen_by_hand(trials) -> int:
    """The trial that is cheapest by the second metric, then the third, within one standard error of the best."""
    best = max(trials, key=lambda trial: (trial.values[0], -trial.values[1], -trial.values[2], -trial.number))
    least = best.values[0] - best.user_attrs["result"]["standard_error"]
    within = [trial for trial in trials if trial.values[0] >= least]
    return min(within, key=lambda trial: (trial.values[1], trial.values[2], -trial.values[0], trial.number)).number
