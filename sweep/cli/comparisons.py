"""`sweep replicate`, `ablate`, `crossvalidate` and `compare`: train what is compared, show it, write a report.

Imports that take seconds come after the checks of what was typed, and where Ctrl-C is handled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.faults import InputError
from data.sources import PATIENT_PATTERN
from models import short_name
from sweep.api.reports import write_report
from sweep.cli import options as option
from sweep.settings import Settings, check

if TYPE_CHECKING:
    from sweep.comparisons.enqueued import EnqueuedResult
    from sweep.terminal import Terminal

MOST_FOLDS = 100
PROTOCOLS = {"ours": "auto", "report": "sixteen"}  # -> where validation images come from


def replicate(  # noqa: PLR0913 - typer: one parameter per option
    arch: option.ReportArchs = [],  # noqa: B006
    seeds: option.Seeds = 3,
    protocol: option.Protocol = "ours",
    data: option.Data = None,
    epochs: option.Epochs = Settings.epochs,
    patience: option.Patience = Settings.patience,
    image_size: option.ReportImageSize = None,
    limit: option.Limit = None,
    patient_pattern: option.PatientPattern = PATIENT_PATTERN,
    depth: option.Depth = None,
    allow_leakage: option.AllowLeakage = False,
    study: option.ReportStudies = None,
    seed: option.Seed = Settings.seed,
    split_seed: option.SplitSeed = Settings.split_seed,
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
    quiet: option.Quiet = False,
    verbose: option.Verbose = False,
    json: option.Json = False,
) -> None:
    """Train the rows of the report's tables again and set them beside its figures."""
    options = locals()  # before there are other local names
    from sweep.comparisons.replication.published import ROWS
    from sweep.orchestrator.former_name import keep_former_name
    from sweep.orchestrator.workdir import prepare, stoppable
    from sweep.plan import make_plan
    from sweep.terminal import Terminal

    terminal, folder = Terminal(json=json, quiet=quiet, verbose=verbose), Path.cwd()
    name = study or f"replicate-{protocol}"
    _refuse(*_faults_of_replication(arch, seeds, protocol), *_faults_of_name(name))
    settings = option.settings_from(
        options,
        archs=arch or option.REPORTED,
        trials=seeds,
        study=None,  # several architectures are several studies, which `plan_of_rows` names
        validation=PROTOCOLS[protocol],
        search=(f"batch_size={','.join(sorted({str(row.batch_size) for row in ROWS}))}",),
        pruner="none",
    )
    with stoppable() as stopping:
        plan = keep_former_name(make_plan(settings, fetch=False), folder)
        prepare(plan, folder, terminal, stopping)
        from sweep.cli.comparison_views import replication_view
        from sweep.comparisons.enqueued import conclude_enqueued
        from sweep.comparisons.replication.run import log, plan_of_rows, replicas_of, to_dict
        from sweep.orchestrator.runner import run_plan

        plan = plan_of_rows(plan, name, seeds)
        studies, tracking = run_plan(plan, folder, terminal, stopping, conclude_enqueued, _shows(terminal))
        replicas = replicas_of(studies, settings.metric)
        run_id, page = log(replicas, plan, tracking, protocol)
    path = write_report(folder, f"{plan.source.name}-{name}.md", page)
    terminal.show(replication_view(replicas))
    terminal.say(f"written to {path}, and logged as run {run_id}")
    terminal.end(run_id=run_id, report=str(path), **to_dict(replicas))


def _faults_of_replication(archs: Sequence[str], seeds: int, protocol: str) -> list[str]:
    from sweep.comparisons.replication.published import ROWS

    faults, tables = [], dict.fromkeys(row.arch for row in ROWS)
    if protocol not in PROTOCOLS:
        faults.append(f"--protocol {protocol}: there is no such protocol; there are {', '.join(PROTOCOLS)}")
    if seeds < 1:
        faults.append(f"--seeds {seeds}: give 1 or more")
    known = ", ".join(tables)
    return faults + [
        f"--arch {arch}: the report has no table of it; it has of {known}" for arch in archs if arch not in tables
    ]


