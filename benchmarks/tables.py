"""The figures of a benchmark as a table: for the terminal, for the page and for programs."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from sweep.metrics.markdown import table as markdown_table

ROOT = Path(__file__).parents[1]
# What would send the stores of a measured command elsewhere.
FOREIGN = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "OPTUNA_STORAGE")


@dataclass(frozen=True)
class Options:
    """The options that every benchmark takes.

    Attributes:
        data: A folder of images, as `sweep --data` takes it; None takes the built-in synthetic ones.
        seed: Every random draw comes from it.
        repeats: How often each figure is taken; medians and spreads are over these.
        device: `cpu`, or `cuda` for the parts that train in a process of their own: training and sharing.
        quick: Everything as small as it can be: shows that the benchmark runs, and measures nothing.
    """

    data: Path | None
    seed: int = 0
    repeats: int = 5
    quick: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Table:
    """One table of figures.

    Attributes:
        name: What it is called in JSON.
        title: One line.
        columns: Their names.
        rows: One cell per column, as text.
        values: The figures behind it, by name: every repeat of each, for programs.
        notes: Sentences on how it was measured.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    values: dict[str, list[float]]
    notes: tuple[str, ...] = ()

    def show(self, console: Console) -> None:
        """Prints it."""
        shown = RichTable(title=self.title, title_justify="left", caption="\n".join(self.notes), caption_justify="left")
        for index, column in enumerate(self.columns):
            shown.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            shown.add_row(*row)
        console.print(shown)

    def markdown(self) -> str:
        """The same for a page."""
        notes = "".join(f"{note}\n" for note in self.notes)
        return f"### {self.title}\n\n{markdown_table(self.columns, self.rows)}\n\n{notes}"


def median(values: Sequence[float], digits: int = 2) -> str:
    """Median and range, such as `3.21 (3.10 to 3.40)`; one value alone as it is."""
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def ratio(values: Sequence[float], to: Sequence[float]) -> str:
    """How many times as large, repeat by repeat: figures taken side by side are compared, not their means."""
    return median([value / other for value, other in zip(values, to, strict=True)])


def progress(text: str) -> None:
    """Says on stderr what is known already: tables come late, and who waits may have little time."""
    print(text, file=sys.stderr, flush=True)


def environment(**more: str) -> dict[str, str]:
    """The environment of a command that is measured in a directory of its own: it finds this checkout, no other stores.

    Args:
        more: Further variables.
    """
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return {**kept, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", **more}
