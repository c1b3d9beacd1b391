"""What pruning saves and what it costs: the same studies with each pruner and with none, over several seeds."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import Options, Table, environment, median
from sweep.stores.study import stored_studies

PRUNERS = ("none", "median", "hyperband")


@dataclass(frozen=True)
class Size:
    """How large a study is.

    Attributes:
        seeds: Studies with each pruner.
        trials: Trials of a study.
        epochs: Epochs of a trial at most.
        images: Training and validation images together.
        image_size: Their side, in pixels.
        workers: Trials at once.
    """

    seeds: int
    trials: int
    epochs: int
    images: int
    image_size: int
    workers: int


FULL, QUICK = Size(5, 12, 8, 800, 64, 2), Size(1, 2, 4, 120, 24, 1)


@dataclass(frozen=True)
class Study:
    """What a study came to.

    Attributes:
        seconds: From the command to its end.
        epochs: That were trained.
        pruned: Trials that were ended early.
        validation: AUROC of the chosen trial on validation, by which it was chosen.
        test: Its AUROC on test.
    """

    seconds: float
    epochs: int
    pruned: int
    validation: float
    test: float


def measure(options: Options) -> list[Table]:
    """Runs the studies; `repeats` is not looked at, the seeds are the repeats."""
    size = QUICK if options.quick else FULL
    # The quick form shows that it runs, and one pruner shows that as well as two.
    found: dict[str, list[Study]] = {pruner: [] for pruner in (PRUNERS[:2] if options.quick else PRUNERS)}
    with tempfile.TemporaryDirectory() as name:
        for seed in range(options.seed, options.seed + size.seeds):
            for pruner in found:
                folder = Path(name) / f"{pruner}-{seed}"
                folder.mkdir()
                found[pruner].append(run(pruner, seed, size, options.data, folder))
    rows, plain = [], found["none"]
    for pruner, studies in found.items():
        pairs = list(zip(studies, plain, strict=True))
        rows.append(
            (
                pruner,
                median([study.epochs for study in studies], 0),
                median([study.pruned for study in studies], 0),
                median([100 - 100 * study.epochs / other.epochs for study, other in pairs], 0),
                median([100 - 100 * study.seconds / other.seconds for study, other in pairs], 0),
                median([100 * (other.validation - study.validation) for study, other in pairs]),
                median([100 * (other.test - study.test) for study, other in pairs]),
            )
        )
    columns = (
        *("", "epochs trained", "trials pruned", "epochs saved, %", "time saved, %"),
        *("validation AUROC lost, points", "test AUROC lost, points"),
    )
    kinds = ("seconds", "epochs", "pruned", "validation", "test")
    values = {
        f"{pruner}/{kind}": [float(getattr(study, kind)) for study in studies]
        for pruner, studies in found.items()
        for kind in kinds
    }
    title = f"Pruning: {size.seeds} studies each, of {size.trials} trials of cnn1, {size.epochs} epochs at most"
    note = (
        f"{size.images} images at {size.image_size} pixels, {size.workers} workers, early stopping after 4 epochs as "
        "by default. Differences are taken seed by seed; median (range). Below zero: pruning came out ahead."
    )
    return [Table("pruning", title, columns, rows, values, (note,))]


def run(pruner: str, seed: int, size: Size, data: Path | None, folder: Path) -> Study:
    """Runs a study in a directory of its own.

    Args:
        pruner: As `--pruner` takes it.
        seed: Of sampler and trials.
        size: How large the study is.
        data: A folder of images; None takes the synthetic ones.
        folder: The working directory.

    Raises:
        RuntimeError: The sweep failed.
    """
    command = [
        *(sys.executable, "-m", "sweep", "--arch", "cnn1", "--trials", str(size.trials), "--epochs", str(size.epochs)),
        *("--image-size", str(size.image_size), "--limit", str(size.images), "--search", "batch_size=16,32,64"),
        *("--workers", str(size.workers), "--pruner", pruner, "--seed", str(seed), "--json"),
        *(("--data", str(data.resolve())) if data else ()),
    ]
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"the sweep ended with {done.returncode}\n{done.stderr[-5000:]}")
    (outcome,) = json.loads(done.stdout)["studies"]
    (study,) = stored_studies(f"sqlite:///{folder / 'optuna.db'}")
    trials = study.trials()
    epochs = sum(len(trial.history) for trial in trials)
    return Study(seconds, epochs, study.counts().pruned, outcome["best"]["value"], outcome["test"]["test/auroc"])
