"""Compare the architectures of a registered model: read the stores, test, log the comparison as a run of its own."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from data import synthetic
from data.faults import InputError
from data.sources import Source
from models import ARCHITECTURES
from sweep.comparisons.architectures import heat_sections, report
from sweep.comparisons.architectures.analysis import (
    CHOSEN,
    ComparedModel,
    Comparison,
    cost_rows,
    paired_tests,
    score_rows,
)
from sweep.comparisons.architectures.candidates import BestVersion, best_versions, measure, plan_of_seeds
from sweep.comparisons.architectures.checklist.page import LOGGED as LOGGED_CHECKLIST
from sweep.comparisons.architectures.drawings import drawings_of
from sweep.comparisons.architectures.report import Picture
from sweep.comparisons.architectures.stored import StoredModel, ensemble_note, stored_model
from sweep.comparisons.enqueued import EnqueuedResult, conclude_enqueued
from sweep.comparisons.replay import data_of
from sweep.comparisons.run_log import log_run
from sweep.lifecycle.promotion import PERSON, TAG
from sweep.lifecycle.scored_data import warnings_of
from sweep.metrics import figures
from sweep.orchestrator.progress import View
from sweep.orchestrator.run_params import description_of
from sweep.orchestrator.runner import run_plan
from sweep.orchestrator.workdir import optuna_in, prepare, unless
from sweep.stores import registry
from sweep.stores import tags as tag
from sweep.stores.databases import file_of
from sweep.stores.study import Study, stored_studies
from sweep.stores.tracking import Tracking
from sweep.system import provenance
from sweep.system.redaction import shown

SHOWN_PICTURES, PICTURE_SIZE = 12, 224
KIND = "comparison"


@dataclass(frozen=True)
class Request:
    """What a comparison is asked for.

    Attributes:
        model: The registered model; None for the only one.
        against: The architecture that all others are compared with; None for resnet50, or the champion without it.
        seeds: How often the configuration of each best version is trained again.
        location: Where the images are; None for where they were.
        machine: Settings of the machine and its stores: workers, device, tracking_uri, storage.
        folder: The working directory.
        audit: Whether trials that were not chosen are scored on test, too.
        prevalence: Of another population than the test images', for predictive values there; None without.
    """

    model: str | None
    against: str | None
    seeds: int
    location: Path | None
    machine: Mapping[str, Any]
    folder: Path
    audit: bool
    prevalence: float | None = None


@dataclass(frozen=True)
class Gathered:
    """A comparison and what its report is made from.

    Attributes:
        comparison: The comparison.
        drawings: A diagram of each architecture.
        source: The data set, where it is here and was wanted.
        tracking: The champion's experiment.
        versions: The versions that are compared.
        stored: What else the stores hold of each, by architecture.
    """

    comparison: Comparison
    drawings: Mapping[str, figures.Figure]
    source: Source | None
    tracking: Tracking
    versions: Mapping[str, BestVersion]
    stored: Mapping[str, StoredModel]


def gather(
    client: registry.MlflowClient,
    request: Request,
    view: View,
    stopping: Callable[[], bool],
    ended: Callable[[EnqueuedResult], None],
) -> Gathered:
    """Reads, measures and tests; with seeds it trains, too.

    Args:
        client: Of the registry.
        request: What is compared, and how.
        view: Shows what happens.
        stopping: Says whether somebody wants it to end.
        ended: Called with each study of further seeds, once it has ended.

    Raises:
        InputError: There is nothing to compare, or it is not where it should be.
        StudyFailedError: No training with another seed is complete.
        KeyboardInterrupt: It was stopped.
    """
    name = _model(client, request.model)
    storage = request.machine.get("storage") or optuna_in(request.folder)
    studies = _studies(storage)
    versions = best_versions(client, name, studies)
    champion, chosen = _champion(client, name, versions)
    if request.prevalence is not None and registry.load(client, versions[champion].version).about["positive"] is None:
        raise InputError(f"--prevalence: {name} has more than two classes, and predictive values are of two")
    versions, notes = _same_data(versions, champion)
    notes += ensemble_note(client, name)
    if request.seeds:
        for best in versions.values():
            plan = plan_of_seeds(best, request.location, request.seeds, request.machine)
            prepare(plan, request.folder, view, stopping)
            run_plan(plan, request.folder, view, stopping, conclude_enqueued, ended)
        studies = _studies(storage)
    source = None
    if request.audit:
        source, note = _source(versions[champion], request.location)
        notes += note
        if source is not None:
            view.say(f"test images: {source.name} from {source.location}, data digest {source.digest}")
    models = []
    for best in versions.values():
        count = len(best.study.trials()) if best.study else 0
        with view.counting(f"reading {best.arch}", count) as progress:
            models.append(measure(client, best, source, studies, unless(stopping, progress), request.prevalence))
    models, left_out = _same_images(models, champion)
    if request.against is not None and request.against not in versions:
        raise InputError(
            f"--against {request.against}: {name} has no version of this architecture; it has {', '.join(versions)}"
        )
    drawings, undrawn = drawings_of(models)
    notes += undrawn
    if source is not None:
        notes += [f"{model.arch}: no heat map can be made of it" for model in models if model.heat is None]
    against = request.against or "resnet50"
    reference = against if any(model.arch == against for model in models) else champion
    comparison = Comparison(
        name=name,
        models=tuple(models),
        champion=champion,
        chosen=CHOSEN[chosen],
        reference=reference,
        paired_tests=paired_tests(models, reference, champion),
        missing=tuple(arch for arch in ARCHITECTURES if arch not in versions),
        notes=(*notes, *left_out, *_notes(models, versions, champion)),
        counts=_counts(versions[champion]),
        provenance=_provenance(models, versions, champion),
    )
    compared = {model.arch: versions[model.arch] for model in models}
    stored = {arch: stored_model(client, best) for arch, best in compared.items()}
    return Gathered(comparison, drawings, source, versions[champion].tracking, compared, stored)


def _provenance(models: Sequence[ComparedModel], versions: Mapping[str, BestVersion], champion: str) -> dict[str, str]:
    """How everything that is compared was made."""
    past = versions[champion].past
    return {
        "data": past.data_name,
        "data digest": past.tags[tag.DATA_DIGEST],
        **{f"split digest, {arch}": best.past.tags[tag.SPLIT_DIGEST] for arch, best in versions.items()},
        **{f"run, {model.arch}": f"{model.run} ({model.run_id}), version {model.version}" for model in models},
        **{key.removeprefix("sweep."): value for key, value in provenance.tags().items()},
    }


def _champion(client: registry.MlflowClient, name: str, versions: Mapping[str, BestVersion]) -> tuple[str, str]:
    """The architecture that stands first, and which of CHOSEN chose it."""
    holder = registry.alias_holder(client, name, registry.CHAMPION)
    arch = holder.tags.get(tag.ARCH, "") if holder else ""
    if holder is None or arch not in versions:
        return next(iter(versions)), "nobody"
    return arch, "person" if PERSON in holder.tags.get(f"{TAG}.{registry.CHAMPION}", "") else "gate"


def _source(best: BestVersion, location: Path | None) -> tuple[Source | None, list[str]]:
    """The data set for scores of the trials that were not chosen, or None and a note why not."""
    try:
        return data_of(best.past, location)[0], []
    except InputError as error:
        if location is not None:
            raise
        return None, [f"{'; '.join(error.faults)}; so trials that were not chosen have no test scores"]


def log(gathered: Gathered, html: str, page: str, checklist: str) -> str:
    """Logs a comparison as a run; returns its id.

    Args:
        gathered: The comparison.
        html: The report as HTML.
        page: The report in Markdown.
        checklist: The reporting checklist as HTML.
    """
    comparison = gathered.comparison
    metrics: dict[str, float] = {}
    for model in comparison.models:
        metrics |= model.assessment.values(model.arch)
    for test in comparison.paired_tests:
        pair = f"{test.arch}_against_{test.against}"
        for name, difference in (("accuracy", test.accuracy), ("auroc", test.auroc)):
            metrics[f"{pair}/{name}"] = difference.interval.value
            if np.isfinite(test.corrected[name]):
                metrics[f"{pair}/{name}_p"] = test.corrected[name]
    metrics |= heat_sections.metrics(comparison)
    return log_run(
        gathered.tracking,
        f"comparison-{comparison.name}",
        {tag.KIND: KIND, tag.MODEL: comparison.name, tag.CHAMPION: comparison.champion},
        params={
            "reference": comparison.reference,
            "images": comparison.images,
            "patients": comparison.patients,
            **{model.arch: f"models:/{comparison.name}/{model.version}" for model in comparison.models},
        },
        metrics=metrics,
        files={
            report.LOGGED: html,
            LOGGED_CHECKLIST: checklist,
            "comparison.md": page,
            **{f"figures/{arch}.png": figures.png(drawing) for arch, drawing in gathered.drawings.items()},
            "scores.json": pd.DataFrame(score_rows(comparison)),
        },
        page="comparison.md",
        models=[best.version.model_id for best in gathered.versions.values()],
    )


def pictures_of(gathered: Gathered) -> list[Picture]:
    """The test images that the champion has most confidently wrong.

    Raises:
        InputError: The images are not here.
    """
    comparison, source = gathered.comparison, gathered.source
    if source is None:
        raise InputError("--with-images: the images are not here; say where with --data, and leave --no-audit away")
    champion = comparison.of(comparison.champion)
    predictions, predicted, likely = champion.predictions, champion.predicted(), champion.probabilities
    wrong = np.flatnonzero(predicted != predictions.labels)
    worst = wrong[np.argsort(-likely[wrong, predicted[wrong]], kind="stable")][:SHOWN_PICTURES]
    rows = {name: row for row, name in enumerate(source.splits["test"].names)}
    pictures = []
    for row in worst.tolist():
        content, name = io.BytesIO(), str(predictions.images[row])
        Image.fromarray(source.decode("test", rows[name], PICTURE_SIZE)).save(content, "JPEG", quality=85)
        names = (predictions.classes[predictions.labels[row]], predictions.classes[predicted[row]])
        probability = float(likely[row, predicted[row]])
        pictures.append(Picture(Path(name).name, *names, probability, content.getvalue()))
    return pictures


def to_dict(comparison: Comparison) -> dict[str, Any]:
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
        "served": {
            model.arch: {
                "version": model.version,
                "threshold": model.assessment.threshold,
                "temperature": model.assessment.temperature,
            }
            for model in comparison.models
        },
        "scores": score_rows(comparison),
        "clinical": [
            {"arch": model.arch, **model.assessment.clinical.to_dict()}
            for model in comparison.models
            if model.assessment.clinical is not None
        ],
        "costs": cost_rows(comparison),
        "heat_maps": heat_sections.to_dict(comparison),
        "paired_tests": [
            {
                "arch": test.arch,
                "against": test.against,
                "sentence": test.sentence,
                **{
                    name: {**vars(difference.interval), "p": difference.p, "p_corrected": test.corrected[name]}
                    for name, difference in (("accuracy", test.accuracy), ("auroc", test.auroc))
                },
            }
            for test in comparison.paired_tests
        ],
    }


def _model(client: registry.MlflowClient, name: str | None) -> str:
    names = registry.models_of_architectures(client)
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


def _same_data(versions: dict[str, BestVersion], champion: str) -> tuple[dict[str, BestVersion], list[str]]:
    """Leaves out those that learned from other data than the champion."""
    digest = versions[champion].past.tags[tag.DATA_DIGEST]
    other = [arch for arch, best in versions.items() if best.past.tags[tag.DATA_DIGEST] != digest]
    kept = {arch: best for arch, best in versions.items() if arch not in other}
    return kept, [f"{arch} learned from other data than {champion} and is left out" for arch in other]


def _same_images(models: list[ComparedModel], champion: str) -> tuple[list[ComparedModel], list[str]]:
    """Puts predictions into the champion's order, and leaves out those of other test images."""
    order = next(model for model in models if model.arch == champion).predictions.images
    kept, notes = [], []
    for model in models:
        if set(model.predictions.images) == set(order):
            kept.append(replace(model, predictions=model.predictions.select(list(order))))
        else:
            notes.append(f"{model.arch} was scored on other test images than {champion} and is left out")
    return kept, notes


