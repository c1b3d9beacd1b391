"""Label image files with a registered model, as it would be served, without a server."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.decode import UNSTATED
from data.faults import InputError, named
from data.listing import (
    FOLDER,
    HEATMAP,
    SYSTEM_FILES,
    SYSTEM_FOLDERS,
    Entry,
    frames_note,
    images_of,
    passed_over,
    suffixes_read,
    text_of,
    walk,
)
from data.resolution import depth_note, unused_depth
from sweep.stores import heat_map

BATCH = 32
COLUMNS = ("file", "label", "probability")


@dataclass(frozen=True)
class FoundImages:
    """The image files that a command line names.

    Attributes:
        paths: Each file once.
        notes: What was passed over, one sentence each.
    """

    paths: tuple[Path, ...]
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


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


def find_images(patterns: Sequence[str]) -> FoundImages:
    """Finds the images that a command line names.

    Args:
        patterns: Files, which are taken whatever they are called; folders, whose images are taken at any depth; and
            globs, `**` too. Folders and globs are listed as data sets are, by `data.listing`.

    Returns:
        Each file once, in the order named.

    Raises:
        InputError: One of them names nothing.
    """
    images: dict[Path, None] = {}
    faults, notes = [], []
    for pattern in patterns:
        shown, path = text_of(pattern), Path(pattern)
        try:
            if not path.exists():
                path = Path(os.path.expanduser(pattern))  # noqa: PTH111 - leaves `~nobody` as it is
            exists, folder = path.exists(), path.is_dir()
        except OSError as error:
            reason = (
                "is too long for a file's name"
                if error.errno == errno.ENAMETOOLONG
                else f"cannot be read ({error.strerror})"
            )
            faults.append(f"{shown[:80]}{'...' if len(shown) > 80 else ''}: {reason}")
            continue
        if exists and path.name.lower() in SYSTEM_FILES | SYSTEM_FOLDERS:  # typed by a shell's `*`
            notes.append(f"passed over {shown}, which a system keeps for itself")
            continue
        entries = list(walk(path)) if folder else [] if exists else _matches(str(path))
        inside = [path] if exists and not folder else images_of(entries)
        others = passed_over(entries)
        unreadable = [entry.fault for entry in entries if entry.fault and entry.kind == FOLDER]
        faults += named(unreadable)
        # A link to nothing with an image's name is set aside with the unreadable images.
        inside += [entry.path for entry in entries if entry.fault and entry.kind != FOLDER]
        if not inside and not unreadable:
            why = f" (passed over: {others}); {suffixes_read()}" if others else f"; {suffixes_read()}"
            none = f"the folder holds no image{why}" if folder else f"matches no image{why}"
            faults.append(f"{shown}: {none if folder or others else 'there is no such file'}")
        elif others:
            notes.append(f"passed over {others} in {shown}")
        images |= dict.fromkeys(inside)
    if faults or not images:
        raise InputError(*(faults or notes))
    return FoundImages(tuple(images), (*notes, *frames_note(images)))


def _matches(pattern: str) -> list[Entry]:
    """What a glob names; its folders are walked by the rule for folders, so that a loop of links has an end."""
    parts = Path(pattern).parts
    literal = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    wanted, root = parts[literal:], Path(*parts[:literal])
    if not wanted or not root.is_dir():
        return []
    depth = None if "**" in wanted else len(wanted)
    # A folder that cannot be read may hold what is wanted.
    return [
        entry
        for entry in walk(root, depth)
        if (entry.fault and entry.kind == FOLDER and _leads(entry.path.relative_to(root).parts, wanted))
        or _fits(entry.path.relative_to(root).parts, wanted)
    ]


def _leads(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether what a pattern names may be below a folder."""
    if not parts or not wanted or wanted[0] == "**":
        return bool(wanted)
    return fnmatch.fnmatchcase(parts[0], wanted[0]) and _leads(parts[1:], wanted[1:])


def _fits(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether the parts of a path are those of a pattern; `**` is any number of folders, and files at its end."""
    if not parts or not wanted:
        return not parts and wanted in ((), ("**",))
    if wanted[0] == "**":
        return _fits(parts, wanted[1:]) or _fits(parts[1:], wanted)
    return fnmatch.fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])


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
        heatmaps: Where a picture with the heat map of each image goes, as PNG; None for none. Whatever version of
            the model it is, the map is that of today's `heat_map.py`.
        progress: Called with the number of files done; may raise to stop.
        depth: As `data.decode.open_gray` takes it; None for what the model keeps.
    """
    answers, unreadable, largest = [], {}, []
    names = _picture_names(paths) if heatmaps else {}
    for start in range(0, len(paths), BATCH):
        decoded, read = [], []
        for path in paths[start : start + BATCH]:
            try:
                picture = classifier.read(path, depth)
            except classifier.decoder.UnreadableImageError as error:
                unreadable[path] = str(error)
                continue
            decoded.append(classifier.prepare(picture))
            largest.append(picture.info.get(UNSTATED))
            read.append(path)
        if read:
            pixels = np.stack(decoded)
            answer = classifier.classify(pixels, threshold)
            answer.insert(0, "file", [text_of(path) for path in read])
            if heatmaps:
                try:
                    maps = heat_map.heat_maps(classifier.network, classifier.about, pixels)[0]
                except heat_map.NoHeatMapError as error:
                    raise InputError(f"--heatmap: {error}") from error
                for path, heat, shown in zip(read, maps, answer.to_dict("records"), strict=True):
                    # Read a second time, one by one: all of a batch in their own size would fill the memory.
                    film, truth = classifier.read(path, depth), class_of_folder(path, classifier.about["classes"])
                    heat_map.picture(film, heat, classifier.about, shown, truth).save(heatmaps / names[path])
                answer["heatmap"] = [text_of(heatmaps / names[path]) for path in read]
            answers.append(answer)
        progress(min(start + BATCH, len(paths)))
    table = pd.concat(answers, ignore_index=True) if answers else pd.DataFrame(columns=COLUMNS)
    return Labelled(table, unreadable, depth_note(*unused_depth(largest), "images"))


def class_of_folder(path: Path, classes: Sequence[str]) -> str | None:
    """The class whose folder an image lies in, as in a data set; None where the folder has another name."""
    folder = path.absolute().parent.name
    return folder if folder in classes else None


def _picture_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A file name for the picture of each image; pictures that would share one are numbered."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = f"{path.stem}{HEATMAP}", 1
        while name in taken:
            number += 1
            name = f"{path.stem}-{number}{HEATMAP}"
        taken.add(name)
        names[path] = name
    return names
