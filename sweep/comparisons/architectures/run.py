"""The comparison of a registered model's architectures: gathered from the stores, and logged as a run of its own."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from data.faults import InputError
from data.sources import Source
from models import ARCHITECTURES
from models.outline import outline, sketch
from sweep.cli.terminal import Terminal
from sweep.cli.views import enqueued_view
from sweep.comparisons.architectures.analysis import (
    CHOSEN,
    ComparedModel,
    Comparison,
    cost_rows,
    paired_tests,
    score_rows,
)
from sweep.comparisons.architectures.candidates import BestVersion, contender, plan_of_seeds, winners
from sweep.comparisons.architectures.report import Picture
from sweep.comparisons.enqueued import conclude_enqueued
from sweep.comparisons.replay import data_of
from sweep.lifecycle.promotion import PERSON, TAG
from sweep.metrics import figures, markdown
from sweep.metrics import network_diagram as diagrams
from sweep.metrics.threshold import decide
from sweep.orchestrator.runner import run_plan
from sweep.orchestrator.workdir import optuna_in, prepare, unless
from sweep.space import layout
from sweep.stores import registry
from sweep.stores import tags as tag
from sweep.stores.databases import file_of
from sweep.stores.study import ABOUT, Study, stored_studies
from sweep.stores.tracking import FINISHED, Tracking
from sweep.system import provenance
from sweep.system.redaction import shown

SHOWN_PICTURES, PICTURE_SIZE = 12, 224
KIND = "comparison"


@dataclass(frozen=True)
class Gathered:
    """A comparison and what its report is made from.

    Attributes:
        comparison: The comparison.
        drawings: A diagram of each architecture, as SVG.
        source: The data set, where it is here and was wanted.
        tracking: The champion's experiment.
        winners: Who is compared.
    """

    comparison: Comparison
    drawings: Mapping[str, str]
    source: Source | None
    tracking: Tracking
    winners: Mapping[str, BestVersion]


def gather(
    client: registry.MlflowClient,
    name: str | None,
    against: str,
    seeds: int,
    location: Path | None,
    machine: Mapping[str, Any],
    folder: Path,
    terminal: Terminal,
    stopping: Callable[[], bool],
    *,
    audit: bool,
) -> Gathered:
    """Reads, measures and tests; with seeds it trains, too.

    Args:
        client: Of the registry.
        name: The registered model; None for the only one.
        against: The architecture that all others are compared with, if there is one of it.
        seeds: How often each winner is trained again.
        location: Where the images are; None for where they were.
        machine: Settings of the machine and its stores: workers, device, tracking_uri, storage.
        folder: The working directory.
        terminal: Where it is told.
        stopping: Says whether somebody wants it to end.
        audit: Whether trials that were not chosen are scored on test, too.

    Raises:
        InputError: There is nothing to compare, or it is not where it should be.
        StudyFailedError: A training with another seed came to nothing.
        KeyboardInterrupt: Somebody wants it to end.
    """
    model = _model(client, name)
    storage = machine["storage"] or optuna_in(folder)
    studies = _studies(storage)
    found = winners(client, model, studies)
    holder = registry.alias_holder(client, model, registry.CHAMPION)
    champion, by = holder.tags.get(tag.ARCH, "") if holder else "", "gate"
    if holder is not None and PERSON in holder.tags.get(f"{TAG}.{registry.CHAMPION}", ""):
        by = "person"
    if champion not in found:
        champion, by = next(iter(found)), "nobody"
    found, notes = _same_data(found, champion)
    if seeds:
        for winner in found.values():
            plan = plan_of_seeds(winner, location or Path(winner.past.data_location), seeds, machine)
            prepare(plan, folder, terminal, stopping)
            run_plan(plan, folder, terminal, stopping, conclude_enqueued, enqueued_view)
        studies = _studies(storage)
    source = None
    if audit:
        try:
            source, _ = data_of(found[champion].past, location)
        except InputError:
            if location is not None:
                raise
            notes.append(
                f"the images are no longer at {found[champion].past.data_location} (say where with --data), so trials "
                "that were not chosen have no test scores"
            )
    contenders = []
    for winner in found.values():
        count = len(winner.study.trials()) if winner.study else 0
        with terminal.counting(f"reading {winner.arch}", count) as progress:
            contenders.append(contender(client, winner, source, studies, unless(stopping, progress)))
    contenders, left_out = _same_images(contenders, champion)
    reference = against if any(one.arch == against for one in contenders) else champion
    comparison = Comparison(
        name=model,
        contenders=tuple(contenders),
        champion=champion,
        chosen=CHOSEN[by],
        reference=reference,
        paired_tests=paired_tests(contenders, reference),
        missing=tuple(arch for arch in ARCHITECTURES if arch not in found),
        notes=(*notes, *left_out, *_notes(contenders, found, champion, against, reference)),
        counts=_counts(found[champion]),
        provenance={
            "data": found[champion].past.data_name,
            "data digest": found[champion].past.tags[tag.DATA_DIGEST],
            **{f"split digest, {arch}": winner.past.tags[tag.SPLIT_DIGEST] for arch, winner in found.items()},
            **{f"run, {one.arch}": f"{one.run} ({one.run_id}), version {one.version}" for one in contenders},
            **{key.removeprefix("sweep."): value for key, value in provenance.tags().items()},
        },
    )
    drawings = {one.arch: diagrams.svg(_diagram(one)) for one in contenders}
    compared = {one.arch: found[one.arch] for one in contenders}
    return Gathered(comparison, drawings, source, found[champion].tracking, compared)


def log(gathered: Gathered, page: str, twin: str) -> str:
    """Logs a comparison as a run; returns its id."""
    comparison, tracking = gathered.comparison, gathered.tracking
    pictures = {f"figures/{one.arch}.png": figures.png(_diagram(one)) for one in comparison.contenders}
    run = tracking.start(
        f"comparison-{comparison.name}",
        {
            tag.KIND: KIND,
            tag.STATE: "RUNNING",
            tag.MODEL: comparison.name,
            tag.CHAMPION: comparison.champion,
            "mlflow.note.content": markdown.note(twin, "comparison.md"),
            **provenance.tags(),
        },
    )
    tracking.log_params(
        run.run_id,
        {
            "reference": comparison.reference,
            "images": comparison.images,
            "patients": comparison.patients,
            **{one.arch: f"models:/{comparison.name}/{one.version}" for one in comparison.contenders},
        },
    )
    for winner in gathered.winners.values():
        tracking.link_model(run.run_id, winner.version.model_id)
    metrics = {
        f"{one.arch}/{name}": interval.value
        for one in comparison.contenders
        for name, interval in one.assessment.scores.items()
    }
    for paired_test in comparison.paired_tests:
        for name, found in (("accuracy", paired_test.accuracy), ("auroc", paired_test.auroc)):
            metrics[f"{paired_test.arch}_against_{paired_test.against}/{name}"] = found.interval.value
            if np.isfinite(paired_test.corrected[name]):
                metrics[f"{paired_test.arch}_against_{paired_test.against}/{name}_p"] = paired_test.corrected[name]
    tracking.log(run.run_id, metrics)
    tracking.log_files(run.run_id, {"report.html": page, "comparison.md": twin, **pictures})
    tracking.log_table(run.run_id, pd.DataFrame(score_rows(comparison)), "scores.json")
    tracking.log(run.run_id, {}, tags={tag.STATE: "COMPLETE"})
    tracking.finish(run.run_id, FINISHED)
    return run.run_id


def pictures_of(gathered: Gathered) -> list[Picture]:
    """The test images that the champion has most confidently wrong.

    Raises:
        InputError: The images are not here.
    """
    comparison, source = gathered.comparison, gathered.source
    if source is None:
        raise InputError("--with-images: the images are not here; say where with --data, and leave --no-audit away")
    found = comparison.of(comparison.champion).predictions
    predicted = decide(found.probabilities())
    likely = found.probabilities(comparison.of(comparison.champion).assessment.temperature)
    wrong = np.flatnonzero(predicted != found.labels)
    worst = wrong[np.argsort(-likely[wrong, predicted[wrong]], kind="stable")][:SHOWN_PICTURES]
    rows = {name: row for row, name in enumerate(source.splits["test"].names)}
    pictures = []
    for row in worst.tolist():
        content, name = io.BytesIO(), str(found.images[row])
        Image.fromarray(source.decode("test", rows[name], PICTURE_SIZE)).save(content, "JPEG", quality=85)
        names = (found.classes[found.labels[row]], found.classes[predicted[row]])
        probability = float(likely[row, predicted[row]])
        pictures.append(Picture(Path(name).name, *names, probability, content.getvalue()))
    return pictures


def plain(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain data."""
    return {
        "model": comparison.name,
        "champion": comparison.champion,
        "reference": comparison.reference,
        "images": comparison.images,
        "patients": comparison.patients,
        "missing": list(comparison.missing),
        "notes": list(comparison.notes),
        "headline": comparison.headline,
        "scores": score_rows(comparison),
        "costs": cost_rows(comparison),
        "paired_tests": [
            {
                "arch": paired_test.arch,
                "against": paired_test.against,
                "sentence": paired_test.sentence,
                **{
                    name: {**vars(found.interval), "p": found.p, "p_corrected": paired_test.corrected[name]}
                    for name, found in (("accuracy", paired_test.accuracy), ("auroc", paired_test.auroc))
                },
            }
            for paired_test in comparison.paired_tests
        ],
    }


