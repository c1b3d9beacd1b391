"""What `sweep replicate`, `sweep ablate`, `sweep crossvalidate` and `sweep compare` do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from data.faults import InputError
from models import ARCHITECTURES
from sweep.cli import terminal as display
from sweep.comparisons.replication.published import ROWS
from sweep.orchestrator.workdir import mlflow_in, optuna_in, prepare, stoppable
from sweep.plan import make_plan
from sweep.settings import Settings, check

REPORTS = "reports"
MOST_FOLDS = 100
PROTOCOLS = {"ours": "auto", "report": "sixteen"}  # -> where validation images come from


def replicate(settings: Settings, seeds: int, protocol: str, name: str | None, *, as_json: bool) -> None:
    """Trains the report's rows again, and sets them beside its figures.

    Raises:
        InputError: A setting is wrong.
    """
    terminal, folder = display.Terminal(to_stderr=as_json), Path.cwd()
    with stoppable() as stopping:
        faults = []
        if protocol not in PROTOCOLS:
            faults.append(f"--protocol {protocol}: there is no such protocol; there are {', '.join(PROTOCOLS)}")
        if seeds < 1:
            faults.append(f"--seeds {seeds}: give 1 or more")
        tables = dict.fromkeys(row.arch for row in ROWS)
        faults += [
            f"--arch {arch}: the report has no table of it; it has of {', '.join(tables)}"
            for arch in settings.archs
            if arch not in tables
        ]
        name = name or f"replicate-{protocol}"
        faults += _faults_of_name(name)
        if faults:
            raise InputError(*faults)
        plan = make_plan(replace(settings, validation=PROTOCOLS[protocol]), fetch=False)
        prepare(plan, folder, terminal, stopping)
        from sweep.cli.views import replication_view, tried_view
        from sweep.comparisons.enqueued import (
            conclude_enqueued,  # seconds of imports, which wrong input need not wait for
        )
        from sweep.comparisons.replication.run import log, plan_of_rows, replicas_of, to_dict
        from sweep.orchestrator.runner import run_plan

        plan = plan_of_rows(plan, name, seeds)
        tried, tracking = run_plan(plan, folder, terminal, stopping, conclude_enqueued, tried_view)
        replicas = replicas_of(tried, settings.metric)
        run_id, written = log(replicas, plan, tracking, protocol)
    path = write_report(folder, f"{plan.source.name}-{name}.md", written)
    terminal.show(replication_view(replicas))
    terminal.say(f"written to {path}, and logged as run {run_id}")
    if as_json:
        display.print_json({"exit_code": 0, "run_id": run_id, "report": str(path), **to_dict(replicas)})


def ablate(settings: Settings, changed: Sequence[str], seeds: int, name: str, *, as_json: bool) -> None:
    """Trains a configuration and its changes, and says which of them pay.

    Raises:
        InputError: A setting is wrong.
    """
    terminal, folder = display.Terminal(to_stderr=as_json), Path.cwd()
    with stoppable() as stopping:
        check(settings)
        least = 2 if changed else 1
        faults = [] if seeds >= least else [f"--seeds {seeds}: give {least} or more; one seed is one draw"]
        faults += _faults_of_name(name)
        if faults:
            raise InputError(*faults)
        from sweep.comparisons.ablation.run import changes_of, log, plan_of_changes, variants_of
        from sweep.comparisons.enqueued import conclude_enqueued

        changes = changes_of(settings.archs[0], changed)  # before weights are looked for
        plan = plan_of_changes(make_plan(settings, fetch=True), changes, seeds, name)
        prepare(plan, folder, terminal, stopping)
        from sweep.cli.views import ablation_view, tried_view
        from sweep.orchestrator.runner import run_plan

        (tried,), tracking = run_plan(plan, folder, terminal, stopping, conclude_enqueued, tried_view)
        variants = variants_of(tried, changes)
        run_id, lines, written = log(variants, plan, tracking)
    path = write_report(folder, f"{plan.source.name}-{settings.archs[0]}-{name}.md", written)
    terminal.show(ablation_view(lines, settings.metric))
    terminal.say(f"written to {path}, and logged as run {run_id}")
    if as_json:
        display.print_json({"exit_code": 0, "run_id": run_id, "report": str(path), "changes": lines})


def crossvalidate(
    study: str | None,
    folds: int,
    top: int,
    name: str,
    location: Path | None,
    machine: Mapping[str, Any],
    *,
    audit: bool,
    as_json: bool,
) -> None:
    """Trains the best trials of a study again, once a fold of patients, and chooses by the mean.

    Raises:
        InputError: There is no such study, or an option is wrong.
    """
    terminal, folder = display.Terminal(to_stderr=as_json), Path.cwd()
    with stoppable() as stopping:
        faults = [] if 2 <= folds <= MOST_FOLDS else [f"--folds {folds}: give 2 to {MOST_FOLDS}"]
        if top < 1:
            faults.append(f"--top {top}: give 1 or more")
        faults += _faults_of_name(name)
        if faults:
            raise InputError(*faults)
        from sweep.cli.views import crossvalidation_view, tried_view
        from sweep.comparisons.crossvalidation.run import finalists_of, log, plans_of_folds, searched
        from sweep.comparisons.enqueued import conclude_enqueued
        from sweep.orchestrator.runner import run_plan
        from sweep.stores.study import stored_studies

        studies = stored_studies(machine["storage"] or optuna_in(folder))
        found = searched(studies, study)
        whole, plans = plans_of_folds(found, studies, location, folds, top, name, machine)
        finish, tried, trackings = partial(conclude_enqueued, scored=audit), [], []
        for plan in plans:
            prepare(plan, folder, terminal, stopping)
            (one,), tracking = run_plan(plan, folder, terminal, stopping, finish, tried_view)
            tried.append(one)
            trackings.append(tracking)
        logged = log(found, finalists_of(found, top, tried), whole, tried, trackings[-1])
    path = write_report(folder, f"{found.study.name.replace('/', '-')}-{name}-{folds}.md", logged.page)
    terminal.show(crossvalidation_view(logged))
    if logged.command:
        terminal.say("to train and register it:")
        terminal.quote(f"  {logged.command}")
    terminal.say(f"written to {path}, and logged as run {logged.run_id}")
    if as_json:
        display.print_json(
            {
                "exit_code": 0,
                "run_id": logged.run_id,
                "report": str(path),
                "study": found.study.name,
                "metric": found.metric,
                "choice": logged.choice.finalist.name if logged.choice else None,
                "command": logged.command or None,
                "finalists": logged.lines,
            }
        )


def _faults_of_name(name: str) -> list[str]:
    good = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
    return [] if good else [f"--study {name!r}: use letters, digits, '.', '_' and '-'"]


def compare(
    name: str | None,
    against: str,
    seeds: int,
    location: Path | None,
    machine: Mapping[str, Any],
    *,
    audit: bool,
    with_images: bool,
    as_json: bool,
) -> None:
    """Sets every architecture's best side by side on the same test images, and writes the report.

    Raises:
        InputError: There is nothing to compare, or an option is wrong.
    """
    terminal, folder = display.Terminal(to_stderr=as_json), Path.cwd()
    if against not in ARCHITECTURES:
        raise InputError(f"--against {against}: there is no such architecture; there are {', '.join(ARCHITECTURES)}")
    if seeds < 0:
        raise InputError(f"--seeds {seeds}: give 0 (none) or more")
    with stoppable("stopped; nothing was written") as stopping:
        from sweep.cli.views import comparison_view
        from sweep.comparisons.architectures import report
        from sweep.comparisons.architectures.run import Request, gather, log, pictures_of, to_dict
        from sweep.stores.tracking import open_client

        client = open_client(machine["tracking_uri"] or mlflow_in(folder))
        request = Request(name, against, seeds, location, machine, folder, audit)
        gathered = gather(client, request, terminal, stopping)
        found = gathered.comparison
        pictures = pictures_of(gathered) if with_images else []
        page, twin = report.to_html(found, gathered.drawings), report.to_markdown(found)
        run_id = log(gathered, page, twin)  # without patients' images, which stay on this disk
    shown = report.to_html(found, gathered.drawings, pictures) if pictures else page
    path = write_report(folder, f"{found.name}-comparison.html", shown)
    write_report(folder, f"{found.name}-comparison.md", twin)
    terminal.show(comparison_view(found))
    terminal.say(f"report: {path} (and .md beside it), logged as run {run_id}")
    if as_json:
        display.print_json({"exit_code": 0, "run_id": run_id, "report": str(path), **to_dict(found)})


def write_report(folder: Path, name: str, content: str) -> Path:
    """Writes a file into `reports/` of a working directory.

    Raises:
        InputError: It cannot be written.
    """
    path = folder / REPORTS / name
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return path
