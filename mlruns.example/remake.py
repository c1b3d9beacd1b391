"""Makes the example store again: small real studies on the real X-rays, packed so that it can be moved anywhere.

    python mlruns.example/remake.py STORE --data CHEST_XRAY    # runs what STORE lacks of the studies, and packs it
    python mlruns.example/remake.py STORE                      # packs what is there

The studies take a quarter of an hour on two cores. One worker is killed
while it trains, so that a failed attempt and its retry are there to be seen. What is packed is MLflow's own store with
relative locations; checkpoints, predictions of trials that were not chosen and large networks are left out, no run is.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMIT = 8_000_000
LARGEST_NETWORK = 400_000  # bytes: those of cnn1 and cnn2
STUDIES = (("cnn1", 8, 6), ("cnn2", 6, 6), ("cnn3", 6, 6), ("resnet50", 2, 4))
# Left out of every run. The chosen trials keep their predictions, and so does the comparison its report.
DROPPED = ("checkpoint/*", "predictions/audit.csv")
ARTIFACTS = "mlartifacts"
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


def run_studies(store: Path, data: Path) -> None:
    """Runs what the store lacks: a study of each architecture, and the comparison."""
    store.mkdir(parents=True, exist_ok=True)
    for arch, trials, epochs in STUDIES:
        settings = ["--image-size", "64", "--epochs", str(epochs), "--data", str(data)]
        if arch == "resnet50":
            settings += ["--weights", "none", "--search", "batch_size=32,64,128"]
        command = [*_sweep(), "--arch", arch, "--trials", str(trials), *settings]
        sweep = subprocess.Popen(command, cwd=store)
        if arch == "cnn3" and not (store / "killed").exists():
            _kill_a_worker(sweep, store)
        if sweep.wait() != 0:
            sys.exit(f"{' '.join(command)}: failed")
    subprocess.run([*_sweep(), "compare"], cwd=store, check=True)


def pack(store: Path) -> None:
    """Packs the store of a working directory into this folder; the old one stays where it was if anything is wrong."""
    with tempfile.TemporaryDirectory(dir=HERE, prefix=".packing-") as folder:
        packed = Path(folder)
        _copy_database(store, packed / "mlflow.db")
        _copy_artifacts(store, packed / ARTIFACTS)
        faults = [*_paths_in(packed, store), *_pictures_in(packed)]
        size = sum(path.stat().st_size for path in packed.rglob("*") if path.is_file())
        if size > LIMIT:
            faults.append(f"{size:,} bytes are more than {LIMIT:,}")
        if faults:
            sys.exit("\n".join(["nothing was packed:", *faults]))
        shutil.rmtree(HERE / ARTIFACTS, ignore_errors=True)
        (packed / ARTIFACTS).rename(HERE / ARTIFACTS)
        (packed / "mlflow.db").replace(HERE / "mlflow.db")
    print(f"{HERE}: {size:,} bytes")


def _copy_database(store: Path, target: Path) -> None:
    """Backs the database up, with every location relative and nobody's place or name in it."""
    with sqlite3.connect(f"file:{store / 'mlflow.db'}?mode=ro", uri=True) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    copy = sqlite3.connect(target, isolation_level=None)
    for table, column in LOCATIONS:
        for row, location in copy.execute(f"SELECT rowid, {column} FROM {table}").fetchall():
            copy.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (_relative(location, store), row))
    for row, source in copy.execute("SELECT rowid, dataset_source FROM datasets").fetchall():
        bare = re.sub(r'"uri": "[^"]*?([^"/]+)"', r'"uri": "\1"', source)
        copy.execute("UPDATE datasets SET dataset_source = ? WHERE rowid = ?", (bare, row))
    copy.execute("UPDATE runs SET user_id = ''")
    copy.execute("DELETE FROM tags WHERE key = 'mlflow.user' OR key LIKE 'sweep.machine.%'")
    # Most of MLflow's tables are empty, and each takes a page or more.
    copy.execute("PRAGMA journal_mode = DELETE")
    copy.execute("PRAGMA page_size = 1024")
    copy.execute("VACUUM")
    copy.close()


def _relative(location: str | None, store: Path) -> str | None:
    """`file:///somewhere/mlruns/1/...` as `./mlartifacts/1/...`."""
    if location is None or location.startswith("models:"):
        return location
    root = (store / "mlruns").resolve()
    inside = Path(location.removeprefix("file://")).relative_to(root)
    return f"./{ARTIFACTS}/{inside}"


def _copy_artifacts(store: Path, target: Path) -> None:
    chosen = {path.parent.parent for path in (store / "mlruns").glob("*/*/artifacts/predictions/test.csv")}
    for path in sorted((store / "mlruns").rglob("*")):
        inside = path.relative_to(store / "mlruns")
        artifacts = next((parent for parent in path.parents if parent.name == "artifacts"), path)
        within = path.relative_to(artifacts)
        unchosen = within.match("predictions/*") and artifacts not in chosen
        large = path.suffix == ".pt2" and path.stat().st_size > LARGEST_NETWORK
        made = "__pycache__" in path.parts or path.name == "registered_model_meta"
        if not path.is_file() or unchosen or large or made or any(within.match(pattern) for pattern in DROPPED):
            continue
        (target / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / inside)
        if path.name == "MLmodel":
            text = (target / inside).read_text()
            (target / inside).write_text(
                re.sub(r"(?m)^(\s*artifact_path: )(file://)?/.*/mlruns/", rf"\1./{ARTIFACTS}/", text)
            )


def _paths_in(packed: Path, store: Path) -> Iterator[str]:
    """What is left of this machine: its folders, its name."""
    words = {str(store), str(store.resolve()), str(HERE.parent), str(Path.home()), platform.node(), "/tmp/", "file:///"}
    for path in sorted(packed.rglob("*")):
        if not path.is_file() or path.name == "report.html" or path.suffix == ".png":
            continue
        content = path.read_bytes()
        for word in sorted(words - {"", "/", "localhost"}):
            if word.encode() in content:
                yield f"{path.relative_to(packed)} holds {word}"


def _pictures_in(packed: Path) -> Iterator[str]:
    """Pictures that are none of our figures."""
    for path in packed.rglob("*"):
        if path.suffix.lower() in (".jpg", ".jpeg", ".bmp", ".gif", ".dcm"):
            yield f"{path.relative_to(packed)} is a picture"
        elif path.suffix == ".png" and "figures" not in path.parts:
            yield f"{path.relative_to(packed)} is no figure"
        elif path.suffix == ".html" and b"data:image/jpeg" in path.read_bytes():
            yield f"{path.relative_to(packed)} shows pictures"


def _kill_a_worker(sweep: subprocess.Popen[bytes], store: Path) -> None:
    """Kills a worker once it has ended an epoch."""
    children = Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children")
    while not list((store / "checkpoints").glob("*cnn3*/*/last.safetensors")):
        if sweep.poll() is not None:
            sys.exit("the study ended before a worker could be killed")
        time.sleep(0.2)
    workers = [
        int(pid) for pid in children.read_text().split() if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    os.kill(workers[-1], signal.SIGKILL)
    (store / "killed").touch()


def _sweep() -> list[str]:
    return [sys.executable, "-m", "sweep"]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a working directory of sweeps")
    parser.add_argument("--data", type=Path, help="the X-rays; runs the studies first")
    given = parser.parse_args()
    if given.data is not None:
        run_studies(given.store.resolve(), given.data.resolve())
    pack(given.store.resolve())


if __name__ == "__main__":
    main()
