"""`sweep studies`, `trials`, `stop` and `skip`: what is in the stores, and how a study that runs is told to end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.faults import InputError, did_you_mean
from sweep.cli import options as option
from sweep.metrics.formatting import counted

if TYPE_CHECKING:
    from sweep.stores.study import Study


def studies(storage: option.Storage = None, json: option.Json = False) -> None:
    """List the studies that are stored here: what became of them, their best trial, and how old they are."""
    from rich.table import Table

    from sweep.terminal import Terminal

    terminal, now = Terminal(json=json), time.time()
    rows = [_summary(study) for study in _stored(storage)]
    heads = ("study", "state", "trials", "pruned", "failed", "best", "by", "last")
    table = Table(*heads, box=None, pad_edge=False, collapse_padding=True)  # narrow: ages over a minute fit, too
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.no_wrap = True
    for row in rows:
        best, counts = row["best"], row["trials"]
        table.add_row(
            row["study"],
            row["state"],
            str(sum(counts[name] for name in ("complete", "pruned"))),
            str(counts["pruned"] or ""),
            str(counts["failed"] or ""),
            f"{best['value']:.4f}" if best else "",
            row["metric"].removeprefix("val/") + (f" +{len(row['metrics']) - 1}" if len(row["metrics"]) > 1 else ""),
            _age(now - row["last"]) if row["last"] else "",
        )
    terminal.show(table)
    terminal.say("last: since a trial ended; `sweep trials STUDY` lists those of a study")
    terminal.end(studies=rows)


def trials(
    study: option.AnyStudy = None,
    storage: option.Storage = None,
    csv: option.Csv = False,
    latex: option.Latex = False,
    json: option.Json = False,
) -> None:
    """List the trials of a study, the best first, with hyperparameters and scores; as CSV, JSON or LaTeX for others."""
    from sweep.orchestrator.leaderboard import leaderboard
    from sweep.orchestrator.run_params import description_of
    from sweep.orchestrator.trial_table import trial_table
    from sweep.terminal import Terminal, print_json

    if csv + latex + json > 1:
        raise InputError("--csv, --latex, --json: ask for one of them")
    found = _named(_stored(storage), study, "trials")
    about = description_of(found)
    board = leaderboard(found.trials(), about.metrics, about.run_name, exact=csv or json)
    if csv:
        print(board.to_csv(index=False), end="")
    elif latex:
        print(board.to_latex(index=False, escape=True), end="")
    elif json:
        print_json({"exit_code": 0, "study": found.name, "metric": about.metric, "trials": board.to_dict("records")})
    else:
        terminal, table = Terminal(json=False), trial_table(about.metric, found.space(), about.run_name(0))
        by_name = {about.run_name(trial.number): trial for trial in found.trials()}
        terminal.say(table.header())
        for name, reached in zip(board["trial"], board[about.metric], strict=True):
            trial = by_name[name]
            terminal.say(table.row(name, trial.state.lower(), reached, trial.history, trial.params))
        if footer := table.footer():
            terminal.say(footer)
        terminal.say(f"{found.name}: {counted(len(board), 'trial')} that ended well, of {len(by_name)}")


def stop(study: option.AnyStudy = None, storage: option.Storage = None) -> None:
    """End a study that runs on this machine, after the epochs in training; its command goes on with it later."""
    import os
    import signal

    from sweep.stores.attributes import OWNER
    from sweep.system.processes import describe_owner, is_here
    from sweep.terminal import Terminal

    running = [found for found in _stored(storage) if _runs(found)]
    if not running:
        raise InputError("no study runs here; `sweep studies` lists those that are stored")
    found = _named(running, study, "stop")
    owner = found.noted(OWNER)
    if not is_here(owner):
        raise InputError(f"study {found.name} is run by {describe_owner(owner)}; stop it on that machine")
    os.kill(owner["pid"], signal.SIGTERM)
    Terminal(json=False).say(f"asked {describe_owner(owner)} to stop; it ends after the epochs in training")


def skip(trial: option.TrialNumber, study: option.AnyStudy = None, storage: option.Storage = None) -> None:
    """End one trial of a study that runs; it does not count, and the study goes on with another configuration."""
    from sweep.system.errors import TrialEndedElsewhereError
    from sweep.terminal import Terminal

    running = [found for found in _stored(storage) if _runs(found)]
    if not running:
        raise InputError("no study runs here, so no trial does; `sweep studies` lists those that are stored")
    found = _named(running, study, "skip")
    training = [record.number for record in found.trials() if record.state == "RUNNING"]
    if trial not in training:
        numbers = ", ".join(map(str, training)) or "none"
        raise InputError(f"trial {trial} of {found.name} is not in training; these are: {numbers}")
    try:
        found.fail(trial)
    except TrialEndedElsewhereError as error:
        raise InputError(f"trial {trial} of {found.name} ended just now") from error
    Terminal(json=False).say(f"trial {trial} of {found.name} is ended; its training stops after the epoch")


def _age(seconds: float) -> str:
    """A time in its largest unit, in few characters."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _stored(storage: str | None) -> list[Study]:
    """The studies of the store that is named or lies here.

    Raises:
        InputError: There is none.
    """
    folder = Path.cwd()
    if storage is None and not (folder / "optuna.db").exists():
        raise InputError(f"{folder}: no study here yet; begin one: sweep search --arch cnn1")
    from sweep.orchestrator.workdir import optuna_in
    from sweep.stores.study import stored_studies

    return stored_studies(storage or optuna_in(folder))


def _named(studies: list[Study], name: str | None, command: str) -> Study:
    """The study of a name, with its experiment or without; the only one where there is no name."""
    matching = [study for study in studies if name in (None, study.name, study.name.rpartition("/")[2])]
    there = [study.name for study in studies]
    if not matching:
        near = did_you_mean(str(name), [name.rpartition("/")[2] for name in there])
        raise InputError(f"{name}: there is no such study; there are: {', '.join(there) or 'none'}{near}")
    if len(matching) > 1:
        several = ", ".join(study.name for study in matching)
        raise InputError(f"there are several studies: {several}; name one: sweep {command} STUDY")
    return matching[0]


def _runs(study: Study) -> bool:
    """Whether a process runs a study, as far as can be seen from here."""
    from sweep.stores.attributes import OWNER
    from sweep.system.processes import alive

    owner = study.noted(OWNER)
    return bool(owner) and alive(owner)


def _summary(study: Study) -> dict[str, Any]:
    """A study in a line."""
    from sweep.orchestrator.run_params import description_of
    from sweep.stores.attributes import CONCLUSION

    about, counts, records = description_of(study), study.counts(), study.trials()
    state = "running" if _runs(study) else "complete" if study.noted(CONCLUSION) else "stopped"
    names = ("complete", "pruned", "failed", "running", "waiting")
    best = study.best()
    return {
        "study": study.name,
        "state": state,
        "metric": about.metric,
        "metrics": list(about.metrics),
        "trials": {name: getattr(counts, name) for name in names},
        "best": {"trial": best.number, "value": best.value, "params": best.params} if best else None,
        "last": max((record.ended or record.started or 0.0 for record in records), default=0.0) or None,
    }
