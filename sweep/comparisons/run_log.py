"""Log the result of a comparison as an MLflow run of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sweep.metrics import markdown
from sweep.stores import tags as tag
from sweep.stores.tracking import FINISHED, Tracking
from sweep.system import provenance


def log_run(
    tracking: Tracking,
    name: str,
    tags: Mapping[str, Any],
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    files: Mapping[str, bytes | str | pd.DataFrame],
    page: str,
    models: Sequence[str] = (),
) -> str:
    """Starts a run, logs everything and finishes it.

    Args:
        tracking: The experiment.
        name: The run's name.
        tags: Its own tags; state, note and provenance are added.
        params: Its params.
        metrics: Its metrics.
        files: Its artifacts by path; a data frame is logged as a table.
        page: Which of the files is its description, in Markdown.
        models: Ids of the logged models that it is about.

    Returns:
        The run's id.
    """
    note = {"mlflow.note.content": markdown.note(str(files[page]), page)}
    run_id = tracking.start(name, {**tags, tag.STATE: "RUNNING", **note, **provenance.tags()}).run_id
    tracking.log_params(run_id, params)
    for model in models:
        tracking.link_model(run_id, model)
    tracking.log(run_id, metrics)
    tracking.log_files(run_id, {path: file for path, file in files.items() if not isinstance(file, pd.DataFrame)})
    for path, file in files.items():
        if isinstance(file, pd.DataFrame):
            tracking.log_table(run_id, file, path)
    tracking.log(run_id, {}, tags={tag.STATE: "COMPLETE"})
    tracking.finish(run_id, FINISHED)
    return run_id
