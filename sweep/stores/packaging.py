"""A model's files: export the network, describe it, put it into MLflow's logged model, and try it out.

`serving_model.py` and `heat_map.py`, which travel with every model, lie beside this file and are found by their place.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.tracking._tracking_service.utils import _use_tracking_uri
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from PIL import Image

from data import decode
from sweep.stores.tracking import write_files

REQUIREMENTS = ("mlflow", "numpy", "pandas", "pillow", "torch")
TOLERANCE, PARTS = 1e-5, 1_000_000  # served probabilities have six digits
ARTIFACTS = {"network": "network.pt2", "decode": "decode.py", "heat_map": "heat_map.py", "about": "model.json"}
SERVING = "serving_model.py"


def artifacts_of(members: int = 0) -> dict[str, str]:
    """The files of a model by the names that MLflow gives them, the exported networks first.

    Args:
        members: Of an ensemble; 0 for a single network.

    >>> list(artifacts_of(2).items())[:3]
    [('network-1', 'network-1.pt2'), ('network-2', 'network-2.pt2'), ('decode', 'decode.py')]
    """
    networks = {f"network-{number}": f"network-{number}.pt2" for number in range(1, members + 1)}
    return {**networks, **{name: file for name, file in ARTIFACTS.items() if not (members and name == "network")}}


class ModelDiffersError(RuntimeError):
    """The model that would be registered gives other answers than the network that was trained."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model version holds beside its network.

    Attributes:
        name: The registered model.
        run_id: The run of the trial that made it; one version each.
        architecture: Its name, also the version's alias.
        image_size: Side of its input, in pixels.
        mean: Subtracted from pixels that go from 0 to 1.
        std: Divides the pixels after that.
        classes: Names in logit order; with two of them the second is the positive one.
        temperature: Divides logits before they become probabilities.
        threshold: An image with at least this probability is positive; None for more than two classes.
        metrics: Scores by name, `val/...` and `test/...`.
        tags: Of the version and its logged model; `sweep.metric` and `sweep.data_digest` say which can be compared.
        provenance: The code, libraries and machine that made it.
        description: Markdown for people, of at most 5,000 characters.
        files: For people, by their path in the model: `model_card.md` and figures.
        depth: As `data.decode.open_gray` takes it.
        native: As `data.decode.resize` takes it.
        params: What the network was trained with, for the page of the logged model.
        members: Of an ensemble: what each was trained by, as `model.json` lists it; empty for a single network.
        flip: Whether an ensemble answers the mean of an image and its mirror image.
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
    depth: int | None = None
    native: tuple[int, int] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    members: Sequence[Mapping[str, Any]] = ()
    flip: bool = False


@dataclass(frozen=True)
class Example:
    """Images with the answers that a model must give to them.

    Attributes:
        pixels: N images as the model reads them, uint8 [height, width].
        probabilities: float [N, classes], after the temperature.
    """

    pixels: Sequence[np.ndarray] | np.ndarray
    probabilities: np.ndarray


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
        content = io.BytesIO()  # torch itself ends the process, without an exception, where a disk is full
        torch.export.save(program, content)
        path.write_bytes(content.getbuffer())
        exported = torch.export.load(path).module()
        for batch in (1, 5):
            images = torch.rand(batch, 1, image_size, image_size, generator=generator)
            difference = (exported(images) - network(images)).abs().max().item()
            if not difference <= TOLERANCE:  # NaN too
                raise ModelDiffersError(
                    f"the exported network differs from the trained one: logits by {difference:.2g}"
                )


