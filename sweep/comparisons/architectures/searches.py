"""A study and its trials, as far as a comparison shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.metrics.pareto import Choice


@dataclass(frozen=True)
class ScoredTrial:
    """A trial of a search, with its scores.

    Attributes:
        name: Its run's.
        number: Its own.
        state: `COMPLETE`, `PRUNED` or `FAIL`.
        value: The metric of the study at its best epoch; None where it did not get that far.
        validation: Its scores on validation at that epoch, `accuracy`, `auroc`, ...
        test: Its scores on test, computed after the choice; None where they were not.
        seconds: How long it took.
        params: Its hyperparameters.
    """

    name: str
    number: int
    state: str
    value: float | None
    validation: Mapping[str, float]
    test: Mapping[str, float] | None
    seconds: float
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Search:
    """A study, as far as a comparison shows it.

    Attributes:
        name: Its full name.
        metric: What it chose by; of several metrics the first.
        maximize: Whether more of it is better.
        trials: In the order in which they were begun.
        importances: How much of the value's variance each hyperparameter explains; empty where too few trials tell.
        choice: How a trial was chosen by several metrics; None with one.
    """

    name: str
    metric: str
    maximize: bool
    trials: tuple[ScoredTrial, ...]
    importances: Mapping[str, float]
    choice: Choice | None = None