def _model(client: registry.MlflowClient, name: str | None) -> str:
    names = registry.models_with(client, ARCHITECTURES)
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return str(name)
    if not names:
        raise InputError(
            f"{shown(client.tracking_uri)}: no architecture has a registered model; `sweep --arch cnn1` makes one"
        )
    there = ", ".join(names)
    if name is None:
        raise InputError(f"there are several registered models: {there}; name one, such as `sweep compare {names[0]}`")
    raise InputError(f"{name}: there is no such registered model with an architecture; there are {there}")


def _studies(storage: str) -> list[Study]:
    path = file_of(storage)
    return [] if path is not None and not path.exists() else stored_studies(storage)


def _same_data(found: dict[str, BestVersion], champion: str) -> tuple[dict[str, BestVersion], list[str]]:
    """Leaves out those that learned from other data than the champion."""
    digest = found[champion].past.tags[tag.DATA_DIGEST]
    other = [arch for arch, winner in found.items() if winner.past.tags[tag.DATA_DIGEST] != digest]
    kept = {arch: winner for arch, winner in found.items() if arch not in other}
    return kept, [f"{arch} learned from other data than {champion} and is left out" for arch in other]


def _same_images(contenders: list[ComparedModel], champion: str) -> tuple[list[ComparedModel], list[str]]:
    """Puts predictions into the champion's order, and leaves out those of other test images."""
    order = next(one for one in contenders if one.arch == champion).predictions.images
    kept, notes = [], []
    for one in contenders:
        if set(one.predictions.images) == set(order):
            kept.append(replace(one, predictions=one.predictions.select(list(order))))
        else:
            notes.append(f"{one.arch} was scored on other test images than {champion} and is left out")
    return kept, notes


