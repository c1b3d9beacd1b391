"""`sweep ensemble`: one registered model of several trained networks."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sweep.cli import options as option

if TYPE_CHECKING:
    from rich.console import Group

    from sweep.comparisons.ensembles.build import Outcome


def ensemble(  # noqa: PLR0913 - typer: one parameter per option
    search: option.SearchName = None,
    members: option.EnsembleMembers = "top:5",
    flip: option.Flip = False,
    data: option.DataNow = None,
    allow_leakage: option.AllowLeakage = False,
    study: option.FoldStudies = "fold",
    device: option.Device = "auto",
    tracking_uri: option.TrackingUri = None,
    storage: option.Storage = None,
    json: option.Json = False,
) -> None:
    """Register several trained networks as one model, which answers the mean of their probabilities."""
    from sweep.api import comparing
    from sweep.terminal import Terminal

    terminal = Terminal(json=json)
    outcome = comparing.ensemble(
        search,
        members=members,
        flip=flip,
        data=data,
        allow_leakage=allow_leakage,
        folds=study,
        device=device,
        tracking_uri=tracking_uri,
        storage=storage,
        view=terminal,
    )
    terminal.show(ensemble_view(outcome))
    terminal.end(**to_dict(outcome))


def ensemble_view(outcome: Outcome) -> Group:
    """The members, the ensemble's scores as it is served, the registered version and its aliases."""
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    from sweep.metrics.names import label_of

    members = Table("member", outcome.metric, box=box.SIMPLE_HEAD, pad_edge=False)
    for name, value in outcome.members.items():
        members.add_row(escape(name), f"{value:.4f}")
    answered = "each image by one of them" if outcome.out_of_fold else "the ensemble"
    members.add_row(answered, f"{outcome.value:.4f}", style="bold")
    heads = ("score", "validation", "test (95 % interval)", escape(f"all {outcome.test.always}"))
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for name, interval in outcome.test.served.items():
        base = outcome.test.baseline.get(name)
        label = label_of(name, two=outcome.threshold is not None)
        validation = f"{outcome.validation.served[name].value:.3f}"
        table.add_row(label, validation, str(interval), "" if base is None else f"{base:.3f}")
    lines: list[Any] = [Text(f"\n{outcome.name}", style="bold"), members, table, Text(outcome.validation_note)]
    if outcome.threshold is not None:
        lines.append(Text(f"threshold {outcome.threshold.value:g}: {outcome.threshold.reason}"))
    if outcome.test.at_threshold is not None:
        lines.append(Text(f"the scores are at that threshold; test accuracy at 0.5: {outcome.test.scores['accuracy']}"))
    lines += [Text(f"warning: {sentence}", style="yellow") for sentence in outcome.warnings]
    lines.append(Text(f"registered as {outcome.model} version {outcome.version}, run {outcome.run_id}"))
    lines += [Text(f"  @{alias}: {sentence}") for alias, sentence in outcome.aliases.items()]
    return Group(*lines)


def to_dict(outcome: Outcome) -> dict[str, Any]:
    """A registered ensemble as plain data."""
    test = outcome.test
    return {
        "name": outcome.name,
        "run_id": outcome.run_id,
        "metric": outcome.metric,
        "members": dict(outcome.members),
        "value": outcome.value,
        "out_of_fold": outcome.out_of_fold,
        "validation": outcome.validation.values("val"),
        "test": test.values("test"),
        "intervals": {name: [interval.low, interval.high] for name, interval in test.scores.items()},
        "temperature": outcome.temperature.value,
        "threshold": None if outcome.threshold is None else asdict(outcome.threshold),
        "model": outcome.model,
        "version": outcome.version,
        "aliases": dict(outcome.aliases),
        "warnings": list(outcome.warnings),
    }
