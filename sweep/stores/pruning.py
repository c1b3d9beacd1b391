"""When trials are ended early: Optuna's pruners by the names of `--pruner`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from optuna.exceptions import ExperimentalWarning


@dataclass(frozen=True)
class Pruning:
    """When trials are ended early.

    Attributes:
        rule: `median`, `hyperband`, `halving`, `patient` or `none`.
        warmup: Epochs before a trial can be pruned.
        epochs: Epochs of a trial at most.
    """

    rule: str
    warmup: int
    epochs: int

    def pruner(self) -> optuna.pruners.BasePruner:
        """Makes Optuna's pruner."""
        first = self.warmup + 1  # epochs count from 1, and a pruner may act at its warm-up step itself
        median = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=first)
        pruners: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
            "median": lambda: median,
            "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=first),
            # What falls behind may go on for as long as it gets better, within two epochs.
            "patient": lambda: optuna.pruners.PatientPruner(median, patience=2),
            "hyperband": lambda: optuna.pruners.HyperbandPruner(
                min_resource=first, max_resource=max(self.epochs, first)
            ),
            "none": optuna.pruners.NopPruner,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return pruners[self.rule]()
