"""SQLite files: born whole, and looked at before a library opens them.

What is damaged gets a sentence, not a traceback hours later; a process killed while a library makes its tables leaves
no half of them behind.
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

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from data.faults import InputError

LEFT_SECONDS = 600.0


def open_whole(option: str, url: str, create: Callable[[str], object]) -> None:
    """Checks the file behind an SQLite URL, and has it made beside its place and moved into it where it is missing.

    Args:
        option: What the user named it with, such as `--storage`.
        url: Any database URL; nothing happens unless it is a file of SQLite.
        create: Makes a database with all its tables at an URL.

    Raises:
        InputError: As `check_sqlite`, or the file cannot be made.
    """
    path = file_of(url)
    if path is None or path.exists():
        return check_sqlite(option, url)
    for left in path.parent.glob(f".{path.name}-*"):  # by a process that was killed here
        if time.time() - left.stat().st_mtime > LEFT_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
            create(f"sqlite:///{folder}/{path.name}")
            try:
                os.link(Path(folder) / path.name, path)
            except FileExistsError:
                pass  # another process was quicker, and its file stays
            except OSError:  # a file system without links
                (Path(folder) / path.name).rename(path)
    except Exception as error:  # SQLAlchemy's, Alembic's and the file system's
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{option} {url}: {path} cannot be made ({first})") from error
    return check_sqlite(option, url)


def check_sqlite(option: str, url: str) -> None:
    """Checks the file behind an SQLite URL, where it is one and the file exists.

    Args:
        option: What the user named it with, such as `--storage`.
        url: Any database URL.

    Raises:
        InputError: The file is damaged, cut short, or no database.
    """
    path = file_of(url)
    if path is None or not path.is_file():
        return
    advice = "put a copy back, or move it away to begin anew"
    if path.stat().st_size == 0:
        raise InputError(f"{option} {url}: {path} is empty, so what it held is gone; {advice}")
    try:
        # Writable, since a journal that a killed process left behind is rolled back by whoever opens the file next.
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=30)
        try:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        verdict = str(error)
    if verdict != "ok":
        raise InputError(f"{option} {url}: {path} is damaged ({verdict}); {advice}")


def file_of(url: str) -> Path | None:
    """The file of an SQLite URL; None for any other URL, and for one in memory."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None  # a folder, a server: whoever opens it will say
    named = parsed.database not in (None, "", ":memory:")
    return Path(str(parsed.database)) if parsed.drivername.startswith("sqlite") and named else None
