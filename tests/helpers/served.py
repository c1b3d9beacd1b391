"""A registered model small enough for tests, the pictures that it is asked about, and MLflow's server for it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.pyfunc import PyFuncModel, load_model
from PIL import Image
from torch import nn

from data.decode import decode
from sweep.stores.mlflow_stores import open_tracking
from sweep.stores.packaging import Example, ModelSpec
from sweep.stores.registry import Version, register
from sweep.stores.tracking import Tracking

SIZE = 16
NAME = "synthetic"
TEMPERATURE = 1.6


def small_network(classes: int) -> nn.Sequential:
    """Batch normalisation and dropout, so that a model left in training mode is found out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(4 * 14**2, classes),
        )
        network(torch.randn(8, 1, SIZE, SIZE))
    return network


def new_spec(tracking: Tracking, **changes: Any) -> ModelSpec:
    """Of a trial's run that has no version yet."""
    spec = ModelSpec(
        name=NAME,
        run_id=tracking.start("cnn1-000", {}).run_id,
        architecture="cnn1",
        image_size=SIZE,
        mean=0.4,
        std=0.2,
        classes=("NORMAL", "PNEUMONIA"),
        temperature=TEMPERATURE,
        threshold=0.5,
        metrics={"val/auroc": 0.9, "test/auroc": 0.8},
        tags=new_tags(),
        provenance={"study": "cnn1"},
        description="# A model\n",
        files={"model_card.md": "# A model\n", "figures/roc.png": picture()},
    )
    return replace(spec, **changes)


def new_tags(data: str = "a", metric: str = "val/auroc") -> dict[str, str]:
    return {"sweep.metric": metric, "sweep.data_digest": data}


def picture(seed: int = 0, width: int = 30, height: int = 20, kind: str = "PNG", mode: str = "L") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, kind)
    return content.getvalue()


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def probabilities(network: nn.Module, images: list[bytes]) -> np.ndarray:
    """What the training code computes for image files."""
    pixels = torch.from_numpy(np.stack([decode(image, SIZE) for image in images])).unsqueeze(1).float() / 255
    with torch.inference_mode():
        return torch.softmax(network.eval()((pixels - 0.4) / 0.2) / TEMPERATURE, dim=1).numpy()


def example(network: nn.Module) -> Example:
    """Images with what the network says of them."""
    pixels = np.random.default_rng(1).integers(0, 256, (6, SIZE, SIZE), dtype=np.uint8)
    images = (torch.from_numpy(pixels).unsqueeze(1).float() / 255 - 0.4) / 0.2
    with torch.inference_mode():
        logits = network.eval()(images)
    return Example(pixels, torch.softmax(logits.double() / TEMPERATURE, dim=1).numpy())


@contextlib.contextmanager
def serving(model: str, log: Path, python: Path = Path(sys.executable)) -> Iterator[str]:
    """Runs `mlflow models serve` in the working directory; gives the address that takes images."""
    # MLflow starts `uvicorn` by its name.
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    command = [python, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    with running(command, "ping", log, PATH=path) as address:
        yield f"{address}/invocations"


@contextlib.contextmanager
def running(command: list, ping: str, log: Path, cwd: Path | None = None, **environment: str) -> Iterator[str]:
    """Runs a server on a free port until it is no longer needed; gives its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        log.open("w") as output,
        subprocess.Popen(
            [*map(str, command), "-p", str(port)],
            cwd=cwd,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as server,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}/{ping}", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)  # a group of its own, since the command only starts the server


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(960):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.25)
        else:
            return
    pytest.fail(f"the server did not start in four minutes: {log.read_text()}")


def post(url: str, payload: Any, kind: str = "application/json") -> tuple[int, str]:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    """A real store with MLflow's own defaults, in the working directory; making it takes seconds, so once."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # also where artifacts go
        yield open_tracking(f"sqlite:///{folder}/mlflow.db", NAME)


@pytest.fixture(scope="module")
def client(tracking: Tracking) -> MlflowClient:
    return tracking.client


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    return small_network(2)


@pytest.fixture(scope="module")
def version(tracking: Tracking, network: nn.Module) -> Version:
    return register(tracking.client, new_spec(tracking), network, example(network))


@pytest.fixture(scope="module")
def folder(client: MlflowClient, version: Version) -> Path:
    """Where the registered model's files are."""
    return Path(client.get_model_version_download_uri(version.name, version.version)).absolute()


@pytest.fixture(scope="module")
def model(folder: Path) -> PyFuncModel:
    return load_model(str(folder))