def fill(client: MlflowClient, model: LoggedModel, spec: ModelSpec, network: torch.nn.Module) -> None:
    """Gives a logged model its files, and marks it as ready; takes what `registry.register` takes."""
    with tempfile.TemporaryDirectory() as folder, _silence():
        files = Path(folder) / "files"
        files.mkdir()
        serving = Path(__file__).with_name(SERVING)
        artifacts = {name: files / file for name, file in artifacts_of(len(spec.members)).items()}
        networks = list(network) if spec.members and isinstance(network, torch.nn.ModuleList) else [network]
        paths = [path for name, path in artifacts.items() if name.startswith("network")]
        for one, path in zip(networks, paths, strict=True):
            export_network(one, spec.image_size, path)
        shutil.copy(decode.__file__, artifacts["decode"])
        shutil.copy(serving.with_name(ARTIFACTS["heat_map"]), artifacts["heat_map"])
        executed = (*paths, artifacts["decode"], artifacts["heat_map"], serving)
        about = {**_about(spec), "sha256": {path.name: sha256(path) for path in executed}}
        artifacts["about"].write_text(json.dumps(about, indent=2), encoding="utf-8")
        mlflow.pyfunc.save_model(
            Path(folder) / "model",
            python_model=str(serving),
            artifacts={name: str(path) for name, path in artifacts.items()},
            signature=_signature(spec.classes, ensemble=bool(spec.members)),
            input_example=_example(),
            # Inferring them would take seconds, and miss Pillow.
            pip_requirements=[f"{name}=={metadata.version(name).split('+')[0]}" for name in REQUIREMENTS],
            mlflow_model=Model(run_id=spec.run_id, model_id=model.model_id),
        )
        _forget_folder(Path(folder) / "model")
        write_files(Path(folder) / "model", spec.files)
        client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _forget_folder(model: Path) -> None:
    """Removes the folder of a model's code from its description: MLflow writes down where it was on this machine."""
    described = Model.load(model)
    code = described.flavors["python_function"]
    code["model_code_path"] = Path(code["model_code_path"]).name
    described.save(model / "MLmodel")


def try_out(client: MlflowClient, model: LoggedModel, spec: ModelSpec, example: Example) -> str:
    """Loads a logged model as MLflow does and compares its answers with the network's.

    Returns:
        The hash of its `model.json`.

    Raises:
        ModelDiffersError: It gives other answers than the network.
    """
    rows = pd.DataFrame({"image": [_base64_png(pixels) for pixels in example.pixels]})
    columns = [f"probability_{name}" for name in spec.classes]
    with local_copy(client, model.model_uri) as folder:
        answer = mlflow.pyfunc.load_model(str(folder)).predict(rows)
        digest = sha256(folder / "artifacts" / ARTIFACTS["about"])
    difference = float(np.abs(answer[columns].to_numpy() - example.probabilities).max())
    rounding = len(spec.classes) / PARTS  # every class may give one part to the label's
    if not difference <= TOLERANCE + rounding:  # NaN too
        raise ModelDiffersError(f"the registered model differs from the trained one: probabilities by {difference:.2g}")
    return digest


@contextlib.contextmanager
def local_copy(client: MlflowClient, uri: str) -> Iterator[Path]:
    """Copies a model's files to a folder of our own: what is checked is what is run, and the store stays as it is."""
    with tempfile.TemporaryDirectory() as folder, global_store(client.tracking_uri):
        yield Path(download_artifacts(uri, dst_path=folder, tracking_uri=client.tracking_uri))


@contextlib.contextmanager
def global_store(uri: str) -> Iterator[None]:
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
    # Recorded, not filtered: libraries that set filters of their own while they load would undo ours.
    with warnings.catch_warnings(record=True):
        try:
            yield
        finally:
            logger.setLevel(level)


def sha256(path: Path) -> str:
    """The SHA-256 hash of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _about(spec: ModelSpec) -> dict[str, Any]:
    """The content of `model.json`, without the hashes."""
    return {
        "name": spec.name,
        "architecture": spec.architecture,
        "image_size": spec.image_size,
        "mean": spec.mean,
        "std": spec.std,
        **({} if spec.depth is None else {"depth": spec.depth}),
        **({} if spec.native is None else {"native": list(spec.native)}),
        "classes": list(spec.classes),
        "positive": spec.classes[1] if len(spec.classes) == 2 else None,
        "temperature": spec.temperature,
        "threshold": spec.threshold,
        **({"flip": spec.flip, "members": _listed(spec)} if spec.members else {}),
        "metrics": dict(spec.metrics),
        "provenance": dict(spec.provenance),
    }


def _listed(spec: ModelSpec) -> list[dict[str, Any]]:
    """The members of an ensemble as `model.json` lists them, each with the name of its exported network."""
    names = list(artifacts_of(len(spec.members)))
    return [{"artifact": name, **member} for name, member in zip(names, spec.members, strict=False)]


def _signature(classes: tuple[str, ...], *, ensemble: bool) -> ModelSignature:
    numbers = ["probability", *(f"probability_{name}" for name in classes)]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "image", required=False)]),  # the model's own error says it better
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                *(ColSpec(DataType.double, name) for name in numbers),
                ColSpec(DataType.double, "threshold", required=False),
                ColSpec(DataType.string, "model_version", required=False),
                *([ColSpec(DataType.double, "disagreement")] if ensemble else []),
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
