"""Training on one thread or one GPU: what everyone writes, what the sweep does, and the network alone as the limit.

Every way has a process of its own that stays until all repeats are taken. They take turns, so that whatever else slows
the machine hits all of them alike, and nothing runs beside the one whose turn it is.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.tables import Options, Table, median, progress, ratio
from benchmarks.training_ways import COMPILED, GRAPH, LIMIT, OURS, USUAL, Job, Turn, process
from data.cache import Images
from data.decode import decode
from data.sources import read_synthetic
from sweep.system.hardware import choose_precision
from sweep.training.config import TrainingConfig

LIMITS = {"cpu": (LIMIT,), "cuda": (LIMIT, GRAPH, COMPILED)}
TURNS = {"cpu": 2.5, "cuda": 0.5}  # seconds of training a figure is taken over, at least


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        arch: A key of ARCHITECTURES.
        size: Side of the images, in pixels.
        batch: Images a step.
        images: Images an epoch; whole batches.
    """

    arch: str
    size: int
    batch: int
    images: int

    @property
    def name(self) -> str:
        """As a row is called."""
        return f"{self.arch} at {self.size}"


CASES = (
    Case("cnn1", 160, 64, 256),
    Case("cnn2", 160, 64, 256),
    Case("cnn3", 150, 64, 256),
    Case("resnet50", 224, 16, 32),
    Case("cnn1", 64, 64, 1024),
    Case("cnn2", 64, 64, 1024),
    Case("cnn3", 64, 64, 1024),
)
# In the order of what they tell, since time on a GPU ends early; more images, or an epoch is over before it is timed.
ON_A_GPU = (
    Case("cnn2", 160, 64, 2048),
    Case("cnn1", 64, 64, 8192),
    Case("resnet50", 224, 32, 512),
    Case("cnn1", 160, 64, 2048),
    Case("cnn3", 150, 64, 2048),
    Case("cnn2", 64, 64, 8192),
    Case("cnn3", 64, 64, 8192),
)
QUICK = (Case("cnn1", 32, 8, 16), Case("cnn3", 32, 8, 16))


