"""Label image files with a registered model, as it would be served, without a server."""

from __future__ import annotations

import errno
import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.decode import UNSTATED
from data.faults import InputError
from data.resolution import depth_note, unused_depth
from data.sources import SUFFIXES

BATCH = 32
OVERLAY = ".heatmap.png"
COLUMNS = ("file", "label", "probability")


@dataclass(frozen=True)
class Labelled:
    """The answers of a model about some files.

    Attributes:
        answers: One row per file, `file` before the columns of the served answer.
        unreadable: file -> why it could not be read.
        notes: What a person should know of the pixels, one sentence each.
    """

    answers: pd.DataFrame
    unreadable: Mapping[Path, str]
    notes: tuple[str, ...] = ()


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Finds the images that a command line names.

    Args:
        patterns: Files; folders, whose images are taken at any depth; and globs, `**` too.

    Returns:
        Each file once, in the order named.

    Raises:
        InputError: One of them names nothing.
    """
    images: dict[Path, None] = {}
    faults = []
    for pattern in patterns:
        path = Path(pattern)
        try:
            path.stat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                faults.append(f"{pattern[:80]}...: is too long for a file's name")
                continue
        if path.is_dir():
            inside = sorted(child for child in path.rglob("*") if _is_image(child))
        elif path.exists():
            inside = [path]
        else:
            matches = (Path(match) for match in sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207 - absolute ones too
            inside = [match for match in matches if match.is_file()]
        if not inside:
            faults.append(f"{pattern}: {'the folder holds no image' if path.is_dir() else 'there is no such file'}")
        images |= dict.fromkeys(inside)
    if faults:
        raise InputError(*faults)
    return list(images)


def label(
    classifier: Any,
    paths: Sequence[Path],
    threshold: float | None,
    heatmaps: Path | None,
    progress: Callable[[int], None],
    depth: int | None = None,
) -> Labelled:
    """Labels image files; one that cannot be read is set aside.

    Args:
        classifier: As `registry.load` returns it.
        paths: The files.
        threshold: From which probability on an image is positive; None for the model's own.
        heatmaps: Where an overlay of each image goes, as PNG; None for none.
        progress: Called with the number of files done; may raise to stop.
        depth: As `data.decode.open_gray` takes it; None for what the model keeps.
    """
    answers, unreadable, largest = [], {}, []
    names = _overlay_names(paths) if heatmaps else {}
    for start in range(0, len(paths), BATCH):
        pictures, decoded, read = [], [], []
        for path in paths[start : start + BATCH]:
            try:
                picture = classifier.read(path, depth)
            except classifier.decoder.UnreadableImageError as error:
                unreadable[path] = str(error)
                continue
            decoded.append(classifier.prepare(picture))
            largest.append(picture.info.get(UNSTATED))
            if heatmaps:
                picture.thumbnail((classifier.overlay_size,) * 2)  # full films of a whole batch would fill the memory
                pictures.append(picture)
            read.append(path)
        if read:
            pixels = np.stack(decoded)
            answer = classifier.classify(pixels, threshold)
            # A name that is no text, as old archives have them, is shown as well as it can be.
            answer.insert(0, "file", [str(path).encode(errors="replace").decode() for path in read])
            if heatmaps:
                overlays = classifier.overlays(pictures, pixels)
                for path, overlay in zip(read, overlays, strict=True):
                    overlay.save(heatmaps / names[path])
                answer["heatmap"] = [str(heatmaps / names[path]) for path in read]
            answers.append(answer)
        progress(min(start + BATCH, len(paths)))
    table = pd.concat(answers, ignore_index=True) if answers else pd.DataFrame(columns=COLUMNS)
    return Labelled(table, unreadable, depth_note(*unused_depth(largest), "images"))


def _is_image(path: Path) -> bool:
    """Whether a file of a folder is an image to label; heatmaps of an earlier run among the images are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.endswith(OVERLAY) and path.is_file()


def _overlay_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A file name for the overlay of each image; overlays that would share one are numbered."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = f"{path.stem}{OVERLAY}", 1
        while name in taken:
            number += 1
            name = f"{path.stem}-{number}{OVERLAY}"
        taken.add(name)
        names[path] = name
    return names
