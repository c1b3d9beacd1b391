"""Checks of every image of a data set: what cannot be decoded, and what makes scores look better than they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

from data.decode import UNSTATED, UnreadableImageError
from data.resolution import depth_note, unused_depth
from data.sources import SPLITS, Source


@dataclass(frozen=True)
class Verification:
    """What is wrong with the images of a data set.

    Attributes:
        unreadable: name -> why the image cannot be decoded.
        two_labels: Names of images that are identical and have different labels, one list per group.
        two_splits: Names of images that are identical and in different splits, one list per group.
        identical_groups: Number of groups of identical images.
        shared_patients: Two splits, such as `train and test` -> number of patients that are in both.
        notes: What a person should know of the pixels, one sentence each.
    """

    unreadable: Mapping[str, str]
    two_labels: list[list[str]]
    two_splits: list[list[str]]
    identical_groups: int
    shared_patients: Mapping[str, int]
    notes: tuple[str, ...] = ()


def verify(source: Source, progress: Callable[[int], None]) -> Verification:
    """Decodes every image of a data set and looks for duplicates and for patients in several splits.

    Args:
        source: The data set.
        progress: Receives the number of images decoded so far.
    """
    unreadable, done, largest = {}, 0, []
    copies: dict[str, list[tuple[str, str, int]]] = defaultdict(list)  # hash -> split, name and label
    for split, listing in source.splits.items():
        rows = zip(listing.names, listing.hashes, listing.labels.tolist(), strict=True)
        for row, (name, content, label) in enumerate(rows):
            try:
                largest.append(source.picture(split, row).info.get(UNSTATED))
            except UnreadableImageError as error:
                unreadable[name] = str(error)
            copies[content].append((split, name, label))
            done += 1
            progress(done)
    groups = [group for group in copies.values() if len(group) > 1]
    patients = {split: set(source.splits[split].patients) for split in SPLITS if split in source.splits}
    return Verification(
        unreadable,
        [[name for _, name, _ in group] for group in groups if len({label for *_, label in group}) > 1],
        [[name for _, name, _ in group] for group in groups if len({split for split, *_ in group}) > 1],
        len(groups),
        {
            f"{first} and {second}": len(patients[first] & patients[second])
            for first, second in combinations(patients, 2)
        },
        depth_note(*unused_depth(largest), "images"),
    )
