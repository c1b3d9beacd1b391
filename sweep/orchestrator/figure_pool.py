"""Draws what trials came to; in processes aside where hundreds of workers leave the loop of a study no time for it.

Drawing takes longer than all else that a trial costs beside its training (benchmarks/README.md, "Scale"). A few workers
leave time for it, and for them no further process is worth its memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from sweep.metrics import figures
from sweep.metrics.predictions import read_predictions
from sweep.system.hardware import die_with_parent
from sweep.system.signals import blocked, ignore


def draw(history: Sequence[Mapping[str, float]], best_epoch: int, table: Path, name: str) -> dict[str, bytes | str]:
    """Draws a trial's learning curves, and what its network said of the validation images.

    Args:
        history: A row of metrics an epoch.
        best_epoch: The epoch to mark; 0 marks none.
        table: Its predictions, which need not be there.
        name: What it is called.

    Returns:
        PNGs and the table, by their path in the run.
    """
    drawn: dict[str, bytes | str] = {}
    if history:
        curves = figures.learning_curves(pd.DataFrame(list(history)), best_epoch, name)
        drawn["figures/learning_curves.png"] = figures.png(curves)
    if table.is_file():
        drawn |= figures.predictions(read_predictions(table), "validation", name)
    return drawn


class Drawer:
    """Draws trials, ahead of the moment in which their figures are wanted if it has processes for it."""

    def __init__(self, processes: int = 0) -> None:
        """Makes a drawer; processes start with the first trial that they are to draw.

        Args:
            processes: How many; 0 draws here, when the figures are wanted.
        """
        self._pool: ProcessPoolExecutor | None = None
        if processes:
            self._pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_prepare)
        self._begun: dict[int, Future[dict[str, bytes | str]]] = {}

    def begin(self, number: int, *arguments: Any) -> None:
        """Begins to draw a trial aside; `arguments` are those of `draw`."""
        if self._pool is not None:
            with blocked(), suppress(BrokenExecutor):  # its processes were killed; `take` draws here then
                self._begun[number] = self._pool.submit(draw, *arguments)

    def take(self, number: int, *arguments: Any) -> dict[str, bytes | str]:
        """The figures of a trial; waits for them if they have been begun."""
        begun = self._begun.pop(number, None)
        if begun is not None:
            with suppress(BrokenExecutor, OSError):  # as above; or its table went while it was to be read
                return begun.result()
        return draw(*arguments)

    def close(self) -> None:
        """Ends its processes, once what they draw at this moment is drawn."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    ignore()  # they may reach the whole process group; the orchestrator decides
    die_with_parent()
