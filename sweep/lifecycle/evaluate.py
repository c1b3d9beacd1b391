"""Score a registered model on test images, and log that as an MLflow run that is linked to the version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.decode import UNSTATED
from data.faults import InputError
from data.resolution import depth_note, unused_depth
from sweep.lifecycle.scored_data import ScoredData
from sweep.metrics import figures
from sweep.metrics.assessment import Assessment, assess
from sweep.metrics.clinical import clinical_table
from sweep.metrics.markdown import table
from sweep.metrics.names import THRESHOLD_FREE, label_of
from sweep.metrics.predictions import Predictions
from sweep.stores import tags as tag
from sweep.stores.registry import Version
from sweep.stores.tracking import FINISHED, Tracking
from sweep.system import provenance

BATCH = 32
NAMED_FAULTS = 10


@dataclass(frozen=True)
class Evaluation:
    """The scores of a version on some images.

    Attributes:
        version: The version.
        assessment: Its scores.
        predictions: The predictions that were scored.
        run_id: The MLflow run that shows them.
        counts: How many images of each class were scored.
        notes: What a person should know of the pixels, one sentence each.
    """

    version: Version
    assessment: Assessment
    predictions: Predictions
    run_id: str
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()


def evaluate(
    version: Version,
    classifier: Any,
    scored: ScoredData,
    tracking: Tracking,
    progress: Callable[[int], None],
    prevalence: float | None = None,
) -> Evaluation:
    """Scores a registered model.

    Args:
        version: The version.
        classifier: The same, loaded by `registry.load`.
        scored: The images, of the model's classes.
        tracking: Where the evaluation is logged: the experiment that the version's run is in.
        progress: Called with the number of images done; may raise to stop.
        prevalence: Of another population, for predictive values there; None without.

    Raises:
        InputError: An image cannot be read.
    """
    about, source = classifier.about, scored.source
    listing = source.splits["test"]
    logits, unreadable, largest = [], [], []
    for start in range(0, len(listing), BATCH):
        pixels = []
        for row in range(start, min(start + BATCH, len(listing))):
            try:
                image = source.image("test", row)
                picture = classifier.read(image, source.depth) if isinstance(image, Path) else image
                pixels.append(classifier.prepare(picture))
                largest.append(picture.info.get(UNSTATED))
            except classifier.decoder.UnreadableImageError as error:
                unreadable.append(f"{source.location}: {listing.names[row]}: {error}")
        if pixels and not unreadable:
            logits.append(classifier.logits(np.stack(pixels)))
        progress(min(start + BATCH, len(listing)))
    if unreadable:
        more = len(unreadable) - NAMED_FAULTS
        raise InputError(*unreadable[:NAMED_FAULTS], *([f"and {more:,} more unreadable images"] if more > 0 else []))
    classes = tuple(about["classes"])
    predictions = Predictions(listing.names, listing.patients, listing.labels, np.concatenate(logits), classes)
    assessment = assess(predictions, about["temperature"], about["threshold"], prevalence=prevalence)
    run_id = _log(version, about, scored, predictions, assessment, tracking)
    notes = depth_note(*unused_depth(largest), "images")
    return Evaluation(version, assessment, predictions, run_id, source.counts()["test"], notes)


def rows_of(assessment: Assessment) -> list[dict[str, Any]]:
    """The scores with their intervals as plain data, one row per score.

    `served` is the score as the model is served, `value` that at 0.5; so are their ends.
    """
    rows = []
    for name, interval in assessment.scores.items():
        served = assessment.served[name]
        row = {"score": name, "served": served.value, "served_low": served.low, "served_high": served.high}
        row |= {"value": interval.value, "low": interval.low, "high": interval.high}
        if assessment.at_threshold is not None:
            tuned = assessment.at_threshold[name]
            row |= {"at_threshold": tuned.value, "at_threshold_low": tuned.low, "at_threshold_high": tuned.high}
        rows.append({**row, f"always_{assessment.always}": assessment.baseline.get(name)})
    return rows


def _note(version: Version, assessment: Assessment, scored: ScoredData) -> str:
    """The description of the run."""
    heads = ["score", "value" if assessment.threshold is None else f"at {assessment.threshold:.3g}"]
    two = assessment.threshold is not None
    names = [label_of(name, two=two) for name in assessment.scores]
    columns: list[list[Any]] = [names, list(assessment.served.values())]
    if assessment.at_threshold is not None:
        heads.append("at 0.5")
        columns.append(["" if name in THRESHOLD_FREE else value for name, value in assessment.scores.items()])
    heads.append(f"all {assessment.always}")
    columns.append(
        [f"{assessment.baseline[name]:.3f}" if name in assessment.baseline else "" for name in assessment.scores]
    )
    warnings = "".join(f"**Warning:** {sentence}.\n\n" for sentence in scored.warnings)
    clinical = "" if assessment.clinical is None else f"\n\n{clinical_table(assessment.clinical)}"
    return (
        f"**{version.name} version {version.version}** on {assessment.images:,} images of {scored.source.location} "
        f"(test images, digest {scored.digest}), with 95 % intervals from a bootstrap of "
        f"{assessment.patients:,} patients.\n\n{warnings}{table(heads, zip(*columns, strict=True))}{clinical}"
    )


def _log(
    version: Version,
    about: dict[str, Any],
    scored: ScoredData,
    predictions: Predictions,
    assessment: Assessment,
    tracking: Tracking,
) -> str:
    source, title = scored.source, f"{about['architecture']} v{version.version}"
    # Drawn before the run is begun: a process that dies here leaves nothing behind.
    files = figures.predictions(predictions, "test", title, assessment.temperature, assessment.threshold)
    run = tracking.start(
        f"evaluate-{about['architecture']}-v{version.version}",
        {
            tag.KIND: "evaluation",
            tag.STATE: "RUNNING",
            tag.MODEL: version.name,
            tag.MODEL_VERSION: version.version,
            tag.ARCH: about["architecture"],
            "mlflow.note.content": _note(version, assessment, scored),
            tag.DATA: source.name,
            tag.DATA_DIGEST: source.digest,
            **{name: version.tags[name] for name in (tag.LEAKAGE, tag.MISSED_CLASSES) if name in version.tags},
            **provenance.tags(),
        },
    )
    params = {
        "model": f"models:/{version.name}/{version.version}",
        "data": source.location,
        "test_digest": scored.digest,
        "images": assessment.images,
        "patients": assessment.patients,
        "threshold": assessment.threshold,
        "temperature": assessment.temperature,
    }
    tracking.log_params(run.run_id, params)
    tracking.log_data(run.run_id, source.name, source.location, {"test": source.digest}, "{}")
    tracking.link_model(run.run_id, version.model_id)
    scores = assessment.values("test")
    ends = {
        f"test_{end}/{name}": getattr(interval, end)
        for name, interval in assessment.scores.items()
        for end in ("low", "high")
        if np.isfinite(interval.low)
    }
    base = {f"baseline/{name}": value for name, value in assessment.baseline.items()}
    data = (source.name, source.digest)
    clinical = {}
    if assessment.clinical is not None:
        clinical = assessment.clinical.values()
        files["clinical.json"] = pd.DataFrame(assessment.clinical.to_dict()["scores"]).to_json(orient="records") or ""
    tracking.log(run.run_id, {**scores, **ends, **base, **clinical}, model_id=version.model_id, dataset=data)
    tracking.log_files(run.run_id, files)
    tracking.log_table(run.run_id, pd.DataFrame(rows_of(assessment)), "scores.json")
    tracking.log(run.run_id, {}, tags={tag.STATE: "COMPLETE"})
    tracking.finish(run.run_id, FINISHED)
    return run.run_id
