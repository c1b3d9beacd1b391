"""Training on one thread or one GPU: what everyone writes, what the sweep does, and the network alone as the limit.

Every way has a process of its own that stays until all repeats are taken. They take turns, so that whatever else slows
the machine hits all of them alike, and nothing runs beside the one whose turn it is.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.tables import Options, Table, median, ratio
from data.cache import Images
from data.decode import decode
from data.sources import read_synthetic
from models import ARCHITECTURES
from sweep.system.hardware import choose_precision, prepare_training_process, usable_cores
from sweep.training.config import TrainingConfig
from sweep.training.inference import build_network
from sweep.training.loop import OPTIMIZERS, train

USUAL, OURS, LIMIT = "usual", "ours", "limit"
TURN = 2.5  # seconds of training a figure is taken over, at least
MEGABYTE = 2**20


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
QUICK = (Case("cnn1", 32, 8, 16), Case("cnn3", 32, 8, 16))


@dataclass(frozen=True)
class Job:
    """What a process is given.

    Attributes:
        way: USUAL, OURS or LIMIT.
        config: What to train; one thread.
        files: A folder of images in ImageFolder's layout, for the usual way.
        images: The same images as the sweep caches them, for ours.
        checkpoints: A folder of its own.
        turn: Seconds a turn takes at least.
    """

    way: str
    config: TrainingConfig
    files: Path
    images: Images
    checkpoints: Path
    turn: float


@dataclass(frozen=True)
class Turn:
    """What a process did in one turn, and what it held in memory after it, in megabytes.

    Attributes:
        images_per_second: Trained.
        resident: Of the process, with what it shares.
        proportional: Of the process, what it shares being divided by those who share it.
        cache_resident: Of the cache's file alone.
        cache_proportional: Likewise.
    """

    images_per_second: float
    resident: float
    proportional: float
    cache_resident: float
    cache_proportional: float


def measure(options: Options) -> list[Table]:
    """Measures every architecture at its own size and the small ones at 64 pixels, where most people's CPUs train."""
    precisions = ["float32"]
    if choose_precision("auto", options.device) == "bfloat16":
        precisions.append("bfloat16")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = cases_of(options)
        files = files_of(options, max(case.images for case in cases), folder)
        found = {case: _turns(case, precisions, files, options, folder) for case in cases}
    return [_speeds(found, precisions, options.device), _memory(found, precisions)]


def cases_of(options: Options) -> Sequence[Case]:
    """What is trained; a GPU is through an epoch of a few hundred images before its time can be taken."""
    cases = QUICK if options.quick else CASES
    return cases if options.device == "cpu" else [replace(case, images=8 * case.images) for case in cases]


def config_of(case: Case, options: Options) -> TrainingConfig:
    """A training without end."""
    given = {"weights": None, "finetune": "all"} if case.arch == "resnet50" else {}
    return TrainingConfig(
        *(case.arch, "relu", "adam", 1e-3, case.batch, 0.2, options.seed, 10**6, 0, case.size, 2),
        device=options.device,
        options=given,
    )


