"""From files to batches: decoding once beside decoding each time, and one warp an image beside torchvision's."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.transforms import v2

from benchmarks.studies import export
from benchmarks.tables import Options, Table, median, ratio
from data import cache
from data.augment import augment, augmented_batches, draw
from data.recipe import Augmentation
from data.sources import Source, open_source
from data.splits import split_source
from models import ARCHITECTURES


@dataclass(frozen=True)
class Size:
    """How much is read.

    Attributes:
        image_size: Side of the images, in pixels.
        batch: Images a batch.
        batches: Batches that are augmented.
        files: Files that the usual way reads.
    """

    image_size: int
    batch: int
    batches: int
    files: int


FULL, QUICK = Size(160, 128, 4, 600), Size(32, 16, 2, 60)


def measure(options: Options) -> list[Table]:
    """Measures decoding, the first batch and augmentation, on one thread."""
    size, before = (QUICK if options.quick else FULL), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [*_reading(options, size), _augmenting(options, size)]
    finally:
        torch.set_num_threads(before)


def _reading(options: Options, size: Size) -> list[Table]:
    source = open_source(options.data)
    split = split_source(source, limit=size.files, seed=options.seed)
    every = sum(len(listing) for listing in source.splits.values())
    transform = transforms.Compose(
        [transforms.Grayscale(), transforms.Resize((size.image_size, size.image_size)), transforms.ToTensor()]
    )
    seconds: dict[str, list[float]] = {name: [] for name in ("build", "bare", "usual", "cold", "warm", "first", "take")}
    cached = 0
    with tempfile.TemporaryDirectory() as name:
        export(source, split, size.image_size, Path(name))
        usual = datasets.ImageFolder(str(Path(name) / "train"), transform)
        for _ in range(options.repeats):
            with _empty_cache():
                began = time.perf_counter()
                folder = cache.build(source, size.image_size)
                seconds["build"].append((time.perf_counter() - began) / every)
                images = cache.images_of(source, split, size.image_size)["train"]
                next(_batches(images, size, options.seed))
                seconds["cold"].append(time.perf_counter() - began)
                seconds["warm"].append(_timed(_first, _batches(images, size, options.seed)))
                pixels, rows = torch.from_numpy(images.pixels()), torch.from_numpy(images.rows[: size.batch].copy())
                seconds["take"].append(_timed(pixels.__getitem__, rows))
                cached = sum(file.stat().st_size for file in folder.iterdir())
            seconds["bare"].append(_timed(_decode_by_hand, usual, size.image_size) / len(usual))
            seconds["usual"].append(_timed(_read, usual) / len(usual))
            loader = DataLoader(usual, size.batch, shuffle=True)
            seconds["first"].append(_timed(_first, loader))
    files = sum((Path(source.location) / file).stat().st_size for _, file in _files(source))
    per_image = {name: [1 / value for value in seconds[name]] for name in ("build", "bare", "usual")}
    decoding = [
        (named, median(per_image[name], 0), ratio(per_image[name], per_image["bare"]))
        for name, named in (
            ("bare", "Pillow alone: open, gray, resize"),
            ("usual", "ImageFolder with torchvision's transforms, each epoch"),
            ("build", "the cache, once"),
        )
    ]
    held = f"The cache of {every:,} images at {size.image_size} pixels takes {cached / 1e6:,.0f} MB"
    held += f", their files {files / 1e6:,.0f} MB." if files else "."
    waiting = [
        (named, median([1000 * value for value in seconds[name]], 1))
        for name, named in (
            ("first", f"DataLoader, {size.batch} images"),
            ("cold", f"ours without a cache: all {every:,} images are decoded first"),
            ("warm", "ours with a cache: drawn, warped, brightened"),
            ("take", "of which taking the rows out of the memory map"),
        )
    ]
    return [
        Table("decoding", "Decoding", ("", "images/s", "x Pillow"), decoding, per_image, (held,)),
        Table("first_batch", "Time to the first batch", ("", "ms"), waiting, seconds),
    ]


def _files(source: Source) -> Iterator[tuple[str, str]]:
    """Every split and file of a folder; none of a source that is no folder."""
    if source.kind == "folder":
        for split, listing in source.splits.items():
            yield from ((split, name) for name in listing.names)


def _decode_by_hand(files: datasets.ImageFolder, size: int) -> None:
    for path, _ in files.samples:
        with Image.open(path) as image:
            np.asarray(image.convert("L").resize((size, size), Image.Resampling.BILINEAR))


def _batches(images: cache.Images, size: Size, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    pixels, rows = torch.from_numpy(images.pixels()), torch.from_numpy(images.rows)
    recipe, generator = ARCHITECTURES["cnn1"].augmentation, torch.Generator().manual_seed(seed)
    return augmented_batches(pixels, rows, torch.from_numpy(images.labels), size.batch, recipe, generator)


def _augmenting(options: Options, size: Size) -> Table:
    generator = torch.Generator().manual_seed(options.seed)
    shape = (size.batch, size.image_size, size.image_size)
    batches = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(size.batches)]
    pictures = [[Image.fromarray(image.numpy()) for image in batch] for batch in batches[:1]]
    rows, values = [], {}
    for arch, architecture in ARCHITECTURES.items():
        recipe = architecture.augmentation
        one, pil = v2.Compose(_transforms(recipe)), transforms.Compose([*_transforms(recipe), transforms.ToTensor()])
        speeds: dict[str, list[float]] = {"v2": [], "pil": [], "ours": []}
        for _ in range(options.repeats):
            for way, run, count in (
                ("v2", lambda one=one: [one(image[None].float() / 255) for image in batches[0]], size.batch),
                ("pil", lambda pil=pil: [pil(image) for image in pictures[0]], size.batch),
                ("ours", lambda recipe=recipe: _ours(batches, recipe, generator), size.batch * size.batches),
            ):
                speeds[way].append(count / _timed(run))
        figures = [median(speeds[way], 0) for way in ("v2", "pil", "ours")]
        rows.append((arch, *figures, ratio(speeds["ours"], speeds["v2"]), ratio(speeds["ours"], speeds["pil"])))
        values |= {f"{arch}/{way}": speed for way, speed in speeds.items()}
    columns = ("", "v2 on tensors", "Pillow, as a DataLoader", "ours", "ours / v2", "ours / Pillow")
    note = (
        f"Images/s on one thread, batches of {size.batch} at {size.image_size} pixels. torchvision draws one parameter "
        "a call, so it is called image by image."
    )
    return Table("augmentation", "Augmentation", columns, rows, values, (note,))


def _ours(batches: list[torch.Tensor], recipe: Augmentation, generator: torch.Generator) -> None:
    for batch in batches:
        augment(batch, recipe, draw(recipe, len(batch), batch.shape[-1], generator))


def _transforms(recipe: Augmentation) -> list[Callable]:
    """A recipe in torchvision's random transforms, which take tensors and pictures."""
    steps: list[Callable] = []
    if recipe.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip())
    if recipe.vertical_flip:
        steps.append(v2.RandomVerticalFlip())
    if recipe.warps:
        scale = (1 - recipe.zoom, 1 + recipe.zoom)
        shift, bilinear = (recipe.shift, 0.0), v2.InterpolationMode.BILINEAR
        steps.append(
            v2.RandomAffine([-recipe.rotation, recipe.rotation], shift, scale, recipe.shear, interpolation=bilinear)
        )
    if recipe.brightness != (1.0, 1.0):
        steps.append(v2.ColorJitter(brightness=recipe.brightness))
    return steps


def _first(batches: Iterable[object]) -> None:
    next(iter(batches))


def _read(files: datasets.ImageFolder) -> None:
    for row in range(len(files)):
        files[row]


def _timed(run: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - began


@contextmanager
def _empty_cache() -> Iterator[None]:
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before
