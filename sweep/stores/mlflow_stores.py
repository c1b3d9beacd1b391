"""MLflow's stores: open them, and read what is there.

A server's user and password leave the URL here, before MLflow can show them in an error.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient, __version__
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache as artifact_places
from platformdirs import user_cache_path

from data.faults import InputError
from sweep.stores import tags as tag
from sweep.stores.databases import check_database, file_of, is_whole, open_whole
from sweep.stores.locations import make_relative, place_experiment
from sweep.stores.shown_params import exact_params
from sweep.stores.tracking import Tracking, refusal
from sweep.system.environment import check_environment
from sweep.system.redaction import address, first_line, shown

# MLflow opens an experiment without it as one of language models, where the runs of a study are hard to find.
KIND = {"mlflow.experimentKind": "custom_model_development"}
SECONDS = "epoch_seconds"


@dataclass(frozen=True)
class PastRun:
    """A trial's run, with all that it takes to train it again; or the run of an ensemble of trials.

    Attributes:
        name: Its name.
        tags: Its tags.
        params: Its params, as text, exact.
        epochs: One row per epoch: `epoch`, and metrics by name.
        data_name: The data set that it learned from.
        data_location: The folder, table or file that the data set was read from.
    """

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    epochs: Sequence[Mapping[str, float]]
    data_name: str
    data_location: str


def tell(sentence: str) -> None:
    """Says on stderr what was changed in a store as it was opened."""
    print(f"note: {sentence}", file=sys.stderr)


def open_tracking(uri: str, experiment: str, say: Callable[[str], object] = tell) -> Tracking:
    """Opens MLflow's store and the experiment; makes what is missing.

    A new SQLite store that several processes touch first is broken for good: the caller must be the only one.

    Args:
        uri: MLflow's tracking URI.
        experiment: The experiment's name.
        say: Shows what `locations.make_relative` has changed.

    Raises:
        InputError: The store cannot be opened or reached, was moved without its files, or as
            `check_environment`.
    """
    check_environment(uri)
    artifact_places.clear()  # MLflow keeps them by run for all stores of a process, and copies have the same runs
    uri = _without_credentials(uri)
    path, new = file_of(uri), False
    new = path is not None and not path.exists()
    open_whole("--tracking-uri", uri, _create)
    if path is not None and (changed := make_relative(path)) and not new:
        say(changed)
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        present = client.get_experiment_by_name(experiment)
        if present is not None and present.lifecycle_stage != "active":
            raise InputError(f"experiment {experiment} is deleted; restore it with `mlflow experiments restore`")
        if present is not None and path is None and _is_elsewhere(client, present):
            raise InputError(
                f"experiment {experiment} at {shown(uri)} has its files in the directory that its server runs in: go "
                "there, or name another --experiment"
            )
        identifier = present.experiment_id if present else _create_experiment(client, experiment, path)
    except InputError:
        raise
    except Exception as error:  # SQLAlchemy's, urllib3's and MLflow's own
        raise _cannot_be_opened(uri, error) from error
    return Tracking(client, uri, experiment, identifier)


def _create(url: str) -> None:
    """Makes a store; its tables are a copy where this version of MLflow made some before, in 60 migrations."""
    path, copy = Path(str(file_of(url))), user_cache_path("sweep") / f"mlflow-{__version__}.db"
    copied = is_whole(copy)
    if copied:
        shutil.copyfile(copy, path)
    MlflowClient(url, url).search_experiments()  # makes the experiment `Default`, which has a place
    if copied:
        return
    with suppress(OSError):  # where nobody may write, each store is made anew
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copy.parent, prefix=".mlflow-") as folder:
            tables = Path(folder, copy.name)
            shutil.copyfile(path, tables)
            with closing(sqlite3.connect(tables)) as connection, connection:
                connection.execute("DELETE FROM experiments")
            tables.replace(copy)


def _is_elsewhere(client: MlflowClient, experiment: Experiment) -> bool:
    """Whether an experiment's files are relative to another directory, in which its server runs.

    That the folder is here says nothing: experiments are counted from 1 in every directory.
    """
    if not str(experiment.artifact_location).startswith("./"):
        return False
    runs = client.search_runs([experiment.experiment_id], max_results=50)
    places = [str(run.info.artifact_uri) for run in runs] or [str(experiment.artifact_location)]
    return not any(Path(place).is_dir() for place in places)


def _create_experiment(client: MlflowClient, name: str, path: Path | None) -> str:
    """Makes an experiment, and says where its files are if the store is the file `path`."""
    try:
        made_here = client.create_experiment(name, tags=KIND)
        if path is not None:
            place_experiment(path, made_here)
        return made_here
    except MlflowException as error:  # a study in another directory was quicker, on the same server
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or not (made := client.get_experiment_by_name(name)):
            raise
        return made.experiment_id


def open_client(uri: str, say: Callable[[str], object] = tell) -> MlflowClient:
    """Opens a store that is there already.

    Args:
        uri: MLflow's tracking URI.
        say: Shows what `locations.make_relative` has changed.

    Raises:
        InputError: It is not there, cannot be opened or reached, was moved without its files, or as
            `check_environment`.
    """
    check_environment(uri)
    artifact_places.clear()  # MLflow keeps them by run for all stores of a process, and copies have the same runs
    uri = _without_credentials(uri)
    check_database("--tracking-uri", uri)
    path = file_of(uri)
    if path is not None and not path.exists():
        raise InputError(f"--tracking-uri {shown(uri)}: there is no such file")
    if path is not None and (changed := make_relative(path)):
        say(changed)
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # SQLAlchemy's, urllib3's and MLflow's own
        raise _cannot_be_opened(uri, error) from error
    return client


def tracking_of(client: MlflowClient, run_id: str) -> Tracking:
    """Opens the experiment that a run is in.

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


def read_run(uri: str, run_id: str, *, ensembles: bool = False) -> PastRun:
    """Reads a trial's run from a store.

    Args:
        uri: MLflow's tracking URI.
        run_id: The run.
        ensembles: Whether that of an ensemble will do.

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
    trained = tag.TRIAL in tags and "seed" in entity.data.params
    if not (trained or (ensembles and tag.ENSEMBLE_ID in tags)) or not inputs:
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
        exact_params(entity.data.params, tags),
        [rows[epoch] for epoch in sorted(rows)],
        dataset.name,
        json.loads(dataset.source)["uri"],
    )


def _without_credentials(uri: str) -> str:
    """Moves user and password of a server's URL into the environment.

    MLflow looks for them there, too, and has the whole URL in what it raises and what it exports.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:  # a bracket where none belongs: opening it will raise an error
        return uri
    if parts.scheme not in ("http", "https") or not parts.username:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
    if parts.password is not None:
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
    return address(uri)


def _cannot_be_opened(uri: str, error: Exception) -> InputError:
    cannot = "does not answer" if "ConnectionPool(" in str(error) else "cannot be opened"
    why = refusal(error) or f"{cannot} ({first_line(error, uri)})"
    return InputError(f"--tracking-uri {shown(uri)}: {why}")