def ablate(  # noqa: PLR0913 - typer: one parameter per option
    arch: option.Arch,
    fix: option.FixAll,
    change: option.Change = [],  # noqa: B006
    seeds: option.ChangeSeeds = 5,
    data: option.Data = None,
    epochs: option.Epochs = Settings.epochs,
    patience: option.Patience = Settings.patience,
    image_size: option.ImageSize = None,
    limit: option.Limit = None,
    patient_pattern: option.PatientPattern = PATIENT_PATTERN,
    depth: option.Depth = None,
    allow_leakage: option.AllowLeakage = False,
    metric: option.Metric = Settings.metrics[0],
    weights: option.Weights = Settings.weights,
    finetune: option.Finetune = Settings.finetune,
    study: option.ChangesStudy = "ablation",
    seed: option.Seed = Settings.seed,
    split_seed: option.SplitSeed = Settings.split_seed,
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
    quiet: option.Quiet = False,
    verbose: option.Verbose = False,
    json: option.Json = False,
) -> None:
    """Try changes of one configuration, each with the same seeds; say which improve the score."""
    settings = option.settings_from(
        locals(), archs=(arch,), metrics=(metric,), trials=max(seeds, 1), study=None, pruner="none"
    )
    from sweep.orchestrator.former_name import keep_former_name
    from sweep.orchestrator.workdir import prepare, stoppable
    from sweep.plan import make_plan
    from sweep.terminal import Terminal

    terminal, folder = Terminal(json=json, quiet=quiet, verbose=verbose), Path.cwd()
    with stoppable() as stopping:
        check(settings)
        least = 2 if change else 1
        too_few = [] if seeds >= least else [f"--seeds {seeds}: give {least} or more; a single seed shows no variation"]
        _refuse(*too_few, *_faults_of_name(study))
        from sweep.comparisons.ablation.run import changes_of, log, plan_of_changes, variants_of
        from sweep.comparisons.enqueued import conclude_enqueued

        changes = changes_of(settings.archs[0], change)  # before weights are looked for
        plan = keep_former_name(make_plan(settings, fetch=True), folder)
        plan = plan_of_changes(plan, changes, seeds, study)
        prepare(plan, folder, terminal, stopping)
        from sweep.cli.comparison_views import ablation_view
        from sweep.orchestrator.runner import run_plan

        (trained,), tracking = run_plan(plan, folder, terminal, stopping, conclude_enqueued, _shows(terminal))
        run_id, lines, page = log(variants_of(trained, changes), plan, tracking)
    path = write_report(folder, f"{plan.source.name}-{short_name(settings.archs[0])}-{study}.md", page)
    terminal.show(ablation_view(lines, metric))
    terminal.say(f"written to {path}, and logged as run {run_id}")
    terminal.end(run_id=run_id, report=str(path), changes=lines)


