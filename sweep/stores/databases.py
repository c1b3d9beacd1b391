"""Checks of databases before a library opens them: an SQLite file is whole, a server answers.

A damaged file or an absent server is an error of one sentence at the start, not a traceback hours later. A new SQLite
file appears with all its tables or not at all, even where the process is killed while a library makes them.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import column, create_engine, inspect, select, table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from data.faults import InputError
from sweep.system.redaction import first_line, shown

LEFTOVER_SECONDS = 600.0
CONNECT_SECONDS = 15
SERVERS = ("postgresql", "mysql", "mariadb", "mssql", "oracle")  # any other URL is the libraries' own
POSTGRES = ("postgresql", "postgresql+psycopg")  # the driver that the extra brings


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file; SQLAlchemy reads it as a URL, where `%20` is a space and `?` ends the path.

    >>> sqlite_url(Path("/a study/100%20?.db"))
    'sqlite:////a study/100%2520%3F.db'
    """
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def open_whole(option: str, url: str, create: Callable[[str], object]) -> None:
    """Checks a database; makes a missing SQLite file under another name and moves it into place once it is complete.

    Args:
        option: What the user named it with, such as `--storage`.
        url: Any URL.
        create: Makes a database with all its tables at a URL.

    Raises:
        InputError: As `check_database`, or the file cannot be made.
    """
    path = file_of(url)
    if path is None or path.exists():
        return check_database(option, url)
    for leftover in path.parent.glob(f".{path.name}-*"):  # of a process that was killed here
        if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
            create(sqlite_url(Path(folder) / path.name))
            try:
                os.link(Path(folder) / path.name, path)
            except FileExistsError:
                pass  # another process was quicker, and its file stays
            except OSError:  # a file system without links
                (Path(folder) / path.name).rename(path)
    except Exception as error:  # SQLAlchemy's, Alembic's and the file system's
        raise InputError(f"{option} {shown(url)}: {path} cannot be made ({first_line(error)})") from error
    return check_database(option, url)


def check_database(option: str, url: str) -> None:
    """Checks an SQLite file that exists, or reaches a database server once; leaves any other URL alone.

    Args:
        option: What the user named it with, such as `--storage`.
        url: Any URL.

    Raises:
        InputError: The file is damaged, cut short, or no database; the server's driver is missing, the server does not
            answer, or it refuses the user, the password or the database's name.
    """
    path, parsed = file_of(url), _parsed(url)
    if path is not None:
        _check_file(option, url, path)
    elif parsed is not None and is_database(url):
        _reach(option, url, parsed)


def _reach(option: str, url: str, parsed: URL) -> None:
    """Connects once: MLflow would try for 100 seconds to reach a server that is away."""
    if "@" in f"{parsed.host}{parsed.database}":  # which the driver would name, and a part of the password with it
        raise InputError(f"{option} {shown(url)}: in a password, write @ as %40 and / as %2F")
    # Without a limit the driver waits for two minutes where a firewall drops its packets.
    limit = parsed.get_backend_name() == "postgresql" and "connect_timeout" not in parsed.query
    try:
        engine = create_engine(
            parsed, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS} if limit else {}
        )
        engine.connect().close()
    except ImportError as error:
        why = f"its driver is missing ({first_line(error, url)})"
        if parsed.drivername in POSTGRES:
            why = "PostgreSQL needs a driver: uv sync --extra postgres, in the folder of this project"
        raise InputError(f"{option} {shown(url)}: {why}") from error
    except (SQLAlchemyError, UnicodeError) as error:  # no name of a host may have more than 63 letters between dots
        raise InputError(f"{option} {shown(url)}: cannot be opened ({first_line(error, url)})") from error


def _check_file(option: str, url: str, path: Path) -> None:
    if not path.is_file():
        return
    advice = "put a copy back, or move it away to begin anew"
    if path.stat().st_size == 0:
        raise InputError(f"{option} {shown(url)}: {path} is empty, so what it held is gone; {advice}")
    if (verdict := _verdict(path)) != "ok":
        raise InputError(f"{option} {shown(url)}: {path} is damaged ({verdict}); {advice}")


def is_whole(path: Path) -> bool:
    """Whether there is an SQLite file that is neither empty nor damaged."""
    return path.is_file() and path.stat().st_size > 0 and _verdict(path) == "ok"


def _verdict(path: Path) -> str:
    """What SQLite says of a file: `ok`, or what is wrong."""
    try:
        # Writable, since a journal that a killed process left behind is rolled back by whoever opens the file next.
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=30)
        try:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        return str(error)
    return verdict


def is_database(url: str) -> bool:
    """Whether a URL names a database on a server."""
    parsed = _parsed(url)
    return parsed is not None and parsed.get_backend_name() in SERVERS


def file_of(url: str) -> Path | None:
    """The file of an SQLite URL; None for any other URL, and for one in memory."""
    parsed = _parsed(url)
    if parsed is None or not parsed.drivername.startswith("sqlite") or parsed.database in (None, "", ":memory:"):
        return None
    return Path(parsed.database)


def has_study_named(option: str, url: str, prefix: str) -> bool:
    """Whether a study of Optuna's in a database has a name that begins so; writes nothing, not even Optuna's tables.

    Args:
        option: What the user named the database with, such as `--storage`.
        url: Any URL; one that is no database has none.
        prefix: The beginning of the name.

    Raises:
        InputError: As `check_database`.
    """
    path, parsed = file_of(url), _parsed(url)
    if parsed is None or (path is None and not is_database(url)) or (path is not None and not path.exists()):
        return False
    check_database(option, url)
    with create_engine(parsed, poolclass=NullPool).connect() as connection:
        if not inspect(connection).has_table("studies"):
            return False
        studies = table("studies", column("study_name"))
        return bool(connection.execute(select(studies).where(studies.c.study_name.startswith(prefix)).limit(1)).all())


def storage_away(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the study's database server does not answer."""
    while error is not None:
        if type(error).__module__.startswith("mlflow."):
            return False  # it is MLflow's database
        if isinstance(error, (OperationalError, InterfaceError)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _parsed(url: str) -> URL | None:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):  # a folder, or a port that is no number: opening it will raise an error
        return None
