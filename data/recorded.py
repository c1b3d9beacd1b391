"""The images that a study, a run or a model learned from, opened again from where its record says that they were."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from data import synthetic
from data.faults import InputError
from data.listing import path_of
from data.source import Listing, Source
from data.sources import PATIENT_PATTERN, check_depth, open_source, patient_regex, read_synthetic, under_name


def open_recorded(
    name: str,
    location: str,
    now: Path | None,
    *,
    whose: str,
    patient_pattern: str = PATIENT_PATTERN,
    depth: int | None = None,
) -> Source:
    """Opens recorded images.

    Args:
        name: The data set's name on the record.
        location: Where it was.
        now: Where it is now; None for where it was.
        whose: Whose images these are, for errors: `the model`.
        patient_pattern: As `open_source` takes it.
        depth: Likewise.

    Raises:
        InputError: They are not there, cannot be read, or are of another kind than recorded.
    """
    check_depth(depth)
    patient_regex(patient_pattern)  # what was typed wrongly is not the images' fault
    if name in synthetic.NAMES:
        if now is not None:
            raise InputError(f"--data {now}: {whose} learned from the built-in synthetic images; leave --data out")
        return under_name(read_synthetic(), name)
    if now is not None:
        return open_source(now, patient_pattern=patient_pattern, depth=depth)
    if not os.path.exists(path_of(location)):  # noqa: PTH110 - no, too, where a folder above may not be entered
        raise InputError(f"{whose}'s images were at {location}, which is not here; say where with --data")
    try:
        return open_source(path_of(location), patient_pattern=patient_pattern, depth=depth)
    except InputError as error:
        faults = (fault.removeprefix("--data ") for fault in error.faults)
        hint = f"{whose}'s images were at {location} and are not as they were; say where they are with --data"
        raise InputError(hint, *faults) from error


def digest_of_images(listing: Listing) -> str:
    """16 hexadecimal digits that change when an image or its label does, whatever the images are called."""
    rows = sorted(f"{label}\0{content}" for label, content in zip(listing.labels, listing.hashes, strict=True))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]
