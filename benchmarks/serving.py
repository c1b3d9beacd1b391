"""What serving a model costs beside its bare network: start-up, latency, throughput, overhead per image.

    python -m benchmarks.serving chest-xray@cnn2

Run it where the models are, or name their store with --tracking-uri. All is measured in one run; read the ratios.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from data.faults import InputError
from sweep.orchestrator.workdir import mlflow_in
from sweep.stores.mlflow_stores import open_client
from sweep.stores.registry import Version, find_version, load
from sweep.system.hardware import describe

CLIENTS, BATCHES = (1, 16), (1, 32)
WIDTH, HEIGHT = 1024, 768  # about what a chest film has
NETWORK, MODEL = "network", "model"


@dataclass(frozen=True)
class Part:
    """What a part of the work takes.

    Attributes:
        what: The part.
        clients: That ask at once; 0 in this process.
        batch: Images a request.
        median: Milliseconds a request.
        slow: The 95th percentile of the same.
        images_per_second: Over all clients.
    """

    what: str
    clients: int
    batch: int
    median: float
    slow: float
    images_per_second: float


def serving(
    model: Annotated[str, typer.Argument(help="NAME@ALIAS, NAME/VERSION, or NAME for its champion.")],
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow's store. Default: mlflow.db here.")] = None,
    requests: Annotated[int, typer.Option(help="Requests of one image a measurement; a tenth as many of 32.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measures a served model and the same model in this process."""
    uri = tracking_uri or mlflow_in(Path.cwd())
    try:
        client = open_client(uri)
        version = find_version(client, model)
        classifier = load(client, version)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    films = [film(seed) for seed in range(max(BATCHES))]
    bodies = {batch: json.dumps({"inputs": {"image": films[:batch]}}).encode() for batch in BATCHES}
    parts = [part for batch in BATCHES for part in in_process(classifier, films[:batch], requests)]
    started = time.monotonic()
    with server(version, uri) as port:
        start_up = time.monotonic() - started
        for clients in CLIENTS:
            for batch in BATCHES:
                count = max(clients, requests if batch == 1 else requests // 10)
                parts.append(over_http(port, bodies[batch], clients, batch, count))
    machine = {**describe(), "threads": torch.get_num_threads(), "model": f"{version.name}/{version.version}"}
    machine |= {"architecture": classifier.about["architecture"], "image_size": classifier.about["image_size"]}
    if as_json:
        print(json.dumps({**machine, "start_up": start_up, "parts": [asdict(part) for part in parts]}, indent=2))
    else:
        described = ", ".join(f"{key} {value}" for key, value in machine.items())
        start = (
            f"start-up {start_up:.1f} s; ms a request; `model` decodes {WIDTH} x {HEIGHT} JPEGs and asks the network"
        )
        Console(soft_wrap=True).print(shown(parts), start, described, sep="\n")


def film(seed: int) -> str:
    """A noisy gradient as JPEG in base64: the work of a radiograph, and no radiograph."""
    noise = np.random.default_rng(seed).normal(0, 12, (HEIGHT, WIDTH))
    pixels = np.clip(np.linspace(30, 220, WIDTH)[None, :] + noise, 0, 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=90)
    return base64.b64encode(content.getvalue()).decode()


def in_process(classifier: Any, films: list[str], requests: int) -> Iterator[Part]:
    """Measures the bare network on decoded pixels, and the model on base64, without a server."""
    contents = [base64.b64decode(text) for text in films]
    size = classifier.about["image_size"]
    pixels = np.stack([classifier.decoder.decode(content, size) for content in contents])
    rows = pd.DataFrame({"image": films})
    count = requests if len(films) == 1 else max(5, requests // 10)
    for what, work in (
        (NETWORK, lambda: classifier.logits(pixels)),
        (MODEL, lambda: classifier.predict(None, rows)),
    ):
        yield part(what, 0, len(films), repeat(work, count))


def over_http(port: int, body: bytes, clients: int, batch: int, requests: int) -> Part:
    """Measures the server, asked by so many clients at once, each on a connection of its own that stays open."""

    def ask(count: int) -> list[float]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

        def once() -> None:
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"the server answers {answer.status}: {content[:200].decode(errors='replace')}")

        try:
            return repeat(once, count)
        finally:
            connection.close()

    with ThreadPoolExecutor(clients) as pool:
        begun = time.monotonic()
        seconds = [second for found in pool.map(ask, [requests // clients] * clients) for second in found]
        whole = time.monotonic() - begun
    return part("served", clients, batch, seconds, whole)


def repeat(work: Callable[[], object], count: int) -> list[float]:
    """Seconds of each of so many calls, after one that does not count."""
    work()
    seconds = []
    for _ in range(count):
        begun = time.monotonic()
        work()
        seconds.append(time.monotonic() - begun)
    return seconds


def part(what: str, clients: int, batch: int, seconds: list[float], whole: float | None = None) -> Part:
    """Sums up the calls of a part; `whole` is how long they took where several ran at once."""
    median, slow = (1000 * float(np.quantile(seconds, share)) for share in (0.5, 0.95))
    rate = batch / (median / 1000) if whole is None else batch * (len(seconds) + clients) / whole
    return Part(what, clients, batch, median, slow, rate)


@contextmanager
def server(version: Version, uri: str) -> Iterator[int]:
    """Runs MLflow's own server until it is no longer needed; gives its port once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "-p", str(port)]
    command += ["-m", f"models:/{version.name}/{version.version}"]
    # MLflow starts `uvicorn` by its name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PATH": path}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        try:
            while not answers(port):
                if process.poll() is not None:
                    raise RuntimeError(f"the server ended with exit code {process.returncode}")
                time.sleep(0.05)
            yield port
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a group of its own, since the command only starts the server


def answers(port: int) -> bool:
    """Whether the server is up."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def shown(parts: list[Part]) -> Table:
    """The parts as a table; the time an image takes is beside that of the bare network and of the model unserved."""
    bare = {(part.what, part.batch): part.images_per_second for part in parts if not part.clients}
    heads = ("", "clients", "batch", "ms", "95 %", "images/s", "x network", "x model")
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for part in parts:
        table.add_row(
            part.what,
            str(part.clients or ""),
            str(part.batch),
            f"{part.median:.1f}",
            f"{part.slow:.1f}",
            f"{part.images_per_second:,.0f}",
            *(f"{bare[what, part.batch] / part.images_per_second:.1f}" for what in (NETWORK, MODEL)),
        )
    return table


if __name__ == "__main__":
    typer.run(serving)
