"""`sweep --arch NAME ...`: run the studies of a sweep, or say what they would be.

Here and in the modules of the other commands, functions import what takes time, so that `--help` is quick.
"""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from data.faults import InputError
from data.sources import PATIENT_PATTERN
from sweep.cli import options as option
from sweep.settings import Settings, check, seconds_of

if TYPE_CHECKING:
    from sweep.orchestrator.conclude import Outcome
    from sweep.stores.trials import TrialRecord
    from sweep.terminal import Terminal


def search(  # noqa: PLR0913 - typer: one parameter per option
    context: typer.Context,
    arch: option.Archs = [],  # noqa: B006
    trials: option.Trials = Settings.trials,
    data: option.Data = None,
    epochs: option.Epochs = Settings.epochs,
    patience: option.Patience = Settings.patience,
    image_size: option.ImageSize = None,
    limit: option.Limit = None,
    validation: option.Validation = Settings.validation,
    patient_pattern: option.PatientPattern = PATIENT_PATTERN,
    depth: option.Depth = None,
    allow_leakage: option.AllowLeakage = False,
    metric: option.Metrics = [*Settings.metrics],  # noqa: B006
    sampler: option.Sampler = Settings.sampler,
    pruner: option.Pruner = Settings.pruner,
    warmup: option.Warmup = Settings.warmup,
    space: option.Space = Settings.space,
    fix: option.Fix = [],  # noqa: B006
    search: option.Search = [],  # noqa: B006
    enqueue: option.Enqueue = [],  # noqa: B006
    weights: option.Weights = Settings.weights,
    finetune: option.Finetune = Settings.finetune,
    study: option.Study = None,
    seed: option.Seed = Settings.seed,
    split_seed: option.SplitSeed = Settings.split_seed,
    retries: option.Retries = Settings.retries,
    budget: option.Budget = None,
    keep: option.Keep = Settings.keep,
    workers: option.Workers = None,
    device: option.Device = Settings.device,
    precision: option.Precision = Settings.precision,
    tracking_uri: option.TrackingUri = None,
    experiment: option.Experiment = None,
    storage: option.Storage = None,
    engine: option.Engine = Settings.engine,
    address: option.Address = None,
    cpus_per_trial: option.CpusPerTrial = Settings.cpus_per_trial,
    gpus_per_trial: option.GpusPerTrial = None,
    work_dir: option.WorkDir = None,
    dry_run: option.DryRun = False,
    save_config: option.SaveConfig = None,
    notify: option.Notify = None,
    quiet: option.Quiet = False,
    verbose: option.Verbose = False,
    json: option.Json = False,
    version: option.Version = False,
) -> None:
    """Search the hyperparameters of image classifiers; record every trial, register the best."""
    given = [name for name in context.params if "COMMANDLINE" in str(context.get_parameter_source(name))]
    if context.invoked_subcommand is not None:
        _refuse_before(context.invoked_subcommand, given)
        return
    if context.parent is None and not given:
        _show_commands(context)
        return
    from sweep.terminal import Terminal

    settings = option.settings_from(
        locals(), archs=arch, metrics=metric, budget=None if budget is None else seconds_of(budget)
    )
    terminal = Terminal(json=json, quiet=quiet, verbose=verbose)
    if save_config is not None:
        _save(settings, save_config, terminal)
    (_show_plan if dry_run else _run)(settings, terminal)


def search_by_file(config: option.ConfigFile = None, **options: Any) -> None:
    """The same as `search`, with a file of settings."""
    if config is None:
        return search(**options)
    from sweep.settings_file import NAMES, read_settings

    context, file = options["context"], read_settings(config)
    named = {NAMES.get(name, name): value for name, value in file.values.items()}
    typed = {name for name in named if "COMMANDLINE" in str(context.get_parameter_source(name))}
    held = {name: value for name, value in named.items() if name not in typed}
    if held.get("budget") is not None:
        held["budget"] = str(held["budget"])
    try:
        search(**{**options, **held})
    except InputError as error:
        raise InputError(*(file.located(fault, typed) for fault in error.faults)) from error


search_by_file.__doc__ = search.__doc__
_options = inspect.signature(search, eval_str=True)
_config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option.ConfigFile)
search_by_file.__signature__ = _options.replace(  # type: ignore[attr-defined]
    parameters=[*_options.parameters.values(), _config]
)
search_by_file.__annotations__ = {one.name: one.annotation for one in (*_options.parameters.values(), _config)}


