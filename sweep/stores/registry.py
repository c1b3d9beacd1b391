"""The model registry: make a trial's network a version of the registered model, and say which version is the best.

A version is an MLflow logged model: `serving_model.py`, `network.pt2`, `model.json` and `decode.py`. None is a pickle.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
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
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
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
    """Registers a network, once for each run.

    Registering is not idempotent in MLflow. Both halves are looked up first: a version of this run, and a logged model
    of this run that an earlier process made and did not get to register.

    Args:
        client: Of the store with the run.
        spec: What belongs to the network.
        network: On the CPU.

    Raises:
        RuntimeError: The exported network computes other logits than the network.
    """
    with contextlib.suppress(MlflowException):  # it exists already
        client.create_registered_model(spec.name)
    found = client.search_model_versions(f"name = '{spec.name}' and run_id = '{spec.run_id}'")
    if found:
        return Version(spec.name, str(found[0].version), created=False)
    model_id = _finished_logged_model(client, spec.run_id) or _log_model(client, spec, network)
    tags = {**spec.tags, **{key: f"{value:.6f}" for key, value in spec.metrics.items()}}
    with _registry(client):
        version = client.create_model_version(
            spec.name,
            f"models:/{model_id}",
            run_id=spec.run_id,
            tags=tags,
            description=spec.description,
            model_id=model_id,
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
    candidate = client.get_model_version(name, version)
    try:
        holder = client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in ("INVALID_PARAMETER_VALUE", ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)):
            raise
        holder = None
    if holder is not None and str(holder.version) == version:
        return Decision(False, f"version {version} holds it")
    decision = decide(holder.tags if holder else None, candidate.tags)
    if decision.moves:
        client.set_registered_model_alias(name, alias, version)
        return Decision(True, f"version {version} takes it: {decision.reason}")
    return Decision(False, f"version {holder.version if holder else '?'} keeps it: {decision.reason}")


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
    if holder.get("sweep.split_digest") == candidate["sweep.split_digest"] and metric in holder:
        ours, theirs = float(candidate[metric]), float(holder[metric])
        better = ours < theirs if metric == "val/loss" else ours > theirs
        return Decision(better, f"{metric} {ours:.4f} against {theirs:.4f} on the same validation images")
    ours, theirs = int(candidate["sweep.train_images"]), int(holder.get("sweep.train_images", 0))
    return Decision(
        ours > theirs,
        f"their validation images differ, so scores do not compare; it learned from {ours:,} images against {theirs:,}",
    )


def export_network(network: torch.nn.Module, image_size: int, path: Path) -> None:
    """Writes a network as an exported program that takes batches of any size.

    Args:
        network: On the CPU; maps float32 [N, 1, image_size, image_size] to logits.
        image_size: In pixels.
        path: A `.pt2` file.

    Raises:
        RuntimeError: The exported network computes other logits than the network.
    """
    network = network.eval().to(memory_format=torch.contiguous_format)
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(2, 1, image_size, image_size, generator=generator)  # with a batch of 1 it would be frozen to 1
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()
        for batch in (1, 5):
            images = torch.rand(batch, 1, image_size, image_size, generator=generator)
            difference = (loaded(images) - network(images)).abs().max().item()
            if not difference <= TOLERANCE:
                raise RuntimeError(
                    f"the exported network differs from the trained one by {difference:.2g} in its logits"
                )


def _log_model(client: MlflowClient, spec: ModelSpec, network: torch.nn.Module) -> str:
    experiment = client.get_run(spec.run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name=spec.architecture, source_run_id=spec.run_id)
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
        )
        client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_id


def _finished_logged_model(client: MlflowClient, run_id: str) -> str | None:
    experiment = client.get_run(run_id).info.experiment_id
    logged = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    return next((model.model_id for model in logged if str(model.status) == "READY"), None)


def _about(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "architecture": spec.architecture,
        "image_size": spec.image_size,
        "mean": spec.mean,
        "std": spec.std,
        "classes": list(spec.classes),
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
        # MLflow drops a param that the signature does not name; -1 stands for the model's own threshold.
        params=ParamSchema([ParamSpec("threshold", DataType.double, -1.0)]),
    )


def _example() -> pd.DataFrame:
    """A tiny gray gradient; never a radiograph."""
    content = io.BytesIO()
    Image.linear_gradient("L").resize((16, 16)).save(content, "PNG")
    return pd.DataFrame({"image": [base64.b64encode(content.getvalue()).decode()]})


@contextlib.contextmanager
def _registry(client: MlflowClient) -> Iterator[None]:
    """Points MLflow's global URIs at the client's stores: `create_model_version` looks the logged model up there."""
    tracking, registry = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_registry_uri(client._registry_uri or client.tracking_uri)
    try:
        with _silence():
            yield
    finally:
        mlflow.set_tracking_uri(tracking)
        mlflow.set_registry_uri(registry)


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
