"""RESULTS.md and the studies behind it.

python -m benchmarks.results                             writes RESULTS.md from mlruns.example/results
python -m benchmarks.results STORE                       copies there what STORE holds first
python -m benchmarks.results STORE --data CHEST_XRAY     runs what STORE lacks of the studies before: about four hours

STORE is a directory of its own. What is there already is not trained again, so the command goes on where it was ended.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.results.kept import collect, read
from benchmarks.results.page import SMALL, page
from benchmarks.tables import ROOT, environment
from sweep.stores.study import Study, stored_studies

EXPERIMENT = "chest-xray"
SIZE = ("--image-size", "64")
BASE = ("activation=relu", "optimizer=adam", "learning_rate=1e-3", "batch_size=64", "dropout=0.2")
CHANGES = (
    "augmentation=both",
    "normalisation=image",
    "augmentation=both+normalisation=image",
    "averaging=ema",
    "schedule=cosine",
    "pooling=average",
    "label_smoothing=0.1",
    "normalisation=histogram",
    "augmentation=position",
    "augmentation=light",
    "augmentation=both+normalisation=image+averaging=ema+schedule=cosine",
)
# Of every extra hyperparameter its default is one of the choices.
EXTRA = (
    "augmentation=own,both,wide",
    "normalisation=fixed,image",
    "averaging=none,ema",
    "schedule=constant,cosine",
    "label_smoothing=0,0.1",
)
CHOOSING = ("--epochs", "10", "--metric", "val/stressed_auroc")
# An epoch of it takes as long as six of the others, so it gets few, and rates that random weights stand.
RESNET50 = (
    *("--trials", "2", "--epochs", "2", "--metric", "val/stressed_auroc", "--pruner", "none"),
    *("--fix", "optimizer=adamw", "--search", "learning_rate=1e-4..1e-3:log", "--search", "batch_size=32,64"),
    *("--search", "augmentation=own,wide", "--fix", "normalisation=image", "--fix", "schedule=cosine"),
)
SEEDS, FEWER, SPLITS, LARGER = 5, 2, 3, 96
TYPED = "cnn2"  # the best: its command is typed again
FOLDS, FINALISTS = 5, 5
AGAIN = "again"
SCALED = "cnn1"  # the fastest: at other sizes, on other splits and folds, and searched twice


def main(
    store: Annotated[Path | None, typer.Argument(help="Where the studies ran, or are to run.")] = None,
    data: Annotated[Path | None, typer.Option(help="The X-rays; runs the studies first.")] = None,
) -> None:
    """Runs the studies, copies their figures and writes the page; see the module."""
    if data is not None and store is None:
        raise typer.BadParameter("--data: say where the studies are to run, too")
    if store is not None:
        store = store.absolute()
        if data is not None:
            store.mkdir(parents=True, exist_ok=True)
            for arguments in commands(store):
                run(arguments, store, data)
            (store / AGAIN).mkdir(exist_ok=True)
            run(second_search(), store / AGAIN, data)
        collect([place for place in (store, store / AGAIN) if place.is_dir()], EXPERIMENT)
    (ROOT / "RESULTS.md").write_text(page(read()))


def commands(store: Path) -> Iterator[list[str]]:
    """The studies, one after the other: the later ones depend on what the earlier ones found."""
    base, changes = _each("--fix", BASE), _each("--change", CHANGES)
    yield ["ablate", "--arch", "cnn1", *base, *changes, "--seeds", "5", *SIZE, "--epochs", "8", "--patience", "3"]
    for arch in SMALL:
        yield ["--arch", arch, "--trials", "30", *CHOOSING, *_each("--search", EXTRA), *SIZE]
    yield ["compare", "--seeds", str(SEEDS)]
    yield ["--arch", "resnet50", "--weights", "none", *RESNET50, *SIZE]
    best = best_params(store, SCALED)
    name = ("--study", f"pixels-{LARGER}", "--seeds", str(FEWER), "--image-size", str(LARGER))
    yield ["ablate", "--arch", SCALED, *best, *CHOOSING, *name]
    yield ["compare"]  # with resnet50, which gets no other seeds: they would take an hour
    for split in range(1, SPLITS + 1):
        name = ("--study", f"split-{split}", "--seeds", "1", "--split-seed", str(split))
        yield ["ablate", "--arch", SCALED, *best, *CHOOSING, *name, *SIZE]
    yield ["crossvalidate", SCALED, "--folds", str(FOLDS), "--top", str(FINALISTS), "--audit"]
    again = ("--study", "further", "--seed", "77", "--seeds", str(SEEDS))  # does the page's command give its figures?
    yield ["ablate", "--arch", TYPED, *best_params(store, TYPED), *CHOOSING, *again, *SIZE]
    yield ["replicate", "--seeds", "2", "--epochs", "8", *SIZE]


def second_search() -> list[str]:
    """The same search with another seed, in a directory of its own, since it registers its choice too."""
    name = ("--study", f"{SCALED}-again", "--seed", "1")
    return ["--arch", SCALED, *name, "--trials", "30", *CHOOSING, *_each("--search", EXTRA), *SIZE]


def run(arguments: list[str], place: Path, data: Path) -> None:
    """Runs a command of `sweep` in a directory."""
    command = [sys.executable, "-m", "sweep", *arguments, "--data", str(data.absolute())]
    print("+", *command[2:], flush=True)
    subprocess.run(command, cwd=place, env=environment(), check=True)


def best_params(store: Path, arch: str) -> list[str]:
    """The hyperparameters that the search of an architecture chose, as options."""
    studies: dict[str, Study] = {study.name: study for study in stored_studies(f"sqlite:///{store / 'optuna.db'}")}
    best = studies[f"{EXPERIMENT}/{arch}"].best()
    if best is None:
        sys.exit(f"{store}: the search of {arch} has no complete trial")
    return _each("--fix", [f"{name}={value}" for name, value in best.params.items()])


def _each(option: str, values: list[str] | tuple[str, ...]) -> list[str]:
    return [part for value in values for part in (option, value)]


if __name__ == "__main__":
    typer.run(main)
