"""MLflow runs, by explicit run id: no global active run anywhere, one writer, one request per epoch."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import mlflow.entities
import pandas as pd
import requests
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelInput,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from data.faults import InputError
from sweep.stores import tags as tag
from sweep.stores.databases import is_database
from sweep.stores.shown_params import rounded
from sweep.system.errors import TrackingAwayError
from sweep.system.redaction import first_line, shown

for _name in ("alembic", "mlflow"):  # which set their own levels while they are imported
    logging.getLogger(_name).setLevel(logging.ERROR)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs a traceback of whatever it raises

FINISHED, KILLED, FAILED = "FINISHED", "KILLED", "FAILED"
# A pruned trial is no failure, so it has no red cross either: its tag `sweep.state` says PRUNED.
STATUS = {"COMPLETE": FINISHED, "PRUNED": FINISHED, "FAIL": FAILED}
METRICS_PER_REQUEST = 1000  # MLflow's limit
# What MLflow makes of a refused connection, a proxy's 502 and the like. A server that answers has other codes.
_UNREACHABLE = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
_REFUSED = {"UNAUTHENTICATED": 401, "CUSTOMER_UNAUTHORIZED": 401, "PERMISSION_DENIED": 403}
# Columns of an epoch's row that are no metrics.
_NO_METRICS = ("epoch", "time")

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Run:
    """A run as MLflow lists it.

    Attributes:
        run_id: Its id.
        name: Its name.
        status: `RUNNING`, `FINISHED`, `KILLED`, `FAILED`, ...
        tags: Its tags.
        params: Its params, as text.
        metrics: The latest value of each metric.
        artifacts: Where its files are.
        started: When, in seconds since 1970.
    """

    run_id: str
    name: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    artifacts: str
    started: float


def _reaching(
    method: Callable[Concatenate[Tracking, _P], _T],
) -> Callable[Concatenate[Tracking, _P], _T]:
    """Makes a method raise TrackingAwayError where the server does not answer."""

    @wraps(method)
    def reaching(self: Tracking, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with self.reaching():
            return method(self, *args, **kwargs)

    return reaching


class Tracking:
    """The runs of one MLflow experiment. Every method may raise TrackingAwayError where MLflow is a server."""

    def __init__(self, client: MlflowClient, uri: str, experiment: str, experiment_id: str) -> None:
        self.client = client
        self.uri = uri
        self.experiment = experiment
        self.experiment_id = experiment_id

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Turns what MLflow raises when its server does not answer into TrackingAwayError, for calls of `client` too.

        Raises:
            TrackingAwayError: It does not answer.
            InputError: It refuses the credentials.
        """
        try:
            yield
        except (MlflowException, requests.RequestException, ConnectionError) as error:
            if refused := refusal(error):
                raise InputError(f"{shown(self.uri)}: {refused}") from error
            answered = isinstance(error, MlflowException) and error.error_code not in _UNREACHABLE
            if isinstance(error, requests.HTTPError) and error.response is not None:
                answered = error.response.status_code < 500
            if answered or not (self.uri.startswith("http") or is_database(self.uri)):
                raise
            raise TrackingAwayError(f"{shown(self.uri)} does not answer ({first_line(error, self.uri)})") from error

    @_reaching
    def start(
        self, name: str, tags: Mapping[str, Any], *, parent: str | None = None, started: float | None = None
    ) -> Run:
        """Starts a run, `started` seconds after 1970."""
        nested = {"mlflow.parentRunId": parent} if parent else {}
        all_tags = {"mlflow.source.name": "sweep", "mlflow.source.type": "LOCAL", **nested, **tags}
        entity = self.client.create_run(
            self.experiment_id,
            start_time=_milliseconds(started),
            run_name=name,
            tags={key: str(value) for key, value in all_tags.items()},
        )
        return _run(entity)

    @_reaching
    def describe_experiment(self, note: str, view: str) -> None:
        """Gives the experiment a description, unless it has one, and a view of its runs; see `experiment_page`."""
        present = self.client.get_experiment(self.experiment_id).tags
        key = f"mlflow.sharedViewState.{tag.SHARED_VIEW}"
        wanted = {"mlflow.note.content": present.get("mlflow.note.content") or note, key: view}
        for name, value in wanted.items():
            if present.get(name) != value:
                self.client.set_experiment_tag(self.experiment_id, name, value)

    @_reaching
    def log_params(self, run_id: str, params: Mapping[str, Any], present: Mapping[str, str] | None = None) -> None:
        """Logs params with as many digits as people read; logging the same ones again changes nothing.

        Args:
            run_id: The run.
            params: By name. The exact values of those that are rounded go into a tag, for `exact_params`.
            present: What the run has already, which MLflow lets nobody change: earlier releases logged all digits.
        """
        present = present or {}
        shown = {key: str(rounded(value)) for key, value in params.items()}
        exact = {key: str(value) for key, value in params.items() if present.get(key, shown[key]) != str(value)}
        if exact:  # first: with all params there, nobody would miss it
            self.client.set_tag(run_id, tag.EXACT, json.dumps(exact))
        missing = [Param(key, value) for key, value in shown.items() if key not in present]
        self.client.log_batch(run_id, params=missing)

    @_reaching
    def get(self, run_id: str) -> Run | None:
        """The run with an id; None where there is none, or it was deleted."""
        try:
            entity = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return _run(entity) if entity.info.lifecycle_stage == "active" else None

    @_reaching
    def log(
        self,
        run_id: str,
        metrics: Mapping[str, float],
        step: int = 0,
        tags: Mapping[str, Any] | None = None,
        model_id: str | None = None,
        dataset: tuple[str | None, str | None] = (None, None),
    ) -> None:
        """Logs metrics of one step, and tags, in one request.

        Args:
            run_id: The run.
            metrics: By name.
            step: The epoch, from 1; 0 for metrics of no epoch.
            tags: By name.
            model_id: A logged model, whose page is to show the metrics too.
            dataset: Name and digest of the data set that the metrics are of, for that page.
        """
        now, (name, digest) = _milliseconds(None), dataset
        self.client.log_batch(
            run_id,
            metrics=[Metric(key, float(value), now, step, model_id, name, digest) for key, value in metrics.items()],
            tags=[RunTag(key, str(value)) for key, value in (tags or {}).items()],
        )

    @_reaching
    def log_scores(
        self, run_id: str, scores: Mapping[str, float], model_id: str | None, data: Mapping[str, tuple[str, str]]
    ) -> None:
        """Logs the scores of a model as metrics of a run and of the logged model, what these have not got yet.

        Args:
            run_id: The run.
            scores: By name, `PART/...` and `PART_at_threshold/...`.
            model_id: The logged model; None, or one that was deleted, for the run alone.
            data: PART -> name and digest of the data set that these scores are of.
        """
        model = logged_model(self.client, model_id) if model_id else None
        has = self.client.get_run(run_id).data.metrics
        if model is not None:
            has = {metric.key: metric.value for metric in model.metrics or ()}
        for part, dataset in data.items():
            own = (f"{part}/", f"{part}_at_threshold/")
            new = {key: value for key, value in scores.items() if key.startswith(own) and has.get(key) != value}
            if new:
                of_model = {"model_id": model.model_id, "dataset": dataset} if model is not None else {}
                self.log(run_id, new, **of_model)

    @_reaching
    def log_epochs(self, run_id: str, rows: Sequence[Mapping[str, float]]) -> None:
        """Logs every epoch's metrics; logging the same ones again changes nothing, since each has its own time.

        Args:
            run_id: The run.
            rows: `epoch`, `time` in seconds since 1970, and metrics by name.
        """
        points = [
            Metric(key, float(value), _milliseconds(row["time"]), int(row["epoch"]))
            for row in rows
            for key, value in row.items()
            if key not in _NO_METRICS
        ]
        for first in range(0, len(points), METRICS_PER_REQUEST):
            self.client.log_batch(run_id, metrics=points[first : first + METRICS_PER_REQUEST])

    @_reaching
    def log_folder(self, run_id: str, folder: Path) -> None:
        """Logs all files of a folder as artifacts, by their place in it; replaces older ones."""
        self.client.log_artifacts(run_id, str(folder))

    def log_files(self, run_id: str, files: Mapping[str, bytes | str]) -> None:
        """Logs artifacts by their path in the run."""
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), files)
            self.log_folder(run_id, Path(folder))

    @_reaching
    def log_table(self, run_id: str, table: pd.DataFrame, name: str) -> None:
        """Logs a table that MLflow shows as one; replaces an older one of that name."""
        self.log_files(run_id, {name: table.to_json(orient="split", index=False) or ""})
        # MLflow finds its tables by this tag.
        self.client.set_tag(run_id, "mlflow.loggedArtifacts", f'[{{"path": "{name}", "type": "table"}}]')

    @_reaching
    def log_data(self, run_id: str, name: str, location: str, digests: Mapping[str, str], profile: str) -> None:
        """Logs the data set as inputs of a run, one per split; `digests` has the digest of each split by its name."""
        self.client.log_inputs(
            run_id,
            [
                DatasetInput(
                    Dataset(name, digest, "local", json.dumps({"uri": location}), schema=None, profile=profile),
                    [InputTag("mlflow.data.context", context)],
                )
                for context, digest in digests.items()
            ],
        )

    @_reaching
    def link_model(self, run_id: str, model_id: str) -> None:
        """Links a run to the logged model that it is about, on the pages of both."""
        self.client.log_inputs(run_id, models=[LoggedModelInput(model_id)])

    @_reaching
    def fetch(self, run_id: str, path: str, folder: Path) -> Path | None:
        """Downloads one artifact into a folder and returns its file; None where the run has none of that name."""
        parent = path.rpartition("/")[0] or None
        try:
            entries = self.client.list_artifacts(run_id, parent)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None  # not even the run is there
        if all(entry.path != path for entry in entries):
            return None
        return Path(self.client.download_artifacts(run_id, path, str(folder)))

    @_reaching
    def remove(self, run_id: str, path: str) -> bool:
        """Removes a folder of artifacts; returns whether there was one."""
        if not self.client.list_artifacts(run_id, path):
            return False
        location = self.client.get_run(run_id).info.artifact_uri
        get_artifact_repository(str(location), tracking_uri=self.uri).delete_artifacts(path)
        return True

    @_reaching
    def registered(self, run_id: str) -> bool:
        """Whether a version of a registered model was made from this run."""
        return bool(self.client.search_model_versions(f"run_id = '{run_id}'"))

    @_reaching
    def finish(self, run_id: str, status: str, ended: float | None = None) -> None:
        """Ends a run as FINISHED, KILLED or FAILED, `ended` seconds after 1970."""
        self.client.set_terminated(run_id, status, end_time=_milliseconds(ended))

    @_reaching
    def change_status(self, run_id: str, status: str) -> None:
        """Gives an ended run another status; its end stays when it was."""
        self.client.update_run(run_id, status=status)

    @_reaching
    def reopen(self, run_id: str) -> None:
        """Sets an ended run to running again."""
        self.client.update_run(run_id, status="RUNNING")
        self.client.set_tag(run_id, tag.STATE, "RUNNING")

    @_reaching
    def children(self, parent: str) -> list[Run]:
        """The child runs of a study's run, the oldest first."""
        return self.search(f"tags.`mlflow.parentRunId` = '{parent}'")

    @_reaching
    def find_study(self, identity: str) -> Run | None:
        """A study's run, by the study's own id; None where there is none."""
        runs = self.search(f"tags.`{tag.STUDY_ID}` = '{identity}' and tags.`{tag.KIND}` = 'study'")
        return runs[0] if runs else None

    @_reaching
    def search(self, condition: str) -> list[Run]:
        """The experiment's runs that meet a condition in MLflow's language, the oldest first."""
        runs, token = [], None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], condition, ViewType.ACTIVE_ONLY, 1000, ["attributes.start_time ASC"], token
            )
            runs += [_run(entity) for entity in page]
            if not (token := page.token):
                return runs


def logged_model(client: MlflowClient, model_id: str) -> LoggedModel | None:
    """A logged model; None where it was deleted, or there was never one."""
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def write_files(folder: Path, files: Mapping[str, bytes | str]) -> None:
    """Writes files into a folder by their path in it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def _run(entity: mlflow.entities.Run) -> Run:
    info, data = entity.info, entity.data
    return Run(
        info.run_id,
        str(info.run_name),
        info.status,
        data.tags,
        data.params,
        data.metrics,
        str(info.artifact_uri),
        info.start_time / 1000,
    )


def _milliseconds(seconds: float | None) -> int:
    return int((time.time() if seconds is None else seconds) * 1000)


def refusal(error: Exception) -> str | None:
    """Says what is wrong with the credentials where a server refuses them; None for any other error."""
    status = _REFUSED.get(error.error_code) if isinstance(error, MlflowException) else None
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
    if status == 401:
        return (
            "the server does not know the user or the password; set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if status == 403:
        return f"the server refuses this ({first_line(error)})"
    return None
