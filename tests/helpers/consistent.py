"""What must hold of a study's stores once it is done, whatever happened on the way."""

from __future__ import annotations

from collections import Counter
from itertools import filterfalse
from pathlib import Path

import optuna
from mlflow import MlflowClient

from sweep.stores.conversion import attributes_of
from sweep.stores.shown_params import exact_params

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "FINISHED", "FAIL": "FAILED"}


def consistent(folder: Path, study: str, wanted: int, *, uri: str | None = None, storage: str | None = None) -> list:
    """Asserts that a finished study's stores agree; returns its trials.

    Args:
        folder: Its working directory.
        study: Its full name, `experiment/study`.
        wanted: Complete and pruned trials that it is to have.
        uri: MLflow's store, if not the directory's own.
        storage: Optuna's, likewise.
    """
    experiment, name = study.split("/")
    trials = optuna.load_study(study_name=study, storage=storage or f"sqlite:///{folder / 'optuna.db'}").trials
    states = Counter(trial.state.name for trial in trials)
    assert states["COMPLETE"] + states["PRUNED"] == wanted, states
    assert not states.keys() & {"RUNNING", "WAITING"}, states
    ended_well = [trial.user_attrs.get("origin", trial.number) for trial in trials if trial.state.name != "FAIL"]
    assert len(set(ended_well)) == len(ended_well), "a configuration ended well twice"
    for trial in trials:
        if trial.state.name == "FAIL" and trial.user_attrs["failure"]["cause"] == "interrupted" and trial.params:
            retries = [other for other in trials if other.user_attrs.get("retry_of") == trial.number]
            assert len(retries) == 1, f"trial {trial.number} has {len(retries)} retries"
            if "run" in attributes_of(trial):
                assert retries[0].params == trial.params
            else:  # cut short while Optuna wrote them down one by one: the rest was drawn anew
                assert trial.params.items() <= retries[0].params.items()

    client = MlflowClient(uri or f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags and run.info.run_name == name]
    assert {"arch", "metric", "space/dropout"} <= parent.data.params.keys()
    assert "figures" in {entry.path for entry in client.list_artifacts(parent.info.run_id)}
    assert parent.info.status == "FINISHED"
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    by_trial = {int(run.data.tags["sweep.trial"]): run for run in children}
    assert sorted(by_trial) == list(range(len(trials)))
    assert len(children) == len(trials)
    for trial in trials:
        run, state = by_trial[trial.number], trial.state.name
        assert (run.info.status, run.data.tags["sweep.state"]) == (STATUS[state], state), run.info.run_name
        exact = exact_params(run.data.params, run.data.tags).items()
        assert {key: str(value) for key, value in trial.params.items()}.items() <= exact
        assert len(run.inputs.dataset_inputs) == 2
        if state == "FAIL":
            assert run.data.tags["sweep.reason"]
            continue
        history = attributes_of(trial)["result"]["history"]
        assert [row["epoch"] for row in history] == list(range(1, len(history) + 1))
        for metric in ("val/auroc", "val/loss", "train/loss", "images_per_second"):
            logged = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]
            assert sorted(logged) == [(row["epoch"], row[metric]) for row in history], (run.info.run_name, metric)
        assert {
            epoch: row[parent.data.params["metric"]] for epoch, row in enumerate(history, 1)
        } == trial.intermediate_values
        files = {entry.path for entry in client.list_artifacts(run.info.run_id)}
        assert files >= ({"figures", "checkpoint", "predictions"} if state == "COMPLETE" else {"figures"})

    best = max((trial for trial in trials if trial.state.name == "COMPLETE"), key=lambda trial: trial.value)
    versions = _registered_once(client, experiment, (parent.data.tags["sweep.study_id"], str(best.number)))
    aliases = {parent.data.params["arch"], "champion"}
    assert client.get_registered_model(experiment).aliases.keys() >= aliases
    for tags in versions:
        assert {f"sweep.promotion.{alias}" for alias in aliases} <= tags.keys()
    models = [model for model in client.search_logged_models([parent.info.experiment_id]) if not _of_ensemble(model)]
    assert len(models) == len(versions)
    assert {str(model.status) for model in models} == {"READY"}
    assert {path.name for path in folder.iterdir()} <= {
        "mlflow.db", "mlruns", "optuna.db", ".sweep.lock", ".mlflow.lock", "log", "mark",
    }  # fmt: skip
    return trials


def _of_ensemble(entity) -> bool:
    """Whether a logged model, or a version, is one of several trials; see `sweep ensemble`."""
    return "sweep.members" in entity.tags


def _registered_once(client: MlflowClient, name: str, best: tuple[str, str]) -> list[dict[str, str]]:
    """The tags of a model's versions, which earlier releases kept in the registry and later ones with the logged model."""
    versions = []
    for version in filterfalse(_of_ensemble, client.search_model_versions(f"name = '{name}'")):
        versions.append({**version.tags, **client.get_logged_model(version.source.removeprefix("models:/")).tags})
    made_of = Counter((tags["sweep.study_id"], tags["sweep.trial"]) for tags in versions)
    assert set(made_of.values()) == {1}, f"two versions of one trial: {made_of}"
    assert made_of[best] == 1
    return versions
