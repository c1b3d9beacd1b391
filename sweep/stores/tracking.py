"""MLflow runs, by explicit run id: no global active run anywhere, one writer, a batch an epoch."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from data.faults import InputError

for _name in ("alembic", "mlflow"):  # which set their own levels while they are imported
    logging.getLogger(_name).setLevel(logging.ERROR)

# MLflow opens an experiment without it as one of language models, where the runs of a study are hard to find.
KIND = {"mlflow.experimentKind": "custom_model_development"}
FINISHED, KILLED, FAILED = "FINISHED", "KILLED", "FAILED"
STATUS = {"COMPLETE": FINISHED, "PRUNED": KILLED, "FAIL": FAILED}


class Tracking:
    """The runs of one MLflow experiment."""

    def __init__(self, client: MlflowClient, uri: str, experiment: str, experiment_id: str) -> None:
        self.client = client
        self.uri = uri
        self.experiment = experiment
        self.experiment_id = experiment_id

    def start(self, name: str, tags: Mapping[str, Any], params: Mapping[str, Any], parent: str | None = None) -> str:
        """Starts a run and returns its id."""
        nested = {"mlflow.parentRunId": parent} if parent else {}
        everything = {"mlflow.source.name": "sweep", "mlflow.source.type": "LOCAL", **nested, **tags}
        run = self.client.create_run(
            self.experiment_id, run_name=name, tags={key: str(value) for key, value in everything.items()}
        )
        self.client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in params.items()])
        return run.info.run_id

    def exists(self, run_id: str) -> bool:
        """Whether there is such a run, not deleted."""
        try:
            return self.client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def log(
        self, run_id: str, metrics: Mapping[str, float], step: int = 0, tags: Mapping[str, Any] | None = None
    ) -> None:
        """Logs metrics of one step, and tags, in one request."""
        now = int(time.time() * 1000)
        self.client.log_batch(
            run_id,
            metrics=[Metric(key, float(value), now, step) for key, value in metrics.items()],
            tags=[RunTag(key, str(value)) for key, value in (tags or {}).items()],
        )

    def log_files(self, run_id: str, files: Mapping[str, bytes | Path | str]) -> None:
        """Logs artifacts by their path in the run: bytes, text, or a file to copy."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Path):
                    path.symlink_to(content.resolve())
                elif isinstance(content, bytes):
                    path.write_bytes(content)
                else:
                    path.write_text(content)
            self.client.log_artifacts(run_id, folder)

    def log_table(self, run_id: str, table: pd.DataFrame, name: str) -> None:
        """Logs a table that MLflow shows as one; replaces an older one of that name."""
        self.log_files(run_id, {name: table.to_json(orient="split", index=False) or ""})
        # MLflow finds its tables by this tag.
        self.client.set_tag(run_id, "mlflow.loggedArtifacts", f'[{{"path": "{name}", "type": "table"}}]')

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

    def fetch(self, run_id: str, path: str, folder: Path) -> Path:
        """Downloads one artifact into a folder and returns its file."""
        return Path(self.client.download_artifacts(run_id, path, str(folder)))

    def finish(self, run_id: str, status: str) -> None:
        """Ends a run as FINISHED, KILLED or FAILED."""
        self.client.set_terminated(run_id, status)

    def reopen(self, run_id: str) -> None:
        """Lets an ended run run again."""
        self.client.update_run(run_id, status="RUNNING")

    def running_children(self, parent: str) -> list[str]:
        """Ids of the child runs of a study run that have not ended."""
        runs = self.client.search_runs(
            [self.experiment_id],
            f"tags.mlflow.parentRunId = '{parent}' and attributes.status = 'RUNNING'",
            ViewType.ACTIVE_ONLY,
        )
        return [run.info.run_id for run in runs]


def open_tracking(uri: str, experiment: str) -> Tracking:
    """Opens MLflow's store and the experiment; makes what is missing.

    A new SQLite store that several processes touch first is broken for good: the caller must be the only one.

    Args:
        uri: MLflow's tracking URI.
        experiment: The experiment's name.

    Raises:
        InputError: The store cannot be opened or reached.
    """
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = client.get_experiment_by_name(experiment)
        if found is not None and found.lifecycle_stage != "active":
            raise InputError(f"experiment {experiment} is deleted; restore it with `mlflow experiments restore`")
        identifier = found.experiment_id if found else client.create_experiment(experiment, tags=KIND)
    except InputError:
        raise
    except Exception as error:  # SQLAlchemy's, urllib3's and MLflow's own
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"--tracking-uri {uri}: cannot be opened ({first[0]})") from error
    return Tracking(client, uri, experiment, identifier)
