"""Trials on a Ray cluster: a worker is an actor that holds the CPUs and GPUs of one trial, on whichever node has them.

A worker starts with the first trial that needs it and trains one after the other; if it or its node dies, no other
worker does. It opens no database and receives no credentials. The files of this machine that it needs (the cached
images, ImageNet's weights) are sent to its node once, through Ray's object store. Its checkpoints come back with each
epoch, or stay in a folder that all nodes share.
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
from sweep.engines.worker import REPLACE_AFTER, Stop, failure, one_line, prepare, run
from sweep.system.errors import EngineLostError
from sweep.system.processes import machine_id, start_time
from sweep.training.checkpoint import write_bytes
from sweep.training.config import BEST, LAST, PREVIOUS, ConfigurationError
from sweep.training.state import set_aside

CLOSE_SECONDS = 5.0
# What Ray's errors contain if it knows why a worker died, and how this program says it.
_DEATH_REASONS = {
    "node died": ", and its node",
    "node has died": ", and its node",
    "running low on memory": " for want of memory",
}
RayError = ray.exceptions.RayError


class RayEngine:
    """N workers on the cluster that this process is connected to.

    A job is sent to a worker only once that worker has started: while nodes are lost, or have not come yet, jobs wait
    here for the first worker that is free.
    """

    def __init__(self, workers: int, device: str, threads: int, gpus: float = 0.0, shared: Path | None = None) -> None:
        """Makes the engine; no worker is started yet.

        Args:
            workers: How many trials train at once.
            device: `cpu`, or `cuda` for a trial's GPUs.
            threads: CPUs of a trial, and the threads that it uses.
            gpus: GPUs of a trial; with a part of one, trials share it.
            shared: A folder that all nodes have; jobs whose folder lies in it leave their checkpoints there.
        """
        self._count, self._shared = workers, shared
        actor: Any = ray.remote(_Worker)
        actor = actor.options(
            num_cpus=threads,
            num_gpus=gpus,
            max_concurrency=3,  # a call that waits for events, one that sends a job, one that stops it
            max_restarts=0,  # the orchestrator decides about another attempt
        )
        self._new_actor = lambda: actor.remote(device, threads)
        self._workers: list[_Handle] = []
        self._waiting: list[Job] = []
        self._own_events: list[Event] = []
        self._sent_twice: set[int] = set()
        self._stored: dict[str, Any] = {}

    def start(self, jobs: int) -> None:
        """Starts the workers that so many jobs at once need: they import torch while the caller goes on."""
        while len(self._workers) < min(jobs, self._count):
            actor = self._new_actor()
            self._workers.append(_Handle(actor, actor.ready.remote()))

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now."""
        return self._count - len(self._waiting) - sum(worker.job is not None for worker in self._workers)

    def submit(self, job: Job) -> None:
        """Takes a job for the next free worker. Raises RuntimeError if there are as many jobs as workers."""
        if self.free < 1:
            raise RuntimeError(f"job {job.number} was submitted and no worker is free")
        with _connection_errors():
            self._waiting.append(job)
            self.start(len(self._waiting) + sum(worker.job is not None for worker in self._workers))
            self._assign_jobs()

    def stop(self, number: int, *, after_epoch: bool = False) -> None:
        """Asks a job to end before its next step, or once its epoch is over; does nothing if it has ended."""
        for job in self._waiting:
            if job.number == number:
                self._waiting.remove(job)
                self._own_events.append(JobFinished(number, stopped=True))
                return
        for worker in self._workers:
            if worker.job is not None and worker.job.number == number:
                worker.request = Stop(number, after_epoch)
                if worker.training:  # else it may overtake the job
                    with _connection_errors():
                        worker.actor.stop.remote(worker.request)

    def events(self, timeout: float) -> list[Event]:
        """Waits up to `timeout` seconds for an event, and returns all that there are, oldest first.

        Raises:
            EngineLostError: The cluster does not answer.
        """
        with _connection_errors():
            return self._events(timeout)

    def _events(self, timeout: float) -> list[Event]:
        received, self._own_events = self._own_events, []
        pending = {worker.pending: worker for worker in self._workers if worker.pending is not None}
        if pending and self.free < self._count:
            # First waits until one has answered, then takes all others that have, without waiting.
            done, _ = ray.wait(list(pending), timeout=0 if received else timeout)
            if done:
                done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
            for reference in done:
                received += self._take_answer(pending[reference])
            self._assign_jobs()
        return received

    def close(self) -> None:
        """Ends every job and worker; returns when they have ended."""
        for worker in self._workers:
            self._kill(worker)
        with suppress(Exception):  # the cluster is gone
            ends = [worker.actor.ready.remote() for worker in self._workers]
            ray.wait(ends, num_returns=len(ends), timeout=CLOSE_SECONDS)
        self._workers, self._waiting, self._stored = [], [], {}

    def _assign_jobs(self) -> None:
        """Sends waiting jobs to idle workers."""
        for worker in self._workers:
            if worker.pending is None and self._waiting:
                job = self._waiting.pop(0)
                shared = self._shared if self._shared and job.folder.is_relative_to(self._shared) else None
                try:
                    files = {path: self._store(path) for path in _files_of(job) if path.is_file()}
                    checkpoints = {} if shared else _read(job.folder)
                    worker.pending = worker.actor.train.remote(job, files, checkpoints, shared)
                except RayError as error:  # its object store is full
                    self._own_events.append(JobFailed(job.number, "worker lost", one_line(error), str(error)))
                else:
                    worker.job = job

    def _take_answer(self, worker: _Handle) -> list[Event]:
        """Takes the answer of a worker, and asks for the next one."""
        try:
            answer = ray.get(worker.pending)
        except RayError as error:
            return self._replace_lost(worker, error)
        if worker.job is None:  # it has started
            worker.pending = None
            return []
        if not worker.training:
            worker.training = True
            if worker.request is not None:
                worker.actor.stop.remote(worker.request)
        received: list[Event] = []
        for event, files in answer or ():
            outcome = self._keep_files(worker.job, event, files)
            received.append(outcome)
            if outcome is not event or (isinstance(event, JobFailed) and event.cause in REPLACE_AFTER):
                self._replace(worker)  # in the first case it would go on training a job that has failed
                return received
        if not received or isinstance(received[-1], EpochFinished):
            worker.pending = worker.actor.events.remote()
        else:
            worker.job = worker.request = worker.pending = None
            worker.training = False
        return received

    def _keep_files(self, job: Job, event: Event, files: Mapping[str, np.ndarray]) -> Event:
        """Writes the files that came with an event; returns it, or the failure of the job if they cannot be written."""
        try:
            for name, content in files.items():
                if name == LAST:
                    set_aside(job.folder)
                write_bytes(job.folder / name, content.data)
        except OSError as error:
            return failure(job.number, error)
        return event

    def _replace_lost(self, worker: _Handle, error: RayError) -> list[Event]:
        """Replaces a worker that died or is out of reach; returns how its job ended, if it had one."""
        self._replace(worker)
        job = worker.job
        if job is not None and worker.request is not None and not worker.training:
            return [JobFinished(job.number, stopped=True)]
        if job is not None and not worker.training and job.number not in self._sent_twice:
            self._sent_twice.add(job.number)  # it died idle, before it received the job
            self._waiting.insert(0, job)
            return []
        # A worker that could not even start fails the first waiting job, or its error would never be reported.
        job = job or (self._waiting.pop(0) if self._waiting else None)
        return [] if job is None else [JobFailed(job.number, "worker lost", _describe_loss(error), str(error))]

    def _replace(self, worker: _Handle) -> None:
        self._kill(worker)
        self._workers.remove(worker)
        self.start(len(self._workers) + 1)

    def _kill(self, worker: _Handle) -> None:
        with suppress(Exception):  # it is dead already, or the cluster is
            ray.kill(worker.actor)

    def _store(self, path: Path) -> tuple[str, list[Any]]:
        """Puts a file into Ray's object store, which sends it to a node once, when a worker there asks for it."""
        key = _key(path)
        if key not in self._stored:
            # A memmap itself would be copied three times.
            self._stored[key] = ray.put(np.asarray(np.memmap(path, np.uint8, "r")))
        return key, [self._stored[key]]  # in a list it reaches the worker as a reference


