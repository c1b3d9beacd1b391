"""Where the files of an SQLite store of MLflow's are.

MLflow writes absolute paths into its database, and a directory that is copied or renamed would go on in the old place.
In a working directory's own store locations are therefore relative to the database (`./mlruns/1/...`): MLflow takes
them from the directory that it is started in, this program from the directory that the database is in.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import mlflow
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.db import utils as database_utils
from sqlalchemy import Connection, column, create_engine, func, inspect, literal, select, table, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from data.faults import InputError
from sweep.stores.databases import file_of, sqlite_url

MLRUNS = "mlruns"
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


@dataclass(frozen=True)
class _Root:
    """A directory that locations of a store begin with.

    Attributes:
        prefix: As the database has it, up to `mlruns/`.
        folder: The directory.
        places: What follows `mlruns/` in these locations.
    """

    prefix: str
    folder: Path
    places: frozenset[str]

    def has_files_in(self, folder: Path) -> bool:
        """Whether any of these locations exists in a directory."""
        files = [place for place in self.places if "/" in place]  # of runs and models; an experiment may have none
        # Not Path.exists, here and below: it raises where a folder above may not be entered, such as somebody's home.
        return any(os.path.exists(folder / MLRUNS / place) for place in files or self.places)  # noqa: PTH110


def make_relative(path: Path) -> str | None:
    """Makes locations relative in the store of the working directory, also those of the place that it was moved from.

    All in one transaction. Any other store is left as it is, since somebody may start MLflow elsewhere with it.

    Args:
        path: The database.

    Returns:
        What was changed, in a sentence; None if nothing was.

    Raises:
        InputError: The store was moved or copied without its files, or is not the one of the working directory and
            was moved.
    """
    folder = path.resolve().parent
    if not path.is_file():
        return None
    own = folder.samefile(Path.cwd())
    engine = create_engine(sqlite_url(path.absolute()), poolclass=NullPool)
    with engine.connect() as connection:
        stored, has_runs = _stored(connection)
    relative = any(location.startswith("./") for location in stored)
    roots = _roots(stored)
    at_home = [root for root in roots if os.path.exists(root.folder) and root.folder.samefile(folder)]  # noqa: PTH110
    moved = _moved(path, [root for root in roots if root not in at_home], alone=not (at_home or relative))
    if own and has_runs and (moved or at_home or relative):
        _check_files(folder, [*moved, *at_home], stored)
    here = [root for root in moved if root.has_files_in(folder)]
    if here and not own:
        raise InputError(f"{path}: this store was moved from {here[0].folder}; type `sweep doctor` in {folder} first")
    if not own or not (moved or at_home):
        return None
    before = ", ".join(str(root.folder) for root in moved)
    try:
        with engine.begin() as connection:
            for root in (*moved, *at_home):
                _rewrite(connection, root.prefix, f"./{MLRUNS}/")
    except OperationalError as error:
        if "readonly" not in str(error.orig):
            raise InputError(f"{path}: its locations cannot be written ({error.orig}); try again") from error
        if moved:
            was = f"this store was moved from {before}, and its locations cannot be written"
            raise InputError(f"{path}: {was} ({error.orig})") from error
        return None  # nobody may write here, and the locations are right
    return _what_was_changed(path, before) if has_runs else None  # without any nobody has anything to look for


def _what_was_changed(path: Path, before: str) -> str:
    if before:
        now = path.absolute().parent / MLRUNS
        return f"{path.name}: the store was moved from {before}; its artifacts are now found in {now}"
    return (
        f"{path.name}: artifacts are found relative to this directory from now on, so that it can be moved; start "
        "whatever else uses this store here, too"
    )


def local_folder(location: str, uri: str) -> Path | None:
    """The folder of an artifact location, where it is on this disk and not in another working directory.

    Args:
        location: As MLflow has it, or had it when the store was elsewhere.
        uri: The store.
    """
    path = file_of(uri)
    folder = Path.cwd() if path is None else path.resolve().parent
    root = next(iter(_roots([location])), None)
    if location.startswith("./"):
        return folder / location
    if root is None:  # a place of a server's own, perhaps
        return _folder_of(location) if location.startswith(("/", "file:///")) else None
    if root.has_files_in(folder):
        return folder / MLRUNS / next(iter(root.places))
    if _is_original(root, root.folder / "mlflow.db") and not root.folder.samefile(folder):
        return None  # the store that this one was copied from
    return root.folder / MLRUNS / next(iter(root.places))


def place_experiment(path: Path, identifier: str) -> None:
    """Writes where a new experiment has its files: in this directory, whatever characters its name has.

    MLflow writes the path as it is and reads it as a URL, where %20 is a space.
    """
    make_relative(path)
    here = Path.cwd()
    # Without it a store whose first run logged nothing looks moved without its files.
    with suppress(OSError):  # where nothing can be written nothing will be logged
        (here / MLRUNS).mkdir(exist_ok=True)
    plain, url = f"{here / MLRUNS}/{identifier}", f"{(here / MLRUNS).as_uri()}/{identifier}"
    experiments = table("experiments", column("experiment_id"), column("artifact_location"))
    chosen = update(experiments).where(
        experiments.c.experiment_id == int(identifier), experiments.c.artifact_location.startswith("/")
    )
    with create_engine(sqlite_url(path.absolute()), poolclass=NullPool).begin() as connection:
        connection.execute(chosen.values(artifact_location=plain if url == f"file://{plain}" else url))


class _StoreArtifacts(LocalArtifactRepository):
    """Finds relative locations from the directory of the database, wherever this process was started."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        path = file_of(tracking_uri or mlflow.get_tracking_uri())
        if path is not None and artifact_uri.startswith("./"):
            self._artifact_dir = str(path.resolve().parent / artifact_uri)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Removes a folder or a file; MLflow's own takes the path for a URL, and would go to another directory."""
        place = Path(self.artifact_dir, artifact_path or "")
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)


