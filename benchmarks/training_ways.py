"""The ways to train that `benchmarks.training` sets side by side, and the process that each of them has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import Image

from data.cache import Images
from models import ARCHITECTURES
from sweep.system.hardware import prepare_training_process, usable_cores
from sweep.training.config import TrainingConfig
from sweep.training.inference import build_network
from sweep.training.loop import OPTIMIZERS, train

USUAL, OURS, LIMIT, GRAPH, COMPILED = "usual", "ours", "limit", "limit, CUDA graph", "limit, compiled"
MEGABYTE = 2**20


@dataclass(frozen=True)
class Job:
    """What a process is given.

    Attributes:
        way: A key of WAYS.
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


def bare(job: Job) -> Iterator[tuple[int, float]]:
    """Does what cannot be spared, forward, backward and update, on one batch that is there; yields some steps.

    As the job's way wants it: one kernel after the other, captured as a CUDA graph, or compiled.
    """
    prepare_training_process(job.config.device, 1)
    import torch
    from torch.nn import functional

    config = job.config
    torch.manual_seed(config.seed)
    device = torch.device(config.device)
    network = build_network(config).to(device).to(memory_format=torch.channels_last).train()
    forward = torch.compile(network) if job.way == COMPILED else network
    optimizer = (
        torch.optim.Adam(network.parameters(), config.learning_rate, fused=True, capturable=True)
        if job.way == GRAPH
        else OPTIMIZERS[config.optimizer](list(network.parameters()), config.learning_rate)
    )
    shape = (config.batch_size, 1, config.image_size, config.image_size)
    images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(config.batch_size, device=device) % config.classes

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            logits = forward(images)
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    take = _captured(step) if job.way == GRAPH else step
    steps = 1 if config.device == "cpu" else 16  # a GPU is asked for its time only now and then
    while True:
        began = time.perf_counter()
        for _ in range(steps):
            take()
        if device.type == "cuda":
            torch.cuda.synchronize()
        yield steps * len(images), time.perf_counter() - began


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """A step as a CUDA graph: its kernels are started all at once, not one by one from Python."""
    import torch

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # libraries choose and allocate at first, which a graph cannot hold
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


WAYS: dict[str, Callable[[Job], Iterator[tuple[int, float]]]] = {
    USUAL: usual,
    OURS: ours,
    LIMIT: bare,
    GRAPH: bare,
    COMPILED: bare,
}


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
    try:
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
    except RuntimeError as error:  # torch cannot do it this way here, which the others should not suffer from
        connection.send(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")


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
