"""Trials on a Ray cluster: a worker is an actor that holds the CPUs and GPUs of one trial, on whichever node has them.

A worker starts with the first trial that needs it, trains one after the other, and dies alone or with its node. It
opens no database and is given no credentials. What it needs of this machine's files (the cached images, ImageNet's
weights) goes to its node once, through Ray's object store; its checkpoints come back with each epoch, or lie in a
folder that all nodes share.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from sweep.engines import EpochFinished, Event, Job, JobFailed, JobFinished
from sweep.engines.ray_cluster import ray
from sweep.engines.worker import SPOILING, Stop, failed, prepare, run, sentence
from sweep.system.errors import EngineLostError
from sweep.system.processes import born, machine
from sweep.training.checkpoint import write_bytes
from sweep.training.config import BEST, LAST, PREVIOUS, ConfigurationError
from sweep.training.state import set_aside

CLOSE_SECONDS = 5.0
# What Ray's explanations say where it knows a reason.
_WHY = {
    "node died": ", and its node",
    "node has died": ", and its node",
    "running low on memory": " for want of memory",
}
RayError = ray.exceptions.RayError


class RayEngine:
    """N workers on the cluster that this process is connected to.

    A job is handed to a worker only once that worker is there: where nodes are lost, or have not come yet, jobs wait
    here and go to whoever is free first.
    """

    def __init__(self, workers: int, device: str, threads: int, gpus: float = 0.0, shared: Path | None = None) -> None:
        """Makes the engine; no worker is started yet.

        Args:
            workers: How many trials train at once.
            device: `cpu`, or `cuda` for a trial's GPUs.
            threads: CPUs of a trial, and the threads that it uses.
            gpus: GPUs of a trial; a part of one shares it.
            shared: A folder that all nodes have; jobs whose folder lies in it leave their checkpoints there.
        """
        self._count, self._shared = workers, shared
        actor: Any = ray.remote(_Worker)
        actor = actor.options(
            num_cpus=threads,
            num_gpus=gpus,
            max_concurrency=3,  # a call that waits for events, one that hands over a job, one that stops it
            max_restarts=0,  # the loop decides about another attempt
        )
        self._begin = lambda: actor.remote(device, threads)
        self._workers: list[_Handle] = []
        self._waiting: list[Job] = []
        self._ended: list[Event] = []
        self._handed_twice: set[int] = set()
        self._stored: dict[str, Any] = {}

    def start(self) -> None:
        """Starts the workers, unless they are there: they import torch while the caller goes on."""
        while len(self._workers) < self._count:
            actor = self._begin()
            self._workers.append(_Handle(actor, actor.ready.remote()))

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now."""
        return self._count - len(self._waiting) - sum(worker.job is not None for worker in self._workers)

    def submit(self, job: Job) -> None:
        """Takes a job for the next worker that is free. Raises RuntimeError when there are as many jobs as workers."""
        if self.free < 1:
            raise RuntimeError(f"job {job.number} was submitted and no worker is free")
        with _reaching():
            self.start()
            self._waiting.append(job)
            self._hand_over()

    def stop(self, number: int, *, after_epoch: bool = False) -> None:
        """Asks a job to end before its next step, or once its epoch is over; nothing happens if it has ended."""
        for job in self._waiting:
            if job.number == number:
                self._waiting.remove(job)
                self._ended.append(JobFinished(number, stopped=True))
                return
        for worker in self._workers:
            if worker.job is not None and worker.job.number == number:
                worker.request = Stop(number, after_epoch)
                if worker.training:  # else it may overtake the job
                    with _reaching():
                        worker.actor.stop.remote(worker.request)

    def events(self, timeout: float) -> list[Event]:
        """Waits up to `timeout` seconds for something to happen, and returns all that has, oldest first.

        Raises:
            EngineLostError: The cluster does not answer.
        """
        with _reaching():
            return self._events(timeout)

    def _events(self, timeout: float) -> list[Event]:
        received, self._ended = self._ended, []
        pending = {worker.pending: worker for worker in self._workers if worker.pending is not None}
        if pending and self.free < self._count:
            # First until one has answered, then without waiting for all others that have.
            done, _ = ray.wait(list(pending), timeout=0 if received else timeout)
            if done:
                done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
            for reference in done:
                received += self._heard(pending[reference])
            self._hand_over()
        return received

    def close(self) -> None:
        """Ends every job and worker; returns when they are gone."""
        for worker in self._workers:
            self._kill(worker)
        with suppress(Exception):  # the cluster is gone
            ends = [worker.actor.ready.remote() for worker in self._workers]
            ray.wait(ends, num_returns=len(ends), timeout=CLOSE_SECONDS)
        self._workers, self._waiting, self._stored = [], [], {}

    def _hand_over(self) -> None:
        """Gives waiting jobs to idle workers."""
        for worker in self._workers:
            if worker.pending is None and self._waiting:
                job = self._waiting.pop(0)
                shared = self._shared if self._shared and job.folder.is_relative_to(self._shared) else None
                try:
                    files = {path: self._store(path) for path in _files_of(job) if path.is_file()}
                    checkpoints = {} if shared else _read(job.folder)
                    worker.pending = worker.actor.train.remote(job, files, checkpoints, shared)
                except RayError as error:  # its object store is full
                    self._ended.append(JobFailed(job.number, "worker lost", sentence(error), str(error)))
                else:
                    worker.job = job

    def _heard(self, worker: _Handle) -> list[Event]:
        """Takes what a worker answered, and asks what comes next."""
        try:
            answer = ray.get(worker.pending)
        except RayError as error:
            return self._bury(worker, error)
        if worker.job is None:  # it has started
            worker.pending = None
            return []
        if not worker.training:
            worker.training = True
            if worker.request is not None:
                worker.actor.stop.remote(worker.request)
        received: list[Event] = []
        for event, files in answer or ():
            kept = self._kept(worker.job, event, files)
            received.append(kept)
            if kept is not event or (isinstance(event, JobFailed) and event.cause in SPOILING):
                self._replace(worker)  # in the first case it trains on, for nobody
                return received
        if not received or isinstance(received[-1], EpochFinished):
            worker.pending = worker.actor.events.remote()
        else:
            worker.job = worker.request = worker.pending = None
            worker.training = False
        return received

    def _kept(self, job: Job, event: Event, files: Mapping[str, np.ndarray]) -> Event:
        """Keeps the files that came with an event; returns it, or what became of the job where there is no room."""
        try:
            for name, content in files.items():
                if name == LAST:
                    set_aside(job.folder)
                write_bytes(job.folder / name, content.data)
        except OSError as error:
            return failed(job.number, error)
        return event

    def _bury(self, worker: _Handle, error: RayError) -> list[Event]:
        """A worker is gone, or out of reach."""
        self._replace(worker)
        job = worker.job
        if job is not None and worker.request is not None and not worker.training:
            return [JobFinished(job.number, stopped=True)]
        if job is not None and not worker.training and job.number not in self._handed_twice:
            self._handed_twice.add(job.number)  # it died idle, and had not heard of the job
            self._waiting.insert(0, job)
            return []
        # One that could not even start takes the first job that waits along, or nobody would ever hear of it.
        job = job or (self._waiting.pop(0) if self._waiting else None)
        return [] if job is None else [JobFailed(job.number, "worker lost", _obituary(error), str(error))]

    def _replace(self, worker: _Handle) -> None:
        self._kill(worker)
        self._workers.remove(worker)
        self.start()

    def _kill(self, worker: _Handle) -> None:
        with suppress(Exception):  # it is dead already, or the cluster is
            ray.kill(worker.actor)

    def _store(self, path: Path) -> tuple[str, list[Any]]:
        """A file in Ray's object store, which brings it to a node once, and only if a worker there asks for it."""
        key = _key(path)
        if key not in self._stored:
            self._stored[key] = ray.put(np.asarray(np.memmap(path, np.uint8, "r")))  # a memmap itself is copied thrice
        return key, [self._stored[key]]  # within a list it is a reference still, where the worker gets it


