"""What a search came to, and how the page writes it down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.results.kept import Kept, Trial
from sweep.metrics.markdown import table as spaced_table
from sweep.space import EXTRA

SHOWN = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
    "f1": "F1",
    "auroc": "AUROC",
}


@dataclass(frozen=True)
class SearchResult:
    """What the search of an architecture came to.

    Attributes:
        study: The search.
        winner: The trial that it chose.
        seeds: The same configuration trained with other seeds.
    """

    study: Kept
    winner: Trial
    seeds: tuple[Trial, ...]

    @property
    def arch(self) -> str:
        """The architecture."""
        return self.study.params["arch"]

    def test(self, name: str) -> list[float]:
        """A test score of each of the other seeds."""
        return [trial.tested[name] for trial in self.seeds]


def table(heads: Sequence[object], lines: Iterable[Sequence[object]]) -> str:
    """A table for an editor: without the spaces that MLflow's page needs."""
    return spaced_table(heads, lines).replace("\u00a0", "")


def configuration(params: Mapping[str, object]) -> str:
    """Hyperparameters in a line, without levers that are as usual."""

    def said(name: str) -> str:
        value = params[name]
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    first = f"{said('activation')}, {said('optimizer')} {said('learning_rate')}"
    five = f"{first}, batch {said('batch_size')}, dropout {said('dropout')}"
    levers = [f"{name} {said(name)}" for name, usual in EXTRA.items() if name in params and params[name] != usual]
    return ", ".join([five, *(lever.replace("_", " ") for lever in levers)])


def spread(values: Sequence[float]) -> str:
    """A mean, and in brackets the standard deviation where there are several."""
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else ""
    return f"{np.mean(values):.4f} ({np.std(values, ddof=1):.4f})"
