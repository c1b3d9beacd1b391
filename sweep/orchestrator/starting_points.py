"""`--enqueue`: the configurations that somebody wants a search to begin with, read and checked before anything runs.

best.json     {"learning_rate": 0.001, "optimizer": "adam"}, or a list of such objects
best.csv      a column per hyperparameter and a row per configuration, as `sweep trials STUDY --csv` prints them
cnn1          the best trial of a study in the same store
{"dropout": 0.1}    an object as in a file
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.faults import InputError, did_you_mean
from sweep.orchestrator.workdir import optuna_in
from sweep.plan import Plan, PlannedStudy
from sweep.space import EXTRA, FIVE, Value, faults_of, value_of
from sweep.stores.trials import StartingPoint

_FILE_BYTES = 10_000_000  # thousands of configurations; a larger file is something else
_HYPERPARAMETERS = (*FIVE, *EXTRA)


def plan_with_starts(plan: Plan, folder: Path) -> Plan:
    """Adds the configurations of `--enqueue` to those that every study of a plan begins with.

    Args:
        plan: The sweep.
        folder: The working directory, where Optuna's store is unless the settings name another.

    Returns:
        The plan, with a note for columns of a table that are no hyperparameters.

    Raises:
        InputError: One cannot be read, or is not in the space of a study; with every fault found.
    """
    faults: list[str] = []
    found: list[StartingPoint] = []
    notes: list[str] = []
    for text in plan.settings.enqueue:
        try:
            starts, unused = _read(text, plan, folder)
            found += starts
            notes += [f"--enqueue {text}: columns that are no hyperparameters: {', '.join(unused)}"] if unused else []
        except InputError as error:
            faults += error.faults
    studies = [_with_starts(planned, found, faults) for planned in plan.studies]
    if faults:
        raise InputError(*faults)
    return replace(plan, studies=tuple(studies), source=replace(plan.source, notes=(*plan.source.notes, *notes)))


def _with_starts(planned: PlannedStudy, found: list[StartingPoint], faults: list[str]) -> PlannedStudy:
    """A study that begins with further configurations; what is wrong with them is added to the faults."""
    starts = list(planned.starts)
    for start in found:
        wrong = "; ".join(faults_of(start.params, planned.space))
        if wrong:
            faults.append(f"--enqueue {start.source}: study {planned.name} cannot have {wrong}")
        else:
            own = {name: planned.space[name].own(value) for name, value in start.params.items()}
            starts.append(replace(start, params=own))
    if len(starts) > planned.trials:
        faults.append(
            f"--trials {planned.trials}: {planned.name} begins with {len(starts)} configurations, the default one "
            f"among them; give --trials {len(starts)} or more"
        )
    return replace(planned, starts=tuple(starts))


def _read(text: str, plan: Plan, folder: Path) -> tuple[list[StartingPoint], list[str]]:
    """The configurations that a text names, and the columns of a table that are no hyperparameters."""
    if text.lstrip().startswith("{"):
        return _from_json("given", text), []
    path = Path(text)
    if path.suffix.lower() not in (".json", ".csv"):
        return [_best_of(text, plan, folder)], []
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise InputError(f"--enqueue {text}: is larger than {_FILE_BYTES / 1e6:.0f} MB; give some configurations")
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise InputError(f"--enqueue {text}: cannot be read ({why})") from error
    return (_from_json(path.name, content), []) if path.suffix.lower() == ".json" else _from_csv(path.name, content)


def _from_json(source: str, content: str) -> list[StartingPoint]:
    try:
        held = json.loads(content)
    except ValueError as error:
        raise InputError(f"--enqueue {source}: is no JSON ({error})") from error
    rows = held if isinstance(held, list) else [held]
    if not rows or not all(isinstance(row, dict) and row for row in rows):
        raise InputError(f'--enqueue {source}: write hyperparameters such as {{"learning_rate": 0.001}}, or a list')
    return _starts(source, {f"entry {number}": row for number, row in enumerate(rows, 1)})


def _from_csv(source: str, content: str) -> tuple[list[StartingPoint], list[str]]:
    table = csv.DictReader(content.splitlines())
    heads = {head: head.removeprefix("params_") for head in table.fieldnames or ()}  # Optuna's tables have the prefix
    known = {head: name for head, name in heads.items() if name in _HYPERPARAMETERS}
    if not known:
        raise InputError(f"--enqueue {source}: no column is a hyperparameter; there are {', '.join(_HYPERPARAMETERS)}")
    rows = {
        f"line {table.line_num}": {name: row[head] for head, name in known.items() if row[head] not in ("", None)}
        for row in table
    }
    if not any(rows.values()):
        raise InputError(f"--enqueue {source}: has no configuration below its first line")
    return _starts(source, rows), [head for head in heads if head not in known]


def _starts(source: str, rows: Mapping[str, Mapping[str, Any]]) -> list[StartingPoint]:
    """Starting points from rows of text or plain values, each with what the row is called."""
    faults, starts = [], []
    for called, row in rows.items():
        name = source if len(rows) == 1 else f"{source}, {called}"
        params: dict[str, Value] = {}
        for key, value in row.items():
            try:
                if key not in _HYPERPARAMETERS:
                    near = did_you_mean(key, _HYPERPARAMETERS)
                    raise ValueError(f"there is no such hyperparameter; there are {', '.join(_HYPERPARAMETERS)}{near}")
                params[key] = value_of(key, str(value).removesuffix(".0"))  # pandas writes whole numbers with gaps so
            except ValueError as error:
                faults.append(f"--enqueue {name}: {key}: {error}")
        starts.append(StartingPoint(name, params))
    if faults:
        raise InputError(*faults)
    return starts


def _best_of(name: str, plan: Plan, folder: Path) -> StartingPoint:
    """The configuration of the best trial of a study, by its full or its short name."""
    from sweep.stores.study import stored_studies

    storage = plan.settings.storage
    if storage is None and not (folder / "optuna.db").exists():
        raise InputError(f"--enqueue {name}: is no .json and no .csv file, and no study is stored here")
    studies = stored_studies(storage or optuna_in(folder))
    there = {study.name: study for study in studies}
    matching = [full for full in there if name in (full, full.rpartition("/")[2])]
    if len(matching) != 1:
        names = ", ".join(matching or there) or "none"
        what = f"there are several: {names}" if matching else f"there is no such study or file; studies: {names}"
        near = "" if matching else did_you_mean(name, [full.rpartition("/")[2] for full in there])
        raise InputError(f"--enqueue {name}: {what}{near}")
    (full,) = matching
    if full in [plan.full_name(planned) for planned in plan.studies]:
        raise InputError(f"--enqueue {name}: is the study that is to begin; name another one, or a --study of its own")
    best = there[full].best()
    if best is None:
        raise InputError(f"--enqueue {name}: no trial of {full} has ended well")
    return StartingPoint(f"trial {best.number} of {full}", best.params)
