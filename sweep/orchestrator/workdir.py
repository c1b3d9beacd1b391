"""The working directory of a command: its stores, its lock, its room on disk, and how a command is stopped."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from filelock import FileLock, Timeout

from data import cache
from data.faults import InputError
from data.leakage import lines_of, refuse
from sweep.orchestrator.progress import View
from sweep.plan import Plan, data_line, disk_of, overlaps, parameters_of
from sweep.stores.databases import sqlite_url
from sweep.system.environment import TEMPORARY_BYTES, check_environment
from sweep.system.errors import StudyInterruptedError
from sweep.system.processes import describe_owner, myself
from sweep.system.signals import deferred

LOCK = ".sweep.lock"  # one writer per directory: SQLite and MLflow's stores take no more


def optuna_in(folder: Path) -> str:
    """Optuna's store of a working directory."""
    return sqlite_url(folder / "optuna.db")


def mlflow_in(folder: Path) -> str:
    """MLflow's store of a working directory, the one that plain `mlflow ui` opens."""
    return sqlite_url(folder / "mlflow.db")


@contextmanager
def stoppable(message: str = "stopped; the same command goes on from here") -> Iterator[Callable[[], bool]]:
    """Lets Ctrl-C and SIGTERM end a command where it is safe, with a message."""
    try:
        with deferred() as stopping:
            yield stopping
    except KeyboardInterrupt as error:
        raise StudyInterruptedError(message) from error


def unless(stopping: Callable[[], bool], progress: Callable[[int], None]) -> Callable[[int], None]:
    """A progress callback that raises KeyboardInterrupt once somebody wants the command to end."""

    def go_on(done: int) -> None:
        if stopping():
            raise KeyboardInterrupt
        progress(done)

    return go_on


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other sweeps out of a directory; the kernel releases the lock however this process ends."""
    path = folder / LOCK
    lock, new = FileLock(path, timeout=0), not path.exists()
    try:
        lock.acquire()
    except Timeout:
        try:
            owner = describe_owner(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:  # it has the lock and has not written yet who it is
            owner = "another process"
        raise InputError(
            f"{folder}: {owner} runs a sweep in this directory; wait for it, stop it, or use another directory"
        ) from None
    except OSError as error:
        raise InputError(f"{folder}: the working directory cannot be written ({error.strerror})") from error
    with lock:
        path.write_text(json.dumps(myself()), encoding="utf-8")
        try:
            yield
        except InputError:
            if new:  # what is refused changes nothing
                path.unlink()
            raise


def prepare(plan: Plan, folder: Path, view: View, stopping: Callable[[], bool]) -> None:
    """Says what a plan learns from, checks that there is room for it, and decodes its images once.

    Raises:
        InputError: There is no room, images cannot be read, or test images are among those that it learns from.
    """
    view.say(data_line(plan))
    for note in (*plan.source.notes, *plan.split.notes):
        view.say(f"note: {note}")
    if unquote(str(folder)) != str(folder):
        view.say("note: `mlflow models serve` cannot read a path with a code such as %20 in it; `sweep predict` can")
    resuming, work_dir = (folder / "optuna.db").exists(), plan.settings.work_dir
    if work_dir is not None:  # what trials in training write goes there, and not here
        check_folder(work_dir, max(disk_of(plan, planned, resuming=True) for planned in plan.studies))
    here = plan if work_dir is None else replace(plan, workers=0)
    check_folder(folder, sum(disk_of(here, planned, resuming=resuming) for planned in plan.studies))
    # An exported network is there three times for a moment: as it is made, in the model's folder, and as it is tried.
    network = max(4 * parameters_of(plan, planned) for planned in plan.studies)
    check_environment(plan.settings.tracking_uri, TEMPORARY_BYTES + 4 * network)
    images = sum(len(listing) for listing in plan.source.splits.values())
    for size in sorted({planned.image_size for planned in plan.studies}):
        with view.counting(f"decoding images to {size} x {size}", images) as progress:
            cache.build(plan.source, size, unless(stopping, progress))
    found = overlaps(plan)  # pixels show what files did not
    refuse(found, plan.source.location, allowed=plan.settings.allow_leakage)
    for line in lines_of(found):
        view.say(line)
    for note in cache.notes_of(plan.source, plan.studies[0].image_size):
        view.say(f"note: {note}")


def check_folder(folder: Path, needed: int) -> None:
    """Checks that a working directory can take what a study will write; leaves nothing in it.

    Args:
        folder: The directory.
        needed: Bytes.

    Raises:
        InputError: It cannot be written, or its disk is too full.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise InputError(f"{folder}: the working directory cannot be written ({error.strerror})") from error
    if free < needed:
        raise InputError(
            f"{folder}: the study needs about {needed / 1e6:,.0f} MB here, and {free / 1e6:,.0f} MB are free; "
            "make room or run it in another directory"
        )
