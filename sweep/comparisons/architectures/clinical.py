"""The report's section on clinical use as plain data, for the page and for its Markdown version."""

from __future__ import annotations

from typing import Any

import numpy as np

from sweep.comparisons.architectures.analysis import Comparison
from sweep.metrics import markdown
from sweep.metrics.bootstrap import CONFIDENCE, Interval
from sweep.metrics.clinical import AT_PREVALENCE, AT_THRESHOLD, NOTE, ON_ROC, PREDICTIVE, percent, written
from sweep.metrics.formatting import ENDS_IN_PRINT

HINT = "`sweep compare --prevalence 0.05` adds predictive values at the prevalence of a population of yours."


def clinical(comparison: Comparison) -> dict[str, Any] | None:
    """What the section says; None for more than two classes.

    Returns:
        `sentence`, which says what the scores hold for; `note`, which says how they are computed; and `groups`:
        (heading, [(label, one cell per model)]), a cell being `value`, `ends` and `both`.
    """
    scores = [model.assessment.clinical for model in comparison.models]
    present = [one for one in scores if one is not None]
    if len(present) < len(scores):
        return None
    first = present[0]
    prevalence = percent(first.prevalence)
    names = [
        ("At each model's own threshold", AT_THRESHOLD | {"sensitivity": "sensitivity (recall)"}),
        (f"Predictive values at the test images' prevalence of {prevalence}", PREDICTIVE),
        (f"Predictive values at a prevalence of {percent(first.stated_prevalence or 0)}", AT_PREVALENCE),
        ("On the ROC curve", ON_ROC),
    ]
    groups = [
        (heading, [(label, [_cell(one.scores[name]) for one in present]) for name, label in labels.items()])
        for heading, labels in names
        if labels.keys() <= first.scores.keys()
    ]
    thresholds = [{"value": f"{one.threshold:.3g}", "ends": "", "both": f"{one.threshold:.3g}"} for one in present]
    groups[0][1].insert(0, ("threshold", thresholds))
    positive = comparison.models[0].predictions.classes[1]
    sentence = (
        f"Each model as it is served, at its own threshold and temperature, on {comparison.images:,} test images of "
        f"{comparison.patients:,} patients; {prevalence} of the images are {positive}."
    )
    return {"sentence": sentence, "note": NOTE, "hint": "" if first.stated_prevalence else HINT, "groups": groups}


def clinical_markdown(comparison: Comparison) -> list[str]:
    """The section in Markdown, as paragraphs; none for more than two classes."""
    section = clinical(comparison)
    if section is None:
        return []
    rows = []
    for heading, lines in section["groups"]:
        rows.append((f"**{heading}**", *("" for _ in comparison.models)))
        rows += [(label, *(cell["both"] for cell in cells)) for label, cells in lines]
    intervals = f"In brackets {100 * CONFIDENCE:g} % intervals, from a bootstrap of whole patients."
    return [
        "## Clinical use",
        section["sentence"],
        markdown.table(("", *(model.arch for model in comparison.models)), rows),
        " ".join(filter(None, (intervals, section["note"], section["hint"]))),
    ]


def _cell(interval: Interval) -> dict[str, str]:
    if np.isnan(interval.value):
        return {"value": "not defined", "ends": "", "both": "not defined"}
    return {"value": f"{interval.value:.3f}", "ends": written(interval, ENDS_IN_PRINT), "both": written(interval)}
