"""What MLflow's pages are given to show: params of few digits, a view of the runs, scores beside their model."""

from __future__ import annotations

import json

import pytest

from sweep.stores.experiment_page import describe_experiment, runs_page, shared_view
from sweep.stores.shown_params import exact_params
from sweep.stores.tracking import FINISHED, KILLED, Tracking


@pytest.fixture
def run_id(tracking: Tracking) -> str:
    return tracking.start("cnn1-000", {}).run_id


def points(tracking: Tracking, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in tracking.client.get_metric_history(run_id, name)]


@pytest.mark.parametrize(("metric", "ascending"), [("val/auroc", False), ("val/loss", True)])
def test_the_view_has_the_best_first_whichever_way_the_metric_goes(metric: str, ascending: bool):
    view = json.loads(shared_view(metric, ["optimizer", "dropout"]))

    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`objective`", ascending)
    assert view["selectedColumns"] == [
        "attributes.`Created`", "tags.`sweep.state`", "metrics.`objective`", "metrics.`served_test_accuracy`",
        "metrics.`served_test_auroc`", "params.`optimizer`", "params.`dropout`",
    ]  # fmt: skip
    assert set(view["selectedColumns"][1:]) < set(view["columnOrder"])


def test_the_link_names_the_view_that_the_experiment_has(tracking: Tracking):
    describe_experiment(tracking, "x-rays", ["NORMAL", "PNEUMONIA"], "val/auroc", ["dropout"])

    tags = tracking.client.get_experiment(tracking.experiment_id).tags
    name = runs_page(tracking.experiment_id).rpartition("viewStateShareKey=")[2]
    assert json.loads(tags[f"mlflow.sharedViewState.{name}"])["selectedColumns"]
    first = tags["mlflow.note.content"].splitlines()[0]
    assert first == "Searches for networks that tell NORMAL and PNEUMONIA apart in the images of x-rays."


def test_params_are_shown_with_four_digits_and_the_exact_ones_stay(tracking, run_id):
    params = {"learning_rate": 0.00036471234567891, "dropout": 0.25, "tiny": 1.2e-07, "batch_size": 32, "arch": "cnn1"}

    tracking.log_params(run_id, params)
    tracking.log_params(run_id, params)

    run = tracking.get(run_id)
    exact = {key: str(value) for key, value in params.items()}
    assert run.params == {**exact, "learning_rate": "0.0003647"}
    assert exact_params(run.params, run.tags) == exact
    assert json.loads(run.tags["sweep.exact_params"]) == {"learning_rate": "0.00036471234567891"}


def test_params_of_an_earlier_release_stay_as_they_are_and_the_others_are_added(tracking, run_id):
    tracking.client.log_param(run_id, "learning_rate", "0.00036471234567891")
    params = {"learning_rate": 0.00036471234567891, "dropout": 0.123456789}

    tracking.log_params(run_id, params, tracking.get(run_id).params)

    run = tracking.get(run_id)
    assert run.params == {"learning_rate": "0.00036471234567891", "dropout": "0.1235"}
    assert exact_params(run.params, run.tags) == {key: str(value) for key, value in params.items()}


def test_another_status_leaves_the_end_of_a_run(tracking, run_id):
    tracking.finish(run_id, KILLED, 1_700_000_900.0)
    tracking.change_status(run_id, FINISHED)
    info = tracking.client.get_run(run_id).info
    assert (info.status, info.end_time) == (FINISHED, 1_700_000_900_000)


def test_an_experiment_is_described_once_and_its_view_is_kept_up_to_date(tracking):
    tracking.describe_experiment("A sentence.", '{"orderByAsc": false}')
    tracking.client.set_experiment_tag(tracking.experiment_id, "mlflow.note.content", "Somebody's own words.")
    tracking.describe_experiment("A sentence.", '{"orderByAsc": true}')

    tags = tracking.client.get_experiment(tracking.experiment_id).tags
    assert tags["mlflow.note.content"] == "Somebody's own words."
    assert tags["mlflow.sharedViewState.sweep"] == '{"orderByAsc": true}'


def test_the_scores_of_a_model_are_logged_once_with_their_data(tracking, run_id):
    model = tracking.client.create_logged_model(tracking.experiment_id, "cnn1", run_id)
    scores, data = {"val/auroc": 0.9, "test/auroc": 0.8}, {"val": ("x-rays", "v1"), "test": ("x-rays", "t1")}

    for _ in range(2):
        tracking.log_scores(run_id, scores, model.model_id, data)

    metrics = tracking.client.get_logged_model(model.model_id).metrics
    assert {(metric.key, metric.value, metric.dataset_digest) for metric in metrics} == {
        ("val/auroc", 0.9, "v1"), ("test/auroc", 0.8, "t1"),
    }  # fmt: skip
    assert len(metrics) == 2
    assert points(tracking, run_id, "test/auroc") == [(0, 0.8)]


def test_scores_of_a_model_that_was_deleted_are_those_of_the_run(tracking, run_id):
    for _ in range(2):
        tracking.log_scores(run_id, {"val/auroc": 0.9}, "m-0", {"val": ("x-rays", "v1")})
    assert points(tracking, run_id, "val/auroc") == [(0, 0.9)]
