"""The working directory of a command: its stores, its lock, and how a command is stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from data import cache
from data.faults import InputError
from sweep.cli import terminal as display
from sweep.plan import Plan, disk_of
from sweep.settings import check_folder
from sweep.system.errors import StudyInterruptedError
from sweep.system.processes import describe_owner, myself
from sweep.system.signals import deferred

LOCK = ".sweep.lock"  # one writer a directory: SQLite and MLflow's stores take no more


def optuna_in(folder: Path) -> str:
    """Optuna's store of a working directory."""
    return f"sqlite:///{folder / 'optuna.db'}"


def mlflow_in(folder: Path) -> str:
    """MLflow's store of a working directory, the one that plain `mlflow ui` opens."""
    return f"sqlite:///{folder / 'mlflow.db'}"


@contextmanager
def stoppable(said: str = "stopped; the same command goes on from here") -> Iterator[Callable[[], bool]]:
    """Lets Ctrl-C and SIGTERM end a command where it is safe, and says so."""
    try:
        with deferred() as stopping:
            yield stopping
    except KeyboardInterrupt as error:
        raise StudyInterruptedError(said) from error


def unless(stopping: Callable[[], bool], progress: Callable[[int], None]) -> Callable[[int], None]:
    """A progress that ends what it is told of, once somebody wants that."""

    def go_on(done: int) -> None:
        if stopping():
            raise KeyboardInterrupt
        progress(done)

    return go_on


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other sweeps out of a directory; the kernel lets go of the lock however this process ends."""
    path = folder / LOCK
    lock, new = FileLock(path, timeout=0), not path.exists()
    try:
        lock.acquire()
    except Timeout:
        try:
            owner = describe_owner(json.loads(path.read_text()))
        except ValueError:  # it has the lock and has not said yet who it is
            owner = "another process"
        raise InputError(
            f"{folder}: {owner} runs a sweep in this directory; wait for it, stop it, or use another directory"
        ) from None
    except OSError as error:
        raise InputError(f"{folder}: the working directory cannot be written ({error.strerror})") from error
    with lock:
        path.write_text(json.dumps(myself()))
        try:
            yield
        except InputError:
            if new:  # what is refused changes nothing
                path.unlink()
            raise


def prepare(plan: Plan, folder: Path, terminal: display.Terminal, stopping: Callable[[], bool]) -> None:
    """Says what a plan learns from, sees that there is room for it, and decodes its images once.

    Raises:
        InputError: There is no room, or images cannot be read.
    """
    terminal.say(display.data_line(plan))
    for note in (*plan.source.notes, *plan.split.notes):
        terminal.say(f"note: {note}")
    resuming, work_dir = (folder / "optuna.db").exists(), plan.settings.work_dir
    if work_dir is not None:  # what trials in training write goes there, and not here
        check_folder(work_dir, max(disk_of(plan, planned, resuming=True) for planned in plan.studies))
    here = plan if work_dir is None else replace(plan, workers=0)
    check_folder(folder, sum(disk_of(here, planned, resuming=resuming) for planned in plan.studies))
    images = sum(len(listing) for listing in plan.source.splits.values())
    for size in sorted({planned.image_size for planned in plan.studies}):
        with terminal.counting(f"decoding images to {size} x {size}", images) as progress:
            cache.build(plan.source, size, unless(stopping, progress))
