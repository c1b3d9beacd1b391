"""`sweep data info`, `verify` and `download`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.sources import PATIENT_PATTERN, Source, open_source
from data.sources import download as download_images
from data.verify import verify as verify_source
from sweep.cli import options as option

NAMED = 10  # lines of a kind that are printed


def info(
    data: option.Data = None,
    patient_pattern: option.PatientPattern = PATIENT_PATTERN,
    depth: option.Depth = None,
    json: option.Json = False,
) -> None:
    """Say what data there is: where from, how many images and patients of each class, and its digest."""
    from sweep.cli.views import source_view
    from sweep.terminal import Terminal

    source = open_source(data, patient_pattern=patient_pattern, depth=depth)
    terminal = Terminal(json=json)
    terminal.say(f"{source.name}: {source.kind}, {source.location}, digest {source.digest}")
    terminal.show(source_view(source))
    for note in source.notes:
        terminal.say(f"note: {note}")
    terminal.end(**source_to_dict(source))


def verify(
    data: option.Data = None,
    patient_pattern: option.PatientPattern = PATIENT_PATTERN,
    depth: option.Depth = None,
    json: option.Json = False,
) -> None:
    """Decode every image and say what is wrong: unreadable files, duplicates, near ones too, patients on both sides."""
    from sweep.terminal import Terminal

    source = open_source(data, patient_pattern=patient_pattern, depth=depth)
    terminal = Terminal(json=json)
    images = sum(len(listing) for listing in source.splits.values())
    with terminal.counting("decoding", images) as progress:
        result = verify_source(source, progress)
    notes = [*source.notes, *result.notes]
    for note in notes:
        terminal.say(f"note: {note}")
    kinds = (
        [f"{Path(source.location) / name}: {why}" for name, why in result.unreadable.items()],
        [f"the same picture has two labels: {', '.join(names)}" for names in result.two_labels],
        [f"the same picture is in two splits: {', '.join(names)}" for names in result.two_splits],
    )
    for sentences in kinds:
        for sentence in _some(sentences):
            terminal.say(f"wrong: {sentence}")
    for pair, count in ((pair, count) for pair, count in result.shared_images.items() if count):
        terminal.say(f"wrong: {count:,} pictures are in both {pair}: scores on the second are optimistic")
    found = [f"{count:,} patient names are in both {pair}" for pair, count in result.shared_patients.items() if count]
    groups = f"{result.identical_groups:,} groups of identical files"
    found.append(f"{groups}; each stays on one side of the validation split")
    if result.saved_anew:
        anew = f"{result.saved_anew:,} groups of one picture in files that differ"
        found.append(f"{anew}; a validation split may have some on both sides")
    for note in found:
        terminal.say(f"note: {note}")
    for kind, pairs in result.near_duplicates.items():
        terminal.say(f"look at: {result.near_counts[kind]:,} pairs of nearly the same picture in {kind}")
        for line in _some([f"{pair.first} ~ {pair.second} (correlation {pair.correlation:.3f})" for pair in pairs]):
            terminal.say(f"  {line}")
    wrong = sum(map(len, kinds))
    terminal.say(f"{source.name}: {images:,} images, {wrong:,} things wrong")
    terminal.end(1 if wrong else 0, data=source.name, images=images, **{**asdict(result), "notes": notes})


def _some(lines: list[str]) -> list[str]:
    """The first of many lines, and how many more there are."""
    more = len(lines) - NAMED
    return lines if more <= 0 else [*lines[:NAMED], f"... and {more:,} more (--json names all)"]


def download(json: option.Json = False) -> None:
    """Download Kaggle's chest X-rays (1.2 GB); without --data they are used from then on."""
    from sweep.terminal import Terminal

    terminal, folder = Terminal(json=json), download_images()
    terminal.say(f"the data set is at {folder}; it is used wherever --data is not given")
    terminal.end(folder=str(folder))


def source_to_dict(source: Source) -> dict[str, Any]:
    """A data set as plain data: its name, place and digest, and how many images and patients each split has."""
    return {
        "name": source.name,
        "kind": source.kind,
        "location": source.location,
        "digest": source.digest,
        "classes": list(source.classes),
        "images": source.counts(),
        "patients": {split: len(set(listing.patients)) for split, listing in source.splits.items()},
        "notes": list(source.notes),
    }
