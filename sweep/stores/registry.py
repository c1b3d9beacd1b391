"""The model registry: make a trial's network a version of the registered model, find versions and load them.

A version is an MLflow logged model: `serving_model.py`, `network.pt2`, `model.json` and `decode.py`, and for people
`model_card.md` with its figures. None is a pickle. `model.json` holds the hashes of the files that are run, and the
version's tag `sweep.model_sha256` that of `model.json`: what is loaded is what was registered.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking._tracking_service.utils import _use_tracking_uri
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from PIL import Image

from data import decode
from data.faults import InputError
from sweep.stores import tags as tag
from sweep.stores.tracking import write_files
from sweep.system.redaction import first_line

REQUIREMENTS = ("mlflow", "numpy", "pandas", "pillow", "torch")
TOLERANCE = 1e-5
CHAMPION = "champion"
DIGEST = "sweep.model_sha256"
ARTIFACTS = {"network": "network.pt2", "decode": "decode.py", "about": "model.json"}
SERVING = "serving_model.py"
OURS = {tag.KIND: "model"}  # a tag of the logged models that are made here


class ModelDiffersError(RuntimeError):
    """What would be registered answers otherwise than the network that was trained."""


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
        temperature: Divides logits before they become probabilities.
        threshold: From which probability on an image is positive; None for more than two classes.
        metrics: Scores by name, `val/...` and `test/...`.
        tags: Of the version; `sweep.metric` and `sweep.data_digest` decide how seats are compared.
        provenance: What made it.
        description: Markdown for people, of at most 5,000 characters.
        files: For people, by their path in the model: `model_card.md` and figures.
    """

    name: str
    run_id: str
    architecture: str
    image_size: int
    mean: float
    std: float
    classes: tuple[str, ...]
    temperature: float
    threshold: float | None
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    provenance: Mapping[str, Any]
    description: str
    files: Mapping[str, bytes | str]