def _notes(
    contenders: Sequence[ComparedModel], found: Mapping[str, BestVersion], champion: str, against: str, reference: str
) -> list[str]:
    """What one should know to read the comparison."""
    notes = []
    if found[champion].past.data_name == "phantom":
        notes.append("all of it was learned from the phantom, synthetic pictures: it says nothing about X-rays")
    if reference != against:
        notes.append(f"there is no {against} to compare with (`sweep --arch {against}`), so {champion} takes its place")
    notes += [
        f"{one.arch} began with random weights (--weights none): it is not the fine-tuned network of the report"
        for one in contenders
        if one.from_scratch
    ]
    single = [one.arch for one in contenders if len(one.seeds.get("accuracy", ())) < 2]
    if single:
        notes.append(
            f"one seed is one draw: {', '.join(single)} may come out otherwise with another (`sweep compare --seeds 5`)"
        )
    if len({winner.past.tags[tag.SPLIT_DIGEST] for winner in found.values()}) > 1:
        notes.append("not all learned from the same split; their test images are the same")
    sizes = {one.params["image_size"] for one in contenders}
    if len(sizes) > 1:
        notes.append(f"they read images of different sizes: {', '.join(sorted(sizes, key=int))} pixels")
    missing = [one.arch for one in contenders if one.search is None]
    if missing:
        notes.append(f"Optuna's store has no study of {', '.join(missing)} (--storage), so their search is not shown")
    return notes


def _counts(winner: BestVersion) -> Mapping[str, Mapping[str, int]]:
    return winner.study.noted(ABOUT)["counts"] if winner.study else {}


def _diagram(one: ComparedModel) -> figures.Figure:
    size, classes = int(one.params["image_size"]), len(one.predictions.classes)
    activation, dropout = one.params["activation"], float(one.params["dropout"])
    network = sketch(one.arch, size, classes, activation, dropout, **layout(one.params))
    title = f"{one.arch}, {size} x {size} pixels, {one.cost.parameters:,} parameters"
    return diagrams.architecture(outline(network, size), title)
