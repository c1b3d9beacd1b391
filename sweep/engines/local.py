"""Trials in processes of this machine. A worker trains one trial after the other; if it dies, no other does."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from sweep.engines import EpochFinished, Event, Job, JobFailed
from sweep.engines.worker import REPLACE_AFTER, CloseRequestedError, Stop, prepare, run
from sweep.system.signals import blocked, ignore

CLOSE_SECONDS = 5.0


class LocalEngine:
    """N worker processes on this machine, which start with the first job, or before it with `start`.

    A worker receives everything through one pipe: a Job to train, a Stop, None to end.
    """

    def __init__(self, workers: int, device: str, threads: int) -> None:
        """Makes the engine; no process is started yet.

        Args:
            workers: How many trials train at once.
            device: `cpu`, `mps`, or `cuda` to spread the workers over the GPUs that torch sees.
            threads: CPU threads of each worker.
        """
        self._count, self._device, self._threads = workers, device, threads
        self._workers: list[_Worker] = []

    def start(self, jobs: int) -> None:
        """Starts the workers that so many jobs at once need: they import torch while the caller goes on."""
        self._workers += [self._start(index) for index in range(len(self._workers), min(jobs, self._count))]

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now."""
        return self._count - sum(worker.job is not None for worker in self._workers)

    def submit(self, job: Job) -> None:
        """Sends a job to a free worker. Raises RuntimeError if there is none."""
        self.start(1 + sum(worker.job is not None for worker in self._workers))
        worker = next((worker for worker in self._workers if worker.job is None), None)
        if worker is None:
            raise RuntimeError(f"job {job.number} was submitted and no worker is free")
        if not worker.process.is_alive():  # it died between two jobs
            worker = self._replace(worker)
        worker.job = job.number
        with suppress(OSError):  # it died just now; `events` sees the end of its pipe and reports the job as lost
            worker.connection.send(job)

    def stop(self, number: int, *, after_epoch: bool = False) -> None:
        """Asks a job to end before its next step, or once its epoch is over; does nothing if it has ended."""
        for worker in self._workers:
            if worker.job == number:
                with suppress(OSError):  # it is dead already, and `events` reports it
                    worker.connection.send(Stop(number, after_epoch))

    def events(self, timeout: float) -> list[Event]:
        """Waits up to `timeout` seconds for an event, and returns all that there are, oldest first."""
        busy = {worker.connection: worker for worker in self._workers if worker.job is not None}
        received: list[Event] = []
        for connection in wait(list(busy), timeout) if busy else ():
            worker = busy[connection]  # type: ignore[index] - only connections were given
            try:
                while worker.connection.poll():
                    event = worker.connection.recv()
                    received.append(event)
                    if not isinstance(event, EpochFinished):
                        worker.job = None
                    if isinstance(event, JobFailed) and event.cause in REPLACE_AFTER:
                        self._end(worker)
                        self._replace(worker)
                        break
            except (EOFError, OSError):
                received += self._replace_dead(worker)
        return received

    def close(self) -> None:
        """Ends every job and worker; returns when they have ended."""
        training = [worker for worker in self._workers if worker.job is not None]
        for worker in training:
            with suppress(OSError):  # it is dead already
                worker.connection.send(None)
        for worker in training:
            worker.process.join(CLOSE_SECONDS)
        for worker in self._workers:  # an idle one has nothing to finish, and may still be importing torch
            self._end(worker)
            worker.connection.close()
        self._workers = []

    def _end(self, worker: _Worker) -> None:
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()

    def _replace_dead(self, worker: _Worker) -> list[Event]:
        """Starts another worker in place of a dead one; returns the failure of its job, if it had one."""
        worker.process.join()
        number, code = worker.job, worker.process.exitcode or 0
        self._replace(worker)
        end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        reason = ", as the kernel does where memory runs out" if code == -signal.SIGKILL else ""
        return [] if number is None else [JobFailed(number, "worker lost", f"its process {end}{reason}")]

    def _replace(self, worker: _Worker) -> _Worker:
        worker.connection.close()
        self._workers[worker.index] = fresh = self._start(worker.index)
        return fresh

    def _start(self, index: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        our_end, worker_end = context.Pipe()
        process = context.Process(
            target=_work,
            args=(worker_end, self._device, index, self._threads),
            name=f"sweep-worker-{index}",
            daemon=True,
        )
        with blocked():  # no Ctrl-C reaches a worker before it ignores them
            process.start()
        worker_end.close()  # else the death of the worker would not end the pipe
        return _Worker(index, process, our_end)


@dataclass
class _Worker:
    index: int
    process: SpawnProcess
    connection: Connection
    job: int | None = None


def _work(connection: Connection, device: str, index: int, threads: int) -> None:
    # Signals may reach the whole process group; the orchestrator decides, and ends its workers.
    ignore()
    from sweep.system.hardware import die_with_parent

    die_with_parent()
    prepare(device, threads)
    if device == "cuda":
        import torch

        torch.cuda.set_device(index % torch.cuda.device_count())
    try:
        while (message := connection.recv()) is not None:
            if isinstance(message, Job):  # else it is a stop for a job that had just ended
                connection.send(run(message, _stop_request(message, connection), connection.send))
    except (EOFError, OSError, CloseRequestedError):
        return


def _stop_request(job: Job, connection: Connection) -> Callable[[], Stop | None]:
    """Makes the `stop_request` of `run`, which reads all that has come through the pipe."""
    request: Stop | None = None

    def stop_request() -> Stop | None:
        nonlocal request
        while connection.poll():
            message = connection.recv()
            if message is None:
                raise CloseRequestedError
            if isinstance(message, Stop) and message.number == job.number:
                request = message
        return request

    return stop_request