@dataclass
class _Handle:
    """The engine's view of a worker.

    Attributes:
        actor: Ray's handle.
        pending: Ray's reference to its next answer; None while it is idle.
        job: The job that it was sent.
        request: The request that the job ends, if there is one.
        training: Whether it has answered that the job began.
    """

    actor: Any
    pending: Any
    job: Job | None = None
    request: Stop | None = None
    training: bool = False


class _Worker:
    """The actor: trains in a thread of its own and answers calls meanwhile."""

    def __init__(self, device: str, threads: int) -> None:
        prepare(device, threads)
        _remove_leftovers()
        self._outbox: SimpleQueue[tuple[Event, dict[str, np.ndarray]]] = SimpleQueue()
        self._request: Stop | None = None

    def ready(self) -> int:
        """Returns the number of the worker's process, once it has started."""
        return os.getpid()

    def train(
        self,
        job: Job,
        files: Mapping[Path, tuple[str, Sequence[Any]]],
        checkpoints: Mapping[str, np.ndarray],
        shared: Path | None,
    ) -> None:
        """Begins a job; `events` returns what happens.

        Args:
            job: The job, as the orchestrator's machine has it.
            files: The files that it reads: their keys on that machine, and a reference to each in Ray's object store.
            checkpoints: Files of earlier attempts, unless they are in a shared folder.
            shared: The folder that all nodes have, if the job's folder is in it and checkpoints stay there.
        """
        self._request = None
        threading.Thread(target=self._train, args=(job, files, checkpoints, shared), daemon=True).start()

    def events(self) -> list[tuple[Event, dict[str, np.ndarray]]]:
        """Waits for an event, and returns all that there are, each with the files that it made."""
        events = [self._outbox.get()]
        while not self._outbox.empty():
            events.append(self._outbox.get())
        with_checkpoint = [files for _, files in events if LAST in files]
        for files in with_checkpoint[:-1]:  # only the newest one is of use
            del files[LAST]
        return events

    def stop(self, request: Stop) -> None:
        """Asks the job to end."""
        self._request = request

    def _train(
        self,
        job: Job,
        files: Mapping[Path, tuple[str, Sequence[Any]]],
        checkpoints: Mapping[str, np.ndarray],
        shared: Path | None,
    ) -> None:
        folder = job.folder if shared else Path(tempfile.mkdtemp(prefix=f"{_folder_prefix()}{os.getpid()}-"))

        def stop_request() -> Stop | None:
            request = self._request
            return request if request is not None and request.number == job.number else None

        def send(event: EpochFinished) -> None:
            names = () if shared or event.result.repeated else (LAST,)
            self._outbox.put((replace(event, node=platform.node()), _read(folder, names)))

        try:
            if shared and not shared.is_dir():
                raise ConfigurationError(f"--work-dir {shared}: is not there on node {platform.node()}")
            for name, content in checkpoints.items():
                write_bytes(folder / name, content.data)
            end = run(_on_this_node(job, files, folder), stop_request, send)
            best = (BEST,) if end == JobFinished(job.number) and not shared else ()
            self._outbox.put((end, _read(folder, best)))
        except RayError as error:  # a file could not be fetched
            self._outbox.put((JobFailed(job.number, "worker lost", one_line(error), str(error)), {}))
        except Exception as error:  # an error in this thread would be lost
            self._outbox.put((failure(job.number, error), {}))
        finally:
            if not shared:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _connection_errors() -> Iterator[None]:
    """Raises EngineLostError where Ray's client raises ConnectionError: the cluster is gone."""
    try:
        yield
    except ConnectionError as error:
        raise EngineLostError(f"the Ray cluster does not answer ({one_line(error)})") from error


