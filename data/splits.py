"""Which training images are kept for validation: whole patients, in the classes' own proportions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data.faults import InputError
from data.sources import Listing, Source

VALIDATION_FRACTION = 0.15
# Kaggle's own val/ holds 16 images: one image there is 6.25 points of accuracy.
SMALLEST_VALIDATION = 100
SIXTEEN = 16


@dataclass(frozen=True)
class Split:
    """The images that a study trains on and the images that it chooses by.

    Attributes:
        train: int64 rows of the source's `train` split.
        validation: int64 rows of the source's split `validation_from`.
        validation_from: `train` where validation was cut from it, or `val`.
        digest: 16 hexadecimal digits that change when any image changes sides.
        notes: What a person should know about it, one sentence each.
    """

    train: np.ndarray
    validation: np.ndarray
    validation_from: str
    digest: str
    notes: tuple[str, ...] = ()


def split_source(source: Source, *, validation: str = "auto", limit: int | None = None, seed: int = 0) -> Split:
    """Splits the training images of a source.

    Args:
        source: The data set.
        validation: `auto` takes the source's own `val` where it holds at least SMALLEST_VALIDATION images and
            cuts 15 % of the training patients otherwise; `split` always cuts; `val` takes the source's own, however
            small; `sixteen` does what the report did for some of its rows: the source's own, or 8 training images of
            each class, of any patients; `2/5` takes the second of five folds: every training patient is in one.
        limit: Use at most this many of the training images, whole patients, in the classes' proportions. None uses all.
        seed: Decides which patients.

    Raises:
        InputError: `val` is asked for and not there, or a class has too few patients to be split.
        ValueError: `validation` is none of these.
    """
    listing = source.splits["train"]
    rows = np.arange(len(listing))
    if limit is not None and limit < len(listing):
        rows = rows[take_patients(listing, limit / len(listing), seed)]
    own = source.splits.get("val")
    if validation == "val" and own is None:
        raise InputError(f"--validation val: {source.location} has no val split")
    if own is not None and (
        validation in ("val", "sixteen") or (validation == "auto" and len(own) >= SMALLEST_VALIDATION)
    ):
        _check_classes(source, listing.labels[rows], "training")
        return Split(rows, np.arange(len(own)), "val", _digest(listing.select(rows).names, own.names), ())

    if validation == "sixteen":
        chosen = _take_images(listing.select(rows), SIXTEEN // 2, seed)
        notes: tuple[str, ...] = (
            f"validation is {chosen.sum()} images, and other images of their patients are in train",
        )
    elif fold := fold_of(validation):
        chosen, notes = _take_fold(source, listing.select(rows), *fold, seed), ()
    elif validation in ("auto", "split"):
        chosen, notes = take_patients(listing.select(rows), VALIDATION_FRACTION, seed), ()
    else:
        raise ValueError(f"there is no validation {validation!r}")
    train, held = rows[~chosen], rows[chosen]
    _check_classes(source, listing.labels[train], "training")
    _check_classes(source, listing.labels[held], "validation")
    if own is not None and validation == "auto":
        notes = (
            f"val/ holds only {len(own)} images and is not used; validation is cut from train "
            "(--validation val insists)",
        )
    return Split(train, held, "train", _digest(listing.select(train).names, listing.select(held).names), notes)


def fold_of(validation: str) -> tuple[int, int] | None:
    """Reads `2/5`, the second of five folds, as `split_source` takes it; None where that is no fold."""
    written = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", validation)
    fold = (int(written[1]), int(written[2])) if written else (0, 0)
    return fold if 1 <= fold[0] <= fold[1] and fold[1] >= 2 else None


def _take_fold(source: Source, listing: Listing, fold: int, folds: int, seed: int) -> np.ndarray:
    """Marks one of so many folds of whole patients, bool [N]; together the folds have every image once."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.array(together(listing.patients, listing.hashes))
    faults = [
        f"--validation {fold}/{folds}: class {name} has only {count:,} patients"
        for label, name in enumerate(source.classes)
        if (count := len(np.unique(groups[listing.labels == label]))) < folds
    ]
    if faults:
        raise InputError(*faults)
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(groups, listing.labels, groups)
    taken = np.zeros(len(listing), dtype=bool)
    taken[list(parts)[fold - 1][1]] = True
    return taken


def take_patients(listing: Listing, fraction: float, seed: int) -> np.ndarray:
    """Marks about a fraction of the images of each class, whole patients at a time.

    Images with the same bytes stay together as if they were one patient's: a copy on the other side would leak.

    Args:
        listing: The images.
        fraction: Between 0 and 1.
        seed: Decides the order in which patients are asked.

    Returns:
        bool [N]. No class exceeds its share, rounded up to one image; a class falls short of it by less than the
        images of one patient.
    """
    groups = together(listing.patients, listing.hashes)
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    classes = int(listing.labels.max()) + 1
    open_places = np.maximum(1, np.round(fraction * np.bincount(listing.labels, minlength=classes))).astype(int)
    taken = np.zeros(len(listing), dtype=bool)
    for group in np.random.default_rng(seed).permutation(len(members)):
        rows = members[int(group)]
        wanted = np.bincount(listing.labels[rows], minlength=classes)
        if np.all(wanted <= open_places):
            open_places -= wanted
            taken[rows] = True
    return taken


def _take_images(listing: Listing, count: int, seed: int) -> np.ndarray:
    """Marks so many images of each class, bool [N], but never all of them."""
    random, taken = np.random.default_rng(seed), np.zeros(len(listing), dtype=bool)
    for label in np.unique(listing.labels):
        rows = np.flatnonzero(listing.labels == label)
        taken[random.permutation(rows)[: min(count, len(rows) - 1)]] = True
    return taken


def together(*keys: Iterable[str]) -> list[int]:
    """Numbers groups so that two rows which share a value of any key are in one group, also through others.

    Returns:
        One group number for each row, from 0 in order of first appearance.
    """
    columns = [list(key) for key in keys]
    parent = list(range(len(columns[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for column in columns:
        first: dict[str, int] = {}
        for row, value in enumerate(column):
            # The older row becomes the root, so that numbering follows first appearance.
            older, newer = sorted((root(first.setdefault(value, row)), root(row)))
            parent[newer] = older
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(row), len(numbers)) for row in range(len(parent))]


def _check_classes(source: Source, labels: np.ndarray, part: str) -> None:
    missing = [name for label, name in enumerate(source.classes) if label not in labels]
    if missing:
        raise InputError(
            *(
                f"class {name} has too few patients to have any in {part}; add images or raise --limit"
                for name in missing
            )
        )


def _digest(train: Iterable[str], validation: Iterable[str]) -> str:
    text = "\n".join(train) + "\n\n" + "\n".join(validation)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
