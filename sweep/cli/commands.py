"""What each command does: the rooms put together, a function a command."""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from data import cache
from data.decode import UnreadableImageError
from data.faults import InputError
from data.sources import SPLITS, Source, download, open_source, open_test, under_name
from sweep.cli import terminal as display
from sweep.orchestrator.former_name import keep_former_name
from sweep.orchestrator.workdir import alone, mlflow_in, optuna_in, prepare, stoppable, unless
from sweep.plan import estimate, make_plan
from sweep.settings import Settings
from sweep.stores import tags as tag
from sweep.system.errors import TrackingAwayError
from sweep.system.hardware import choose_device
from sweep.system.redaction import shown


def search(settings: Settings, *, as_json: bool) -> None:
    """Runs the studies of a sweep, one after the other.

    Raises:
        StudyInterruptedError: Somebody stopped it.
    """
    terminal = display.Terminal(to_stderr=as_json)
    with stoppable() as stopping:
        plan = keep_former_name(make_plan(settings, fetch=True), Path.cwd())
        prepare(plan, Path.cwd(), terminal, stopping)
        from sweep.orchestrator.conclude import conclude  # seconds of imports, which wrong input need not wait for
        from sweep.orchestrator.runner import run_plan

        outcomes, tracking = run_plan(plan, Path.cwd(), terminal, stopping, conclude, display.outcome_view)
    terminal.show(display.next_commands(outcomes, plan, tracking.experiment_id))
    if as_json:
        display.print_json({"exit_code": 0, "studies": [display.outcome_json(outcome) for outcome in outcomes]})


def doctor(
    storage: str | None, tracking_uri: str | None, work_dir: Path | None, *, rebuild: bool, as_json: bool
) -> None:
    """Brings Optuna, MLflow and the checkpoints on disk to one truth, and says what was mended.

    Raises:
        SystemExit: With 1, where the runs of a study are missing and were not to be written again.
    """
    terminal, folder = display.Terminal(to_stderr=as_json), Path.cwd()
    if storage is None and not (folder / "optuna.db").exists():
        raise InputError(f"{folder}: there is no optuna.db here; go where the sweep ran, or name its store: --storage")
    from sweep.orchestrator.reconcile import mend
    from sweep.stores.study import stored_studies
    from sweep.stores.tracking import open_tracking

    uri = tracking_uri or mlflow_in(folder)
    mended, missing = [], []
    with stoppable() as stopping, alone(folder):
        studies = stored_studies(storage or optuna_in(folder))
        for study in studies:
            if stopping():
                raise KeyboardInterrupt
            study.claim(shared=storage is not None)
            try:
                tracking = open_tracking(uri, study.experiment)
                found, mirrored = mend(study, tracking, folder, work_dir, terminal.say, rebuild=rebuild)
            except TrackingAwayError as error:
                raise InputError(f"--tracking-uri {shown(uri)}: {error}") from error
            finally:
                study.release()
            mended += found
            missing += [] if mirrored else [study.name]
        mended += [f"{path}: an unfinished image cache; removed" for path in cache.remove_left_behind()]
    for sentence in mended:
        terminal.say(f"mended: {sentence}")
    for name in missing:
        terminal.say(f"missing: MLflow has no run of study {name}; `sweep doctor --rebuild` writes all of them again")
    terminal.say(f"{len(studies):,} studies looked at, {len(mended):,} things mended")
    if as_json:
        code = 1 if missing else 0
        names = [study.name for study in studies]
        display.print_json({"exit_code": code, "studies": names, "mended": mended, "missing": missing})
    if missing:
        raise SystemExit(1)


def replay(run_id: str, data: Path | None, tracking_uri: str | None, *, as_json: bool) -> None:
    """Trains a run again from what MLflow knows of it, and compares every epoch.

    Raises:
        SystemExit: With 1, where a number differs.
    """
    from sweep.comparisons.replay import data_of
    from sweep.comparisons.replay import replay as train_again
    from sweep.engines.local import LocalEngine
    from sweep.stores.tracking import read_run

    terminal = display.Terminal(to_stderr=as_json)
    past = read_run(tracking_uri or mlflow_in(Path.cwd()), run_id)
    source, split = data_of(past, data)
    device, threads = choose_device(past.params["device"]), int(past.params["threads"])
    terminal.say(f"{past.name}: {len(past.epochs)} epochs on {source.location}, seed {past.params['seed']}")
    with stoppable() as stopping:
        engine = LocalEngine(1, device, threads)
        try:
            engine.start()  # imports torch while the images are decoded
            result = train_again(past, source, split, engine, stopping, terminal.say)
        finally:
            engine.close()
    terminal.show(display.replay_view(past.name, result))
    if as_json:
        display.print_json({"exit_code": 0 if result.equal else 1, "run_id": run_id, **display.replay_json(result)})
    if not result.equal:
        raise SystemExit(1)


