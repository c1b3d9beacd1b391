"""How long a person waits: for help, a dry run, the first epoch, and the word that nothing is left to train."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.tables import Options, Table, environment, median
from sweep.stores.study import stored_studies

LIBRARIES = ("torch", "mlflow", "optuna")


def measure(options: Options) -> list[Table]:
    """Takes the time of commands, from typing them to their end or to their first epoch's begin."""
    images = 120 if options.quick else 400
    study = [
        *("--arch", "cnn1", "--epochs", "1", "--image-size", "32" if options.quick else "64", "--limit", str(images)),
        *("--search", "batch_size=16,32", "--workers", "1" if options.quick else "2"),
        *(("--data", str(options.data.resolve())) if options.data else ()),
    ]
    waits: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        cached = root / "cached"
        cached.mkdir()
        if not options.quick:
            _run(cached, "-m", "sweep", *study, "--trials", "1")  # decodes the images, once for all that follows

        for repeat in range(options.repeats):
            folder = root / str(repeat)
            folder.mkdir()
            for library in LIBRARIES[:1] if options.quick else LIBRARIES:
                _note(waits, f"python -c 'import {library}'", _run(folder, "-c", f"import {library}"))
            _note(waits, "sweep --help", _run(folder, "-m", "sweep", "--help"))
            _note(waits, "sweep --dry-run", _run(folder, "-m", "sweep", *study, "--trials", "2", "--dry-run"))
            began = time.time()
            whole = _run(folder, "-m", "sweep", *study, "--trials", "1")
            _note(waits, "first epoch begins, stores are made first", _first_epoch(folder, 0) - began)
            _note(waits, "a study of one trial of one epoch", whole)
            began = time.time()
            _run(folder, "-m", "sweep", *study, "--trials", "2")
            _note(waits, "first epoch begins, stores are there", _first_epoch(folder, 1) - began)
            _note(waits, "nothing is left to train", _run(folder, "-m", "sweep", *study, "--trials", "2"))
    rows = [(name, median(seconds)) for name, seconds in waits.items()]
    note = f"Images are decoded already; {images} images. A study's time includes its choice, test and registration."
    return [Table("starting", "Waiting, seconds", ("", "seconds"), rows, waits, (note,))]


def _note(waits: dict[str, list[float]], name: str, seconds: float) -> None:
    waits.setdefault(name, []).append(seconds)


def _run(folder: Path, *arguments: str) -> float:
    """Runs Python in a directory and returns how long it took, in seconds."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}\n{done.stderr[-5000:]}")
    return time.monotonic() - began


def _first_epoch(folder: Path, number: int) -> float:
    """When the first epoch of a trial began, in seconds since 1970."""
    (study,) = stored_studies(f"sqlite:///{folder / 'optuna.db'}")
    first = study.trials()[number].history[0]
    return first["time"] - first["epoch_seconds"]