@dataclass(frozen=True)
class Example:
    """Images with the answers that a model must give to them.

    Attributes:
        pixels: uint8 [N, image_size, image_size].
        probabilities: float [N, classes], after the temperature.
    """

    pixels: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes:
        name: The registered model.
        version: Its number there.
        run_id: The run of the trial that made it.
        model_id: MLflow's logged model.
        tags: Its tags.
    """

    name: str
    version: str
    run_id: str
    model_id: str
    tags: Mapping[str, str]


def register(client: MlflowClient, spec: ModelSpec, network: torch.nn.Module, example: Example) -> Version:
    """Registers a network, once for each trial.

    Registering is not idempotent in MLflow. Both halves are looked up first: a version of this trial, and a logged
    model of this run that an earlier process made, or began to make, and did not get to register.

    Args:
        client: Of the store with the run.
        spec: What belongs to the network.
        network: Maps float32 [N, 1, image_size, image_size] to logits [N, classes]; left as it is.
        example: What the model is tried with before it becomes a version.

    Raises:
        ModelDiffersError: The registered model answers otherwise than the network.
    """
    if known := registered(client, spec.name, spec.run_id, spec.tags):
        return known
    try:
        client.create_registered_model(spec.name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    model = _logged_model(client, spec)
    if model.status != LoggedModelStatus.READY:
        _fill(client, model, spec, network)
    try:
        digest = _try_out(client, model, spec, example)
    except ModelDiffersError:
        client.delete_logged_model(model.model_id)  # so that the next attempt makes a new one
        raise
    with _global_store(client.tracking_uri):
        version = client.create_model_version(
            spec.name,
            model.model_uri,
            run_id=spec.run_id,
            tags={**spec.tags, DIGEST: digest, **{key: f"{value:.6f}" for key, value in spec.metrics.items()}},
            description=spec.description,
            model_id=model.model_id,
        )
    return _version(version)


def registered(client: MlflowClient, name: str, run_id: str, tags: Mapping[str, str]) -> Version | None:
    """The version that a trial has become; None where it has not.

    Args:
        client: Of the registry.
        name: The registered model.
        run_id: The trial's run.
        tags: `sweep.study_id` and `sweep.trial` know it too, where its runs were written again after it was registered.
    """
    for found in client.search_model_versions(f"name = '{name}'"):
        same_trial = all(found.tags.get(key, "") == tags.get(key) for key in (tag.STUDY_ID, tag.TRIAL))
        if found.run_id == run_id or same_trial:
            return _version(found)
    return None


def alias_holder(client: MlflowClient, name: str, alias: str) -> Version | None:
    """The version that holds an alias; None if nobody does."""
    number = client.get_registered_model(name).aliases.get(alias)
    return None if number is None else _version(client.get_model_version(name, number))


def models_with(client: MlflowClient, aliases: Collection[str]) -> list[str]:
    """The registered models of which one of these aliases names a version."""
    return sorted(model.name for model in client.search_registered_models() if set(aliases) & model.aliases.keys())


def set_alias(client: MlflowClient, name: str, alias: str, version: str) -> None:
    """Points an alias to a version."""
    client.set_registered_model_alias(name, alias, version)


def tag_version(client: MlflowClient, version: Version, tags: Mapping[str, str]) -> None:
    """Sets tags of a version."""
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def find_version(client: MlflowClient, model: str) -> Version:
    """Finds a version of a registered model.

    Args:
        client: Of the registry.
        model: `NAME@ALIAS` or `NAME/VERSION`, with or without `models:/` before it; a `NAME` alone means its champion.

    Raises:
        InputError: There is no such model, alias or version, or it was not registered by this project.
    """
    path = model.removeprefix("models:/")
    name, at, alias = path.partition("@")
    name, slash, number = (name, "", "") if at else path.partition("/")
    try:
        known = client.get_registered_model(name)
        if slash:
            found = client.get_model_version(name, number)
        else:
            number = known.aliases.get(alias or CHAMPION, "")
            found = client.get_model_version(name, number) if number else None
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        names = ", ".join(entry.name for entry in client.search_registered_models()) or "none"
        wrong = f"{name} has no version {number}" if slash and f"name={name}" in str(error) else None
        raise InputError(
            wrong or f"model {model}: there is no such one; the registered models here are: {names}"
        ) from error
    if found is None:
        aliases = ", ".join(f"{name}@{known}" for known in sorted(known.aliases)) or "none"
        raise InputError(f"model {model}: {name} has no alias {alias or CHAMPION}; there are: {aliases}")
    if DIGEST not in found.tags:
        raise InputError(f"model {model}: version {found.version} was not registered by sweep, and is not loaded")
    return _version(found)


def load(client: MlflowClient, version: Version) -> Any:
    """Loads a registered model without MLflow's loader: files whose hashes are not the registered ones are not run.

    Args:
        client: Of the registry.
        version: A version.

    Returns:
        The `ImageClassifier` of its `serving_model.py`, with `bytes`, the size of its network's file.

    Raises:
        InputError: A file is missing, or is not the one that was registered.
    """
    uri = f"models:/{version.name}/{version.version}"
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(_copy_of(client, uri))
        except (MlflowException, OSError) as error:
            why = first_line(error, client.tracking_uri)
            raise InputError(f"{uri}: its files are not where the registry says ({why})") from error
        files = {name: folder / "artifacts" / file for name, file in ARTIFACTS.items()}
        serving = folder / SERVING
        missing = [path.name for path in (*files.values(), serving) if not path.is_file()]
        if missing:
            raise InputError(*(f"{uri}: {name} is missing" for name in missing))
        if _sha256(files["about"]) != version.tags[DIGEST]:
            raise InputError(f"{uri}: {files['about'].name} is not the file that was registered; its hash differs")
        known = json.loads(files["about"].read_text())["sha256"]
        for path in (files["network"], files["decode"], serving):
            if _sha256(path) != known[path.name]:
                raise InputError(f"{uri}: {path.name} is not the file that was registered; its hash differs")
        module = ModuleType("_sweep_serving_model")
        module.__file__ = str(serving)
        # The source itself, not bytecode that may lie beside it: its hash is what was checked.
        exec(compile(serving.read_bytes(), module.__file__, "exec"), module.__dict__)  # noqa: S102
        classifier = module.ImageClassifier()
        classifier.load_context(SimpleNamespace(artifacts={name: str(path) for name, path in files.items()}))
        classifier.bytes = files["network"].stat().st_size
    classifier.version = version.version
    return classifier


@contextlib.contextmanager
def _copy_of(client: MlflowClient, uri: str) -> Iterator[Path]:
    """Copies a model's files to a place of our own: what is checked is what is run, and the store stays as it is."""
    with tempfile.TemporaryDirectory() as place, _global_store(client.tracking_uri):
        yield Path(download_artifacts(uri, dst_path=place, tracking_uri=client.tracking_uri))