@dataclass
class _Handle:
    """A worker as the engine sees it.

    Attributes:
        actor: Its handle.
        pending: What it is to answer next; None while it is idle.
        job: What it was given.
        request: That the job is to end, if it is.
        training: Whether it has answered that it began.
    """

    actor: Any
    pending: Any
    job: Job | None = None
    request: Stop | None = None
    training: bool = False


class _Worker:
    """The actor: trains in a thread of its own, and answers meanwhile."""

    def __init__(self, device: str, threads: int) -> None:
        prepare(device, threads)
        _remove_left_behind()
        self._happened: SimpleQueue[tuple[Event, dict[str, np.ndarray]]] = SimpleQueue()
        self._asked: Stop | None = None

    def ready(self) -> int:
        """Answers once the worker is there, with the number of its process."""
        return os.getpid()

    def train(
        self,
        job: Job,
        files: Mapping[Path, tuple[str, Sequence[Any]]],
        checkpoints: Mapping[str, np.ndarray],
        shared: Path | None,
    ) -> None:
        """Begins a job; what comes of it is for `events`.

        Args:
            job: The job, as the orchestrator's machine has it.
            files: What it reads: their keys there, and themselves in Ray's object store.
            checkpoints: What earlier attempts left, where that is not in the job's folder.
            shared: What the nodes share, if the job's folder lies in it and checkpoints stay there.
        """
        self._asked = None
        threading.Thread(target=self._train, args=(job, files, checkpoints, shared), daemon=True).start()

    def events(self) -> list[tuple[Event, dict[str, np.ndarray]]]:
        """Waits until something has happened, and returns all that has, with the files that came of it."""
        happened = [self._happened.get()]
        while not self._happened.empty():
            happened.append(self._happened.get())
        carrying = [files for _, files in happened if LAST in files]
        for files in carrying[:-1]:  # only the latest of its last checkpoints is of use
            del files[LAST]
        return happened

    def stop(self, request: Stop) -> None:
        """Asks a job to end."""
        self._asked = request

    def _train(
        self,
        job: Job,
        files: Mapping[Path, tuple[str, Sequence[Any]]],
        checkpoints: Mapping[str, np.ndarray],
        shared: Path | None,
    ) -> None:
        folder = job.folder if shared else Path(tempfile.mkdtemp(prefix=f"{_mark()}{os.getpid()}-"))

        def asked() -> Stop | None:
            request = self._asked
            return request if request is not None and request.number == job.number else None

        def send(event: EpochFinished) -> None:
            changed = () if shared or event.result.repeated else (LAST,)
            self._happened.put((replace(event, node=platform.node()), _read(folder, changed)))

        try:
            if shared and not shared.is_dir():
                raise ConfigurationError(f"--work-dir {shared}: is not there on node {platform.node()}")
            for name, content in checkpoints.items():
                write_bytes(folder / name, content.data)
            ended = run(_here(job, files, folder), asked, send)
            best = (BEST,) if ended == JobFinished(job.number) and not shared else ()
            self._happened.put((ended, _read(folder, best)))
        except RayError as error:  # a file did not come
            self._happened.put((JobFailed(job.number, "worker lost", sentence(error), str(error)), {}))
        except Exception as error:  # nobody would hear of it in this thread
            self._happened.put((failed(job.number, error), {}))
        finally:
            if not shared:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _reaching() -> Iterator[None]:
    """Says plainly that the cluster is gone; Ray's client raises Python's own error."""
    try:
        yield
    except ConnectionError as error:
        raise EngineLostError(f"the Ray cluster does not answer ({sentence(error)})") from error


