"""What the terminal shows: a live table in a terminal, plain lines anywhere else, one JSON object with --json."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from sweep.metrics.formatting import format_duration
from sweep.metrics.names import NOT_A_DEVICE, THRESHOLD_FREE
from sweep.space import FIVE
from sweep.system.redaction import address, shown

if TYPE_CHECKING:
    import pandas as pd

    from data.sources import Source
    from sweep.comparisons.replay import Replay
    from sweep.lifecycle.evaluate import Evaluation
    from sweep.orchestrator.conclude import Outcome
    from sweep.orchestrator.progress import Progress
    from sweep.plan import Estimate, Plan
    from sweep.stores.registry import Version


class Terminal:
    """The view of a sweep: says lines, and keeps a table of what runs below them where there is a terminal."""

    def __init__(self, *, to_stderr: bool) -> None:
        """Opens the view on stdout, or on stderr where stdout belongs to a JSON object."""
        self.console = Console(stderr=to_stderr, highlight=False, soft_wrap=not sys.stdout.isatty())
        self._live: Live | None = None

    @contextmanager
    def live(self) -> Iterator[None]:
        """Keeps the table on the screen meanwhile."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None

    def say(self, text: str) -> None:
        """Says a line above the table."""
        self.console.print(Text(text))

    def quote(self, command: str) -> None:
        """Shows a command as one line that can be copied, however narrow the terminal."""
        self.console.print(Text(command), soft_wrap=True)

    def update(self, progress: Progress) -> None:
        """Shows the study as it is now."""
        if self._live is not None:
            self._live.update(_study(progress))

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Shows a bar that fills up, in a terminal."""
        if not self.console.is_terminal:
            yield lambda done: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Bar(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)

    def show(self, renderable: Any) -> None:
        """Prints something of rich's."""
        self.console.print(renderable)


def data_line(plan: Plan) -> str:
    """One line that says which images a sweep learns from."""
    source = plan.source
    if source.kind == "phantom":
        what = "data: the built-in phantom (synthetic radiographs, not X-rays; give real ones with --data DIR)"
    else:
        what = f"data: {source.name} from {source.location}"
    train, validation, test = len(plan.split.train), len(plan.split.validation), len(source.splits["test"])
    return f"{what}: {train:,} train, {validation:,} validation, {test:,} test"


def plan_view(plan: Plan, estimates: Sequence[Estimate]) -> Group:
    """What --dry-run prints."""
    source, split, settings = plan.source, plan.split, plan.settings
    counts = Table("split", *map(escape, source.classes), "images", title="Images", title_justify="left")
    parts = {
        "train": source.splits["train"].labels[split.train],
        "validation": source.splits[split.validation_from].labels[split.validation],
        "test": source.splits["test"].labels,
    }
    for part, labels in parts.items():
        counts.add_row(
            part, *(f"{(labels == label).sum():,}" for label in range(len(source.classes))), f"{len(labels):,}"
        )
    how = "by patient, stratified" if split.validation_from == "train" else "the data set's own val"
    lines = [
        Text(data_line(plan)),
        *(Text(f"note: {note}") for note in (*source.notes, *split.notes)),
        counts,
        Text(f"validation: {how}; split {split.digest}, data {source.digest}"),
    ]
    for planned, estimate in zip(plan.studies, estimates, strict=True):
        space = Table("hyperparameter", "searched", title=f"Study {plan.full_name(planned)}", title_justify="left")
        for name, domain in planned.space.items():
            space.add_row(name, str(domain))
        lines += [
            Text(),
            space,
            Text(
                f"{settings.trials} trials of up to {settings.epochs} epochs at "
                f"{planned.image_size} x {planned.image_size} pixels, chosen by {settings.metric}\n"
                f"{estimate.parameters:,} parameters; {plan.workers} at once on {plan.device} in {plan.precision}, "
                f"{estimate.images_per_second:,.0f} images/s each\n"
                f"about {format_duration(estimate.seconds)} if nothing is pruned or stops early, and up to "
                f"{estimate.disk / 1e6:,.0f} MB of disk"
            ),
        ]
    return Group(*lines, Text("\ndry run: nothing was written"))