def measure(options: Options) -> list[Table]:
    """Measures every architecture at its own size and the small ones at 64 pixels, where most people's CPUs train.

    What is known of a case is printed at once: the tables come when all cases are through.
    """
    precisions = ["float32"]
    if choose_precision("auto", options.device) == "bfloat16":
        precisions.append("bfloat16")
    found: dict[Case, dict[tuple[str, str], list[Turn]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = cases_of(options)
        files = files_of(options, max(case.images for case in cases), folder)
        for case in cases:
            found[case] = _turns(case, precisions, files, options, folder)
            for (way, precision), turns in found[case].items():
                progress(f"{case.name}, {way}, {precision}: {median([turn.images_per_second for turn in turns], 0)}")
    return [_speeds(found, precisions, options.device), _memory(found, precisions)]


def cases_of(options: Options) -> Sequence[Case]:
    """What is trained."""
    if options.quick:
        return QUICK
    return CASES if options.device == "cpu" else ON_A_GPU


def turn_of(options: Options) -> float:
    """Seconds that a figure is taken over, at least."""
    return 0.0 if options.quick else TURNS[options.device]


def config_of(case: Case, options: Options) -> TrainingConfig:
    """A training without end."""
    given = {"weights": None, "finetune": "all"} if case.arch == "resnet50" else {}
    return TrainingConfig(
        *(case.arch, "relu", "adam", 1e-3, case.batch, 0.2, options.seed, 10**6, 0, case.size, 2),
        device=options.device,
        options=given,
    )


def files_of(options: Options, count: int, folder: Path) -> Path:
    """A folder of `count` images, one folder per class: links to the user's own, or the synthetic ones as PNGs."""
    root = folder / "files"
    if options.data is None:
        source = read_synthetic()
        listing = source.splits["train"]
        for row in _spread(len(listing), count):
            path = root / source.classes[listing.labels[row]] / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.decode("train", int(row), 192)).save(path)
        return root
    found = sorted(path for path in options.data.resolve().glob("train/*/*") if path.is_file())
    for row in _spread(len(found), count):
        path = root / found[row].parent.name / f"{row}{found[row].suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(found[row])
    return root


def _spread(available: int, count: int) -> np.ndarray:
    """So many rows of those available, evenly, each once; all of them where there are fewer."""
    return np.unique(np.linspace(0, available - 1, count).astype(int))


def cached(case: Case, files: Path, folder: Path) -> Images:
    """The images of a case as `data.cache` keeps them: one array to map; rows come round again if there are few."""
    paths = sorted(files.glob("*/*"))
    paths = [paths[row] for row in _spread(len(paths), case.images)]
    path = folder / f"{case.arch}-{case.size}.npy"
    np.save(path, np.stack([decode(file, case.size) for file in paths]))
    rows = np.arange(case.images) % len(paths)
    classes = sorted(child.name for child in files.iterdir())
    labels = np.array([classes.index(paths[row].parent.name) for row in rows])
    names = tuple(paths[row].name for row in rows)
    return Images(path, rows, labels, names, names)


def _turns(
    case: Case, precisions: Sequence[str], files: Path, options: Options, folder: Path
) -> dict[tuple[str, str], list[Turn]]:
    """What every way and precision of a case did in each of its turns."""
    images, config = cached(case, files, folder), config_of(case, options)
    ours = [(way, precision) for precision in precisions for way in (OURS, *LIMITS[options.device])]
    ways = [(USUAL, "float32"), *ours]
    turns: dict[tuple[str, str], list[Turn]] = {}
    with ExitStack() as stack:
        connections = {}
        for way, precision in ways:
            checkpoints = folder / f"{case.arch}-{case.size}-{way}-{precision}"
            own = replace(config, precision=precision)
            job = Job(way, own, files, images, checkpoints, turn_of(options))
            connections[way, precision] = stack.enter_context(process(job))
        for (way, precision), connection in connections.items():
            refusal = connection.recv()  # None once it is warm
            if refusal is None:
                turns[way, precision] = []
            else:
                progress(f"{case.name}, {way}, {precision}: {refusal}")
        for _ in range(options.repeats):
            for way, taken in turns.items():
                connections[way].send(1)
                turn = connections[way].recv()
                if isinstance(turn, str):
                    raise SystemExit(f"{case.name}, {', '.join(way)}: {turn}")
                taken.append(turn)
    return turns


def _speeds(found: dict[Case, dict[tuple[str, str], list[Turn]]], precisions: Sequence[str], device: str) -> Table:
    """Images a second of the usual way and of ours, and what ours is of the usual way and of the limit."""
    rows, values, ways = [], {}, LIMITS[device]
    for case, turns in found.items():
        speeds = {way: [turn.images_per_second for turn in taken] for way, taken in turns.items()}
        values |= {f"{case.name}, {way}, {precision}": taken for (way, precision), taken in speeds.items()}
        plain = speeds[USUAL, "float32"]
        for precision in precisions:
            mine = speeds[OURS, precision]
            limits = [speeds.get((way, precision)) for way in ways]
            best = max((limit for limit in limits if limit), key=statistics.median)
            bare = [median(limit, 1) if limit else "-" for limit in limits] if len(ways) > 1 else []
            row = (
                case.name,
                precision,
                median(plain, 1),
                median(mine, 1),
                *bare,
                ratio(mine, plain),
                ratio(mine, best),
            )
            rows.append(row)
    batches = ", ".join(f"{case.batch} for {case.name}" for case in found)
    return Table(
        "training_speed",
        f"Training on one {'thread' if device == 'cpu' else 'GPU'}, images a second",
        ("", "precision", "usual way", "ours", *(ways if len(ways) > 1 else ()), "ours / usual", "ours / limit"),
        rows,
        values,
        (
            f"Usual way: ImageFolder, torchvision's transforms, DataLoader, Adam, float32. Batches of {batches}.",
            "Limit: forward, backward and update on one batch that is there, with all our settings; no data at all.",
            *(("As a CUDA graph and compiled by torch, too; ours / limit: of the fastest.",) if len(ways) > 1 else ()),
            "Ratios are taken turn by turn; median (range).",
        ),
    )


def _memory(found: dict[Case, dict[tuple[str, str], list[Turn]]], precisions: Sequence[str]) -> Table:
    """What a worker holds beside the bare loop, and what two of them hold of the cache."""
    rows, values = [], {}
    for case, turns in found.items():
        last = {way: taken[-1] for way, taken in turns.items()}
        workers = [last[OURS, precision] for precision in precisions]
        cache = [sum(worker.cache_resident for worker in workers), sum(worker.cache_proportional for worker in workers)]
        values |= {f"{case.name}, cache of all workers": cache}
        for precision in precisions:
            mine, bare = last[OURS, precision], last[LIMIT, precision]
            values |= {
                f"{case.name}, {way}, {precision}": [turn.resident, turn.proportional]
                for way, turn in ((OURS, mine), (LIMIT, bare))
            }
            row = (mine.resident, mine.proportional, bare.resident, bare.proportional)
            shares = ratio([mine.resident], [bare.resident]), ratio([mine.proportional], [bare.proportional])
            rows.append((case.name, precision, *(f"{figure:,.0f}" for figure in row), *shares))
        rows[-1] += tuple(f"{figure:,.1f}" for figure in cache)
        rows[-len(precisions) : -1] = [(*row, "", "") for row in rows[-len(precisions) : -1]]
    return Table(
        "training_memory",
        "Memory of a training process, MB",
        (
            *("", "precision", "ours Rss", "ours Pss", "limit Rss", "limit Pss", "Rss ratio", "Pss ratio"),
            *("cache Rss", "cache Pss"),
        ),
        rows,
        values,
        (
            "Limit: the bare training loop. Pss divides what processes share among them.",
            f"Cache: the array of images, summed over the {len(precisions)} workers above that map it.",
        ),
    )
