"""A whole study, three ways: written by hand, with Ray Tune, and with the sweep. Linux only: it reads /proc.

The same images train and validate, in the same network, with the same space to search and as many trials and epochs.
Everything that a person waits for counts, from typing the command to its end: imports, the sweep's decoding of all
images, its choice, test, figures and registration.
"""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from PIL import Image

from benchmarks.tables import Options, Table, environment
from data.sources import Source, open_source
from data.splits import Split, split_source
from sweep.system.hardware import usable_cores

# Rarely: the kernel walks every process's page tables, 30 ms a look at Ray's; each half second took 3 % of two cores.
SAMPLE_SECONDS = 2.0


@dataclass(frozen=True)
class Size:
    """How large a study is.

    Attributes:
        trials: Trials in all.
        epochs: Epochs of a trial at most.
        images: Training and validation images together.
        image_size: Their side, in pixels.
        batch_sizes: Those that are searched; the rest of the space is the sweep's own.
    """

    trials: int
    epochs: int
    images: int
    image_size: int
    batch_sizes: tuple[int, ...]


FULL = Size(trials=30, epochs=4, images=2600, image_size=64, batch_sizes=(32, 64, 128, 256))
QUICK = Size(trials=2, epochs=1, images=120, image_size=32, batch_sizes=(16, 32))


@dataclass(frozen=True)
class Way:
    """One way to run a study.

    Attributes:
        name: What the table calls it.
        command: Arguments of the Python interpreter.
        metric: What it calls the validation AUROC in MLflow.
    """

    name: str
    command: tuple[str, ...]
    metric: str


@dataclass(frozen=True)
class Study:
    """What a study came to.

    Attributes:
        seconds: From the command's start to its end.
        trials: Runs of trials in MLflow.
        epochs: For each one that was trained, seconds since the start and validation AUROC.
        memory: Most bytes that the command's processes held at once; pages that they share count once.
        disk: Bytes in its working directory at the end.
        cache: Bytes of decoded images, which the next study uses again.
    """

    seconds: float
    trials: int
    epochs: tuple[tuple[float, float], ...]
    memory: int
    disk: int
    cache: int

    @property
    def best(self) -> float:
        """The highest validation AUROC that was reported."""
        return max(auroc for _, auroc in self.epochs)

    def until(self, auroc: float) -> float:
        """Seconds until a trial first reported so high a validation AUROC."""
        return min(seconds for seconds, reached in self.epochs if reached >= auroc)


def measure(options: Options) -> list[Table]:
    """Runs a study each way, one after the other.

    Args:
        options: `repeats` is not looked at: a study takes minutes, so each is run once.
    """
    size = QUICK if options.quick else FULL
    source = open_source(options.data)
    split = split_source(source, limit=size.images, seed=options.seed)
    with tempfile.TemporaryDirectory(prefix="studies-") as name:
        folder = Path(name)
        export(source, split, size.image_size, folder / "images")
        studies = {
            way.name: run(way, folder / str(number), split)
            for number, way in enumerate(ways(options, size, folder / "images"))
        }
    return [_table(studies, size, split, options)]


def ways(options: Options, size: Size, images: Path) -> list[Way]:
    """What is compared, those of it that can be run here; the first is what the others are measured by.

    Args:
        options: As the benchmark has them.
        size: How large the studies are.
        images: The training and validation images, for the peers.
    """
    workers, seed = str(usable_cores()), str(options.seed)
    each = ("--epochs", str(size.epochs), "--image-size", str(size.image_size), "--seed", seed)
    peer = (str(images), str(size.trials), *each, *(f"--batch-size={batch}" for batch in size.batch_sizes))
    found = [Way("hand-written", ("-m", "benchmarks.peers.handwritten", *peer), "val_auroc")]
    if importlib.util.find_spec("ray"):
        command = ("-m", "benchmarks.peers.ray_tune", *peer, "--workers", workers)
        found.append(Way("Ray Tune", command, "val_auroc"))
    command = (
        "-m", "sweep", "--arch", "cnn1", "--trials", str(size.trials), *each, "--patience", "0", "--warmup", "0",
        "--limit", str(size.images), "--validation", "auto", "--split-seed", seed, "--workers", workers,
        "--search", f"batch_size={','.join(map(str, size.batch_sizes))}",
        *(("--data", str(options.data.resolve())) if options.data else ()),
    )  # fmt: skip
    return [*found, Way("sweep", command, "val/auroc")]


def export(source: Source, split: Split, size: int, folder: Path) -> None:
    """Lays the images of a split out as ImageFolder wants them: links to files, or pictures of what is none.

    Args:
        source: The data set.
        split: Its training and validation images.
        size: Side of pictures that are drawn, in pixels.
        folder: Gets `train/<class>/` and `val/<class>/`.
    """
    for part, rows, origin in (("train", split.train, "train"), ("val", split.validation, split.validation_from)):
        listing = source.splits[origin]
        for row in rows:
            name = Path(listing.names[row])
            path = folder / part / source.classes[listing.labels[row]] / f"{row:06d}-{name.name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if source.kind == "folder":
                path.symlink_to((Path(source.location) / name).resolve())
            else:
                Image.fromarray(source.decode(origin, int(row), size)).save(path.with_suffix(".png"))


