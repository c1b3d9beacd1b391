"""What is printed: a live table and progress bars in a terminal, plain lines elsewhere, one JSON object with --json."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from data.faults import InputError
from sweep.metrics.formatting import format_duration

if TYPE_CHECKING:
    from sweep.orchestrator.progress import Progress


class Terminal:
    """Prints lines and, in a terminal, keeps a table of the running trials below them."""

    def __init__(self, *, json: bool, csv: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        """Prints to stdout, or to stderr where stdout is kept for JSON or CSV.

        Args:
            json: Whether the answer is one JSON object on stdout.
            csv: Whether it is CSV there.
            quiet: Whether to print results and warnings alone.
            verbose: Whether to print each epoch of each trial, too.

        Raises:
            InputError: Both `quiet` and `verbose` are asked for.
        """
        if quiet and verbose:
            raise InputError("--quiet, --verbose: ask for one of them")
        self._quiet, self._verbose = quiet, verbose
        self._printed: dict[tuple[str, int], int] = {}  # epochs, by study and trial
        self.console, self._json = Console(stderr=json or csv, highlight=False), json
        # What is piped has whole lines. A notebook would give each long one a scroll bar.
        self.console.soft_wrap = not (sys.stdout.isatty() or self.console.is_jupyter)
        self._live: Live | None = None

    @contextmanager
    def live(self) -> Iterator[None]:
        """Keeps the table on the screen while the context is open."""
        # In a notebook rich draws with widgets, where they are installed.
        shown = self.console.is_terminal or (self.console.is_jupyter and find_spec("ipywidgets"))
        if self._quiet or not shown:
            yield
            return
        with Live(console=self.console, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None

    def say(self, text: str) -> None:
        """Prints a line above the table."""
        if not self._quiet or text.startswith("warning"):
            self.console.print(Text(text))

    def quote(self, command: str) -> None:
        """Prints a command as one line that can be copied, however narrow the terminal."""
        self.console.print(Text(command), soft_wrap=True)

    def update(self, progress: Progress) -> None:
        """Shows the study as it is now in the table."""
        if self._verbose:
            for line in self._new_epochs(progress):
                self.say(line)
        if self._live is not None:
            self._live.update(live_view(progress, self.console.width))

    def _new_epochs(self, progress: Progress) -> Iterator[str]:
        """A line for each epoch that has not been printed, of the trials in training."""
        for running in progress.running:
            number, key = running.asked.number, (progress.study, running.asked.number)
            for row in running.history[self._printed.get(key, 0) :]:
                score = f"{progress.table.metric} {row[progress.metric]:.4f}, loss {row['val/loss']:.4f}"
                yield f"trial {number}, epoch {row['epoch']:.0f}: {score}, {row['images_per_second']:,.0f} images/s"
            self._printed[key] = len(running.history)

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Shows a progress bar in a terminal; yields a function that takes the number done so far."""
        if self._quiet or not self.console.is_terminal:
            yield lambda done: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Bar(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)

    def show(self, renderable: Any, *, whole_lines: bool = False) -> None:
        """Prints a table or another object of rich; with `whole_lines` no line is broken, so that it can be copied."""
        self.console.print(renderable, soft_wrap=whole_lines or None)

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


def live_view(progress: Progress, width: int) -> Group:
    """The state of a study: a headline, bars, one row per running trial, the best one so far, and what all share.

    Args:
        progress: The study at the moment.
        width: Characters of a line of the terminal.
    """
    counts, table = progress.counts, progress.table
    failed = f", {counts.failed} failed" if counts.failed else ""
    done = f"study {progress.study}: {progress.done}/{progress.wanted} trials ({counts.pruned} pruned{failed})"
    head = Text(f"{done}{_time_left(progress)}", style="bold")
    heads = ("trial", "epoch", table.metric, "img/s", *table.headings())
    rows = Table(*heads, box=None, pad_edge=False, collapse_padding=True)
    for column in rows.columns:
        column.no_wrap = True
    for running in progress.running:
        last = running.history[-1] if running.history else None
        rows.add_row(
            str(running.asked.number),
            f"{int(last['epoch']) if last else 0}/{progress.epochs}",
            f"{last[progress.metric]:.4f}" if last else "",
            f"{last['images_per_second']:,.0f}" if last else "",
            *table.cells(running.asked.params),
        )
    if (best := counts.best) is not None:
        cells = (f"best {best.number}", str(best.best_epoch), f"{best.value:.4f}", "", *table.cells(best.params))
        rows.add_row(*cells, style="green")
    below = [Text(table.footer(), style="dim")] if progress.done < progress.wanted else []  # else it is printed already
    return Group(head, _bars(progress, width), rows, *below)


def _time_left(progress: Progress) -> str:
    """When the study ends, as the end of its headline; empty before there is anything to go by."""
    left, budget = progress.seconds_left, progress.budget_left
    if progress.done >= progress.wanted:
        return "; finishing"
    if budget is not None and (left is None or left >= budget):
        return f", {format_duration(budget)} of the budget left" if budget >= 1 else ", the budget is used up"
    return "" if left is None else f", about {format_duration(left)} left"


def _bars(progress: Progress, width: int) -> Table:
    """A bar for the study's trials; a second one where the command runs several studies."""
    wanted, done = (sum(column) for column in zip(*progress.studies, strict=True))
    lines = [("this study", progress.done, progress.wanted)]
    lines += [(f"all {len(progress.studies)} studies", done, wanted)] if len(progress.studies) > 1 else []
    grid = Table.grid(padding=(0, 1))
    for name, ended, total in lines:
        completed = min(total, ended + progress.begun)
        bar = ProgressBar(total, completed, width=max(10, min(width, 80) - 34))
        grid.add_row(name, bar, f"{completed / total:4.0%}", f"{ended}/{total}")
    return grid
