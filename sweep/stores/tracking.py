"""MLflow runs, by explicit run id: no global active run anywhere, one writer, a batch an epoch."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import mlflow.entities
import pandas as pd
import requests
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from data.faults import InputError
from sweep.stores import tags as tag
from sweep.stores.databases import check_database, file_of, is_database, open_whole
from sweep.system.errors import TrackingAwayError
from sweep.system.redaction import address, first_line, shown

for _name in ("alembic", "mlflow"):  # which set their own levels while they are imported
    logging.getLogger(_name).setLevel(logging.ERROR)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs a traceback of whatever it raises

# MLflow opens an experiment without it as one of language models, where the runs of a study are hard to find.
KIND = {"mlflow.experimentKind": "custom_model_development"}
FINISHED, KILLED, FAILED = "FINISHED", "KILLED", "FAILED"
STATUS = {"COMPLETE": FINISHED, "PRUNED": KILLED, "FAIL": FAILED}
SECONDS = "epoch_seconds"
METRICS_A_REQUEST = 1000  # MLflow's limit
# What MLflow makes of a refused connection, a proxy's 502 and the like. A server that answers has other codes.
_UNREACHABLE = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
_REFUSED = {"UNAUTHENTICATED": 401, "CUSTOMER_UNAUTHORIZED": 401, "PERMISSION_DENIED": 403}
# An epoch's columns that are no metrics of it.
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
    """

    run_id: str
    name: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    artifacts: str


@dataclass(frozen=True)
class PastRun:
    """A run with all that it has to say, for training it again.

    Attributes:
        name: Its name.
        tags: Its tags.
        params: Its params, as text.
        epochs: A row of metrics an epoch: `epoch` and metrics by name.
        data_name: The data set that it learned from.
        data_location: Where that was.
    """

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    epochs: Sequence[Mapping[str, float]]
    data_name: str
    data_location: str


def _reaching(
    method: Callable[Concatenate[Tracking, _P], _T],
) -> Callable[Concatenate[Tracking, _P], _T]:
    """Has a method say plainly that the server does not answer."""

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
            if refused := _refused(error):
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
        everything = {"mlflow.source.name": "sweep", "mlflow.source.type": "LOCAL", **nested, **tags}
        entity = self.client.create_run(
            self.experiment_id,
            start_time=_milliseconds(started),
            run_name=name,
            tags={key: str(value) for key, value in everything.items()},
        )
        return _run(entity)

    @_reaching
    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Logs params; logging the same ones again changes nothing."""
        self.client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])

    @_reaching
    def get(self, run_id: str) -> Run | None:
        """The run of an id; None where there is none, or it was deleted."""
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

        The page of a logged model shows those that have its id, by the data set's name and digest.
        """
        now, (name, digest) = _milliseconds(None), dataset
        self.client.log_batch(
            run_id,
            metrics=[Metric(key, float(value), now, step, model_id, name, digest) for key, value in metrics.items()],
            tags=[RunTag(key, str(value)) for key, value in (tags or {}).items()],
        )

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
        for first in range(0, len(points), METRICS_A_REQUEST):
            self.client.log_batch(run_id, metrics=points[first : first + METRICS_A_REQUEST])

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
        """Logs the data set as inputs of a run, an entry a split: context -> digest."""
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
        """Says that a run is about a logged model, for both their pages."""
        self.client.log_inputs(run_id, models=[LoggedModelInput(model_id)])

    @_reaching
    def fetch(self, run_id: str, path: str, folder: Path) -> Path | None:
        """Downloads one artifact into a folder and returns its file; None where the run has none of that name."""
        beside = path.rpartition("/")[0] or None
        try:
            entries = self.client.list_artifacts(run_id, beside)
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
        """Whether a version of a registered model was made of this run."""
        return bool(self.client.search_model_versions(f"run_id = '{run_id}'"))

    @_reaching
    def finish(self, run_id: str, status: str, ended: float | None = None) -> None:
        """Ends a run as FINISHED, KILLED or FAILED, `ended` seconds after 1970."""
        self.client.set_terminated(run_id, status, end_time=_milliseconds(ended))

    @_reaching
    def reopen(self, run_id: str) -> None:
        """Lets an ended run run again."""
        self.client.update_run(run_id, status="RUNNING")
        self.client.set_tag(run_id, tag.STATE, "RUNNING")

    @_reaching
    def children(self, parent: str) -> list[Run]:
        """The child runs of a study's run, the oldest first."""
        return self.search(f"tags.`mlflow.parentRunId` = '{parent}'")

    @_reaching
    def search(self, condition: str) -> list[Run]:
        """The experiment's runs that meet a condition in MLflow's language, the oldest first."""
        found, token = [], None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], condition, ViewType.ACTIVE_ONLY, 1000, ["attributes.start_time ASC"], token
            )
            found += [_run(entity) for entity in page]
            if not (token := page.token):
                return found


