"""The arrays of an `.npz` file in MedMNIST's layout, checked."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.faults import InputError

SPLITS = ("train", "val", "test")  # as MedMNIST and Kaggle name them; `val` may be missing


@dataclass(frozen=True)
class Arrays:
    """Images and labels of each split.

    Attributes:
        images: split -> uint8 [N, H, W] or [N, H, W, 3].
        labels: split -> int64 [N]; every split holds every class.
        classes: Number of classes; labels are 0 to `classes` - 1.
    """

    images: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    classes: int

    @property
    def sides(self) -> tuple[int, int]:
        """Width and height of the largest images that are not test images."""
        shapes = [images.shape for split, images in self.images.items() if split != "test"]
        return max(shape[2] for shape in shapes), max(shape[1] for shape in shapes)

    def image(self, split: str, row: int) -> Image.Image:
        """Returns one image in shades of gray, in its own size."""
        return Image.fromarray(self.images[split][row]).convert("L")


def read_arrays(path: Path) -> Arrays:
    """Reads `<split>_images` uint8 [N, H, W(, 3)] and `<split>_labels` [N(, 1)] from an `.npz`.

    Raises:
        InputError: An array is missing, has another shape or type, or there is only one class.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"--data {path}: not a readable .npz file ({error})") from error
    faults = [
        f"--data {path}: has no array {split}_{part}"
        for split in ("train", "test")
        for part in ("images", "labels")
        if f"{split}_{part}" not in arrays
    ]
    if faults:
        raise InputError(*faults)
    present = [split for split in SPLITS if f"{split}_images" in arrays and f"{split}_labels" in arrays]
    images = {split: arrays[f"{split}_images"] for split in present}
    labels = {split: arrays[f"{split}_labels"] for split in present}
    faults = [fault for split in present for fault in _faults_of_arrays(split, images[split], labels[split])]
    faults = faults or [f"{split}_images holds no image" for split in present if not len(images[split])]
    if faults:
        raise InputError(*(f"--data {path}: {fault}" for fault in faults))
    labels = {split: array.reshape(-1).astype(np.int64) for split, array in labels.items()}
    classes = 1 + max(int(array.max()) for array in labels.values())
    faults = [
        f"{split}_labels must hold every class from 0 to {classes - 1}"
        for split, array in labels.items()
        if set(array.tolist()) != set(range(classes))
    ]
    if classes < 2:
        faults.append("the labels hold only one class; two or more are needed")
    if faults:
        raise InputError(*(f"--data {path}: {fault}" for fault in faults))
    return Arrays(images, labels, classes)


def _faults_of_arrays(split: str, images: np.ndarray, labels: np.ndarray) -> list[str]:
    """What is wrong with the types and shapes of a split's arrays."""
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        return [f"{split}_images is {images.dtype} {list(images.shape)}, not uint8 [N, H, W] or [N, H, W, 3]"]
    if labels.size != len(images) or not np.issubdtype(labels.dtype, np.integer):
        return [
            f"{split}_labels is {labels.dtype} {list(labels.shape)}, not one integer for each of {len(images)} images"
        ]
    return []