def _files_of(job: Job) -> list[Path]:
    """The files that a job reads, beside its checkpoints."""
    weights = job.config.options.get("weights")
    return [job.training.path, job.validation.path, *([Path(weights)] if weights else [])]


def _here(job: Job, files: Mapping[Path, tuple[str, Sequence[Any]]], folder: Path) -> Job:
    """A job as this node has it; fetches the files that are not there."""
    places = {}
    for path, (key, reference) in files.items():
        places[path] = path
        if not os.access(path, os.R_OK) or _key(path) != key:  # Ray may run as somebody else
            places[path] = user_cache_path("sweep") / "fetched" / f"{key}-{path.name}"
            if not places[path].is_file():
                write_bytes(places[path], np.asarray(ray.get(reference[0])).data)
    weights = job.config.options.get("weights")
    options = {**job.config.options, "weights": str(places.get(Path(weights), weights))} if weights else {}
    return replace(
        job,
        config=replace(job.config, options=options or job.config.options),
        training=replace(job.training, path=places.get(job.training.path, job.training.path)),
        validation=replace(job.validation, path=places.get(job.validation.path, job.validation.path)),
        folder=folder,
    )


def _key(path: Path) -> str:
    """Tells a file from others of its name, and from itself before it was changed."""
    found = path.stat()
    return hashlib.sha256(f"{path}/{found.st_size}/{found.st_mtime_ns}".encode()).hexdigest()[:16]


def _read(folder: Path, names: Sequence[str] = (LAST, PREVIOUS)) -> dict[str, np.ndarray]:
    """Files of a folder as bytes, those that there are."""
    return {name: np.fromfile(folder / name, np.uint8) for name in names if (folder / name).is_file()}


def _mark() -> str:
    """How the folders of this machine's workers begin; containers may share a place for temporary files."""
    return f"sweep-{hashlib.sha256(machine().encode()).hexdigest()[:8]}-"


def _remove_left_behind() -> None:
    """Removes the folders of workers of this machine that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_mark()}*"):
        pid = folder.name.removeprefix(_mark()).partition("-")[0]
        if pid.isdigit() and not born(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _obituary(error: RayError) -> str:
    """What became of a worker, in a sentence; Ray's own explanation goes on for a page."""
    said = str(error).strip()
    if "creation task" in said:
        return f"a worker could not start: {said.splitlines()[-1].strip()}"
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return "its worker is out of reach: its node is gone, or the network"
    if named := re.search(r"pid: (\d+).*?ip: (\S+)", said, re.DOTALL):
        why = next((why for sign, why in _WHY.items() if sign in said), "")
        return f"its worker, process {named[1]} on {named[2]}, died{why}"
    return sentence(error)
