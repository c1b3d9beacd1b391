"""Which images a registered model is scored on: its own test images, unless others are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data import synthetic
from data.faults import InputError
from data.leakage import OPTION
from data.recorded import digest_of_images, open_recorded
from data.sources import PATIENT_PATTERN, Source, open_test, with_depth
from sweep.stores import tags as tag
from sweep.stores.mlflow_stores import PastRun
from sweep.stores.registry import Version

DIGEST = "test digest"  # of a model's test images, in its provenance


@dataclass(frozen=True)
class ScoredData:
    """Test images for a model, and what is to be known about them.

    Attributes:
        source: The images; its only split is `test`.
        digest: Of the images, whatever they are called.
        notes: A sentence each, without its end.
        warnings: What makes the scores say less than they seem to, likewise.
    """

    source: Source
    digest: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def data_for(
    version: Version,
    about: Mapping[str, Any],
    past: PastRun,
    location: Path | None,
    patient_pattern: str,
    depth: int | None = None,
) -> ScoredData:
    """Opens the images that a version is to be scored on.

    Args:
        version: The version.
        about: Its `model.json`.
        past: The run that made it.
        location: Other images than its own; None for its own.
        patient_pattern: As `open_source` takes it; the usual one stands for the model's own.
        depth: Likewise; None stands for the model's own.

    Raises:
        InputError: They are not there, or are of another kind or of other classes.
    """
    classes, drawn = tuple(about["classes"]), past.data_name in synthetic.NAMES
    if patient_pattern == PATIENT_PATTERN:
        patient_pattern = past.params.get("patient_pattern", PATIENT_PATTERN)
    typed, depth = depth, about.get("depth") if depth is None else depth
    if location is not None and drawn:
        raise InputError(
            f"--data {location}: {version.name} learned from the built-in synthetic images, and its scores on others "
            "would say nothing; leave --data out"
        )
    own: Source | None = None
    if location is None:
        own = open_recorded(
            past.data_name, past.data_location, None, whose="the model", patient_pattern=patient_pattern
        )
        own = with_depth(own, depth) if own.kind == "folder" else own
        if own.classes != classes:
            there, known = ", ".join(own.classes), ", ".join(classes)
            raise InputError(
                f"{own.location}: its classes are {there} now, and the model knows {known}; say with --data where "
                "its images are"
            )
        source = replace(own, splits={"test": own.splits["test"]})
    else:
        source = open_test(location, classes, patient_pattern=patient_pattern, depth=depth)
        try:
            own = open_recorded(past.data_name, past.data_location, None, whose="the model")
        except InputError:
            own = None
    with_depth(source, typed)  # refuses what is typed for images that are no files
    digest = digest_of_images(source.splits["test"])
    notes = [*source.notes, _compared(about, past, own, digest, is_own=location is None)]
    if own is None:
        notes.append(f"whether it learned from any of them is not known: its images are not at {past.data_location}")
    warnings, of_study = warnings_of(version)
    seen = 0 if own is None else _seen(own, source, past)
    if seen:
        images = f"{seen:,} of these {len(source.splits['test']):,} images"
        warnings += (f"{images} are identical to images of its training data: scores on them are optimistic",)
    return ScoredData(source, digest, (*notes, *of_study), warnings)


def warnings_of(version: Version) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a version's study has found that speaks against it: warnings, and notes on what may be harmless."""
    warnings, notes = [], []
    if leakage := version.tags.get(tag.LEAKAGE):
        (warnings if OPTION in leakage else notes).append(f"in its study {leakage}")
    if missed := version.tags.get(tag.MISSED_CLASSES):
        warnings.append(missed)
    return tuple(warnings), tuple(notes)


def _compared(about: Mapping[str, Any], past: PastRun, own: Source | None, digest: str, *, is_own: bool) -> str:
    """Whether some images are those that a model was tested on.

    Args:
        about: The model's `model.json`.
        past: The run that made it.
        own: Its own data as they are now; None where they are not there.
        digest: Of the images that are scored.
        is_own: Whether these are of its own data.
    """
    then = about["provenance"].get(DIGEST)
    if then is None and own is not None:  # an earlier release recorded the digest of the whole data set alone
        recorded = past.tags.get(tag.DATA_DIGEST)
        if own.digest == recorded:
            then = digest_of_images(own.splits["test"])
        elif is_own:
            return f"{own.location} has changed since it was tested there (data digest {own.digest}, then {recorded})"
    if then is None:
        return "whether these are the images that it was tested on is not known: an earlier release registered it"
    if then == digest:
        return "the test set is used once more: selecting a model by these scores is selecting on test data"
    changed = f"{own.location} has changed" if own is not None and is_own else "they are others"
    return f"these are not the images that it was tested on: {changed} (digest {digest}, then {then})"


def _seen(own: Source, source: Source, past: PastRun) -> int:
    """How many of some images are identical to those that a run trained on or was chosen by."""
    known = set(own.splits["train"].hashes)
    validation = own.splits.get("val")
    if validation is not None and past.params.get("validation_images") == str(len(validation)):
        known |= set(validation.hashes)
    return sum(content in known for content in source.splits["test"].hashes)
