"""Tables of clinical scores in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan

from rich import box
from rich.table import Table

from sweep.metrics.clinical import AT_PREVALENCE, AT_THRESHOLD, PREDICTIVE, ClinicalScores, percent, written


def clinical_view(clinical: ClinicalScores) -> Table:
    """Sensitivity, specificity and predictive values of a model as it is served, with intervals."""
    heads = (f"as served, at a threshold of {clinical.threshold:.3g}", "(95 % interval)")
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for name, label in clinical.labels().items():
        table.add_row(label, written(clinical.scores[name]))
    return table


def clinical_rows(models: Mapping[str, ClinicalScores]) -> Table:
    """Sensitivity, specificity and predictive values of several models as they are served, one row each.

    Args:
        models: Architecture -> its scores on the same images; at least one.
    """
    first = next(iter(models.values()))
    heads = {
        **AT_THRESHOLD,
        **{name: f"{label} at\n{percent(first.prevalence)}" for name, label in PREDICTIVE.items()},
        **{name: f"{label} at\n{percent(first.stated_prevalence or 0)}" for name, label in AT_PREVALENCE.items()},
    }
    shown = [name for name in heads if name in first.scores]
    table = Table("", *(heads[name] for name in shown), box=box.SIMPLE_HEAD, pad_edge=False)
    for arch, clinical in models.items():
        values = [clinical.scores[name].value for name in shown]
        table.add_row(arch, *("" if isnan(value) else f"{value:.3f}" for value in values))
    return table