def outcome_view(outcome: Outcome, plan: Plan) -> Group:
    """The end of a study: the best configuration, its scores, and what to type next."""
    best = Table.grid(padding=(0, 2))
    for name, value in outcome.best.params.items():
        best.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    heads = ("score", "validation", "test (95 % interval)", escape(f"all {outcome.test.always}"))
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for name, interval in outcome.test.scores.items():
        base = outcome.test.baseline.get(name)
        seen = outcome.validation.scores[name].value
        table.add_row(name, f"{seen:.3f}", str(interval), "" if base is None else f"{base:.3f}")
    lines: list[Any] = [
        Text(f"\nbest of study {outcome.study}: trial {outcome.best.number}", style="bold"),
        best,
        Text(),
        table,
    ]
    if outcome.threshold is not None:
        lines.append(Text(f"threshold {outcome.threshold.value:g}: {outcome.threshold.reason}"))
    if outcome.test.at_threshold is not None:
        lines.append(Text(f"test accuracy at that threshold: {outcome.test.at_threshold['accuracy']}"))
    if plan.source.kind == "phantom":
        lines.append(Text("learned from the phantom: these scores say nothing about X-rays", style="yellow"))
    lines.append(Text(f"registered as {outcome.model} version {outcome.version}"))
    lines += [Text(f"  @{alias}: {sentence}") for alias, sentence in outcome.seats.items()]
    lines.append(
        Text("trials: " + ", ".join(f"{count} {state.lower()}" for state, count in sorted(outcome.counts.items())))
    )
    return Group(*lines)


def answers_view(answers: pd.DataFrame, version: Version, about: Mapping[str, Any]) -> Group:
    """What a model says of image files, and how many it gives each label."""
    if answers.empty:
        return Group(Text("no image could be read"))
    folders = {Path(file).parent for file in answers["file"]}
    where = folders.pop() if len(folders) == 1 else None
    lines = [] if where is None else [Text(f"images in {where}:")]
    table = Table("file", "label", *map(escape, about["classes"]), box=box.SIMPLE_HEAD, pad_edge=False)
    for row in answers.to_dict("records"):
        table.add_row(
            Text(row["file"] if where is None else Path(row["file"]).name, overflow="fold"),
            escape(row["label"]),
            *(f"{row[f'probability_{name}']:.3f}" for name in about["classes"]),
        )
    counts = answers["label"].value_counts()
    said = ", ".join(f"{counts.get(name, 0):,} {name}" for name in about["classes"])
    threshold = answers["threshold"].iloc[0]
    cut = "" if threshold is None else f", {about['positive']} from {threshold:g} on"
    model = f"{version.name} version {version.version} ({about['architecture']}{cut})"
    return Group(
        *lines, table, Text(f"{len(answers):,} images, {said}; {model}"), Text(NOT_A_DEVICE.strip("*"), style="dim")
    )


def evaluation_view(evaluation: Evaluation, source: Source) -> Group:
    """The scores of a version on some images."""
    found, version = evaluation.assessment, evaluation.version
    tuned = found.at_threshold
    heads = ["score", "(95 % interval)" if found.threshold is None else "at 0.5 (95 %)"]
    if tuned is not None:
        heads.append(f"at {found.threshold:.3g} (95 %)")
    table = Table(*heads, escape(f"all {found.always}"), box=box.SIMPLE_HEAD, pad_edge=False)
    for name, interval in found.scores.items():
        base = found.baseline.get(name)
        own = [] if tuned is None else ["" if name in THRESHOLD_FREE else str(tuned[name])]
        table.add_row(name, str(interval), *own, "" if base is None else f"{base:.3f}")
    kept = "" if found.threshold is None else f", threshold {found.threshold:g}"
    return Group(
        Text(f"{version.name} version {version.version} on {found.images:,} images of {source.location}", style="bold"),
        table,
        Text(f"temperature {found.temperature:.3f}{kept}; intervals from drawing {found.patients:,} patients anew"),
        Text(f"logged as run {evaluation.run_id}"),
    )


