"""What `sweep replicate` and `sweep compare` do."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from data.faults import InputError
from sweep import display
from sweep.plan import make_plan
from sweep.published import ROWS
from sweep.settings import Settings
from sweep.workplace import stoppable

REPORTS = "reports"


def replicate(settings: Settings, seeds: int, protocol: str, name: str | None, *, as_json: bool) -> None:
    """Trains the report's rows again, and sets them beside its figures.

    Raises:
        InputError: A setting is wrong.
    """
    terminal, folder = display.Terminal(to_stderr=as_json), Path.cwd()
    with stoppable() as stopping:
        from sweep.listed import conclude_listed
        from sweep.replication import PROTOCOLS, log, plain, plan_of_rows, replicas_of
        from sweep.running import run_plan
        from sweep.tables import replication_view, tried_view

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
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            faults.append(f"--study {name!r}: use letters, digits, '.', '_' and '-'")
        if faults:
            raise InputError(*faults)
        settings = replace(settings, validation=PROTOCOLS[protocol])
        plan = plan_of_rows(make_plan(settings, fetch=False), name, seeds)
        tried, tracking = run_plan(plan, folder, terminal, stopping, conclude_listed, tried_view)
        replicas = replicas_of(tried, settings.metric)
        run_id, written = log(replicas, plan, tracking, protocol)
    path = write_report(folder, f"{plan.source.name}-{name}.md", written)
    terminal.show(replication_view(replicas))
    terminal.say(f"written to {path}, and logged as run {run_id}")
    if as_json:
        display.print_json({"exit_code": 0, "run_id": run_id, "report": str(path), **plain(replicas)})


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