def _save(settings: Settings, path: Path, terminal: Terminal) -> None:
    """Writes the settings into a file, once they are right."""
    from sweep.settings_file import write_settings

    check(settings)
    try:
        path.write_text(write_settings(settings), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--save-config {path}: cannot be written ({error.strerror})") from error
    terminal.say(f"settings written to {path}: sweep search {path}")


def _refuse_before(command: str, given: list[str]) -> None:
    """Refuses options that were typed before a command, where they would be without effect."""
    names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
    if given:
        raise InputError(f"{names}: options come after the command: sweep {command} {names.split(',')[0]} ...")


def _show_commands(context: typer.Context) -> None:
    """Says what can be done, where nothing was asked for."""
    group: Any = context.command
    width = max(map(len, group.commands)) + 2
    begin = "sweep search --arch cnn1 --trials 30"
    print(f"{context.get_usage()}\n\n{textwrap.fill((search.__doc__ or '').strip(), 80)}\n")
    for name, command in group.commands.items():
        print(f"  {name:{width}}{command.get_short_help_str(76 - width)}")
    here = (Path.cwd() / "optuna.db").exists()
    print(f"\nTo begin: {begin}\nOptions of a command: sweep COMMAND --help")
    print("What is stored here: sweep studies" if here else "Nothing is stored here yet.")


def _run(settings: Settings, terminal: Terminal) -> None:
    """Runs the studies of a sweep, one after the other."""
    from sweep.cli.sweep_view import sweep_view
    from sweep.cli.views import next_commands, outcome_view
    from sweep.orchestrator.search import run_search

    done = run_search(settings, Path.cwd(), terminal, lambda outcome, plan: terminal.show(outcome_view(outcome, plan)))
    champion = None
    if len(done.outcomes) > 1:
        from sweep.stores.registry import CHAMPION, alias_holder

        with done.tracking.reaching():
            champion = alias_holder(done.tracking.client, done.outcomes[0].model, CHAMPION)
        terminal.show(sweep_view(done.outcomes, settings.metric, champion))
    commands = next_commands(done.outcomes, done.plan, done.tracking.experiment_id, champion)
    terminal.show(commands, whole_lines=True)
    terminal.end(studies=[outcome_to_dict(outcome) for outcome in done.outcomes])


def _show_plan(settings: Settings, terminal: Terminal) -> None:
    """Says what a sweep would do, and writes nothing."""
    from data.cache import notes_of
    from data.leakage import refuse, sentences_of
    from sweep.cli.data import source_to_dict
    from sweep.cli.views import plan_view
    from sweep.orchestrator.former_name import keep_former_name
    from sweep.orchestrator.starting_points import plan_with_starts
    from sweep.plan import estimate, make_plan, overlaps

    here = Path.cwd()
    plan = plan_with_starts(keep_former_name(make_plan(settings, fetch=False), here), here)
    refuse(overlaps(plan), plan.source.location, allowed=settings.allow_leakage)  # by pixels, where they are known
    notes = notes_of(plan.source, plan.studies[0].image_size)
    plan = replace(plan, source=replace(plan.source, notes=(*plan.source.notes, *notes)))
    estimates = [estimate(plan, planned) for planned in plan.studies]
    terminal.show(plan_view(plan, estimates))
    split = {
        "digest": plan.split.digest,
        "train": len(plan.split.train),
        "validation": len(plan.split.validation),
        "validation_from": plan.split.validation_from,
    }
    studies = [
        {
            "study": plan.full_name(planned),
            "space_name": settings.space,
            "space": {name: str(domain) for name, domain in planned.space.items()},
            "begins_with": [{"source": start.source, "params": dict(start.params)} for start in planned.starts],
            "image_size": planned.image_size,
            "seconds": round(expected.seconds),
            "disk_bytes": expected.disk,
            "parameters": expected.parameters,
        }
        for planned, expected in zip(plan.studies, estimates, strict=True)
    ]
    leakage = list(sentences_of(overlaps(plan)))
    terminal.end(data=source_to_dict(plan.source), split=split, leakage=leakage, studies=studies)


def outcome_to_dict(outcome: Outcome) -> dict[str, Any]:
    """A study's outcome as plain data."""
    best, test = outcome.best, outcome.test
    nested = ("best", "default", "threshold", "validation", "test", "choice")
    several = {} if outcome.choice is None else {"choice": outcome.choice.sentence, "front": outcome.choice.rows()}
    return {
        **{field.name: getattr(outcome, field.name) for field in fields(outcome) if field.name not in nested},
        "validation": outcome.validation.values("val"),
        "test": test.values("test"),
        "intervals": {name: [interval.low, interval.high] for name, interval in test.scores.items()},
        "temperature": test.temperature,
        "threshold": None if outcome.threshold is None else asdict(outcome.threshold),
        "best": _trial_to_dict(best),
        "default": None if outcome.default is None else _trial_to_dict(outcome.default),
        **several,
    }


def _trial_to_dict(trial: TrialRecord) -> dict[str, Any]:
    return {"trial": trial.number, "params": trial.params, "value": trial.value, "epoch": trial.best_epoch}