def crossvalidate(  # noqa: PLR0913 - typer: one parameter per option
    search: option.SearchName = None,
    folds: option.Folds = 5,
    top: option.Top = 5,
    data: option.DataNow = None,
    allow_leakage: option.AllowLeakage = False,
    audit: option.FoldAudit = False,
    study: option.FoldStudies = "fold",
    workers: option.Workers = None,
    device: option.Device = Settings.device,
    tracking_uri: option.TrackingUri = None,
    storage: option.Storage = None,
    engine: option.Engine = Settings.engine,
    address: option.Address = None,
    cpus_per_trial: option.CpusPerTrial = Settings.cpus_per_trial,
    gpus_per_trial: option.GpusPerTrial = None,
    work_dir: option.WorkDir = None,
    quiet: option.Quiet = False,
    verbose: option.Verbose = False,
    json: option.Json = False,
) -> None:
    """Train a search's best trials on every fold of patients and choose by the mean, not by one split."""
    machine = option.machine_from(locals()) | ({"allow_leakage": True} if allow_leakage else {})
    faults = [] if 2 <= folds <= MOST_FOLDS else [f"--folds {folds}: give 2 to {MOST_FOLDS}"]
    if top < 1:
        faults.append(f"--top {top}: give 1 or more")
    _refuse(*faults, *_faults_of_name(study))
    from sweep.orchestrator.workdir import optuna_in, prepare, stoppable
    from sweep.terminal import Terminal

    terminal, folder = Terminal(json=json, quiet=quiet, verbose=verbose), Path.cwd()
    with stoppable() as stopping:
        from sweep.cli.comparison_views import crossvalidation_view
        from sweep.comparisons.crossvalidation.run import finalists_of, log, plans_of_folds, searched
        from sweep.comparisons.enqueued import conclude_enqueued
        from sweep.orchestrator.runner import run_plan
        from sweep.stores.study import stored_studies

        studies = stored_studies(storage or optuna_in(folder))
        finished = searched(studies, search)
        whole, plans = plans_of_folds(finished, studies, data, folds, top, study, machine)
        finish, trained, trackings = partial(conclude_enqueued, scored=audit), [], []
        for plan in plans:
            prepare(plan, folder, terminal, stopping)
            (fold,), tracking = run_plan(plan, folder, terminal, stopping, finish, _shows(terminal))
            trained.append(fold)
            trackings.append(tracking)
        logged = log(finished, finalists_of(finished, top, trained), whole, trained, trackings[-1])
    path = write_report(folder, f"{finished.study.name.replace('/', '-')}-{study}-{folds}.md", logged.page)
    terminal.show(crossvalidation_view(logged))
    if logged.command:
        terminal.say("to train and register it:")
        terminal.quote(f"  {logged.command}")
    terminal.say(f"written to {path}, and logged as run {logged.run_id}")
    terminal.end(
        run_id=logged.run_id,
        report=str(path),
        study=finished.study.name,
        metric=finished.metric,
        choice=logged.choice.finalist.name if logged.choice else None,
        command=logged.command or None,
        finalists=logged.lines,
    )


def compare(  # noqa: PLR0913 - typer: one parameter per option
    model: option.ModelName = None,
    against: option.Against = None,
    seeds: option.OtherSeeds = 0,
    data: option.DataNow = None,
    allow_leakage: option.AllowLeakage = False,
    audit: option.Audit = True,
    with_images: option.WithImages = False,
    prevalence: option.Prevalence = None,
    with_student_report: option.WithStudentReport = False,
    workers: option.Workers = None,
    device: option.Device = Settings.device,
    tracking_uri: option.TrackingUri = None,
    storage: option.Storage = None,
    engine: option.Engine = Settings.engine,
    address: option.Address = None,
    cpus_per_trial: option.CpusPerTrial = Settings.cpus_per_trial,
    gpus_per_trial: option.GpusPerTrial = None,
    work_dir: option.WorkDir = None,
    quiet: option.Quiet = False,
    verbose: option.Verbose = False,
    json: option.Json = False,
) -> None:
    """Compare every architecture's best on the same test images; write the report."""
    machine = option.machine_from(locals())
    from sweep.api import comparing
    from sweep.cli.comparison_views import comparison_view
    from sweep.comparisons.architectures.run import to_dict
    from sweep.terminal import Terminal

    terminal = Terminal(json=json, quiet=quiet, verbose=verbose)
    done = comparing.compare(
        model,
        against=against,
        seeds=seeds,
        data=data,
        allow_leakage=allow_leakage,
        audit=audit,
        with_images=with_images,
        prevalence=prevalence,
        with_student_report=with_student_report,
        view=terminal,
        ended=_shows(terminal),
        **machine,
    )
    terminal.show(comparison_view(done.comparison))
    terminal.say(f"report: {done.report} (and .md beside it), logged as run {done.run_id}")
    terminal.say(f"reporting checklist (CLAIM 2024, TRIPOD+AI): {done.checklist}")
    terminal.end(run_id=done.run_id, report=str(done.report), checklist=str(done.checklist), **to_dict(done.comparison))


def _shows(terminal: Terminal) -> Callable[[EnqueuedResult], None]:
    """What `run_plan` calls at the end of each study of enqueued trials."""
    from sweep.cli.comparison_views import enqueued_view

    return lambda study: terminal.show(enqueued_view(study))


def _faults_of_name(name: str) -> list[str]:
    good = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
    return [] if good else [f"--study {name!r}: use letters, digits, '.', '_' and '-'"]


def _refuse(*faults: str) -> None:
    if faults:
        raise InputError(*faults)
