"""The table of finished trials in the terminal, one line per trial as it ends, at most 80 columns wide.

Hyperparameters that vary in the study have a column, with a short name. Those that every trial shares stand on one line
below the table, as do those for which there was no room.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.space import Choice, Range, Space, decided

WIDTH = 80
# Names and values that are too long for a column.
SHORT = {
    "activation": "activ",
    "optimizer": "optim",
    "learning_rate": "rate",
    "batch_size": "batch",
    "dropout": "drop",
    "augmentation": "augm",
    "normalisation": "norm",
    "pooling": "pool",
    "label_smoothing": "smooth",
    "averaging": "avg",
    "schedule": "sched",
    "warmup_ratio": "warm",
    "first_layer_rate": "first",
    "weight_decay": "decay",
    "drop_path": "path",
    "average": "avg",
    "constant": "const",
    "histogram": "hist",
    "balanced_accuracy": "bal. acc.",
    "average_precision": "av. prec.",
    "stressed_auroc": "str. auroc",
    "stressed_loss": "str. loss",
    "specificity_at_95_sensitivity": "sp. at 95",
    "sensitivity_at_95_specificity": "se. at 95",
}
STATE, EPOCH, SPEED = ("state", 8), ("epoch", 5), ("img/s", 6)  # columns: heading and width


@dataclass(frozen=True)
class TrialTable:
    """Writes the lines of the table.

    Attributes:
        columns: Heading -> width, in characters, from left to right.
        hyperparameters: Those that have a column, in order, with what each can be.
        shared: Hyperparameters that every trial has alike, with their value.
        omitted: Hyperparameters that vary but have no column.
        metric: Heading of the study's metric.
    """

    columns: Mapping[str, int]
    hyperparameters: Space
    shared: Mapping[str, Any]
    omitted: Sequence[str]
    metric: str

    def header(self) -> str:
        """The line above the table."""
        return self._line({name: name for name in self.columns})

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
        cells = {
            "trial": self._label(name),
            "state": state,
            self.metric: f"{value:.4f}",
            "epoch": str(len(history)),
            "img/s": f"{speed:,.0f}",
        }
        return self._line(cells | dict(zip(self.headings(), self.cells(params), strict=True)))

    def beginning(self, name: str, state: str) -> str:
        """The first two columns alone, for a trial about which a sentence follows."""
        return f"{self._label(name):<{self.columns['trial']}} {state}"

    def headings(self) -> list[str]:
        """The headings of the hyperparameters' columns."""
        return [SHORT.get(name, name) for name in self.hyperparameters]

    def cells(self, params: Mapping[str, Any]) -> list[str]:
        """The values of the hyperparameters that have a column, as text."""
        return [
            _format(domain, params[name]) if name in params else "" for name, domain in self.hyperparameters.items()
        ]

    def footer(self) -> str:
        """The line below the table, two where it is long; empty where every hyperparameter has a column."""
        lines = []
        if self.shared:
            values = {name: _short(value) for name, value in self.shared.items()}
            whole, short = (
                "all trials: " + ", ".join(f"{names.get(name, name)} {value}" for name, value in values.items())
                for names in ({}, SHORT)
            )
            lines = [whole if len(whole) <= WIDTH else short]
        if self.omitted:
            lines.append(f"varied without a column here: {', '.join(self.omitted)}")
        return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)

    def _label(self, name: str) -> str:
        return name if len(name) <= self.columns["trial"] else name.rpartition("-")[2]

    def _line(self, cells: Mapping[str, str]) -> str:
        return " ".join(f"{cells[name]:<{width}}" for name, width in self.columns.items()).rstrip()


def trial_table(metric: str, space: Space, name: str) -> TrialTable:
    """Decides on the columns for a study, so that a line has at most WIDTH characters.

    Where there is no room for all, these are left out, the first ones first: the name of the study before the number
    of a trial, the images per second, the epochs, and the last hyperparameters.

    Args:
        metric: What the study chooses by.
        space: What it searches.
        name: The name of its first run.
    """
    score = SHORT.get(metric.removeprefix("val/"), metric.removeprefix("val/"))
    shared = decided(space)
    varying = {name: domain for name, domain in space.items() if name not in shared}
    number = name.rpartition("-")[2]
    first = ("trial", max(len("trial"), len(name))), STATE, (score, max(6, len(score)))
    short = ("trial", max(len("trial"), len(number))), *first[1:]
    layouts = [(*first, EPOCH, SPEED), (*short, EPOCH, SPEED), (*short, EPOCH), short]
    for count in range(len(varying), -1, -1):
        shown = dict(list(varying.items())[:count])
        extra = {SHORT.get(key, key): _width(key, domain) for key, domain in shown.items()}
        for layout in layouts if count == len(varying) else layouts[-1:]:
            columns = {**dict(layout), **extra}
            if sum(columns.values()) + len(columns) - 1 <= WIDTH:
                return TrialTable(columns, shown, shared, list(varying)[count:], score)
    raise ValueError(f"no table of {WIDTH} columns holds the run {name}")  # three short columns always fit


def _width(name: str, domain: Choice | Range) -> int:
    """The characters that a column needs for its heading and for every value."""
    ends = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
    widest = max(len(_format(domain, value)) for value in ends)
    if isinstance(domain, Range):
        widest = max(widest, 8 if domain.log else 0)  # such as 0.000896 or 1.05e-05
    return max(len(SHORT.get(name, name)), widest)


def _format(domain: Choice | Range, value: Any) -> str:
    """A value of a hyperparameter: three digits that differ from trial to trial."""
    if isinstance(domain, Choice) or domain.log:
        return _short(value)
    return f"{value:.{max(0, 2 - math.floor(math.log10(domain.high - domain.low)))}f}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else SHORT.get(value, str(value))
