"""The table of finished trials in the terminal, one line per trial as it ends.

It is 80 columns wide with the names of the small networks, and wider where extra hyperparameters are searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np

from sweep.space import FIVE, Space, decided

SHORT = {"learning_rate": "rate", "batch_size": "batch"}  # names that are too long for their column


@dataclass(frozen=True)
class TrialTable:
    """Writes the lines of the table.

    Attributes:
        metric: What the study chooses by.
        hyperparameters: Those that have a column, as `shown_hyperparameters` gives them.
        name_width: Characters of a run's name.
    """

    metric: str
    hyperparameters: Sequence[str]
    name_width: int

    def header(self) -> str:
        """The line above the table."""
        names = [SHORT.get(name, name) for name in self.hyperparameters]
        return self.line("trial", "state", self.metric.removeprefix("val/"), "epoch", "img/s", *names)

    def row(self, name: str, state: str, value: float, history: Sequence[Mapping[str, float]], params: Any) -> str:
        """The line of a trial that is complete or pruned.

        Args:
            name: Of its run.
            state: In lower case.
            value: The metric at its best epoch.
            history: A row of metrics per epoch.
            params: Its hyperparameters.
        """
        speed = np.mean([row["images_per_second"] for row in history])
        values = [params[name] for name in self.hyperparameters]
        cells = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
        return self.line(name, state, f"{value:.4f}", str(len(history)), f"{speed:,.0f}", *cells)

    def line(self, *cells: str) -> str:
        """Puts cells into the columns: name, state, metric, epochs, images/s and the hyperparameters."""
        widths = (self.name_width, 8, 6, 5, 5, 10, 9, 8, 5, 7)
        padded = zip(cells, chain(widths, repeat(15)), strict=False)
        return " ".join(f"{cell:<{width}}" for cell, width in padded).rstrip()


def shown_hyperparameters(space: Space) -> list[str]:
    """The hyperparameters that have a column: the five always, extra ones where the space leaves a choice."""
    return [name for name in space if name in FIVE or name not in decided(space)]
