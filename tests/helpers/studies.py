"""Whole studies, small: typed in a process of their own, or forked from one that has imported everything; their stores."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from mlflow import MlflowClient

from tests.helpers.servers import TIMEOUT
from tests.helpers.stocked import stocked

ROOT = Path(__file__).parents[2]
STUDY = "blob-pictures/cnn3"  # of `tiny` and of most that add LONG
LONG = (
    *("--image-size", 48, "--epochs", 12, "--patience", 0, "--pruner", "none"),
    *("--search", "batch_size=16,32", "--workers", 2),
)


def tiny(pictures, trials, *more, batch="16,32"):
    small = ("--image-size", 24, "--epochs", 2, "--search", f"batch_size={batch}", "--workers", 1, "--pruner", "none")
    return ("--arch", "cnn3", "--data", pictures, "--trials", trials, *small, *more)


# Commands -------------------------------------------------------------------------------------------------------------


def command(*arguments):
    return [sys.executable, "-m", "sweep", *map(str, arguments)]


def cold_sweep(folder, *arguments, timeout=TIMEOUT, **options):
    """Runs a command in a directory, as a user types it; one that trains finds an empty store of MLflow's there."""
    if not options:  # an environment may name another store
        _stock(folder, arguments)
    return subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, timeout=timeout, **options)


def _stock(folder, arguments):
    if {"--trials", "ablate"} & set(arguments) and "--dry-run" not in arguments:
        stocked(folder)


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


class Forked:
    """A sweep in the background, forked from a warm process; as much of `subprocess.Popen` as tests use."""

    def __init__(self, pid: int, ask) -> None:
        self.pid, self.returncode = pid, None
        self._ask = ask

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._ask({"pid": self.pid, "wait": False})
        return self.returncode

    def wait(self, timeout: float = TIMEOUT) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("sweep", timeout)
            time.sleep(0.05)
        return code

    def send_signal(self, how: signal.Signals) -> None:
        os.kill(self.pid, how)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmSweeps:
    """Forks each sweep from a process that has imported everything: importing is most of what a tiny one costs.

    A sweep is as real as a typed one: a process (and a session) of its own, its workers, its stores. Only the imports
    and what they compute once are shared.
    """

    def __init__(self) -> None:
        self._server: subprocess.Popen | None = None
        self._output = Path(tempfile.mkdtemp())
        atexit.register(self.close)

    def __call__(self, folder, *arguments, fault="", blank_figures=False, environment=None, timeout=TIMEOUT) -> Done:
        """Runs a sweep.

        Args:
            folder: Where.
            arguments: What follows `sweep`.
            fault: What goes wrong in it, see `tests.helpers.faulty`; `mark` is in the folder if it happened.
            blank_figures: Figures are one pixel: drawing is a third of a tiny study.
            environment: Added to that of this process.
            timeout: Seconds after which it gets a SIGALRM.
        """
        mark = folder / "mark"
        if fault:
            mark.unlink(missing_ok=True)
        faults = {"SWEEP_FAULT": fault, "SWEEP_FAULT_MARK": str(mark), "SWEEP_BLANK_FIGURES": "1" * blank_figures}
        output = [self._output / name for name in ("out", "err")]
        pid = self._fork(folder, arguments, {**faults, **(environment or {})}, output, timeout)
        return Done(self._ask({"pid": pid, "wait": True}), *(path.read_text() for path in output))

    def start(self, folder, *arguments, log: Path, environment=None) -> Forked:
        """Starts a sweep that goes on in the background and writes all that it says into one file."""
        return Forked(self._fork(folder, arguments, environment or {}, [log, log]), self._ask)

    def _fork(self, folder, arguments, environment, output, timeout=0) -> int:
        asked = {
            "arguments": list(map(str, arguments)), "folder": str(folder), "timeout": timeout,
            "environment": {**os.environ, **environment}, "output": list(map(str, output)),
        }  # fmt: skip
        return self._ask(asked)

    def _ask(self, asked: dict) -> int | None:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.helpers.faulty", "--serve"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        print(json.dumps(asked), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        if self._server is not None:
            with self._server:  # it ends with its stdin
                self._server.stdin.close()
            self._server = None
        shutil.rmtree(self._output, ignore_errors=True)


@contextmanager
def warm_sweeps() -> Iterator[WarmSweeps]:
    """Sweeps of a process of their own, beside others; no store is made for them."""
    sweeps = WarmSweeps()
    try:
        yield sweeps
    finally:
        sweeps.close()


_shared = WarmSweeps()


def sweep(folder, *arguments, **options) -> Done:
    """Runs a command in a directory, forked from a warm process; one that trains finds an empty store of MLflow's."""
    if not options.get("environment"):  # which may name another store
        _stock(folder, arguments)
    return _shared(folder, *arguments, **options)


@contextmanager
def running(folder, *arguments, environment=None, log=None, warm=True):
    """A sweep in the background, and what it has said so far.

    Args:
        folder: Where.
        arguments: What follows `sweep`.
        environment: Added to that of this process.
        log: Where it writes what it says; `log` in the folder unless given.
        warm: Whether it is forked from a warm process and finds a store, or typed and makes its own.
    """
    log, environment = log or folder / "log", environment or {}
    if warm:
        if "MLFLOW_TRACKING_URI" not in {**os.environ, **environment}:
            _stock(folder, arguments)
        process = _shared.start(folder, *arguments, log=log, environment=environment)
    else:
        with log.open("w") as file:
            process = subprocess.Popen(
                command(*arguments),
                cwd=folder, stdout=file, stderr=file, start_new_session=True, env={**os.environ, **environment},
            )  # fmt: skip
    try:
        yield process, log.read_text
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# Stores ---------------------------------------------------------------------------------------------------------------


def client_of(folder):
    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def runs_of(folder, name="blob-pictures"):
    """The runs of the experiment: parents and children, by name."""
    client = client_of(folder)
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    parents = {run.info.run_name: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    children = {run.info.run_name: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    return parents, children


def scores_of(client, version):
    """The scores of a version as the page of its logged model shows them, by name."""
    metrics = client.get_logged_model(version.source.removeprefix("models:/")).metrics
    return {metric.key: metric.value for metric in metrics}


def trials_of(folder, study="blob-pictures/cnn1"):
    return optuna.load_study(study_name=study, storage=f"sqlite:///{folder / 'optuna.db'}").trials


def children_of(folder, uri=None):
    """The runs of the experiment's trials, by number."""
    client = MlflowClient(uri or f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("blob-pictures").experiment_id
    return {run.data.tags["sweep.trial"]: run for run in client.search_runs([experiment], "tags.`sweep.trial` != 'x'")}


def states(trials):
    return Counter(trial.state.name for trial in trials)


def artifacts(client, run_id, path=None):
    paths = []
    for entry in client.list_artifacts(run_id, path):
        paths += artifacts(client, run_id, entry.path) if entry.is_dir else [entry.path]
    return paths
