"""The table of clinical scores in the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from sweep.metrics.clinical import ClinicalScores, written


def clinical_view(clinical: ClinicalScores) -> Table:
    """Sensitivity, specificity and predictive values of a model as it is served."""
    heads = (f"as served, at a threshold of {clinical.threshold:.3g}", "(95 % interval)")
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for name, label in clinical.labels().items():
        table.add_row(label, written(clinical.scores[name]))
    return table
