"""A small store that the code at commit df80a7f made, kept to see that stores of that age still work.

In it the built-in images, their experiment and their registered model are called `phantom`. Two trials are complete,
version 1 is registered, and a third trial was killed (SIGKILL) in its second epoch, with its checkpoint on disk:

    python -m sweep --arch cnn1 --trials 2 --epochs 2 --image-size 32 --fix pooling=average --search batch_size=64 \
        --limit 200 --workers 1 --pruner none
    the same with --trials 4, killed
    python -m tests.helpers.old_store FOLDER    packs it
"""

from __future__ import annotations

import sqlite3
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

ARCHIVE = Path(__file__).with_name("old_store.tar.xz")
PLACE = "/old-store"  # stands in the archive for the folder that the store is in
COMMAND = (
    *("--arch", "cnn1", "--epochs", "2", "--image-size", "32", "--fix", "pooling=average"),
    *("--search", "batch_size=64", "--limit", "200", "--workers", "1", "--pruner", "none"),
)
LOCATIONS = {
    "mlflow.db": (
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("model_versions", "source"),
        ("model_versions", "storage_location"),
    ),
    "optuna.db": (("trial_user_attributes", "value_json"),),
}


def unpack_old_store(folder: Path) -> Path:
    """Puts the store into an empty folder, with all locations within it; returns the folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    _relocate(folder, PLACE, str(folder))
    return folder


def pack(store: Path) -> None:
    """Writes the archive; the store is only read."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place)
        for path in sorted(path for path in store.rglob("*") if path.is_file() and path.name != ".sweep.lock"):
            target = copy / path.relative_to(store)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        _relocate(copy, str(store), PLACE)
        with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
            for path in sorted(path for path in copy.rglob("*") if path.is_file()):
                archive.add(path, path.relative_to(copy).as_posix(), filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _relocate(folder: Path, old: str, new: str) -> None:
    for name, columns in LOCATIONS.items():
        with closing(sqlite3.connect(folder / name, isolation_level=None)) as database:
            for table, column in columns:
                database.execute(f"update {table} set {column} = replace({column}, ?, ?)", (old, new))
            database.execute("vacuum")  # old places stay in free pages otherwise


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