def open_tracking(uri: str, experiment: str) -> Tracking:
    """Opens MLflow's store and the experiment; makes what is missing.

    A new SQLite store that several processes touch first is broken for good: the caller must be the only one.

    Args:
        uri: MLflow's tracking URI.
        experiment: The experiment's name.

    Raises:
        InputError: The store cannot be opened or reached.
    """
    uri = _without_credentials(uri)
    open_whole("--tracking-uri", uri, lambda new: MlflowClient(new, new).search_experiments())
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = client.get_experiment_by_name(experiment)
        if found is not None and found.lifecycle_stage != "active":
            raise InputError(f"experiment {experiment} is deleted; restore it with `mlflow experiments restore`")
        identifier = found.experiment_id if found else client.create_experiment(experiment, tags=KIND)
    except InputError:
        raise
    except Exception as error:  # SQLAlchemy's, urllib3's and MLflow's own
        raise _cannot_be_opened(uri, error) from error
    return Tracking(client, uri, experiment, identifier)


def open_client(uri: str) -> MlflowClient:
    """Opens a store that is there already.

    Args:
        uri: MLflow's tracking URI.

    Raises:
        InputError: It is not there, or cannot be opened or reached.
    """
    uri = _without_credentials(uri)
    check_database("--tracking-uri", uri)
    path = file_of(uri)
    if path is not None and not path.exists():
        raise InputError(f"--tracking-uri {shown(uri)}: there is no such file")
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # SQLAlchemy's, urllib3's and MLflow's own
        raise _cannot_be_opened(uri, error) from error
    return client


def tracking_of(client: MlflowClient, run_id: str) -> Tracking:
    """The experiment that a run is in.

    Raises:
        InputError: The run or its experiment was deleted.
    """
    try:
        experiment = client.get_experiment(client.get_run(run_id).info.experiment_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        uri = shown(str(client.tracking_uri))
        raise InputError(f"{uri}: run {run_id}, which made the model, is not there") from error
    if experiment.lifecycle_stage != "active":
        name = f"experiment {experiment.name}, in which the model was made,"
        raise InputError(f"{name} is deleted; restore it with `mlflow experiments restore`")
    return Tracking(client, str(client.tracking_uri), experiment.name, experiment.experiment_id)


def read_run(uri: str, run_id: str) -> PastRun:
    """Reads a trial's run from a store.

    Args:
        uri: MLflow's tracking URI.
        run_id: The run.

    Raises:
        InputError: The store cannot be opened, or has no such run, or it is not one of a trial.
    """
    client = open_client(uri)
    try:
        entity = client.get_run(run_id)
        names = [name for name in entity.data.metrics if name.startswith(("train/", "val/")) or name == SECONDS]
        histories = {name: client.get_metric_history(run_id, name) for name in names}
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise InputError(f"{shown(uri)} has no run {run_id}; `mlflow ui` shows a run's id on its page") from error
        raise _cannot_be_opened(uri, error) from error
    except Exception as error:  # SQLAlchemy's and each driver's own
        raise _cannot_be_opened(uri, error) from error
    tags, inputs = entity.data.tags, entity.inputs.dataset_inputs if entity.inputs else []
    if tag.TRIAL not in tags or "seed" not in entity.data.params or not inputs:
        raise InputError(
            f"run {run_id} ({entity.info.run_name}) is not a trial's; give one such as {entity.info.run_name}-000"
        )
    rows: dict[int, dict[str, float]] = {}
    for name, points in histories.items():
        for point in points:
            rows.setdefault(point.step, {"epoch": point.step})[name] = point.value
    dataset = inputs[0].dataset
    return PastRun(
        str(entity.info.run_name),
        tags,
        entity.data.params,
        [rows[epoch] for epoch in sorted(rows)],
        dataset.name,
        json.loads(dataset.source)["uri"],
    )


def write_files(folder: Path, files: Mapping[str, bytes | str]) -> None:
    """Writes files into a folder by their path in it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def _run(entity: mlflow.entities.Run) -> Run:
    info, data = entity.info, entity.data
    return Run(
        info.run_id, str(info.run_name), info.status, data.tags, data.params, data.metrics, str(info.artifact_uri)
    )


def _milliseconds(seconds: float | None) -> int:
    return int((time.time() if seconds is None else seconds) * 1000)


def _without_credentials(uri: str) -> str:
    """Moves user and password of a server's URL into the environment.

    MLflow looks for them there, too, and has the whole URL in what it raises and what it exports.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:  # a bracket where none belongs: whoever opens it will say
        return uri
    if parts.scheme not in ("http", "https") or not parts.username:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
    if parts.password is not None:
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
    return address(uri)


def _cannot_be_opened(uri: str, error: Exception) -> InputError:
    why = _refused(error) or f"cannot be opened ({first_line(error, uri)})"
    return InputError(f"--tracking-uri {shown(uri)}: {why}")


def _refused(error: Exception) -> str | None:
    """What is wrong with the credentials, where a server says that they are."""
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
