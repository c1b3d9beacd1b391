"""What the card, the tags and the files of a registered ensemble say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.resolution import native_size
from models import architecture
from sweep.comparisons.ensembles.scored import Ensemble, Scored
from sweep.lifecycle.model_card import DESCRIPTION_LENGTH, CardData, EnsembleFacts, card_markdown, card_summary
from sweep.metrics import figures
from sweep.metrics.assessment import Assessment
from sweep.metrics.calibration import Temperature
from sweep.metrics.threshold import Threshold
from sweep.orchestrator.conclude import facts_of_data, provenance_of_data
from sweep.orchestrator.run_params import leakage_tags
from sweep.stores import packaging
from sweep.stores import tags as tag
from sweep.system import provenance

# Params of trainings that say nothing of an ensemble.
OF_TRAININGS = ("seed", "micro_batch", "threads", "device")


def validation_note(ensemble: Ensemble) -> str:
    """Which predictions the validation scores, the temperature and the threshold come from."""
    if ensemble.selection.of_folds:
        return (
            "Validation is out of fold: no image is new to all members, so each training image is answered by the one "
            "member that did not learn from it. Temperature and threshold are fitted on these answers of single "
            "networks; the ensemble of them all is scored on the test images alone."
        )
    if ensemble.selection.asked.startswith("top"):
        return "Validation scores are optimistic, since the members were chosen by them."
    return (
        "No member learned from the validation images; they decided which epoch's weights each member keeps, and the "
        "configuration was chosen by them."
    )


def facts_of(
    ensemble: Ensemble,
    validation: Assessment,
    test: Assessment,
    temperature: Temperature,
    threshold: Threshold | None,
    missed: Sequence[str],
    number: int,
) -> CardData:
    """What the model card says."""
    plan, members, search = ensemble.plan, ensemble.members, ensemble.search
    (planned,) = plan.studies
    data = {**facts_of_data(plan, planned), **(_data_of_folds(ensemble) if ensemble.selection.of_folds else {})}
    data["warnings"] = (*data["warnings"], *missed)
    shared = _shared(ensemble)
    differing = [name for name in members[0].trial.params if name not in shared]
    rows = [
        {
            "member": member.name,
            "seed": member.trained.config.seed,
            "epoch": member.trained.epoch,
            search.metric: member.value(search.metric),
            **{name: member.trial.params.get(name, "") for name in differing},
        }
        for member in members
    ]
    searched = {name: value for name, value in members[0].trial.params.items() if name in shared}
    return CardData(
        **data,
        arch=ensemble.arch,
        parameters=sum(parameter.numel() for parameter in members[0].trained.network.parameters()),
        study=search.study.name,
        trial=-1,
        run=ensemble.name,
        metric=search.metric,
        searched=searched,
        fixed=shared,
        history=(),
        epoch=0,
        validation=validation,
        test=test,
        threshold=threshold.reason if threshold else "",
        opened=number,
        provenance={
            **provenance_of_data(plan),
            "study": search.study.name,
            "members": ", ".join(f"{member.name} ({member.run.run_id})" for member in members),
            **{key.removeprefix("sweep."): value for key, value in provenance.tags().items()},
        },
        temperature=temperature.reason,
        ensemble=EnsembleFacts(rows, ensemble.selection.chosen, ensemble.flip, validation_note(ensemble)),
    )


def _data_of_folds(ensemble: Ensemble) -> dict[str, Any]:
    """What the card says of the images where each member left out a fold of its own."""
    source, members = ensemble.plan.source, ensemble.members
    labels = np.concatenate([member.validation.labels for member in members])
    patients = {patient for member in members for patient in member.validation.patients}
    listings = {"train": (labels, len(patients))}
    listings["test"] = (source.splits["test"].labels, len(set(source.splits["test"].patients)))
    return {
        "counts": {
            part: dict(zip(source.classes, np.bincount(of_part, minlength=len(source.classes)).tolist(), strict=True))
            for part, (of_part, _) in listings.items()
        },
        "patients": {part: count for part, (_, count) in listings.items()},
        "split": f"{len(members)} folds of whole patients; each member learned from all but its own",
    }


def _shared(ensemble: Ensemble) -> dict[str, Any]:
    """The params that all members were trained with."""
    first, *others = [member.trial.attributes["run"]["params"] for member in ensemble.members]
    return {
        name: value
        for name, value in first.items()
        if name not in OF_TRAININGS and all(other.get(name) == value for other in others)
    }


def tags_of(
    ensemble: Ensemble, temperature: float, threshold: Threshold | None, missed: Sequence[str]
) -> dict[str, str]:
    """Tags of the version, which its run has, too."""
    described, commit = ensemble.search.description.tags, provenance.tags().get(tag.COMMIT)
    kept = (tag.STUDY, tag.STUDY_ID, tag.DATA, tag.DATA_DIGEST)
    split = {} if ensemble.selection.of_folds else {tag.SPLIT_DIGEST: ensemble.plan.split.digest}
    return {
        **{key: described[key] for key in kept if key in described},
        **split,
        **leakage_tags(ensemble.plan),
        **({tag.MISSED_CLASSES: "; ".join(missed)} if missed else {}),
        **({tag.THRESHOLD: f"{threshold.value:.4g}"} if threshold else {}),
        **({tag.COMMIT: commit} if commit else {}),
        tag.ARCH: ensemble.arch,
        tag.MEMBERS: f"{ensemble.selection.asked}{', flip' if ensemble.flip else ''}",
        tag.METRIC: ensemble.search.metric,
        tag.TEMPERATURE: f"{temperature:.4f}",
    }


def spec_of(
    ensemble: Ensemble,
    run_id: str,
    facts: CardData,
    scores: Mapping[str, float],
    tags: Mapping[str, str],
    scored: Scored,
) -> packaging.ModelSpec:
    """What the version holds beside the networks of its members."""
    (planned,), source = ensemble.plan.studies, ensemble.plan.source
    row, test = architecture(planned.arch), facts.test
    parts = {"validation": scored.validation, "test": scored.test}
    pictures = figures.of_model((), 0, parts, test.temperature, test.threshold, ensemble.name)
    sentence = f"{facts.arch}: {len(ensemble.members)} networks, {ensemble.selection.chosen}."
    return packaging.ModelSpec(
        name=facts.name,
        run_id=run_id,
        architecture=ensemble.arch,
        image_size=planned.image_size,
        mean=row.mean,
        std=row.std,
        classes=facts.classes,
        temperature=test.temperature,
        threshold=test.threshold,
        metrics=scores,
        tags=tags,
        provenance=facts.provenance,
        description=f"{sentence}\n\n{card_summary(facts)}"[:DESCRIPTION_LENGTH],
        params={**facts.fixed, "chosen": ensemble.selection.asked, "flip": ensemble.flip},
        depth=source.depth,
        native=native_size(source.largest, planned.image_size),
        files={**pictures, "model_card.md": card_markdown(facts, list(pictures))},
        members=[
            {"name": member.name, "run": member.run.run_id, "seed": member.trained.config.seed}
            for member in ensemble.members
        ],
        flip=ensemble.flip,
    )
