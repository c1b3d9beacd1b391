"""What each command does: the rooms put together, a function a command."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from rich.table import Table

from data import cache
from data.decode import UnreadableImageError
from data.faults import InputError
from data.sources import SPLITS, Source, download, open_source
from sweep import display
from sweep.plan import Plan, disk_of, estimate, make_plan
from sweep.settings import Settings, check_folder

if TYPE_CHECKING:
    from sweep.conclusion import Outcome
    from sweep.stores.tracking import Tracking

LOCK = ".sweep.lock"  # one writer a directory: SQLite and MLflow's stores take no more


def search(settings: Settings, *, as_json: bool) -> None:
    """Runs the studies of a sweep, one after the other."""
    plan = make_plan(settings, fetch=True)
    terminal = display.Terminal(to_stderr=as_json)
    terminal.say(display.data_line(plan))
    for note in (*plan.source.notes, *plan.split.notes):
        terminal.say(f"note: {note}")
    folder = Path.cwd()
    check_folder(folder, sum(disk_of(plan, planned) for planned in plan.studies))
    images = sum(len(listing) for listing in plan.source.splits.values())
    for size in sorted({planned.image_size for planned in plan.studies}):
        with terminal.counting(f"decoding images to {size} x {size}", images) as progress:
            cache.build(plan.source, size, progress)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder}: another sweep runs in this directory; wait for it, or use another one") from None
    with lock:
        outcomes, tracking = _run_studies(plan, folder, terminal)
    terminal.show(display.next_commands(outcomes, plan, tracking.experiment_id))
    if as_json:
        display.print_json({"exit_code": 0, "studies": [display.outcome_json(outcome) for outcome in outcomes]})


def _run_studies(plan: Plan, folder: Path, terminal: display.Terminal) -> tuple[list[Outcome], Tracking]:
    """Opens stores and engine, and runs the studies."""
    settings = plan.settings
    from sweep.engines.local import LocalEngine
    from sweep.orchestrator import open_studies, run_study
    from sweep.stores.tracking import open_tracking

    studies = open_studies(plan, settings.storage or f"sqlite:///{folder / 'optuna.db'}")
    engine = LocalEngine(plan.workers, plan.device, plan.threads)  # its workers import torch while MLflow opens
    try:
        tracking = open_tracking(settings.tracking_uri or f"sqlite:///{folder / 'mlflow.db'}", plan.experiment)
        outcomes = []
        for planned, study in zip(plan.studies, studies, strict=True):
            terminal.say(
                f"study {plan.full_name(planned)}: {settings.trials} trials, "
                f"{planned.image_size} x {planned.image_size} pixels, "
                f"{plan.workers} at once on {plan.device} in {plan.precision}"
            )
            with terminal.live():
                outcome = run_study(plan, planned, study, engine, tracking, folder, terminal)
            terminal.show(display.outcome_view(outcome, plan))
            outcomes.append(outcome)
    finally:
        engine.close()
    return outcomes, tracking


def dry_run(settings: Settings, *, as_json: bool) -> None:
    """Says what a sweep would do, and does nothing."""
    plan = make_plan(settings, fetch=False)
    estimates = [estimate(plan, planned) for planned in plan.studies]
    display.Terminal(to_stderr=as_json).show(display.plan_view(plan, estimates))
    if as_json:
        display.print_json(
            {
                "exit_code": 0,
                "data": _described(plan.source),
                "split": {
                    "digest": plan.split.digest,
                    "train": len(plan.split.train),
                    "validation": len(plan.split.validation),
                    "validation_from": plan.split.validation_from,
                },
                "studies": [
                    {
                        "study": plan.full_name(planned),
                        "space": {name: str(domain) for name, domain in planned.space.items()},
                        "image_size": planned.image_size,
                        "seconds": round(expected.seconds),
                        "disk_bytes": expected.disk,
                        "parameters": expected.parameters,
                    }
                    for planned, expected in zip(plan.studies, estimates, strict=True)
                ],
            }
        )


def data_info(location: Path | None, patient_pattern: str, *, as_json: bool) -> None:
    """Says what a data set holds."""
    source = open_source(location, patient_pattern=patient_pattern)
    terminal = display.Terminal(to_stderr=as_json)
    terminal.say(f"{source.name}: {source.kind}, {source.location}, digest {source.digest}")
    table = Table("split", *source.classes, "images", "patients")
    for split, counts in source.counts().items():
        listing = source.splits[split]
        patients = len(set(listing.patients))
        table.add_row(split, *(f"{count:,}" for count in counts.values()), f"{len(listing):,}", f"{patients:,}")
    terminal.show(table)
    for note in source.notes:
        terminal.say(f"note: {note}")
    if as_json:
        display.print_json({"exit_code": 0, **_described(source)})


def data_verify(location: Path | None, patient_pattern: str, *, as_json: bool) -> None:
    """Decodes every image of a data set and says what is wrong with it.

    Raises:
        SystemExit: With 1, where something is wrong that a study would stop at or learn falsely from.
    """
    source = open_source(location, patient_pattern=patient_pattern)
    terminal = display.Terminal(to_stderr=as_json)
    unreadable: dict[str, str] = {}
    with terminal.counting("decoding", sum(len(listing) for listing in source.splits.values())) as progress:
        done = 0
        for split, listing in source.splits.items():
            for row, name in enumerate(listing.names):
                try:
                    source.decode(split, row, 32)
                except UnreadableImageError as error:
                    unreadable[name] = str(error)
                done += 1
                progress(done)
    copies: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for split, listing in source.splits.items():
        for name, content, label in zip(listing.names, listing.hashes, listing.labels.tolist(), strict=True):
            copies[content].append((split, name, label))
    groups = [group for group in copies.values() if len(group) > 1]
    contradicting = [[name for _, name, _ in group] for group in groups if len({label for *_, label in group}) > 1]
    across = [[name for _, name, _ in group] for group in groups if len({split for split, *_ in group}) > 1]
    shared = {
        f"{one} and {other}": len(set(source.splits[one].patients) & set(source.splits[other].patients))
        for index, one in enumerate(SPLITS)
        for other in SPLITS[index + 1 :]
        if one in source.splits and other in source.splits
    }
    wrong = [f"{Path(source.location) / name}: {why}" for name, why in unreadable.items()]
    wrong += [f"the same picture has two labels: {', '.join(names)}" for names in contradicting]
    wrong += [f"the same picture is in two splits: {', '.join(names)}" for names in across]
    for sentence in wrong:
        terminal.say(f"wrong: {sentence}")
    for pair, count in shared.items():
        if count:
            terminal.say(f"note: {count:,} patient names are in both {pair}")
    terminal.say(f"note: {len(groups):,} groups of identical files; each stays on one side of the validation split")
    images = sum(len(listing) for listing in source.splits.values())
    terminal.say(f"{source.name}: {images:,} images, {len(wrong):,} things wrong")
    if as_json:
        found = {"unreadable": unreadable, "two_labels": contradicting, "two_splits": across}
        rest = {"identical_groups": len(groups), "shared_patients": shared}
        display.print_json({"exit_code": 1 if wrong else 0, "data": source.name, "images": images, **found, **rest})
    if wrong:
        raise SystemExit(1)


def data_download(*, as_json: bool) -> None:
    """Downloads Kaggle's data set."""
    folder = download()
    display.Terminal(to_stderr=as_json).say(f"the data set is at {folder}; it is used wherever --data is not given")
    if as_json:
        display.print_json({"exit_code": 0, "folder": str(folder)})


def _described(source: Source) -> dict[str, Any]:
    patients = {split: len(Counter(listing.patients)) for split, listing in source.splits.items()}
    return {
        "name": source.name,
        "kind": source.kind,
        "location": source.location,
        "digest": source.digest,
        "classes": list(source.classes),
        "images": source.counts(),
        "patients": patients,
        "notes": list(source.notes),
    }
