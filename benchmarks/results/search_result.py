"""The outcome of one architecture's search, and how RESULTS.md writes tables, configurations and means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.results.kept import KeptStudy, Trial
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
    """The outcome of the search of one architecture.

    Attributes:
        study: The search.
        best: The trial that it chose.
        seeds: The same configuration trained with other seeds.
    """

    study: KeptStudy
    best: Trial
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
    """Writes hyperparameters in one line, without extra ones that have their default."""

    def written(name: str) -> str:
        value = params[name]
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    first = f"{written('activation')}, {written('optimizer')} {written('learning_rate')}"
    five = f"{first}, batch {written('batch_size')}, dropout {written('dropout')}"
    extras = [f"{name} {written(name)}" for name, usual in EXTRA.items() if name in params and params[name] != usual]
    return ", ".join([five, *(extra.replace("_", " ") for extra in extras)])


def spread(values: Sequence[float]) -> str:
    """A mean, and in brackets the standard deviation where there are several."""
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else ""
    return f"{np.mean(values):.4f} ({np.std(values, ddof=1):.4f})"


def best_accuracy(trial: Trial) -> float:
    """The test accuracy with the threshold that is best on test itself, which nobody could have known."""
    assert trial.on_test is not None
    labels, positive = trial.on_test.labels, trial.on_test.probabilities()[:, 1]
    return max(float(((positive >= cut) == labels).mean()) for cut in np.unique(positive))
