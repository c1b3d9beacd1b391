"""Links from Optuna's dashboard to MLflow's pages."""

from __future__ import annotations

from sweep.stores.tracking import Run, Tracking
from sweep.system.redaction import address, shown

LOCAL = "http://127.0.0.1:5000"  # where `mlflow ui` shows a store that is a file


def run_link(run: Run, tracking: Tracking) -> str:
    """A link to the page of a run, as Markdown: `[cnn1-007 in MLflow](http://127.0.0.1:5000/#/experiments/1/runs/...)`.

    Args:
        run: The run.
        tracking: Its experiment.
    """
    uri = tracking.uri
    base = shown(address(uri)).rstrip("/") if uri.startswith("http") else LOCAL
    return f"[{run.name} in MLflow]({base}/#/experiments/{tracking.experiment_id}/runs/{run.run_id})"
