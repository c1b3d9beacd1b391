"""The arrays of an `.npz` file in MedMNIST's layout, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.faults import InputError
from data.listing import text_of

SPLITS = ("train", "val", "test")  # as MedMNIST and Kaggle name them; `val` may be missing
PARTS = ("images", "labels")


@dataclass(frozen=True)
class Arrays:
    """Images and labels of each split.

    Attributes:
        images: split -> uint8 [N, H, W] or [N, H, W, 3].
        labels: split -> int64 [N]; every split holds every class.
        classes: Number of classes; labels are 0 to `classes` - 1.
        notes: What was passed over, one sentence each.
    """

    images: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    classes: int
    notes: tuple[str, ...] = ()

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
        InputError: The file is damaged, an array is missing, has another shape or type, or there is only one class.
    """
    arrays, extra = _load(path)
    shown = text_of(path)
    missing = [f"{split}_{part}" for split in ("train", "test") for part in PARTS if f"{split}_{part}" not in arrays]
    if missing:
        holds = f"it holds {', '.join([*arrays, *extra][:10])}" if arrays or extra else "it holds none"
        raise InputError(*(f"--data {shown}: has no array {name}; {holds}" for name in missing))
    present = [split for split in SPLITS if f"{split}_images" in arrays and f"{split}_labels" in arrays]
    images = {split: arrays[f"{split}_images"] for split in present}
    labels = {split: arrays[f"{split}_labels"] for split in present}
    faults = [fault for split in present for fault in _faults_of_arrays(split, images[split], labels[split])]
    faults = faults or [f"{split}_images holds no image" for split in present if not images[split].size]
    if faults:
        raise InputError(*(f"--data {shown}: {fault}" for fault in faults))
    labels = {split: array.reshape(-1).astype(np.int64) for split, array in labels.items()}
    classes = 1 + max(int(array.max()) for array in labels.values())
    faults = [
        f"{split}_labels must hold every class from 0 to {classes - 1}"
        for split, array in labels.items()
        if array.min() < 0 or len(np.unique(array)) != classes
    ]
    if classes < 2:
        faults.append("the labels hold only one class; two or more are needed")
    if faults:
        raise InputError(*(f"--data {shown}: {fault}" for fault in faults))
    extra += [name for name in arrays if name.partition("_")[0] not in present]  # a `val` of one array alone
    note = f"passed over the arrays {', '.join(extra[:10])}, which MedMNIST's layout does not have or not alone"
    return Arrays(images, labels, classes, (note,) if extra else ())


def _load(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the arrays of MedMNIST's layout, and the names of whatever else is there.

    Raises:
        InputError: The file is none of numpy's archives, is damaged, or has objects that only a pickle could hold.
    """
    shown, right = f"--data {text_of(path)}", "give an archive that numpy.savez wrote, in MedMNIST's layout"
    wanted = [f"{split}_{part}" for split in SPLITS for part in PARTS]
    try:
        with path.open("rb") as file:
            start = file.read(6)
        if not start:
            raise InputError(f"{shown}: the file is empty; {right}")
        if start == b"\x93NUMPY":
            raise InputError(f"{shown}: is a single array (.npy), whatever its name says; {right}")
        if not start.startswith(b"PK"):
            raise InputError(f"{shown}: not a readable .npz file, which is a zip archive; {right}")
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            arrays = {name: archive[name] for name in names if name in wanted}
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{shown}: its arrays do not fit into memory") from error
    # zipfile, zlib and numpy raise whatever the damage runs into: BadZipFile, EOFError, zlib.error, ValueError, ...
    except Exception as error:
        reason = "an array holds Python objects, and no pickle is loaded" if "allow_pickle" in str(error) else error
        raise InputError(f"{shown}: not a readable .npz file ({reason}); {right}") from error
    faults = [f"{shown}: {name} is no array; {right}" for name, array in arrays.items() if not _is_array(array)]
    if faults:
        raise InputError(*faults)
    return arrays, [name for name in names if name not in wanted]


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray)  # a member that is no .npy file comes as its bytes


def _faults_of_arrays(split: str, images: np.ndarray, labels: np.ndarray) -> list[str]:
    """What is wrong with the types and shapes of a split's arrays."""
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        return [f"{split}_images is {images.dtype} {list(images.shape)}, not uint8 [N, H, W] or [N, H, W, 3]"]
    if labels.size != len(images) or not np.issubdtype(labels.dtype, np.integer):
        return [
            f"{split}_labels is {labels.dtype} {list(labels.shape)}, not one integer for each of {len(images)} images"
        ]
    return []