def replay_view(name: str, replay: Replay) -> Group:
    """What a replay came to, and what may explain it where numbers differ."""
    if replay.equal:
        return Group(Text(f"{name}: {replay.epochs} epochs, {replay.metrics} metrics, every one equal", style="bold"))
    lines: list[Any] = [Text(f"{name} came out otherwise", style="bold")]
    if replay.differences:
        lines.append(Text(f"{len(replay.differences)} of {replay.metrics} metrics differ"))
    if replay.ending:
        lines.append(Text(replay.ending))
    if replay.surroundings:
        table = Table("what differs around it", "then", "now")
        for tag, (then, now) in replay.surroundings.items():
            table.add_row(tag.removeprefix("sweep.").removeprefix("mlflow.source."), then, now)
        lines.append(table)
    else:
        lines.append(Text("machine, versions and commit are the same"))
    return Group(*lines)


def replay_json(replay: Replay) -> dict[str, Any]:
    """A replay as plain data."""
    return {**dataclasses.asdict(replay), "equal": replay.equal}


def next_commands(outcomes: Sequence[Outcome], plan: Plan, experiment_id: str) -> Group:
    """The three commands to type next."""
    uri = plan.settings.tracking_uri or ""
    # No browser takes `***`; it asks for what is missing, and MLflow's own commands take it from the environment.
    uri = shown(address(uri) if uri.startswith("http") else uri)
    remote = f"MLFLOW_TRACKING_URI={uri} " if uri and not uri.endswith("/mlflow.db") else ""
    last = outcomes[-1]
    page = f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    commands = (
        (f"{uri}{page}", "look at it")
        if uri.startswith("http")
        else (f"{remote}mlflow ui", f"look at it: http://127.0.0.1:5000{page}"),
        (f"{remote}mlflow models serve -m models:/{last.model}@{last.arch} --env-manager local -p 5001", "serve it"),
        ("optuna-dashboard sqlite:///optuna.db", "look at the search (pip install optuna-dashboard)")
        if plan.settings.storage is None
        else (f"optuna-dashboard {shown(plan.settings.storage)}", "look at the search (pip install optuna-dashboard)"),
    )
    lines = [Text("\nnext:", style="bold")]
    for command, why in commands:
        lines += [Text(f"  {command}"), Text(f"      {why}", style="dim")]
    return Group(*lines)


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """A study's outcome as plain data."""
    best = outcome.best
    plain = {
        field.name: getattr(outcome, field.name)
        for field in dataclasses.fields(outcome)
        if field.name not in ("best", "threshold", "validation", "test")
    }
    threshold = None if outcome.threshold is None else dataclasses.asdict(outcome.threshold)
    return {
        **plain,
        "validation": outcome.validation.values("val"),
        "test": outcome.test.values("test"),
        "intervals": {name: [interval.low, interval.high] for name, interval in outcome.test.scores.items()},
        "temperature": outcome.test.temperature,
        "threshold": threshold,
        "best": {
            "trial": best.number,
            "params": best.params,
            "value": best.value,
            "epoch": best.best_epoch,
        },
    }


def print_json(value: Any) -> None:
    """Prints the one object on stdout; a number that there is none of is null, since JSON knows no NaN."""
    print(json.dumps(_known(value), indent=2, default=str))


def _known(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _known(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_known(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _study(progress: Progress) -> Group:
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
            *_five(running.asked.params),
        )
    if progress.best is not None:
        best = progress.best
        table.add_row(
            f"best {best.number}",
            str(best.best_epoch),
            f"{best.value:.4f}",
            "",
            *_five(best.params),
            style="green",
        )
    return Group(head, table)


def _five(params: dict[str, Any]) -> list[str]:
    """The hyperparameters that there is room for in 80 columns."""
    values = (params[name] for name in FIVE)
    return [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
