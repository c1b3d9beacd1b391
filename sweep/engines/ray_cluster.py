"""The Ray cluster that this process uses: connects to it or starts it here, and counts the trials that fit."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from data.faults import InputError
from sweep.system import redaction
from sweep.system.hardware import Machine, choose_precision
from sweep.system.signals import SIGNALS


def _has_token() -> bool:
    """Whether there is a token for clusters that require one, in a place where Ray looks for it."""
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").is_file()


# Ray reads these when it is imported.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # `connect` decides what nodes get
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # its messages about dead workers on stdout; the orchestrator prints its own
    "RAY_NUM_REDIS_GET_RETRIES": "1",  # of 40 s each, if a cluster is gone; Ray's default is 20
}.items():
    os.environ.setdefault(_name, _value)
if _has_token() and "ray" not in sys.modules:  # Ray's client does not look for one itself
    # Set after the import it would reach only the processes that Ray starts, and these would refuse this one.
    os.environ.setdefault("RAY_AUTH_MODE", "token")

import ray  # noqa: E402
import ray.exceptions  # noqa: E402

# Only the orchestrator opens stores: a Ray that is started here does not inherit credentials.
CREDENTIALS = (*redaction.SECRET_VARIABLES, *redaction.URL_VARIABLES, "MLFLOW_TRACKING_USERNAME")
PACKAGES = ("data", "models", "sweep")  # of this project
LOCAL = "local"  # Ray's word for a cluster that starts and ends with this process
CONNECT_SECONDS, ROOM_SECONDS = 5.0, 600.0

T = TypeVar("T")


def connect(address: str | None) -> None:
    """Connects this process to a Ray cluster, or starts one on this machine; does nothing if it is connected.

    Args:
        address: `auto`, `HOST:PORT` or `ray://HOST:PORT`; None takes RAY_ADDRESS, and without it starts one.

    Raises:
        InputError: There is none at that address, or it does not let us in; or a password is in the command line.
    """
    if any(redaction.shown(argument) != argument for argument in sys.argv):
        raise InputError(
            "--engine ray: Ray shows the command line to everybody on the cluster, and there is a password in it; "
            "put it into OPTUNA_STORAGE, MLFLOW_TRACKING_PASSWORD or PGPASSWORD"
        )
    if ray.is_initialized():
        return
    named = f"--address {address}" if address else "RAY_ADDRESS"
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    root = Path(__file__).resolve().parents[2]
    if address == LOCAL:
        options: dict[str, Any] = {"include_dashboard": False}
    else:
        # Other nodes run exactly this code, whatever version of it they may have installed.
        options = {"runtime_env": {"py_modules": [str(root / name) for name in PACKAGES], "excludes": ["__pycache__"]}}
    try:
        if address not in (LOCAL, "auto"):  # Ray would wait for minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        # Ray has its workers import from the directory it is connected in, before what is sent to them: somebody may
        # have a models.py there, and another node another version of this code in the same place.
        with (
            tempfile.TemporaryDirectory() as empty,
            chdir(root if address == LOCAL else empty),
            _own_signals(),
            _without(CREDENTIALS),
        ):
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # the socket's, the port's, RuntimeError, grpc's and Ray's own
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500].rstrip(".")
        if address == LOCAL:
            raise InputError(f"--engine ray: Ray cannot be started here ({reason})") from error
        advice = "start one with `ray start --head`, name one as HOST:PORT, or leave --address out to start one here"
        raise InputError(f"{named}: there is no Ray cluster at {address} ({reason}); {advice}") from error


def survey(
    address: str | None, cpus: int, gpus: float | None, device: str, precision: str, workers: int | None
) -> tuple[Machine, float]:
    """Connects to a cluster and decides how trials use it.

    Args:
        address: As `connect` takes it.
        cpus: CPUs of a trial.
        gpus: GPUs of a trial, also a part of one; None takes one if the cluster has any and the device allows it.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `float32` or `bfloat16`.
        workers: Trials at once; None takes as many as the nodes have room for.

    Returns:
        The machine of a trial, and its GPUs.

    Raises:
        InputError: There is no such cluster, or it has no room for a trial.
    """
    connect(address)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has_gpus = any(node.get("GPU", 0) > 0 for node in nodes)
    if gpus is None:
        gpus = 1.0 if device != "cpu" and (has_gpus or device == "cuda") else 0.0
    room = sum(_room(node, cpus, gpus) for node in nodes)
    if room == 0 and workers is None:
        wanted = f"{cpus} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        offered = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(
            f"--cpus-per-trial, --gpus-per-trial: no node of the Ray cluster has {wanted} for a trial (its nodes have "
            f"{offered}); ask for less, or say --workers if the cluster is to grow"
        )
    device = "cuda" if gpus > 0 else "cpu"
    if precision == "auto":
        precision = on_a_worker(choose_precision, precision, device, cpus=cpus, gpus=gpus)
    return Machine(device, precision, workers or room, cpus), gpus


def on_a_worker(function: Callable[..., T], *arguments: object, cpus: int, gpus: float) -> T:
    """Calls a function where a trial would run, and returns its result.

    Raises:
        InputError: The cluster has had no room for a trial for ten minutes.
    """
    remote: Any = ray.remote(function)
    try:
        return ray.get(remote.options(num_cpus=cpus, num_gpus=gpus).remote(*arguments), timeout=ROOM_SECONDS)
    except ray.exceptions.GetTimeoutError as error:
        raise InputError(
            f"--engine ray: for {ROOM_SECONDS / 60:.0f} minutes the cluster has had no room for a trial of {cpus} CPUs "
            f"and {gpus:g} GPUs; wait until there is some"
        ) from error


def _room(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    """How many trials a node has room for."""
    room = int(node.get("CPU", 0) // cpus)
    if gpus:
        available = node.get("GPU", 0)
        # A trial never uses parts of two GPUs: one GPU has room for two trials of 0.4, not for a third.
        room = min(room, int(available // gpus if gpus >= 1 else available * int(1 / gpus + 1e-9)))
    return room


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restores this program's signal handlers, which Ray replaces with its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """Hides environment variables from processes that start meanwhile."""
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
