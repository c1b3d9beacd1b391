"""What the environment of a command must be like: checked before anything is written."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import unquote

from data.faults import InputError
from sweep.system.redaction import address, shown

TEMPORARY_BYTES = 32_000_000
TEMPORARY_VARIABLES = ("TMPDIR", "TEMP", "TMP")  # in Python's order


def check_environment(tracking_uri: str | None, needed: int = TEMPORARY_BYTES) -> None:
    """Checks what faults_of_environment looks at.

    Raises:
        InputError: With every fault found.
    """
    if faults := faults_of_environment(tracking_uri, needed):
        raise InputError(*faults)


def faults_of_environment(tracking_uri: str | None, needed: int = TEMPORARY_BYTES) -> list[str]:
    """What is wrong with the environment: another model registry is named, or temporary files have no place.

    Args:
        tracking_uri: MLflow's store; None is the working directory's own.
        needed: Bytes that temporary files may take.
    """
    return [fault for fault in (_fault_of_registry(tracking_uri), _fault_of_temporary(needed)) if fault]


def _fault_of_registry(tracking_uri: str | None) -> str | None:
    """MLflow looks up a version's run and its files in the tracking store, so half of a version would be elsewhere."""
    registry, tracking = os.environ.get("MLFLOW_REGISTRY_URI"), tracking_uri or "sqlite:///mlflow.db"
    if not registry or _store(registry) == _store(tracking):
        return None
    return (
        f"MLFLOW_REGISTRY_URI {shown(registry)}: runs and registered models are in one store, which is "
        f"{shown(tracking)}; unset it, or name the same store with --tracking-uri"
    )


def _store(uri: str) -> str:
    scheme, _, path = uri.partition(":///")
    if scheme.startswith("sqlite"):
        return os.path.realpath(unquote(path.partition("?")[0]))
    return address(uri).rstrip("/")


def _fault_of_temporary(needed: int) -> str | None:
    """Python goes on in silence with another folder where TMPDIR cannot be used."""
    name = next((name for name in TEMPORARY_VARIABLES if os.environ.get(name)), None)
    try:
        folder = Path(os.environ[name] if name else tempfile.gettempdir())
    except FileNotFoundError:
        return "TMPDIR: no folder for temporary files can be written; name one with room"
    named = f"{name} {folder}" if name else f"{folder}, where temporary files go"
    advice = f"name a folder with room in {name or 'TMPDIR'}"
    if not folder.is_dir():
        return f"{named}: there is no such folder; {advice}"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{named}: cannot be written ({error.strerror}); {advice}"
    if free < needed:
        return f"{named}: about {needed / 1e6:,.0f} MB are needed and {free / 1e6:,.1f} MB are free; {advice}"
    return None
