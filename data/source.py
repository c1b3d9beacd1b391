"""A data set that can be read: its listing, and each image when it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from data.decode import open_gray, resize
from data.resolution import largest_sample, largest_size, native_size, read_otherwise, size_in_header


@dataclass(frozen=True)
class Listing:
    """One split of a data set, without its pixels.

    Attributes:
        names: What each image is called, unique within the split.
        labels: int64 [N], an index into the source's classes.
        patients: Who each image shows. Images of one patient never part between training and validation.
        hashes: A hash of each image's bytes. Equal hashes are the same picture, whatever the names say.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    patients: tuple[str, ...]
    hashes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, rows: np.ndarray) -> Listing:
        """Returns the listing of some rows, in their order."""
        return Listing(
            tuple(self.names[row] for row in rows),
            self.labels[rows],
            tuple(self.patients[row] for row in rows),
            tuple(self.hashes[row] for row in rows),
        )


@dataclass(frozen=True)
class Source:
    """A data set that can be read.

    Attributes:
        name: The data set's name; also the MLflow experiment's and the registered model's.
        kind: `folder`, `npz` or `synthetic`.
        location: Where it is, for people.
        classes: Class names in label order. With two of them the second is the positive one.
        splits: `train`, `test` and perhaps `val`.
        image: (split, row) -> the image's file, or the 8-bit gray image itself where there are no files.
        notes: What a person should know about it, one sentence each.
        depth: As `data.decode.open_gray` takes it.
        sides: What `largest` is, where that is known; None to look into the files.
    """

    name: str
    kind: str
    location: str
    classes: tuple[str, ...]
    splits: Mapping[str, Listing]
    image: Callable[[str, int], Path | Image.Image] = field(repr=False)
    notes: tuple[str, ...] = ()
    depth: int | None = None
    sides: tuple[int, int] | None = None

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that change when any image, name, label or class does."""
        state = hashlib.sha256("\0".join(self.classes).encode())
        for split in sorted(self.splits):
            listing = self.splits[split]
            for name, label, content in zip(listing.names, listing.labels, listing.hashes, strict=True):
                state.update(f"\n{split}\0{name}\0{label}\0{content}".encode())
        return state.hexdigest()[:16]

    @cached_property
    def largest(self) -> tuple[int, int] | None:
        """The largest width and the largest height of the images that networks learn from; None where there are none.

        The largest, not the usual one: no image that a network learned from is brought down to it.
        """
        return self.sides or largest_size(map(size_in_header, self._files()))

    @cached_property
    def read_otherwise(self) -> bool:
        """Whether version 0.1.0 gave other pixels to an image that networks learn from."""
        return any(map(read_otherwise, self._files()))

    def unstated(self) -> Iterator[int | None]:
        """The `UNSTATED` of each image that networks learn from, as `largest_sample` finds it."""
        return (largest_sample(file, self.depth) for file in self._files())

    def picture(self, split: str, row: int) -> Image.Image:
        """Reads one image as 8-bit gray, in its own size. Raises UnreadableImageError."""
        image = self.image(split, row)
        return open_gray(image, self.depth) if isinstance(image, Path) else image

    def decode(self, split: str, row: int, size: int) -> np.ndarray:
        """Reads one image as uint8 [size, size], as networks learn from it. Raises UnreadableImageError."""
        return resize(self.picture(split, row), size, native_size(self.largest, size))

    def _files(self) -> Iterator[Path]:
        """The files that networks learn from."""
        if self.kind != "folder":
            return
        for split in ("train", "val"):
            for row in range(len(self.splits.get(split, ()))):
                image = self.image(split, row)
                if isinstance(image, Path):
                    yield image

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by split and class."""
        return {
            split: dict(
                zip(self.classes, np.bincount(listing.labels, minlength=len(self.classes)).tolist(), strict=True)
            )
            for split, listing in self.splits.items()
        }
