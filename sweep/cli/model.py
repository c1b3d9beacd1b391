"""`sweep predict`, `evaluate` and `promote`: what registered models are used for."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path

from data.faults import InputError
from data.listing import text_of
from data.sources import PATIENT_PATTERN
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
    if csv and json:
        raise InputError("--csv and --json: stdout belongs to one of them")
    from sweep.api import models
    from sweep.cli.views import answers_view
    from sweep.terminal import Terminal

    terminal = Terminal(json=json, csv=csv)
    done = models.predict(
        model,
        images,
        threshold=threshold,
        heatmap=heatmap,
        depth=depth,
        tracking_uri=tracking_uri,
        view=terminal,
    )
    labelled = done.labelled
    if csv:
        sys.stdout.write(labelled.answers.to_csv(index=False))
    elif not json:
        terminal.show(answers_view(labelled.answers, done.version, done.about))
    for note in labelled.notes:
        terminal.say(f"note: {note}")
    for path, why in labelled.unreadable.items():
        terminal.say(f"unreadable: {text_of(path)}: {why}")
    unreadable = {text_of(path): why for path, why in labelled.unreadable.items()}
    terminal.end(
        1 if unreadable else 0,
        predictions=labelled.answers.to_dict("records"),
        unreadable=unreadable,
        warnings=list(done.warnings),
        notes=list(done.notes),
    )


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
    from sweep.api import models
    from sweep.cli.views import evaluation_view
    from sweep.lifecycle.evaluate import rows_of
    from sweep.terminal import Terminal

    terminal = Terminal(json=json)
    done = models.evaluate(
        model,
        data=data,
        patient_pattern=patient_pattern,
        depth=depth,
        prevalence=prevalence,
        tracking_uri=tracking_uri,
        view=terminal,
    )
    evaluation, scored = done.evaluation, done.data
    source, version = scored.source, evaluation.version
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
    from sweep.lifecycle.promotion import promote as decide
    from sweep.orchestrator.workdir import mlflow_in
    from sweep.stores import tags as tag
    from sweep.stores.mlflow_stores import open_client, tracking_of
    from sweep.stores.registry import architectures_of, find_version
    from sweep.terminal import Terminal

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
