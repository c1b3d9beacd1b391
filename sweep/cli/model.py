"""`sweep predict`, `evaluate` and `promote`: what registered models are used for."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path

from data import synthetic
from data.faults import InputError
from data.listing import text_of
from data.sources import PATIENT_PATTERN, check_depth
from models import ARCHITECTURES
from sweep.cli import options as option


def predict(
    model: option.Model,
    images: option.Images,
    threshold: option.Threshold = None,
    heatmap: option.Heatmap = None,
    depth: option.ModelDepth = None,
    tracking_uri: option.TrackingUri = None,
    csv: option.Csv = False,
    json: option.Json = False,
) -> None:
    """Label images with a registered model; exit 1 if a file could not be read."""
    _check_predict_options(threshold, heatmap, depth, csv=csv, json=json)
    from sweep.cli.terminal import Terminal
    from sweep.cli.views import answers_view
    from sweep.lifecycle.predict import find_images, label
    from sweep.lifecycle.scored_data import warnings_of
    from sweep.orchestrator.workdir import mlflow_in, stoppable, unless
    from sweep.stores import tags as tag
    from sweep.stores.mlflow_stores import open_client
    from sweep.stores.registry import find_version, load

    found = find_images(images)
    paths = found.paths
    client = open_client(tracking_uri or mlflow_in(Path.cwd()))
    version = find_version(client, model)
    classifier = load(client, version)
    if threshold is not None and classifier.about["positive"] is None:
        raise InputError(f"--threshold: {model} has more than two classes and answers with the likeliest")
    terminal, (warnings, _) = Terminal(json=json, csv=csv), warnings_of(version)
    if version.tags.get(tag.DATA) in synthetic.NAMES:
        warnings += ("it learned from synthetic images, which a program drew: its answers say nothing about X-rays",)
    for line in (*(f"warning: {warning}" for warning in warnings), *(f"note: {note}" for note in found.notes)):
        terminal.say(line)
    try:
        if heatmap is not None:
            heatmap.mkdir(parents=True, exist_ok=True)
        with stoppable("stopped") as stopping, terminal.counting("labelling", len(paths)) as progress:
            labelled = label(classifier, paths, threshold, heatmap, unless(stopping, progress), depth)
    except OSError as error:  # of what is written; an image that cannot be read is in `labelled.unreadable`
        raise InputError(f"--heatmap {heatmap}: cannot be written ({error.strerror or error})") from error
    if csv:
        sys.stdout.write(labelled.answers.to_csv(index=False))
    elif not json:
        terminal.show(answers_view(labelled.answers, version, classifier.about))
    for note in labelled.notes:
        terminal.say(f"note: {note}")
    for path, why in labelled.unreadable.items():
        terminal.say(f"unreadable: {text_of(path)}: {why}")
    unreadable = {text_of(path): why for path, why in labelled.unreadable.items()}
    terminal.end(
        1 if unreadable else 0,
        predictions=labelled.answers.to_dict("records"),
        unreadable=unreadable,
        warnings=list(warnings),
        notes=[*found.notes, *labelled.notes],
    )


def _check_predict_options(
    threshold: float | None, heatmap: Path | None, depth: int | None, *, csv: bool, json: bool
) -> None:
    if csv and json:
        raise InputError("--csv and --json: stdout belongs to one of them")
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"--threshold {threshold}: give a number from 0 to 1")
    check_depth(depth)
    if heatmap is not None and heatmap.exists() and not heatmap.is_dir():
        raise InputError(f"--heatmap {heatmap}: is a file; give a folder")


def evaluate(
    model: option.Model,
    data: option.TestData = None,
    patient_pattern: option.PatientPattern = PATIENT_PATTERN,
    depth: option.ModelDepth = None,
    prevalence: option.Prevalence = None,
    tracking_uri: option.TrackingUri = None,
    json: option.Json = False,
) -> None:
    """Score a registered model on test images, with 95 % intervals, and log it to MLflow."""
    option.check_prevalence(prevalence)
    from sweep.cli.terminal import Terminal
    from sweep.cli.views import evaluation_view
    from sweep.lifecycle.evaluate import evaluate as score
    from sweep.lifecycle.evaluate import rows_of
    from sweep.lifecycle.scored_data import data_for
    from sweep.orchestrator.workdir import mlflow_in, stoppable, unless
    from sweep.stores.mlflow_stores import open_client, read_run, tracking_of
    from sweep.stores.registry import find_version, load

    terminal = Terminal(json=json)
    client = open_client(tracking_uri or mlflow_in(Path.cwd()))
    version = find_version(client, model)
    classifier, tracking = load(client, version), tracking_of(client, version.run_id)
    if prevalence is not None and classifier.about["positive"] is None:
        raise InputError(f"--prevalence: {model} has more than two classes, and predictive values are of two")
    past = read_run(tracking.uri, version.run_id, ensembles=True)
    scored = data_for(version, classifier.about, past, data, patient_pattern, depth)
    source = scored.source
    for note in scored.notes:
        terminal.say(f"note: {note}")
    for warning in scored.warnings:
        terminal.say(f"warning: {warning}")
    counting = terminal.counting("scoring", len(source.splits["test"]))
    with stoppable("stopped; nothing was logged") as stopping, counting as progress:
        evaluation = score(version, classifier, scored, tracking, unless(stopping, progress), prevalence)
    for note in evaluation.notes:
        terminal.say(f"note: {note}")
    terminal.show(evaluation_view(evaluation, scored))
    assessment = evaluation.assessment
    terminal.end(
        model=f"models:/{version.name}/{version.version}",
        data=source.location,
        data_digest=source.digest,
        test_digest=scored.digest,
        split="test",
        counts=evaluation.counts,
        notes=[*scored.notes, *evaluation.notes],
        warnings=list(scored.warnings),
        images=assessment.images,
        run_id=evaluation.run_id,
        threshold=assessment.threshold,
        scores=rows_of(assessment),
        clinical=None if assessment.clinical is None else assessment.clinical.to_dict(),
    )


def promote(
    model: option.Model,
    alias: option.Alias,
    force: option.Force = False,
    reason: option.Reason = "",
    tracking_uri: option.TrackingUri = None,
    json: option.Json = False,
) -> None:
    """Give an alias to a version if it is significantly better on validation; exit 1 if it is not."""
    from sweep.cli.terminal import Terminal
    from sweep.lifecycle.promotion import promote as decide
    from sweep.orchestrator.workdir import mlflow_in
    from sweep.stores import tags as tag
    from sweep.stores.mlflow_stores import open_client, tracking_of
    from sweep.stores.registry import architectures_of, find_version

    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", alias) or alias == "latest" or re.fullmatch(r"v\d+", alias):
        raise InputError(
            f"--as {alias}: an alias is small letters, digits, - and _, and neither latest nor v and a number"
        )
    if reason and not force:
        raise InputError("--reason: only a person's decision has one; say --force too")
    terminal = Terminal(json=json)
    client = open_client(tracking_uri or mlflow_in(Path.cwd()))
    version = find_version(client, model)
    arch = version.tags.get(tag.ARCH)
    if alias in {*ARCHITECTURES, *architectures_of(client, version.name)} and alias != arch:
        raise InputError(f"--as {alias}: that alias is for networks of {alias}, and {model} is a {arch}")
    decision = decide(tracking_of(client, version.run_id), version, alias, force=force, reason=reason)
    holds = decision.moves or decision.holder == version.version
    terminal.say(f"{version.name}@{alias}: {decision.reason}")
    if not holds and "--force" not in decision.reason:
        terminal.say("a person may decide otherwise: --force --reason '...'")
    terminal.end(0 if holds else 1, **asdict(decision))