for scheme in ("", "file"):
    _artifact_repository_registry.register(scheme, _StoreArtifacts)
# It makes the folder of a database that is to be made, from the URL as it is written: "a%2520b" beside "a%20b".
database_utils._make_parent_dirs_if_sqlite = lambda db_uri: None


def _stored(connection: Connection) -> tuple[list[str], bool]:
    """All locations in a store, and whether it has runs."""
    tables, stored, runs = inspect(connection), [], False
    for name, location in COLUMNS:
        if tables.has_table(name):
            columns = table(name, column(location))
            found = connection.execute(select(columns.c[location])).scalars().all()
            stored += [text for text in found if text]
            runs = runs or (name == "runs" and bool(found))
    return stored, runs


def _roots(locations: Iterable[str]) -> list[_Root]:
    places: dict[str, set[str]] = {}
    for location in locations:
        before, between, place = location.rpartition(f"/{MLRUNS}/")
        if between and location.startswith(("/", "file:///")):
            places.setdefault(before + between, set()).add(unquote(place))
    return [_Root(prefix, _folder_of(prefix), frozenset(found)) for prefix, found in places.items()]


def _folder_of(prefix: str) -> Path:
    bare = prefix.removesuffix(f"/{MLRUNS}/")
    return Path(unquote(bare.removeprefix("file://")) if bare.startswith("file://") else bare or "/")


def _moved(path: Path, roots: list[_Root], *, alone: bool) -> list[_Root]:
    """Those roots from which the store was moved to where it is.

    Another root may be right: a study that runs elsewhere can log into this store, and has its files there.

    Args:
        path: The database.
        roots: Those that are another directory.
        alone: Whether no location of the store is in its own directory.
    """
    folder = path.absolute().parent
    here = [root for root in roots if root.has_files_in(folder)]
    if not alone:
        return here
    elsewhere = [
        root for root in roots if not root.has_files_in(root.folder) or _is_original(root, root.folder / path.name)
    ]
    return list(dict.fromkeys([*here, *elsewhere]))


def _is_original(root: _Root, path: Path) -> bool:
    """Whether the store in a root's directory has the same runs: a study there can also log into a store elsewhere."""
    if not os.path.isfile(path):  # noqa: PTH113
        return False
    with create_engine(sqlite_url(path), poolclass=NullPool).connect() as connection:
        places = {location.rpartition(f"{MLRUNS}/")[2] for location in _stored(connection)[0]}
    return any(place in places for place in map(unquote, root.places) if "/" in place)


def _check_files(folder: Path, roots: list[_Root], stored: list[str]) -> None:
    """Refuses a store without any of its files; an empty folder says that somebody wants to go on without them."""
    names = {MLRUNS} if roots else {location.split("/")[1] for location in stored if location.startswith("./")}
    missing = [folder / name for name in sorted(names) if not (folder / name).is_dir()]
    if missing:
        before = next((root.folder for root in roots if root.folder != folder), None)
        was = f" (it was in {before})" if before else ""
        raise InputError(
            f"{missing[0]}: the artifacts of mlflow.db are gone; the store seems to have been moved or copied without "
            f"them{was}. Put the folder back, or make an empty one to go on without them"
        )


def _rewrite(connection: Connection, old: str, new: str) -> None:
    tables: Any = inspect(connection)
    for name, location in COLUMNS:
        if tables.has_table(name):
            columns = table(name, column(location))
            value = columns.c[location]
            rest = func.substr(value, len(old) + 1)
            connection.execute(
                update(columns)
                .where(func.substr(value, 1, len(old)) == old)
                .values({location: literal(new).concat(rest)})
            )
