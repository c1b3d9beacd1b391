"""When trials are ended early: Optuna's pruners by the names of `--pruner`."""

from __future__ import annotations

from dataclasses import dataclass

import optuna


@dataclass(frozen=True)
class Pruning:
    """When trials are ended early.

    Attributes:
        rule: `median`, `hyperband` or `none`.
        warmup: Epochs before a trial can be pruned.
        epochs: Epochs of a trial at most.
    """

    rule: str
    warmup: int
    epochs: int

    def pruner(self) -> optuna.pruners.BasePruner:
        """Makes Optuna's pruner."""
        first = self.warmup + 1  # epochs count from 1, and a pruner may act at its warm-up step itself
        pruners: dict[str, optuna.pruners.BasePruner] = {
            "median": optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=first),
            "hyperband": optuna.pruners.HyperbandPruner(min_resource=first, max_resource=max(self.epochs, first)),
            "none": optuna.pruners.NopPruner(),
        }
        return pruners[self.rule]
