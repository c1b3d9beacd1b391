"""Decode once: every image of a data set as rows of one memory-mapped uint8 array.

A cache is a folder `<name>-<size>-<digest>/` with one `<split>.npy` a split, and what to know of the pixels in
`notes.json`. It is written beside its place and renamed into it, so it is whole or absent, and two processes that build
the same one do no harm.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from data.decode import UNSTATED, UnreadableImageError, resize
from data.faults import InputError
from data.resolution import depth_note, native_size, unused_depth
from data.sources import Source
from data.splits import Split

FORMAT = 2  # raise it when the same files would give other pixels
NOTES = "notes.json"  # beside the arrays
TRAINING = "training images"
NAMED_FAULTS = 10


@dataclass(frozen=True)
class Images:
    """Some images of a cached split; small enough to send to another process, which maps the same pages.

    Attributes:
        path: An .npy file, uint8 [M, size, size].
        rows: int64 [N], which of the M.
        labels: int64 [N].
        names: N names.
        patients: Whose they are.
    """

    path: Path
    rows: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    patients: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self) -> np.ndarray:
        """The whole array, memory-mapped; processes share its pages, and none of them writes."""
        return np.load(self.path, mmap_mode="c", allow_pickle=False)


def cache_folder(source: Source, size: int) -> Path:
    """Where the pixels of a source at a size are, or would be."""
    content = f"{FORMAT}\0{source.digest}"
    if source.depth is not None:
        content += f"\0depth {source.depth}"
    if (native := native_size(source.largest, size)) is not None:
        content += f"\0native {native}"
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    return user_cache_path("sweep") / f"{source.name}-{size}-{key}"


def cached_bytes(source: Source, size: int) -> int:
    """What the cache of a source takes on disk, in bytes."""
    return sum(len(listing) for listing in source.splits.values()) * size * size


def build(source: Source, size: int, progress: Callable[[int], None] = lambda done: None) -> Path:
    """Makes sure that a source is cached at a size.

    Args:
        source: The data set.
        size: Side of each image, in pixels.
        progress: Called after each image with how many are done.

    Returns:
        The cache's folder.

    Raises:
        InputError: Images cannot be read (the first ten are named), or the disk cannot take the cache.
            Nothing is left behind.
    """
    folder = cache_folder(source, size)
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(folder.parent).free
        if room < cached_bytes(source, size):
            raise InputError(
                f"{folder.parent}: the image cache needs {cached_bytes(source, size):,} bytes, {room:,} are free"
            )
        building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise InputError(f"{folder.parent}: the image cache cannot be written here ({error.strerror})") from error
    try:
        _decode_all(source, size, building, progress)
        building.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process finished first, and its cache is the same
            raise InputError(f"{folder}: the image cache cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def remove_left_behind(older_than: float = 3600.0) -> list[Path]:
    """Removes caches that a process began and did not live to finish.

    Args:
        older_than: Seconds since the last change; a younger one may be in the making.

    Returns:
        The folders removed.
    """
    now, removed = time.time(), []
    for folder in user_cache_path("sweep").glob(".*-*"):
        if now - folder.stat().st_mtime > older_than:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def notes_of(source: Source, size: int) -> tuple[str, ...]:
    """What a person should know of a source's pixels, one sentence each; reads image files where it is not cached."""
    notes = cache_folder(source, size) / NOTES
    if notes.is_file():
        return tuple(json.loads(notes.read_text()))
    return depth_note(*unused_depth(source.unstated()), TRAINING)


def images_of(source: Source, split: Split, size: int) -> dict[str, Images]:
    """The cached images of a study: `train`, `validation` and `test`."""
    return {
        "train": _images(source, size, "train", split.train),
        "validation": _images(source, size, split.validation_from, split.validation),
        "test": test_images(source, size),
    }


def test_images(source: Source, size: int) -> Images:
    """The cached test images of a source."""
    return _images(source, size, "test", np.arange(len(source.splits["test"])))


def pixel_hashes(source: Source, size: int) -> dict[str, tuple[str, ...]] | None:
    """A hash of each image's pixels at a size, by split; None where they are not cached yet."""
    folder = cache_folder(source, size)
    if not folder.is_dir():
        return None
    return {name: _hash_rows(folder / f"{name}.npy") for name in source.splits}


@lru_cache(maxsize=16)
def _hash_rows(path: Path) -> tuple[str, ...]:
    """A hash of each row of a cached array, which never changes once it is there."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return tuple(hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in array)


def _images(source: Source, size: int, name: str, rows: np.ndarray) -> Images:
    listing = source.splits[name].select(rows)
    path = cache_folder(source, size) / f"{name}.npy"
    return Images(path, rows, listing.labels, listing.names, listing.patients)


def _decode_all(source: Source, size: int, folder: Path, progress: Callable[[int], None]) -> None:
    done, faults, largest, native = 0, [], [], native_size(source.largest, size)
    for split, listing in source.splits.items():
        array = np.lib.format.open_memmap(folder / f"{split}.npy", "w+", np.uint8, (len(listing), size, size))
        for row, name in enumerate(listing.names):
            try:
                picture = source.picture(split, row)
                array[row] = resize(picture, size, native)
                if split != "test":
                    largest.append(picture.info.get(UNSTATED))
            except UnreadableImageError as error:
                faults.append(f"{Path(source.location) / name}: {error}")
            done += 1
            progress(done)
        array.flush()
    if faults:
        more = [f"... and {len(faults) - NAMED_FAULTS:,} more unreadable images"] if len(faults) > NAMED_FAULTS else []
        raise InputError(*faults[:NAMED_FAULTS], *more)
    (folder / NOTES).write_text(json.dumps(depth_note(*unused_depth(largest), TRAINING)))