def export_network(network: torch.nn.Module, image_size: int, path: Path) -> None:
    """Writes a network as an exported program that takes batches of any size.

    Args:
        network: Maps float32 [N, 1, image_size, image_size] to logits; left as it is, on any device.
        image_size: In pixels.
        path: A `.pt2` file.

    Raises:
        ModelDiffersError: The exported network computes other logits than the network.
    """
    # Training may leave the weights on a GPU or in channels_last, and the export would keep either.
    network = copy.deepcopy(network).eval().to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(2, 1, image_size, image_size, generator=generator)  # a batch of 1 would be frozen to 1
    with warnings.catch_warnings(record=True), torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        program.example_inputs = None  # the only part of the file that would be a pickle
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # which names folders of the machine that trained it
        torch.export.save(program, path)
        exported = torch.export.load(path).module()
        for batch in (1, 5):
            images = torch.rand(batch, 1, image_size, image_size, generator=generator)
            difference = (exported(images) - network(images)).abs().max().item()
            if not difference <= TOLERANCE:  # NaN too
                raise ModelDiffersError(
                    f"the exported network differs from the trained one: logits by {difference:.2g}"
                )


def _logged_model(client: MlflowClient, spec: ModelSpec) -> LoggedModel:
    """The logged model of the run: finished, begun by a process that died, or new."""
    run = client.get_run(spec.run_id)
    experiment = run.info.experiment_id
    every = client.search_logged_models([experiment], f"source_run_id = '{spec.run_id}'")
    found = [model for model in every if model.tags.items() >= OURS.items()]  # others may log models to the run
    model = found[0] if found else client.create_logged_model(experiment, spec.architecture, spec.run_id, OURS)
    # The run's page lists its models by this; MLflow refuses to hear it twice.
    if run.outputs is None or not run.outputs.model_outputs:
        client.log_outputs(spec.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model


def _fill(client: MlflowClient, model: LoggedModel, spec: ModelSpec, network: torch.nn.Module) -> None:
    """Gives a logged model its files, and says that it is ready."""
    with tempfile.TemporaryDirectory() as folder, _silence():
        files = Path(folder) / "files"
        files.mkdir()
        serving = Path(__file__).with_name(SERVING)
        artifacts = {name: files / file for name, file in ARTIFACTS.items()}
        export_network(network, spec.image_size, artifacts["network"])
        shutil.copy(decode.__file__, artifacts["decode"])
        run = (artifacts["network"], artifacts["decode"], serving)
        about = {**_about(spec), "sha256": {path.name: _sha256(path) for path in run}}
        artifacts["about"].write_text(json.dumps(about, indent=2))
        mlflow.pyfunc.save_model(
            Path(folder) / "model",
            python_model=str(serving),
            artifacts={name: str(path) for name, path in artifacts.items()},
            signature=_signature(spec.classes),
            input_example=_example(),
            # Inferring them would take seconds, and miss Pillow.
            pip_requirements=[f"{name}=={metadata.version(name).split('+')[0]}" for name in REQUIREMENTS],
            mlflow_model=Model(run_id=spec.run_id, model_id=model.model_id),
        )
        _forget_where(Path(folder) / "model")
        write_files(Path(folder) / "model", spec.files)
        client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _forget_where(model: Path) -> None:
    """Leaves the name alone of the file that a model's code came from: MLflow writes down its place on this machine."""
    described = Model.load(model)
    code = described.flavors["python_function"]
    code["model_code_path"] = Path(code["model_code_path"]).name
    described.save(model / "MLmodel")


def _try_out(client: MlflowClient, model: LoggedModel, spec: ModelSpec, example: Example) -> str:
    """Loads a logged model as MLflow does and asks it about images; returns the hash of its `model.json`.

    Raises:
        ModelDiffersError: It answers otherwise than the network.
    """
    rows = pd.DataFrame({"image": [_base64_png(pixels) for pixels in example.pixels]})
    columns = [f"probability_{name}" for name in spec.classes]
    with _copy_of(client, model.model_uri) as folder:
        answer = mlflow.pyfunc.load_model(str(folder)).predict(rows)
        digest = _sha256(folder / "artifacts" / ARTIFACTS["about"])
    difference = float(np.abs(answer[columns].to_numpy() - example.probabilities).max())
    if not difference <= TOLERANCE:  # NaN too
        raise ModelDiffersError(f"the registered model differs from the trained one: probabilities by {difference:.2g}")
    return digest


def _version(found: ModelVersion) -> Version:
    model_id = found.model_id or str(found.source).removeprefix("models:/")
    return Version(found.name, str(found.version), str(found.run_id), model_id, found.tags)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _about(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "architecture": spec.architecture,
        "image_size": spec.image_size,
        "mean": spec.mean,
        "std": spec.std,
        "classes": list(spec.classes),
        "positive": spec.classes[1] if len(spec.classes) == 2 else None,
        "temperature": spec.temperature,
        "threshold": spec.threshold,
        "metrics": dict(spec.metrics),
        "provenance": dict(spec.provenance),
    }


def _signature(classes: tuple[str, ...]) -> ModelSignature:
    numbers = ["probability", *(f"probability_{name}" for name in classes)]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "image", required=False)]),  # the model says what is missing, plainly
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                *(ColSpec(DataType.double, name) for name in numbers),
                ColSpec(DataType.double, "threshold", required=False),
                ColSpec(DataType.string, "model_version", required=False),
                ColSpec(DataType.string, "heatmap", required=False),
            ]
        ),
        # MLflow drops a param that the signature does not name; None stands for the model's own threshold.
        params=ParamSchema(
            [ParamSpec("threshold", DataType.double, None), ParamSpec("heatmap", DataType.boolean, False)]
        ),
    )


def _example() -> pd.DataFrame:
    """A tiny gray gradient; never a radiograph."""
    return pd.DataFrame({"image": [_base64_png(np.asarray(Image.linear_gradient("L").resize((16, 16))))]})


def _base64_png(pixels: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


@contextlib.contextmanager
def _global_store(uri: str) -> Iterator[None]:
    """Points MLflow's global tracking URI at a store: `create_model_version` looks the logged model up there."""
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION")
    before = {name: os.environ.get(name) for name in names}
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"  # whatever a model's folder holds
    try:
        # Its public half cannot be undone: after `set_tracking_uri` there is always one set.
        with _use_tracking_uri(uri), _silence():
            yield
    finally:
        # MLflow exports the URI too, where our own settings and child processes would read it.
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps MLflow's hints and progress bars off the terminal; errors still raise."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    # TrialRecord, not filtered: libraries that set filters of their own while they load would undo ours.
    with warnings.catch_warnings(record=True):
        try:
            yield
        finally:
            logger.setLevel(level)
