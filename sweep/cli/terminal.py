"""What is printed: a live table and progress bars in a terminal, plain lines elsewhere, one JSON object with --json."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from sweep.metrics.formatting import format_duration
from sweep.space import FIVE

if TYPE_CHECKING:
    from sweep.orchestrator.progress import Progress


class Terminal:
    """Prints lines and, in a terminal, keeps a table of the running trials below them."""

    def __init__(self, *, json: bool, csv: bool = False) -> None:
        """Prints to stdout, or to stderr where stdout is kept for JSON or CSV."""
        self.console, self._json = Console(stderr=json or csv, highlight=False, soft_wrap=not sys.stdout.isatty()), json
        self._live: Live | None = None

    @contextmanager
    def live(self) -> Iterator[None]:
        """Keeps the table on the screen while the context is open."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None

    def say(self, text: str) -> None:
        """Prints a line above the table."""
        self.console.print(Text(text))

    def quote(self, command: str) -> None:
        """Prints a command as one line that can be copied, however narrow the terminal."""
        self.console.print(Text(command), soft_wrap=True)

    def update(self, progress: Progress) -> None:
        """Shows the study as it is now in the table."""
        if self._live is not None:
            self._live.update(_live_table(progress))

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Shows a progress bar in a terminal; yields a function that takes the number done so far."""
        if not self.console.is_terminal:
            yield lambda done: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Bar(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)

    def show(self, renderable: Any) -> None:
        """Prints a table or another object of rich."""
        self.console.print(renderable)

    def end(self, code: int = 0, **answer: Any) -> None:
        """Prints the answer as one JSON object where that was asked for; exits where the code is not 0."""
        if self._json:
            print_json({"exit_code": code, **answer})
        if code:
            raise SystemExit(code)


def print_json(value: Any) -> None:
    """Prints one JSON object on stdout, with null for every number that is not finite: JSON has no NaN."""
    print(json.dumps(_finite(value), indent=2, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _live_table(progress: Progress) -> Group:
    """The state of a study: a headline, one row per running trial, and the best one so far."""
    left = "" if progress.seconds_left is None else f", about {format_duration(progress.seconds_left)} left"
    if progress.budget_left is not None and not (progress.seconds_left or math.inf) < progress.budget_left:
        left = f", {format_duration(progress.budget_left)} of the budget left"
    failed = f", {progress.failed} failed" if progress.failed else ""
    head = Text(
        f"study {progress.study}: {progress.done}/{progress.wanted} trials ({progress.pruned} pruned{failed}){left}",
        style="bold",
    )
    name = progress.metric.removeprefix("val/")
    table = Table(
        "trial", "epoch", name, "img/s", "activation", "optimizer", "rate", "batch", "dropout", box=None, pad_edge=False
    )
    for running in progress.running:
        last = running.history[-1] if running.history else None
        table.add_row(
            str(running.asked.number),
            f"{int(last['epoch']) if last else 0}/{progress.epochs}",
            f"{last[progress.metric]:.4f}" if last else "",
            f"{last['images_per_second']:,.0f}" if last else "",
            *_hyperparameters(running.asked.params),
        )
    if progress.best is not None:
        best = progress.best
        table.add_row(
            f"best {best.number}",
            str(best.best_epoch),
            f"{best.value:.4f}",
            "",
            *_hyperparameters(best.params),
            style="green",
        )
    return Group(head, table)


def _hyperparameters(params: dict[str, Any]) -> list[str]:
    """The hyperparameters that fit into a table of 80 columns."""
    values = (params[name] for name in FIVE)
    return [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