def predict(
    model: str,
    patterns: Sequence[str],
    threshold: float | None,
    heatmaps: Path | None,
    tracking_uri: str | None,
    *,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Labels image files with a registered model.

    Raises:
        SystemExit: With 1, where a file could not be read.
    """
    from sweep.lifecycle.predict import find_images, label
    from sweep.stores.registry import find_version, load
    from sweep.stores.tracking import open_client

    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"--threshold {threshold}: give a number from 0 to 1")
    if heatmaps is not None and heatmaps.exists() and not heatmaps.is_dir():
        raise InputError(f"--heatmap {heatmaps}: is a file; give a folder")
    paths = find_images(patterns)
    client = open_client(tracking_uri or mlflow_in(Path.cwd()))
    version = find_version(client, model)
    classifier = load(client, version)
    if threshold is not None and classifier.about["positive"] is None:
        raise InputError(f"--threshold: {model} has more than two classes and answers with the likeliest")
    terminal = display.Terminal(to_stderr=as_json or as_csv)
    try:
        if heatmaps is not None:
            heatmaps.mkdir(parents=True, exist_ok=True)
        with stoppable("stopped") as stopping, terminal.counting("labelling", len(paths)) as progress:
            found = label(classifier, paths, threshold, heatmaps, unless(stopping, progress))
    except OSError as error:  # images that cannot be read are set aside; this is about what is written
        raise InputError(f"--heatmap {heatmaps}: cannot be written ({error.strerror or error})") from error
    if as_csv:
        sys.stdout.write(found.answers.to_csv(index=False))
    elif not as_json:
        terminal.show(display.answers_view(found.answers, version, classifier.about))
    for path, why in found.unreadable.items():
        terminal.say(f"unreadable: {path}: {why}")
    code = 1 if found.unreadable else 0
    if as_json:
        unreadable = {str(path): why for path, why in found.unreadable.items()}
        answers = found.answers.to_dict("records")
        display.print_json({"exit_code": code, "predictions": answers, "unreadable": unreadable})
    if code:
        raise SystemExit(code)


def evaluate(
    model: str, location: Path | None, patient_pattern: str, tracking_uri: str | None, *, as_json: bool
) -> None:
    """Scores a registered model on test images, and logs it."""
    from sweep.lifecycle.evaluate import evaluate as score
    from sweep.lifecycle.evaluate import rows_of
    from sweep.stores.registry import find_version, load
    from sweep.stores.tracking import open_client, tracking_of

    terminal = display.Terminal(to_stderr=as_json)
    client = open_client(tracking_uri or mlflow_in(Path.cwd()))
    version = find_version(client, model)
    classifier, tracking = load(client, version), tracking_of(client, version.run_id)
    source = open_test(location, tuple(classifier.about["classes"]), patient_pattern=patient_pattern)
    source = under_name(source, classifier.about["name"])
    for note in (*source.notes, *_notes_of_test(classifier.about, source)):
        terminal.say(f"note: {note}")
    counted = terminal.counting("scoring", len(source.splits["test"]))
    with stoppable("stopped; nothing was logged") as stopping, counted as progress:
        found = score(version, classifier, source, tracking, unless(stopping, progress))
    terminal.show(display.evaluation_view(found, source))
    if as_json:
        display.print_json(
            {
                "exit_code": 0,
                "model": f"models:/{version.name}/{version.version}",
                "data": source.location,
                "data_digest": source.digest,
                "images": found.assessment.images,
                "run_id": found.run_id,
                "threshold": found.assessment.threshold,
                "scores": rows_of(found.assessment),
            }
        )


def _notes_of_test(about: Mapping[str, Any], source: Source) -> list[str]:
    """What somebody who reads scores of a model on a data set should know."""
    if about["name"] == source.name:
        return ["the test set is opened once more: choosing by what it says is choosing by test"]
    return [f"the model learned from {about['name']}; {source.name} is something else, unless it was renamed"]


def promote(model: str, alias: str, reason: str, tracking_uri: str | None, *, force: bool, as_json: bool) -> None:
    """Gives an alias to a version, if it is better or a person insists.

    Raises:
        SystemExit: With 1, where the alias stays where it is.
    """
    from models import ARCHITECTURES
    from sweep.lifecycle.promotion import promote as decide
    from sweep.stores.registry import find_version
    from sweep.stores.tracking import open_client, tracking_of

    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", alias) or alias == "latest" or re.fullmatch(r"v\d+", alias):
        raise InputError(
            f"--as {alias}: an alias is small letters, digits, - and _, and neither latest nor v and a number"
        )
    if reason and not force:
        raise InputError("--reason: only a person's decision has one; say --force too")
    terminal = display.Terminal(to_stderr=as_json)
    client = open_client(tracking_uri or mlflow_in(Path.cwd()))
    version = find_version(client, model)
    arch = version.tags.get(tag.ARCH)
    if alias in ARCHITECTURES and alias != arch:
        raise InputError(f"--as {alias}: that seat is for networks of {alias}, and {model} is a {arch}")
    decision = decide(tracking_of(client, version.run_id), version, alias, force=force, reason=reason)
    holds = decision.moves or decision.holder == version.version
    terminal.say(f"{version.name}@{alias}: {decision.reason}")
    if not holds and "--force" not in decision.reason:
        terminal.say("a person may decide otherwise: --force --reason '...'")
    if as_json:
        display.print_json({"exit_code": 0 if holds else 1, **asdict(decision)})
    if not holds:
        raise SystemExit(1)


def dry_run(settings: Settings, *, as_json: bool) -> None:
    """Says what a sweep would do, and does nothing."""
    plan = make_plan(settings, fetch=False)
    if settings.storage is None:  # a server is left alone: to look for studies makes tables in an empty database
        plan = keep_former_name(plan, Path.cwd())
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
    table = Table("split", *map(escape, source.classes), "images", "patients")
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
