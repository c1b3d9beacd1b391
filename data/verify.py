"""Checks of every image of a data set: what cannot be decoded, and what makes scores look better than they are."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from data.decode import UNSTATED, UnreadableImageError, resize
from data.leakage import named_patients
from data.near_duplicates import SIZE, NearPair, hashes, near_pairs
from data.resolution import depth_note, unused_depth
from data.sources import SPLITS, Source


@dataclass(frozen=True)
class Verification:
    """What is wrong with the images of a data set.

    Images are identical where their pixels are the same, decoded at SIZE x SIZE, whatever file they are in.

    Attributes:
        unreadable: name -> why the image cannot be decoded.
        two_labels: Names of images that are identical and have different labels, one list per group.
        two_splits: Names of images that are identical and in different splits, one list per group.
        identical_groups: Number of groups of identical files.
        saved_anew: Number of groups of one picture in files that differ; they may be on both sides of a split.
        shared_images: Two splits, such as `train and test` -> number of groups of identical images that are in both.
        shared_patients: Likewise -> number of patients that are in both.
        near_counts: Likewise, or `train alone` -> number of pairs of images that are nearly the same.
        near_duplicates: Likewise -> these pairs.
        notes: What a person should know of the pixels, one sentence each.
    """

    unreadable: Mapping[str, str]
    two_labels: list[list[str]]
    two_splits: list[list[str]]
    identical_groups: int
    saved_anew: int
    shared_images: Mapping[str, int]
    shared_patients: Mapping[str, int]
    near_counts: Mapping[str, int]
    near_duplicates: Mapping[str, Sequence[NearPair]]
    notes: tuple[str, ...] = ()


def verify(source: Source, progress: Callable[[int], None]) -> Verification:
    """Decodes every image of a data set and looks for duplicates and for patients in several splits.

    Args:
        source: The data set.
        progress: Receives the number of images decoded so far.
    """
    unreadable: dict[str, str] = {}
    names, splits, labels, same, perceptual, largest = [], [], [], [], [], []
    for split, listing in source.splits.items():
        for row, name in enumerate(listing.names):
            hashed: np.ndarray | None = None
            content = listing.hashes[row]  # of a file that cannot be decoded
            try:
                picture = source.picture(split, row)
                largest.append(picture.info.get(UNSTATED))
                pixels = resize(picture, SIZE)
            except UnreadableImageError as error:
                unreadable[name] = str(error)
            else:
                content, hashed = hashlib.blake2b(pixels.tobytes(), digest_size=8).hexdigest(), hashes(pixels)
            names.append(name)
            splits.append(split)
            labels.append(int(listing.labels[row]))
            same.append(content)
            perceptual.append(hashed)
            progress(len(names))
    groups: dict[str, list[int]] = defaultdict(list)
    for row, content in enumerate(same):
        groups[content].append(row)
    present = [split for split in SPLITS if split in source.splits]
    patients = {split: named_patients(source.splits[split]) for split in present}
    files = [content for listing in source.splits.values() for content in listing.hashes]
    sides = [{splits[row] for row in rows} for rows in groups.values()]
    places = [(split, row) for split, listing in source.splits.items() for row in range(len(listing))]
    counts, pairs = near_pairs(names, splits, same, perceptual, lambda row: resize(source.picture(*places[row]), SIZE))
    return Verification(
        unreadable,
        [[names[row] for row in rows] for rows in groups.values() if len({labels[row] for row in rows}) > 1],
        [[names[row] for row in rows] for rows in groups.values() if len({splits[row] for row in rows}) > 1],
        sum(count > 1 for count in Counter(files).values()),
        sum(len({files[row] for row in rows}) > 1 for rows in groups.values()),
        {f"{a} and {b}": sum({a, b} <= side for side in sides) for a, b in combinations(present, 2)},
        {f"{a} and {b}": len(patients[a] & patients[b]) for a, b in combinations(present, 2)},
        counts,
        pairs,
        depth_note(*unused_depth(largest), "images"),
    )