def _notes(models: Sequence[ComparedModel], versions: Mapping[str, BestVersion], champion: str) -> list[str]:
    """What one should know to read the comparison."""
    notes = []
    if versions[champion].past.data_name in synthetic.NAMES:
        notes.append("all of it was learned from synthetic images: it says nothing about X-rays")
    known: dict[str, list[str]] = {}
    for model in models:
        for sentence in chain(*warnings_of(versions[model.arch].version)):
            known.setdefault(sentence, []).append(model.arch)
    for sentence, archs in known.items():
        said = sentence if len(archs) == 1 else sentence.replace("in its study", "in their studies", 1)
        notes.append(f"{', '.join(archs)}: {said}")
    notes += [
        f"{model.arch} began with random weights (--weights none), not with pretrained ones"
        for model in models
        if model.from_scratch
    ]
    single = [model.arch for model in models if len(model.seeds.get("accuracy", ())) < 2]
    if single:
        notes.append(
            f"a single training seed: the scores of {', '.join(single)} may differ with another one "
            "(`sweep compare --seeds 5`)"
        )
    if len({best.past.tags[tag.SPLIT_DIGEST] for best in versions.values()}) > 1:
        notes.append("not all learned from the same split; their test images are the same")
    sizes = {model.params["image_size"] for model in models}
    if len(sizes) > 1:
        notes.append(f"they read images of different sizes: {', '.join(sorted(sizes, key=int))} pixels")
    missing = [model.arch for model in models if model.search is None]
    if missing:
        notes.append(f"Optuna's store has no study of {', '.join(missing)} (--storage), so their search is not shown")
    return notes


def _counts(best: BestVersion) -> Mapping[str, Mapping[str, int]]:
    return description_of(best.study).counts if best.study else {}
