"""The model registry: make a trial's network a version of the registered model, and say which version is the best.

A version is an MLflow logged model: `serving_model.py`, `network.pt2`, `model.json` and `decode.py`. None is a pickle.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking._tracking_service.utils import _use_tracking_uri
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from PIL import Image

from data import decode

REQUIREMENTS = ("mlflow", "numpy", "pandas", "pillow", "torch")
TOLERANCE = 1e-5
CHAMPION = "champion"


@dataclass(frozen=True)
class ModelSpec:
    """What a model version holds beside its network.

    Attributes:
        name: The registered model.
        run_id: The run of the trial that made it; one version each.
        architecture: Its name, also the version's alias.
        image_size: Side of its input, in pixels.
        mean: Subtracted from pixels that go from 0 to 1.
        std: Divides what is left.
        classes: Names in logit order; with two of them the second is the positive one.
        threshold: From which probability on an image is positive; None for more than two classes.
        metrics: Scores by name, `val/...` and `test/...`.
        tags: Of the version; `sweep.metric`, `sweep.split_digest` and `sweep.train_images` decide about seats.
        provenance: What made it.
        description: Markdown for people.
    """

    name: str
    run_id: str
    architecture: str
    image_size: int
    mean: float
    std: float
    classes: tuple[str, ...]
    threshold: float | None
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    provenance: Mapping[str, Any]
    description: str


@dataclass(frozen=True)
class Version:
    """A version of a registered model; `created` says whether it is new."""

    name: str
    version: str
    created: bool


@dataclass(frozen=True)
class Decision:
    """Whether an alias moves to a candidate, and why."""

    moves: bool
    reason: str


def register(client: MlflowClient, spec: ModelSpec, network: torch.nn.Module) -> Version:
    """Registers a network, once for each trial.

    Registering is not idempotent in MLflow. Both halves are looked up first: a version of this run, or of the run that
    its trial had before the runs were written again, and a logged model of this run that an earlier process made, or
    began to make, and did not get to register.

    Args:
        client: Of the store with the run.
        spec: What belongs to the network.
        network: Maps float32 [N, 1, image_size, image_size] to logits [N, classes]; left as it is.

    Raises:
        RuntimeError: The exported network computes other logits than the network.
    """
    for found in client.search_model_versions(f"name = '{spec.name}'"):
        same_trial = all(found.tags.get(key, "") == spec.tags.get(key) for key in ("sweep.study_id", "sweep.trial"))
        if found.run_id == spec.run_id or same_trial:
            return Version(spec.name, str(found.version), created=False)
    try:
        client.create_registered_model(spec.name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    model = _logged_model(client, spec)
    if model.status != LoggedModelStatus.READY:
        _fill(client, model, spec, network)
    with _global_store(client.tracking_uri):
        version = client.create_model_version(
            spec.name,
            model.model_uri,
            run_id=spec.run_id,
            tags={**spec.tags, **{key: f"{value:.6f}" for key, value in spec.metrics.items()}},
            description=spec.description,
            model_id=model.model_id,
        )
    return Version(spec.name, str(version.version), created=True)


def seat(client: MlflowClient, name: str, alias: str, version: str) -> Decision:
    """Gives an alias to a version if it is better than the version that holds it.

    Args:
        client: Of the registry.
        name: The registered model.
        alias: An architecture, or `champion`.
        version: The candidate.
    """
    held_by = client.get_registered_model(name).aliases.get(alias)
    if held_by is not None and str(held_by) == version:
        return Decision(False, f"version {version} holds it")
    holder = None if held_by is None else client.get_model_version(name, held_by).tags
    decision = decide(holder, client.get_model_version(name, version).tags)
    if decision.moves:
        client.set_registered_model_alias(name, alias, version)
        return Decision(True, f"version {version} takes it: {decision.reason}")
    return Decision(False, f"version {held_by} keeps it: {decision.reason}")


def decide(holder: Mapping[str, str] | None, candidate: Mapping[str, str]) -> Decision:
    """Decides whether a candidate is better than the holder of an alias, by the tags of both.

    Validation scores compare only on the same validation images. Where those differ, a model that learned from more
    images takes the seat and never gives it back to one that learned from fewer: a quick trial on a few hundred
    images cannot displace a real model, and a real one can displace a quick trial.

    Args:
        holder: Tags of the version that holds the alias; None if nobody does.
        candidate: Tags of the version that wants it.
    """
    if holder is None:
        return Decision(True, "nobody held it")
    metric = candidate["sweep.metric"]
    same = all(holder.get(digest) == candidate.get(digest) for digest in ("sweep.split_digest", "sweep.data_digest"))
    if same and metric in holder:
        ours, theirs = float(candidate[metric]), float(holder[metric])
        better = ours < theirs if metric == "val/loss" else ours > theirs
        return Decision(better, f"{metric} {ours:.4f} against {theirs:.4f} on the same validation images")
    ours, theirs = int(candidate["sweep.train_images"]), int(holder.get("sweep.train_images", 0))
    return Decision(
        ours > theirs,
        f"no validation score of both on the same images; learned from {ours:,} images against {theirs:,}",
    )


def export_network(network: torch.nn.Module, image_size: int, path: Path) -> None:
    """Writes a network as an exported program that takes batches of any size.

    Args:
        network: Maps float32 [N, 1, image_size, image_size] to logits; left as it is, on any device.
        image_size: In pixels.
        path: A `.pt2` file.

    Raises:
        RuntimeError: The exported network computes other logits than the network.
    """
    # Training may leave the weights on a GPU or in channels_last, and the export would keep either.
    network = copy.deepcopy(network).eval().to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(2, 1, image_size, image_size, generator=generator)  # a batch of 1 would be frozen to 1
    with warnings.catch_warnings(record=True), torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        program.example_inputs = None  # the only part of the file that would be a pickle
        torch.export.save(program, path)
        exported = torch.export.load(path).module()
        for batch in (1, 5):
            images = torch.rand(batch, 1, image_size, image_size, generator=generator)
            difference = (exported(images) - network(images)).abs().max().item()
            if not difference <= TOLERANCE:  # NaN too
                raise RuntimeError(f"the exported network differs from the trained one: logits by {difference:.2g}")


def _logged_model(client: MlflowClient, spec: ModelSpec) -> LoggedModel:
    """The logged model of the run: finished, begun by a process that died, or new."""
    run = client.get_run(spec.run_id)
    experiment = run.info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{spec.run_id}'")
    model = found[0] if found else client.create_logged_model(experiment, spec.architecture, spec.run_id)
    # The run's page lists its models by this; MLflow refuses to hear it twice.
    if run.outputs is None or not run.outputs.model_outputs:
        client.log_outputs(spec.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model


def _fill(client: MlflowClient, model: LoggedModel, spec: ModelSpec, network: torch.nn.Module) -> None:
    """Gives a logged model its files, and says that it is ready."""
    with tempfile.TemporaryDirectory() as folder, _silence():
        files = Path(folder) / "files"
        files.mkdir()
        export_network(network, spec.image_size, files / "network.pt2")
        shutil.copy(decode.__file__, files / "decode.py")
        (files / "model.json").write_text(json.dumps(_about(spec), indent=2))
        mlflow.pyfunc.save_model(
            Path(folder) / "model",
            python_model=str(Path(__file__).with_name("serving_model.py")),
            artifacts={
                "network": str(files / "network.pt2"),
                "decode": str(files / "decode.py"),
                "about": str(files / "model.json"),
            },
            signature=_signature(spec.classes),
            input_example=_example(),
            # Inferring them would take seconds, and miss Pillow.
            pip_requirements=[f"{name}=={metadata.version(name).split('+')[0]}" for name in REQUIREMENTS],
            mlflow_model=Model(run_id=spec.run_id, model_id=model.model_id),
        )
        client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _about(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "architecture": spec.architecture,
        "image_size": spec.image_size,
        "mean": spec.mean,
        "std": spec.std,
        "classes": list(spec.classes),
        "positive": spec.classes[1] if len(spec.classes) == 2 else None,
        "threshold": spec.threshold,
        "metrics": dict(spec.metrics),
        "provenance": dict(spec.provenance),
    }


def _signature(classes: tuple[str, ...]) -> ModelSignature:
    numbers = ["probability", *(f"probability_{name}" for name in classes)]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "image")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                *(ColSpec(DataType.double, name) for name in numbers),
                ColSpec(DataType.double, "threshold", required=False),
            ]
        ),
        # MLflow drops a param that the signature does not name; None stands for the model's own threshold.
        params=ParamSchema([ParamSpec("threshold", DataType.double, None)]),
    )


def _example() -> pd.DataFrame:
    """A tiny gray gradient; never a radiograph."""
    content = io.BytesIO()
    Image.linear_gradient("L").resize((16, 16)).save(content, "PNG")
    return pd.DataFrame({"image": [base64.b64encode(content.getvalue()).decode()]})


@contextlib.contextmanager
def _global_store(uri: str) -> Iterator[None]:
    """Points MLflow's global tracking URI at a store: `create_model_version` looks the logged model up there."""
    exported = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        # Its public half cannot be undone: after `set_tracking_uri` there is always one set.
        with _use_tracking_uri(uri), _silence():
            yield
    finally:
        # MLflow exports the URI too, where our own settings and child processes would read it.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if exported is not None:
            os.environ["MLFLOW_TRACKING_URI"] = exported


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps MLflow's hints and progress bars off the terminal; errors still raise."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    # Recorded, not filtered: libraries that set filters of their own while they load would undo ours.
    with warnings.catch_warnings(record=True):
        try:
            yield
        finally:
            logger.setLevel(level)