def _files_of(job: Job) -> list[Path]:
    """The files that a job reads, except for its checkpoints."""
    weights = job.config.options.get("weights")
    return [job.training.path, job.validation.path, *([Path(weights)] if weights else [])]


def _on_this_node(job: Job, files: Mapping[Path, tuple[str, Sequence[Any]]], folder: Path) -> Job:
    """Returns a job with paths of this node; fetches the files that are missing here."""
    places = {}
    for path, (key, reference) in files.items():
        places[path] = path
        if not os.access(path, os.R_OK) or _key(path) != key:  # Ray may run as another user
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
    """Identifies a file: another one of the same path, or the same one after a change, has another key."""
    status = path.stat()
    return hashlib.sha256(f"{path}/{status.st_size}/{status.st_mtime_ns}".encode()).hexdigest()[:16]


def _read(folder: Path, names: Sequence[str] = (LAST, PREVIOUS)) -> dict[str, np.ndarray]:
    """Reads files of a folder as bytes; leaves out those that do not exist."""
    return {name: np.fromfile(folder / name, np.uint8) for name in names if (folder / name).is_file()}


def _folder_prefix() -> str:
    """The names of this machine's worker folders begin so; containers may share a folder for temporary files."""
    return f"sweep-{hashlib.sha256(machine_id().encode()).hexdigest()[:8]}-"


def _remove_leftovers() -> None:
    """Removes the folders of killed workers of this machine."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_folder_prefix()}*"):
        pid = folder.name.removeprefix(_folder_prefix()).partition("-")[0]
        if pid.isdigit() and not start_time(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _describe_loss(error: RayError) -> str:
    """How a worker was lost, in one sentence; Ray's own explanation takes a page."""
    text = str(error).strip()
    if "creation task" in text:
        return f"a worker could not start: {text.splitlines()[-1].strip()}"
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return "its worker is out of reach: its node is gone, or the network"
    if process := re.search(r"pid: (\d+).*?ip: (\S+)", text, re.DOTALL):
        reason = next((reason for sign, reason in _DEATH_REASONS.items() if sign in text), "")
        return f"its worker, process {process[1]} on {process[2]}, died{reason}"
    return one_line(error)