def run(way: Way, folder: Path, split: Split) -> Study:
    """Runs a study in a working directory of its own, with no cache from before.

    Args:
        way: How.
        folder: Is made here.
        split: What it is to train on and validate by.

    Raises:
        RuntimeError: The command failed, or took other images.
    """
    folder.mkdir()
    variables = environment(
        XDG_CACHE_HOME=str(folder / "cache"),
        RAY_TMPDIR=str(folder),
        RAY_USAGE_STATS_ENABLED="0",
        # Else Ray, started under `uv run`, sends this folder to its workers and starts each with `uv run` too.
        RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    )
    began, started, memory = time.time(), time.monotonic(), 0
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *way.command], cwd=folder, env=variables, stdout=log, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_SECONDS)
            memory = max(memory, memory_of(process.pid))
    seconds = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"{way.name} ended with {process.returncode}\n{(folder / 'log').read_text()[-5000:]}")
    cache = _disk(folder / "cache" / "sweep")
    disk = _disk(folder) - _disk(folder / "cache")
    trials, epochs = _recorded(folder / "mlflow.db", way.metric, split)
    return Study(seconds, trials, tuple((when - began, auroc) for when, auroc in epochs), memory, disk, cache)


def memory_of(pid: int) -> int:
    """Bytes that a process and all that descend from it hold: PSS, where a page of n processes counts 1/n in each."""
    children, total, found = defaultdict(list), 0, [pid]
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # a process may end at any moment, here and below
            # The name before the last bracket may hold anything; the state and the parent follow it.
            children[int(path.read_text().rpartition(")")[2].split()[1])].append(int(path.parent.name))
    while found:
        process = found.pop()
        found += children[process]
        with suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def _disk(folder: Path) -> int:
    """Bytes that the files below a folder take on disk; links are not followed."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def _recorded(database: Path, metric: str, split: Split) -> tuple[int, list[tuple[float, float]]]:
    """Counts the trials in MLflow's store; says when each epoch ended, in seconds since 1970, and what it reached."""
    client = MlflowClient(f"sqlite:///{database}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=1000)
    if any(run.data.tags.get("sweep.split_digest", split.digest) != split.digest for run in runs):
        raise RuntimeError("the sweep took other images than its peers")
    # A study's own run, which repeats its best trial's score, has no learning rate.
    trials = [run.info.run_id for run in runs if "learning_rate" in run.data.params]
    points = [point for run_id in trials for point in client.get_metric_history(run_id, metric)]
    return len(trials), [(point.timestamp / 1000, point.value) for point in points if math.isfinite(point.value)]


def _table(studies: dict[str, Study], size: Size, split: Split, options: Options) -> Table:
    target = min(study.best for study in studies.values())
    figures: dict[str, tuple[Callable[[Study], float], str]] = {
        "seconds": (lambda study: study.seconds, ",.0f"),
        "seconds to the last epoch": (lambda study: max(when for when, _ in study.epochs), ",.0f"),
        "trials": (lambda study: study.trials, ",.0f"),
        "trials an hour": (lambda study: 3600 * study.trials / study.seconds, ",.0f"),
        "epochs trained": (lambda study: len(study.epochs), ",.0f"),
        "epochs an hour": (lambda study: 3600 * len(study.epochs) / study.seconds, ",.0f"),
        "best validation AUROC": (lambda study: study.best, ".4f"),
        f"seconds to a validation AUROC of {target:.4f}": (lambda study: study.until(target), ",.0f"),
        "memory at its peak, MB": (lambda study: study.memory / 1e6, ",.0f"),
        "disk, MB": (lambda study: study.disk / 1e6, ",.1f"),
        "decoded images, MB": (lambda study: study.cache / 1e6, ",.1f"),
    }
    return Table(
        name="studies",
        title=f"A study of {size.trials} trials of cnn1, {size.epochs} epochs at most, {size.image_size} pixels",
        columns=("", *studies),
        rows=[
            (figure, *_cells([of(study) for study in studies.values()], style))
            for figure, (of, style) in figures.items()
        ],
        values={
            f"{way}/{figure}": [of(study)] for way, study in studies.items() for figure, (of, _) in figures.items()
        },
        notes=(
            f"One run each, seed {options.seed}; in brackets: times hand-written. {len(split.train):,} images train, "
            f"{len(split.validation):,} of other patients validate, the same ones in all.",
            "Seconds count from the command's start, imports included. The AUROC to reach is the lowest of the bests.",
            "All prune from the first epoch on: the median pruner by hand and in the sweep, ASHA in Ray Tune.",
            "The sweep decodes all images of the data set and tests, explains and registers the best trial within its "
            "time; its training steps are bfloat16 where the hardware computes in it. The peers are float32.",
            *(() if "Ray Tune" in studies else ("Ray Tune: not installed; uv sync --group benchmarks.",)),
        ),
    )


def _cells(values: list[float], style: str) -> list[str]:
    """Each figure, and how many times the first one's it is."""
    first, *others = values
    return [
        f"{first:{style}}",
        *(f"{value:{style}}" + (f" ({value / first:.2f})" if first else "") for value in others),
    ]
