"""Tables of the search, of registered models and of replays; those of comparisons are in `comparison_views`."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from data.leakage import lines_of
from sweep.cli.sweep_view import best_alias
from sweep.metrics.formatting import counted, format_duration, format_probability
from sweep.metrics.names import NOT_A_DEVICE, THRESHOLD_FREE, label_of
from sweep.orchestrator.trial_table import WIDTH
from sweep.plan import data_line, overlaps
from sweep.space import ready_space
from sweep.stores.databases import file_of
from sweep.stores.experiment_page import runs_page
from sweep.stores.tags import DATA_DIGEST
from sweep.system.redaction import address, shown

if TYPE_CHECKING:
    import pandas as pd

    from data.sources import Source
    from sweep.comparisons.replay import Replay
    from sweep.lifecycle.evaluate import Evaluation
    from sweep.lifecycle.scored_data import ScoredData
    from sweep.metrics.pareto import Choice
    from sweep.orchestrator.conclude import Outcome
    from sweep.plan import Estimate, Plan, PlannedStudy
    from sweep.settings import Settings
    from sweep.stores.registry import Version


def plan_view(plan: Plan, estimates: Sequence[Estimate]) -> Group:
    """What --dry-run prints: images of each part, then the space and the cost of each study."""
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
        *map(Text, lines_of(overlaps(plan))),
        counts,
        Text(f"validation: {how}; split {split.digest}, data {source.digest}"),
    ]
    for planned, estimate in zip(plan.studies, estimates, strict=True):
        title = f"Study {plan.full_name(planned)}: space {settings.space}"
        space = Table("hyperparameter", "searched", title=title, title_justify="left")
        for name, domain in planned.space.items():
            space.add_row(name, str(domain))
        lines += [
            Text(),
            space,
            *_changed(planned, settings),
            *(Text(textwrap.fill(f"begins with: {start}", WIDTH)) for start in planned.starts),
            Text(
                f"{counted(settings.trials, 'trial')} of up to {counted(settings.epochs, 'epoch')} at "
                f"{planned.image_size} x {planned.image_size} pixels, chosen by {' and '.join(settings.metrics)}"
                f"{', and none is pruned' if len(settings.metrics) > 1 else ''}\n"
                f"{estimate.parameters:,} parameters; {plan.workers} at once on {plan.device} in {plan.precision}, "
                f"{estimate.images_per_second:,.0f} images/s each\n"
                f"about {format_duration(estimate.seconds)} if nothing is pruned or stops early, and up to "
                f"{estimate.disk / 1e6:,.0f} MB of disk"
            ),
        ]
    return Group(*lines, Text("\ndry run: nothing was written"))


def _changed(planned: PlannedStudy, settings: Settings) -> list[Text]:
    """What --fix and --search changed of a ready space; nothing where they did not."""
    ready = ready_space(planned.arch, settings.space, pretrained=settings.pretrained)
    changed = [key for key, domain in planned.space.items() if ready.get(key) != domain]
    return [Text(textwrap.fill(f"changed by --fix and --search: {', '.join(changed)}", WIDTH))] if changed else []


def outcome_view(outcome: Outcome, plan: Plan) -> Group:
    """The end of a study: the best configuration, its scores, the registered version and its aliases."""
    params = outcome.best.params.items()
    best = ", ".join(f"{name} {f'{value:.4g}' if isinstance(value, float) else value}" for name, value in params)
    heads = ("score", "validation", "test (95 % interval)", escape(f"all {outcome.test.always}"))
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for name, interval in outcome.test.served.items():
        base = outcome.test.baseline.get(name)
        validation = outcome.validation.served[name].value
        label = label_of(name, two=outcome.threshold is not None)
        table.add_row(label, f"{validation:.3f}", str(interval), "" if base is None else f"{base:.3f}")
    lines: list[Any] = [
        Text(f"\nbest of study {outcome.study}: trial {outcome.best.number}", style="bold"),
        Text(textwrap.fill(best, WIDTH)),
        *_held_against_default(outcome, plan.settings.metric),
        Text(),
        table,
    ]
    if outcome.choice is not None:
        lines += [_front(outcome.choice), Text(textwrap.fill(outcome.choice.sentence, WIDTH)), Text()]
    if outcome.threshold is not None:
        lines.append(Text(f"threshold {outcome.threshold.value:.4g}: {outcome.threshold.reason}"))
    if outcome.test.at_threshold is not None:
        lines.append(Text(f"the scores are at that threshold; test accuracy at 0.5: {outcome.test.scores['accuracy']}"))
    if plan.source.kind == "synthetic":
        lines.append(Text("learned from synthetic images: these scores say nothing about X-rays", style="yellow"))
    lines += [Text(f"warning: {sentence}", style="yellow") for sentence in outcome.warnings]
    lines.append(Text(f"registered as {outcome.model} version {outcome.version}"))
    lines += [Text(f"  @{alias}: {sentence}") for alias, sentence in outcome.aliases.items()]
    lines.append(
        Text("trials: " + ", ".join(f"{count} {state.lower()}" for state, count in sorted(outcome.counts.items())))
    )
    return Group(*lines)


def _held_against_default(outcome: Outcome, metric: str) -> list[Text]:
    """What the search gained over no search, on the validation images that it chose by."""
    default, best = outcome.default, outcome.best
    if default is None or default.value is None or best.value is None or outcome.choice is not None:
        return []
    if default.number == best.number:
        return [Text("that is the default configuration: the search found none that is better")]
    gain = f"{metric} {best.value:.4f}, {best.value - default.value:+.4f} against the default configuration"
    return [Text(f"{gain} (trial {default.number})")]


def _front(choice: Choice) -> Table:
    """The trials that no other one beats in all metrics."""
    table = Table("trial", *choice.metrics, title="Pareto front", title_justify="left", box=box.SIMPLE_HEAD)
    for row in choice.rows():
        number, *values = row.values()
        mark = " *" if number == choice.chosen.number else ""
        table.add_row(f"{number}{mark}", *(f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}" for value in values))
    return table


def answers_view(answers: pd.DataFrame, version: Version, about: Mapping[str, Any]) -> Group:
    """The labels and probabilities of image files, and the number of images with each label."""
    if answers.empty:
        return Group(Text("no image could be read"))
    folders = {Path(file).parent for file in answers["file"]}
    where = folders.pop() if len(folders) == 1 else None
    lines = [] if where is None else [Text(f"images in {where}:")]
    of_ensemble = "disagreement" in answers
    heads = ("file", "label", *map(escape, about["classes"]), *(["disagreement"] if of_ensemble else []))
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in answers.to_dict("records"):
        table.add_row(
            Text(row["file"] if where is None else Path(row["file"]).name, overflow="fold"),
            escape(row["label"]),
            *(format_probability(row[f"probability_{name}"]) for name in about["classes"]),
            *([f"{row['disagreement']:.3f}"] if of_ensemble else []),
        )
    counts = answers["label"].value_counts()
    totals = ", ".join(f"{counts.get(name, 0):,} {name}" for name in about["classes"])
    threshold = answers["threshold"].iloc[0]
    cut = "" if threshold is None else f", {about['positive']} from {threshold:.4g} on"
    learned = f"learned from {about['name']}, data digest {version.tags.get(DATA_DIGEST, 'unknown')}"
    model = f"{version.name} version {version.version} ({about['architecture']}{cut}), {learned}"
    notes = [f"{len(answers):,} images, {totals}; {model}"]
    if of_ensemble:
        spread = "standard deviation of the probabilities of its members"
        notes.append(f"disagreement: {spread}, {len(about['members'])} networks")
    return Group(*lines, table, *map(Text, notes), Text(NOT_A_DEVICE.strip("*"), style="dim"))


def evaluation_view(evaluation: Evaluation, scored: ScoredData) -> Group:
    """The scores of a registered version on the test images of a data set."""
    from sweep.cli.clinical_views import clinical_view  # it loads scikit-learn, which the other tables need not

    assessment, version = evaluation.assessment, evaluation.version
    own = assessment.at_threshold is not None
    heads = ["score", "(95 % interval)" if assessment.threshold is None else f"at {assessment.threshold:.3g} (95 %)"]
    if own:
        heads.append("at 0.5 (95 %)")
    table = Table(*heads, escape(f"all {assessment.always}"), box=box.SIMPLE_HEAD, pad_edge=False)
    for name, interval in assessment.scores.items():
        base = assessment.baseline.get(name)
        half = ["" if name in THRESHOLD_FREE else str(interval)] if own else []
        label = label_of(name, two=assessment.threshold is not None)
        table.add_row(label, str(assessment.served[name]), *half, "" if base is None else f"{base:.3f}")
    clinical = [] if assessment.clinical is None else [clinical_view(assessment.clinical)]
    title = f"{version.name} version {version.version} on {assessment.images:,} images of {scored.source.location}"
    counts = ", ".join(f"{count:,} {name}" for name, count in evaluation.counts.items())
    kept = "" if assessment.threshold is None else f", threshold {assessment.threshold:.4g}"
    intervals = f"intervals from a bootstrap of {assessment.patients:,} patients"
    return Group(
        Text(title, style="bold"),
        Text(f"test images: {counts}; digest {scored.digest}"),
        table,
        *clinical,
        Text(f"temperature {assessment.temperature:.3f}{kept}; {intervals}"),
        Text(f"logged as run {evaluation.run_id}"),
    )


def replay_view(name: str, replay: Replay) -> Group:
    """Whether a replay gave the same numbers, and if not, what differs in its environment."""
    if replay.equal:
        return Group(Text(f"{name}: {replay.epochs} epochs, {replay.metrics} metrics, every one equal", style="bold"))
    lines: list[Any] = [Text(f"{name}: the numbers differ", style="bold")]
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


def next_commands(outcomes: Sequence[Outcome], plan: Plan, experiment_id: str, champion: Version | None) -> Group:
    """The commands to type next: MLflow's pages, a server for the best model, the comparison, Optuna's dashboard.

    Args:
        outcomes: Of the studies.
        plan: What ran.
        experiment_id: MLflow's number of the experiment.
        champion: The version that holds `champion`; None where nobody does.
    """
    several, alias = len(outcomes) > 1, best_alias(outcomes, plan.settings.metric, champion)
    uri = plan.settings.tracking_uri or ""
    # Without the password: a browser asks for it, and MLflow's own commands read it from the environment.
    uri = shown(address(uri) if uri.startswith("http") else uri)
    remote = _before_mlflow(uri)
    last = outcomes[-1]
    page = runs_page(experiment_id)
    commands = (
        (f"{uri}{page}", "look at it")
        if uri.startswith("http")
        else (f"{remote}mlflow ui", f"look at it: http://127.0.0.1:5000{page}"),
        (f"{remote}mlflow models serve -m models:/{last.model}@{alias} --env-manager local -p 5001", "serve it"),
        *([(f"sweep compare {last.model}{_stores(plan)}", "compare them on the same test images")] if several else ()),
        ("optuna-dashboard sqlite:///optuna.db", "look at the search (pip install optuna-dashboard)")
        if plan.settings.storage is None
        else (f"optuna-dashboard {shown(plan.settings.storage)}", "look at the search (pip install optuna-dashboard)"),
    )
    lines = [Text("\nnext:", style="bold")]
    for command, why in commands:
        lines += [Text(f"  {command}"), Text(f"      {why}", style="dim")]
    return Group(*lines)


def _stores(plan: Plan) -> str:
    """The options that name the stores of a sweep, where neither the defaults nor the environment do."""
    named = {
        "--tracking-uri": (plan.settings.tracking_uri, "MLFLOW_TRACKING_URI"),
        "--storage": (plan.settings.storage, "OPTUNA_STORAGE"),
    }
    given = {option: uri for option, (uri, variable) in named.items() if uri and os.environ.get(variable) != uri}
    return "".join(f" {option} {shlex.quote(shown(uri))}" for option, uri in given.items())


def _before_mlflow(uri: str) -> str:
    """What is typed before MLflow's own commands, which find the files of an SQLite store from its directory."""
    path = file_of(uri) if uri else None
    if path is None:
        return f"MLFLOW_TRACKING_URI={shlex.quote(uri)} " if uri else ""
    here = path.absolute().parent == Path.cwd()
    place = "" if here else f"cd {shlex.quote(str(path.absolute().parent))} && "
    return place if path.name == "mlflow.db" else f"{place}MLFLOW_TRACKING_URI=sqlite:///{shlex.quote(path.name)} "


def source_view(source: Source) -> Table:
    """The images of each class and the patients of each split of a data set."""
    table = Table("split", *map(escape, source.classes), "images", "patients")
    for split, counts in source.counts().items():
        listing = source.splits[split]
        patients = len(set(listing.patients))
        table.add_row(split, *(f"{count:,}" for count in counts.values()), f"{len(listing):,}", f"{patients:,}")
    return table
