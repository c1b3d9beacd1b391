"""What the comparison report says beside the comparison itself: its date, those of the studies, what is linked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from models import ARCHITECTURES
from sweep.comparisons.architectures.analysis import Comparison
from sweep.comparisons.replication.published import FINAL, TEST_IMAGES

# Test images of the student report's data set, by class.
REPORT_TEST = {"NORMAL": 234, "PNEUMONIA": 390}


@dataclass(frozen=True)
class ReportInfo:
    """What a report is told beside the comparison.

    Attributes:
        made: When it is made, UTC; None leaves its date out.
        studies: When each architecture's study began and ended, UTC.
        checklist: The file beside it that holds the reporting checklist; None where there is none.
        student_report: Whether the section beside the student report was asked for.
    """

    made: datetime | None = None
    studies: Mapping[str, tuple[datetime | None, datetime | None]] = field(default_factory=dict)
    checklist: str | None = None
    student_report: bool = False


def minute(moment: datetime) -> str:
    """A moment to the minute.

    >>> from datetime import UTC
    >>> minute(datetime(2026, 11, 27, 4, 5, 6, tzinfo=UTC))
    '2026-11-27 04:05 UTC'
    """
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def dates(info: ReportInfo) -> list[str]:
    """When the report was made and when its studies were run, a sentence each; empty where nothing is known."""
    days: dict[str, list[str]] = {}
    for arch, (begun, ended) in info.studies.items():
        if begun is not None:
            first, last = f"{begun:%Y-%m-%d}", f"{(ended or begun):%Y-%m-%d}"
            days.setdefault(first if first == last else f"{first} to {last}", []).append(arch)
    sentences = [] if info.made is None else [f"Made {minute(info.made)}."]
    if days:
        spans = "; ".join(f"{', '.join(archs)} {span}" for span, archs in days.items())
        sentences.append(f"Studies: {spans}.")
    return sentences


def date_rows(info: ReportInfo) -> dict[str, str]:
    """The same to the minute, for the table of provenance."""
    rows = {} if info.made is None else {"report made": minute(info.made)}
    for arch, (begun, ended) in info.studies.items():
        if begun is not None:
            rows[f"study, {arch}"] = minute(begun) + (f" to {minute(ended)}" if ended else "")
    return rows


def shows_student_report(comparison: Comparison, info: ReportInfo) -> bool:
    """Whether the section beside the student report is shown: asked for, or sizes and data are the report's own."""
    models = [model for model in comparison.models if model.arch in FINAL]
    if not models or info.student_report:
        return info.student_report
    own_size = all(model.params.get("image_size") == str(ARCHITECTURES[model.arch].image_size) for model in models)
    whole = all("limit" not in model.params for model in models)
    return own_size and whole and _is_report_test(comparison)


def student_report_caveats(comparison: Comparison) -> list[str]:
    """Why the student report's figures and ours do not simply compare, a sentence each."""
    sentences = [
        "Theirs is one run each, selected by test accuracy, which is optimistic; ours was selected on validation."
    ]
    sizes = [
        f"{model.arch} {model.params['image_size']} (theirs {ARCHITECTURES[model.arch].image_size})"
        for model in comparison.models
        if model.arch in FINAL
        and model.params.get("image_size") not in (None, str(ARCHITECTURES[model.arch].image_size))
    ]
    if sizes:
        sentences.append(f"Ours read images of another size, in pixels: {', '.join(sizes)}.")
    limited = [model.arch for model in comparison.models if "limit" in model.params]
    if limited:
        sentences.append(f"Ours learned from a part of the training images alone ({', '.join(limited)}).")
    if not _is_report_test(comparison):
        sentences.append(
            f"Ours are {comparison.images:,} other test images than its {TEST_IMAGES}, so the two do not compare."
        )
    return sentences


def _is_report_test(comparison: Comparison) -> bool:
    """Whether the test images have the classes and counts of the student report's."""
    predictions = comparison.models[0].predictions
    counts = np.bincount(predictions.labels, minlength=len(predictions.classes)).tolist()
    return dict(zip(predictions.classes, counts, strict=True)) == REPORT_TEST
