"""Links from Optuna's dashboard to MLflow's pages."""

from __future__ import annotations

from sweep.system.redaction import address, shown

LOCAL = "http://127.0.0.1:5000"  # where `mlflow ui` shows a store that is a file


def run_link(name: str, uri: str, experiment_id: str, run_id: str) -> str:
    """A link to the page of a run, as Markdown.

    >>> run_link("cnn1-007", "sqlite:///mlflow.db", "1", "a5")
    '[cnn1-007 in MLflow](http://127.0.0.1:5000/#/experiments/1/runs/a5)'

    Args:
        name: Of the run.
        uri: Of MLflow's store.
        experiment_id: MLflow's number of the experiment.
        run_id: The run.
    """
    base = shown(address(uri)).rstrip("/") if uri.startswith("http") else LOCAL
    return f"[{name} in MLflow]({base}/#/experiments/{experiment_id}/runs/{run_id})"
