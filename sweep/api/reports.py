"""Where reports are written."""

from __future__ import annotations

from pathlib import Path

from data.faults import InputError

REPORTS = "reports"


def write_report(folder: Path, name: str, content: str) -> Path:
    """Writes a file into `reports/` of a working directory.

    Raises:
        InputError: It cannot be written.
    """
    path = folder / REPORTS / name
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return path
