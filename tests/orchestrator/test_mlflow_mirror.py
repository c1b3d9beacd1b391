"""What MLflow is told of a study: pruned trials are no failures, test scores are few, and the model has all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweep.orchestrator.mlflow_mirror import Mirror
from sweep.stores.study import Study
from sweep.stores.tracking import FAILED, FINISHED, KILLED
from tests.helpers.mirrored import BEST, CURVES, PRUNED, SCORES, conclude_mirrored, mirrored_study


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("mirrored")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where artifacts go
        yield mirrored_study(folder)


def test_a_pruned_trial_is_finished_and_says_that_it_was_pruned(made: tuple[Study, Mirror]):
    _, mirror = made
    runs = {run.tags["sweep.trial"]: run for run in mirror.tracking.children(mirror.parent)}
    states = {number: (run.status, run.tags["sweep.state"]) for number, run in runs.items()}
    assert states == {
        "0": (FINISHED, "COMPLETE"), "1": (FINISHED, "COMPLETE"), "2": (FINISHED, "PRUNED"), "3": (FINISHED, "COMPLETE"),
    }  # fmt: skip
    assert "objective" not in runs[str(PRUNED)].metrics


def test_a_run_that_an_earlier_release_ended_as_killed_is_changed_without_a_word(made: tuple[Study, Mirror]):
    _, mirror = made
    tracking, run_id = mirror.tracking, mirror.runs[PRUNED]
    tracking.finish(run_id, KILLED, 1_700_000_000.0)

    assert mirror.open() == []

    run = tracking.client.get_run(run_id)
    assert (run.info.status, run.info.end_time) == (FINISHED, 1_700_000_000_000)
    assert run.data.tags["sweep.state"] == "PRUNED"


@pytest.mark.parametrize(("status", "state"), [(FAILED, "PRUNED"), (KILLED, "RUNNING")])
def test_a_run_that_ended_otherwise_than_its_trial_is_repaired_and_said(made: tuple[Study, Mirror], status, state):
    _, mirror = made
    tracking, run_id = mirror.tracking, mirror.runs[PRUNED]
    tracking.log(run_id, {}, tags={"sweep.state": state})
    tracking.finish(run_id, status)

    assert mirror.open() == [f"cnn3-002: its run was {status}; ended as PRUNED"]
    assert mirror.open() == []


def test_test_scores_are_few_and_of_no_epoch_and_the_model_has_all_of_them(made: tuple[Study, Mirror]):
    study, mirror = made
    client, run_id = mirror.tracking.client, mirror.runs[BEST]
    model = client.create_logged_model(mirror.tracking.experiment_id, "cnn3", run_id)

    for _ in range(2):  # the same command again
        conclude_mirrored(study, mirror, model.model_id)
        assert mirror.open() == []

    run = client.get_run(run_id)
    shown = {name: value for name, value in run.data.metrics.items() if "test" in name}
    # As the model is served: at its threshold, where it has one of its own.
    assert shown == {"served_test_accuracy": 0.82, "served_test_auroc": 0.88, "served_test_balanced_accuracy": 0.81}
    for name in (*shown, "objective", "best_epoch"):
        assert [point.step for point in client.get_metric_history(run_id, name)] == [0], name
    metrics = client.get_logged_model(model.model_id).metrics
    assert {metric.key: metric.value for metric in metrics} == {"val/auroc": CURVES[BEST][-1], **SCORES}
    digests = {metric.key.partition("/")[0]: metric.dataset_digest for metric in metrics}
    assert digests == {"val": "v1", "test": "t1", "test_at_threshold": "t1"}
    assert len(metrics) == len(SCORES) + 1


def test_params_are_shown_short_and_replayed_exact(made: tuple[Study, Mirror]):
    study, mirror = made
    run = mirror.tracking.get(mirror.runs[0])
    assert run is not None
    rate = study.trial(0).params["learning_rate"]
    assert run.params["learning_rate"] == str(float(f"{rate:.4g}")) != str(rate)
    assert json.loads(run.tags["sweep.exact_params"])["learning_rate"] == str(rate)


def test_the_load_of_the_machine_is_logged_with_the_study(made: tuple[Study, Mirror], monkeypatch: pytest.MonkeyPatch):
    _, mirror = made
    monkeypatch.setattr(mirror, "_machine", type("Load", (), {"sample": lambda self: {"system/cpu": 12.5}})())
    mirror.tick()
    assert mirror.tracking.client.get_run(mirror.parent).data.metrics["system/cpu"] == 12.5


def test_no_file_stays_behind(made: tuple[Study, Mirror]):
    assert not Path("checkpoints").exists()
