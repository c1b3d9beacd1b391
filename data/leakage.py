"""What the parts of a study share: images and patients that are in two of them, so that scores are optimistic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data.faults import InputError
from data.sources import KERMANY, Listing, Source, group_of
from data.splits import Split

NAMED_PAIRS = 5
OPTION = "--allow-leakage"


@dataclass(frozen=True)
class Overlap:
    """What two parts of a data set share.

    Attributes:
        first: The part that is trained on or chosen by.
        second: The part that is scored.
        images: How many images of the second are identical to one of the first.
        of: How many images the second has.
        pairs: Each of these images with one that it is identical to: (name in the first, name in the second).
        patients: How many patients' names are in both.
        of_patients: How many patients' names the second has.
        harmless: Why shared names may not be shared patients; empty where nothing speaks for that.
    """

    first: str
    second: str
    images: int
    of: int
    pairs: tuple[tuple[str, str], ...]
    patients: int
    of_patients: int
    harmless: str = ""

    @property
    def refused(self) -> bool:
        """Whether a study needs to be allowed to use it: the test images are not new to it."""
        return self.second == "test" and self.images > 0

    @property
    def serious(self) -> bool:
        """Whether scores are optimistic for all that is known; shared names alone may be explained."""
        return self.images > 0 or (self.patients > 0 and not self.harmless)

    def sentences(self) -> tuple[str, ...]:
        """What is shared and what that does to scores, each a sentence without its end; none where nothing is."""
        found = []
        if self.images:
            found.append(
                f"{self.images:,} of {self.of:,} {_called(self.second)} images are identical to images of "
                f"{self.first}: {_called(self.second)} scores are optimistic"
            )
        if self.patients:
            found.append(
                f"{self.patients:,} of {self.of_patients:,} patient names of {self.second} are in {self.first}, too: "
                f"{self.harmless or f'if they are the same people, {_called(self.second)} scores are optimistic'}"
            )
        return tuple(found)


def overlaps_of(source: Source, split: Split, pixels: Mapping[str, Sequence[str]] | None = None) -> list[Overlap]:
    """Finds what train, validation and test share, as a study uses them.

    Validation that was cut from train is looked at together with it: whole patients and identical files do not cross
    that cut (a `sixteen`, which ignores patients, says so itself).

    Args:
        source: The data set.
        split: Which of its images train and validate.
        pixels: A hash of each image's decoded pixels by split; without it images are identical where their files are.
            Files of other bytes have the same pixels where a picture was saved anew without loss, say.

    Returns:
        One for each two parts, also where they share nothing.
    """
    keys = pixels or {name: listing.hashes for name, listing in source.splits.items()}
    if split.validation_from == "train":
        used = {"train": np.concatenate([split.train, split.validation])}
        pairs = [("train", "test")]
    else:
        used = {"train": split.train, split.validation_from: split.validation}
        pairs = [("train", split.validation_from), ("train", "test"), (split.validation_from, "test")]
    used["test"] = np.arange(len(source.splits["test"]))
    return [_overlap(source, keys, used, first, second) for first, second in pairs]


def sentences_of(overlaps: Iterable[Overlap]) -> tuple[str, ...]:
    """What is shared, each a sentence without its end."""
    return tuple(sentence for overlap in overlaps for sentence in overlap.sentences())


def lines_of(overlaps: Iterable[Overlap]) -> list[str]:
    """The same as lines for a terminal: `warning: ...`, or `note: ...` where it may be harmless."""
    return [
        f"{'warning' if overlap.serious else 'note'}: {sentence}"
        for overlap in overlaps
        for sentence in overlap.sentences()
    ]


def refuse(overlaps: Iterable[Overlap], location: str, *, allowed: bool) -> None:
    """Refuses test images that a study has seen, unless that is allowed.

    Raises:
        InputError: Some are, with their number and some of their names.
    """
    if allowed:
        return
    faults = []
    for overlap in overlaps:
        if overlap.refused:
            named = "; ".join(f"{ours} = {theirs}" for ours, theirs in overlap.pairs[:NAMED_PAIRS])
            more = f"; and {overlap.images - NAMED_PAIRS:,} more" if overlap.images > NAMED_PAIRS else ""
            faults.append(
                f"{location}: {overlap.images:,} of {overlap.of:,} test images are identical to images of "
                f"{overlap.first}, so test scores would be optimistic ({named}{more}); remove them from one of the two "
                f"(`sweep data verify` names all), or say {OPTION}, which is then written on everything made from it"
            )
    if faults:
        raise InputError(*faults)


def _overlap(
    source: Source, keys: Mapping[str, Sequence[str]], used: Mapping[str, np.ndarray], first: str, second: str
) -> Overlap:
    ours, theirs = source.splits[first], source.splits[second]
    known = {keys[first][row]: ours.names[row] for row in reversed(used[first].tolist())}
    pairs = tuple(
        (known[keys[second][row]], theirs.names[row]) for row in used[second].tolist() if keys[second][row] in known
    )
    names = [named_patients(listing.select(used[part])) for part, listing in ((first, ours), (second, theirs))]
    shared = names[0] & names[1]
    return Overlap(
        first,
        second,
        len(pairs),
        len(used[second]),
        pairs,
        len(shared),
        len(names[1]),
        _harmless(source, first, second, shared) if shared else "",
    )


def named_patients(listing: Listing) -> set[str]:
    """The patients that files name; where none is named, the file's own name with its folder stands for one."""
    return {patient for patient in listing.patients if "/" not in patient}


def _harmless(source: Source, first: str, second: str, shared: set[str]) -> str:
    """Why patients' names of Kermany's films that are in both parts may be different children."""
    kinds: list[set[tuple[str, str | None]]] = []
    for part in (first, second):
        listing = source.splits[part]
        kinds.append(
            {
                (patient, group_of(name))
                for patient, name in zip(listing.patients, listing.names, strict=True)
                if patient in shared
            }
        )
    both = kinds[0] & kinds[1]
    known = all(kind is not None for part in kinds for _, kind in part)
    named = (name.rpartition("/")[2] for name in source.splits[first].names)
    kermany = known and any(any(pattern.match(name) for pattern in KERMANY) for name in named)
    if not kermany or both:
        return ""
    return (
        "none of them with the same kind of pneumonia, so the numbers may have been reused for other children; "
        "file names cannot say"
    )


def _called(part: str) -> str:
    return "validation" if part == "val" else part