def usual(job: Job) -> Iterator[tuple[int, float]]:
    """Trains as everyone writes it: files, torchvision's transforms, a DataLoader; yields images and seconds a step."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    config = job.config
    torch.manual_seed(config.seed)
    dataset = ImageFolder(str(job.files), _transforms(config))
    # Beside a GPU the cores have nothing better to do.
    workers = {} if config.device == "cpu" else {"num_workers": usable_cores(), "persistent_workers": True}
    loader = DataLoader(dataset, config.batch_size, shuffle=True, drop_last=True, pin_memory=bool(workers), **workers)
    network = build_network(config).to(config.device).train()
    criterion = nn.CrossEntropyLoss(torch.tensor([1.0, 1.0], device=config.device))
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    while True:
        total_loss, correct, began = 0.0, 0, time.perf_counter()
        for pixels, targets in loader:
            images, labels = pixels.to(config.device), targets.to(config.device)
            optimizer.zero_grad()
            logits = network(images)
            loss = criterion(logits, labels)
            loss.backward()
            optimizer.step()
            total_loss += loss.item()
            correct += (logits.argmax(1) == labels).sum().item()
            yield len(images), time.perf_counter() - began
            began = time.perf_counter()


def ours(job: Job) -> Iterator[tuple[int, float]]:
    """Trains with `sweep.training.loop.train` itself; yields images and seconds of training an epoch."""
    prepare_training_process(job.config.device, 1)
    few = replace(job.images, rows=job.images.rows[:2], labels=job.images.labels[:2])
    for result in train(job.config, job.images, few, job.checkpoints):
        yield len(job.images), len(job.images) / result.images_per_second


def limit(job: Job) -> Iterator[tuple[int, float]]:
    """Does what cannot be spared, forward, backward and update, on one batch that is there; yields some steps."""
    prepare_training_process(job.config.device, 1)
    import torch
    from torch.nn import functional

    config = job.config
    torch.manual_seed(config.seed)
    device = torch.device(config.device)
    network = build_network(config).to(device).to(memory_format=torch.channels_last).train()
    optimizer = OPTIMIZERS[config.optimizer](list(network.parameters()), config.learning_rate)
    shape = (config.batch_size, 1, config.image_size, config.image_size)
    images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(config.batch_size, device=device) % config.classes
    steps = 1 if config.device == "cpu" else 16  # a GPU is asked for its time only now and then
    loss = torch.zeros(())
    while True:
        began = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                logits = network(images)
            loss = functional.cross_entropy(logits.float(), labels)
            loss.backward()
            optimizer.step()
        loss.item()
        yield steps * len(images), time.perf_counter() - began


WAYS: dict[str, Callable[[Job], Iterator[tuple[int, float]]]] = {USUAL: usual, OURS: ours, LIMIT: limit}


def _transforms(config: TrainingConfig) -> Callable[[Image.Image], object]:
    """The architecture's preprocessing and augmentation in torchvision's transforms."""
    from torchvision import transforms

    architecture = ARCHITECTURES[config.arch]
    recipe = architecture.augmentation
    bilinear = transforms.InterpolationMode.BILINEAR
    steps: list[Callable] = [transforms.Grayscale(), transforms.Resize((config.image_size, config.image_size))]
    if recipe.horizontal_flip:
        steps.append(transforms.RandomHorizontalFlip())
    if recipe.vertical_flip:
        steps.append(transforms.RandomVerticalFlip())
    if recipe.warps:
        shift, zoom = (recipe.shift, 0.0), (1 - recipe.zoom, 1 + recipe.zoom)
        steps.append(transforms.RandomAffine(recipe.rotation, shift, zoom, recipe.shear, interpolation=bilinear))
    if recipe.brightness != (1.0, 1.0):
        steps.append(transforms.ColorJitter(brightness=recipe.brightness))
    steps.append(transforms.ToTensor())
    if (architecture.mean, architecture.std) != (0.0, 1.0):
        steps.append(transforms.Normalize(architecture.mean, architecture.std))
    return transforms.Compose(steps)


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
    ways = [(USUAL, "float32"), *((way, precision) for precision in precisions for way in (OURS, LIMIT))]
    turns: dict[tuple[str, str], list[Turn]] = {way: [] for way in ways}
    with ExitStack() as stack:
        connections = {}
        for way, precision in ways:
            checkpoints = folder / f"{case.arch}-{case.size}-{way}-{precision}"
            job = Job(
                way, replace(config, precision=precision), files, images, checkpoints, 0.0 if options.quick else TURN
            )
            connections[way, precision] = stack.enter_context(process(job))
        for connection in connections.values():
            connection.recv()  # it is warm
        for _ in range(options.repeats):
            for way, connection in connections.items():
                connection.send(1)
                turns[way].append(connection.recv())
    return turns


@contextmanager
def process(job: Job) -> Iterator[Connection]:
    """A process that does one job, a turn for each number of threads that it is sent."""
    context = get_context("spawn")
    here, there = context.Pipe()
    # A daemon could have no DataLoader's workers; those end by themselves when their process is gone.
    started = context.Process(target=_work, args=(job, there), daemon=job.config.device == "cpu")
    started.start()
    there.close()  # else the end of the process would not end the connection
    try:
        yield here
    finally:
        started.kill()
        started.join()


def _work(job: Job, connection: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    steps = WAYS[job.way](job)
    next(steps)  # warms up
    connection.send(None)
    while threads := connection.recv():
        torch.set_num_threads(threads)
        images, seconds = next(steps)
        while seconds < job.turn:
            more, longer = next(steps)
            images, seconds = images + more, seconds + longer
        resident, proportional = _held("smaps_rollup")
        connection.send(Turn(images / seconds, resident, proportional, *_held("smaps", job.images.path)))


def _held(report: str, path: Path | None = None) -> tuple[float, float]:
    """Rss and Pss of this process, or of what it maps of one file, in megabytes; nothing where there is no /proc."""
    source, held, counts = Path("/proc/self") / report, {"Rss:": 0, "Pss:": 0}, path is None
    for line in source.read_text().splitlines() if source.exists() else ():
        first, *rest = line.split(maxsplit=5)
        if not first.endswith(":"):  # the head of a mapping, with its file at the end
            counts = path is None or rest[-1] == str(path)
        elif counts and first in held:
            held[first] += int(rest[0]) * 1024
    return held["Rss:"] / MEGABYTE, held["Pss:"] / MEGABYTE


def _speeds(found: dict[Case, dict[tuple[str, str], list[Turn]]], precisions: Sequence[str], device: str) -> Table:
    """Images a second of the usual way and of ours, and what ours is of the usual way and of the limit."""
    rows, values = [], {}
    for case, turns in found.items():
        speeds = {way: [turn.images_per_second for turn in taken] for way, taken in turns.items()}
        values |= {f"{case.name}, {way}, {precision}": taken for (way, precision), taken in speeds.items()}
        plain = speeds[USUAL, "float32"]
        for precision in precisions:
            mine, bare = speeds[OURS, precision], speeds[LIMIT, precision]
            row = (case.name, precision, median(plain, 1), median(mine, 1), ratio(mine, plain), ratio(mine, bare))
            rows.append(row)
    batches = ", ".join(f"{case.batch} for {case.name}" for case in found)
    return Table(
        "training_speed",
        f"Training on one {'thread' if device == 'cpu' else 'GPU'}, images a second",
        ("", "precision", "usual way", "ours", "ours / usual", "ours / limit"),
        rows,
        values,
        (
            f"Usual way: ImageFolder, torchvision's transforms, DataLoader, Adam, float32. Batches of {batches}.",
            "Limit: forward, backward and update on one batch that is there, with all our settings; no data at all.",
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
