"""Draws the figures of trials; in other processes where hundreds of workers leave the loop of a study no time for it.

Drawing takes longer than everything else that a trial costs beside its training (benchmarks/README.md, "Scale"). A few
workers leave time for it, and for them further processes are not worth their memory.
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
    """Draws a trial's learning curves, and figures of its predictions for the validation images.

    Args:
        history: A row of metrics per epoch.
        best_epoch: The epoch to mark; 0 marks none.
        table: File of its predictions; left out where there is none.
        name: Of its run.

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


class FigurePool:
    """Draws the figures of trials; ahead of the moment in which they are needed, if it has processes for it."""

    def __init__(self, processes: int = 0) -> None:
        """Makes the pool; its processes start with the first trial that they are to draw.

        Args:
            processes: How many; 0 draws in this process, when the figures are needed.
        """
        self._pool: ProcessPoolExecutor | None = None
        if processes:
            with suppress(OSError):  # without a /dev/shm there are no locks between processes
                self._pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_prepare)
        self._begun: dict[int, Future[dict[str, bytes | str]]] = {}

    def begin(self, number: int, *arguments: Any) -> None:
        """Begins to draw a trial in another process; `arguments` are those of `draw`."""
        if self._pool is not None:
            with blocked(), suppress(BrokenExecutor):  # its processes were killed; then `take` draws
                self._begun[number] = self._pool.submit(draw, *arguments)

    def take(self, number: int, *arguments: Any) -> dict[str, bytes | str]:
        """The figures of a trial; waits for them if they have been begun."""
        begun = self._begun.pop(number, None)
        if begun is not None:
            with suppress(BrokenExecutor, OSError):  # as above; or its table was removed before it was read
                return begun.result()
        return draw(*arguments)

    def close(self) -> None:
        """Ends its processes, once they have drawn what they are drawing."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    ignore()  # signals may reach the whole process group; the orchestrator decides
    die_with_parent()
