"""The end of a study: choose by validation, open the test set once for the chosen trial, register it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.cache import Images
from data.leakage import sentences_of
from data.recorded import digest_of_images
from data.resolution import native_size
from data.sources import known_limits
from models import architecture
from sweep.lifecycle.model_card import DESCRIPTION_LENGTH, CardData, card_markdown, card_summary
from sweep.lifecycle.promotion import settle
from sweep.metrics import figures
from sweep.metrics.assessment import Assessment, assess, assessment_of
from sweep.metrics.calibration import Temperature, choose_temperature, plain_log_loss
from sweep.metrics.names import STRESSED
from sweep.metrics.pareto import Choice
from sweep.metrics.predictions import Predictions, predictions_of, read_predictions
from sweep.metrics.scores import softmax
from sweep.metrics.threshold import Threshold, choose_threshold, missed_classes
from sweep.orchestrator.run_params import leakage_tags
from sweep.orchestrator.study_run import StudyRun
from sweep.plan import Plan, PlannedStudy, default_of, overlaps
from sweep.stores import packaging, registry
from sweep.stores import tags as tag
from sweep.stores.attributes import CONCLUSION, TEST
from sweep.stores.trials import TrialRecord
from sweep.system import provenance
from sweep.system.errors import StudyFailedError
from sweep.training.inference import Trained, predict, restore

EXAMPLES = 16  # images that a model is tried with before it becomes a version


@dataclass(frozen=True)
class Outcome:
    """The result of a study.

    Attributes:
        arch: The architecture.
        study: The study's full name.
        counts: Trials by state.
        best: The chosen trial.
        run_id: Its MLflow run.
        parent_run_id: The study's MLflow run.
        validation: Its scores on validation, as it is served.
        test: Its scores on test, likewise.
        threshold: Its decision threshold; None for more than two classes.
        model: Name of the registered model.
        version: Its version there.
        aliases: What was decided about each alias: alias -> sentence.
        warnings: What speaks against trusting it, a sentence each without its end: leakage, classes that it misses.
        default: The trial of the default configuration; None where it did not train to its end.
        choice: How it was chosen by several metrics; None with one.
    """

    arch: str
    study: str
    counts: Mapping[str, int]
    best: TrialRecord
    run_id: str
    parent_run_id: str
    validation: Assessment
    test: Assessment
    threshold: Threshold | None
    model: str
    version: str
    aliases: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    default: TrialRecord | None = None
    choice: Choice | None = None


def conclude(run: StudyRun) -> Outcome:
    """Concludes a study that has its trials; concluding it again changes nothing.

    Raises:
        StudyFailedError: No trial is complete.
        TrackingAwayError: MLflow's server does not answer.
    """
    plan, planned, study, mirror = run.plan, run.planned, run.study, run.mirror
    best = study.best()
    if best is None:
        raise StudyFailedError(
            f"study {study.name}: every trial was pruned or failed, so there is no best one; "
            "allow more with a larger --trials, or use --pruner none"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = mirror.fetch_checkpoint(best.number, folder) or run.train_again(best, folder)
        trained = restore(path, planned.arch)
    predictions = predictions_of(run.images["validation"], trained.validation_logits, plan.source.classes)
    chosen = _temperature(run, best, predictions)
    temperature = chosen.value
    threshold = _threshold(run, best, trained, predictions, temperature)
    served = threshold.value if threshold else None
    validation = assess(predictions, temperature, served)
    missed = missed_classes(predictions.labels, predictions.probabilities(temperature), served, predictions.classes)
    test = _open_test(run, best, trained, validation, threshold, chosen)
    trained.network.to("cpu")
    scores = {**validation.values("val"), **test.values("test")}
    facts = _facts(run, best, trained, validation, test, threshold)
    facts = replace(facts, warnings=(*facts.warnings, *missed), temperature=chosen.reason)
    client, run_id = mirror.tracking.client, mirror.runs[best.number]
    tags = _version_tags(run, best, temperature, threshold, missed)
    version = registry.registered(client, plan.source.name, run_id, tags)
    if version is None:
        spec = _model_spec(run, facts, scores, tags, predictions)
        try:
            size, logits = planned.image_size, partial(predict, trained.network, trained.config)
            example = example_of(plan, run.images["validation"], size, logits, temperature)
            version = registry.register(client, spec, trained.network, example)
        except packaging.ModelDiffersError as error:
            raise StudyFailedError(f"{facts.run} cannot be registered: {error}") from error
    aliases = {alias: settle(mirror.tracking, version, alias) for alias in (planned.short_arch, registry.CHAMPION)}
    conclusion = {"best": best.number, "scores": scores, "description": card_summary(facts), "model": version.model_id}
    study.note(CONCLUSION, conclusion | {"choice": study.how_chosen()})
    mirror.show_conclusion()
    return Outcome(
        planned.short_arch,
        study.name,
        Counter(trial.state for trial in study.trials()),
        best,
        run_id,
        mirror.parent,
        validation,
        test,
        threshold,
        version.name,
        version.version,
        aliases,
        facts.warnings,
        default_of(study.trials()),
        study.choice(),
    )


def _temperature(run: StudyRun, best: TrialRecord, predictions: Predictions) -> Temperature:
    """The temperature of a trial: the one that its test set was opened with, or a new one."""
    stored: dict[str, Any] = (run.study.noted(TEST) or {}).get(str(best.number), {})
    if "temperature" in stored:
        return Temperature(**stored["temperature"])
    chosen = choose_temperature(predictions.labels, predictions.logits)
    if not stored:
        return chosen
    # An earlier release served every fitted one, and kept it with the assessment; before that it did not keep it.
    value = stored.get("assessment", {}).get("temperature", chosen.fitted)
    loss = plain_log_loss(predictions.labels, predictions.logits, value)
    return Temperature(value, value, chosen.untouched_loss, loss)


def _threshold(
    run: StudyRun, best: TrialRecord, trained: Trained, predictions: Predictions, temperature: float
) -> Threshold | None:
    """The threshold of a trial: the one that its test set was opened with, or a new one; None for several classes."""
    plan = run.plan
    if len(plan.source.classes) > 2:
        return None
    stored = (run.study.noted(TEST) or {}).get(str(best.number), {}).get("threshold")
    if stored is not None:  # on another device the logits may differ a little
        return Threshold(**stored)
    chosen_on, on = predictions, "validation"
    if plan.settings.metric in STRESSED:  # a network is surer of images as they are than of those of another machine
        chosen_on, on = _predict(plan, trained, run.images["validation"], stressed=True), "validation under stress"
    return choose_threshold(chosen_on.labels, chosen_on.probabilities(temperature)[:, 1], on=on)


def _predict(plan: Plan, trained: Trained, images: Images, *, stressed: bool = False) -> Predictions:
    """A network's predictions for images, on the device that it was trained on if that is here."""
    device = trained.config.device if trained.config.device == plan.device else "cpu"
    logits = predict(trained.network.to(device), trained.config, images, stressed=stressed)
    return predictions_of(images, logits, plan.source.classes)


def _open_test(
    run: StudyRun,
    best: TrialRecord,
    trained: Trained,
    validation: Assessment,
    threshold: Threshold | None,
    temperature: Temperature,
) -> Assessment:
    """Assesses a trial on the test set, once: the result is stored on the study and never measured again."""
    study, mirror = run.study, run.mirror
    opened: dict[str, Any] = study.noted(TEST) or {}
    key = str(best.number)
    if "assessment" not in opened.get(key, {}):  # an earlier release stored less
        predictions = _predict(run.plan, trained, run.images["test"])
        test = assess(predictions, validation.temperature, validation.threshold)
        tags: dict[str, Any] = {
            tag.TEST_OPENED: f"for {len(opened.keys() | {key})} of this study's trials so far",
            tag.TEMPERATURE: f"{validation.temperature:.4f}",
        }
        if threshold is not None:
            tags |= {tag.THRESHOLD: threshold.value, tag.THRESHOLD_REASON: threshold.reason}
        opened[key] = {
            "scores": test.values("test"),
            "assessment": test.to_dict(),
            "threshold": None if threshold is None else asdict(threshold),
            "temperature": asdict(temperature),
            "tags": tags,
            "epoch": trained.epoch,
        }
        files = figures.predictions(predictions, "test", mirror.run_name(best.number), test.temperature, test.threshold)
        mirror.tracking.log_files(mirror.runs[best.number], files)
        study.note(TEST, opened)
    mirror.show_test(best.number)  # each time: the server may have gone away right after they were stored
    return assessment_of(opened[key]["assessment"])


def example_of(
    plan: Plan, images: Images, size: int, logits: Callable[[Images], np.ndarray], temperature: float
) -> packaging.Example:
    """Some validation images, evenly spread, with the probabilities that what was trained gives them here.

    Args:
        plan: The sweep.
        images: Its validation images.
        size: Side of what the network takes, in pixels.
        logits: Computes float [N, classes].
        temperature: Logits are divided by it.
    """
    rows = images.rows[np.unique(np.linspace(0, len(images) - 1, EXAMPLES).astype(int))]
    some = Images(images.path, rows, np.zeros(len(rows), dtype=np.int64), (), ())
    pixels = images.pixels()[rows]
    if native_size(plan.source.largest, size) is not None:  # the model brings the others down again
        pixels = [np.asarray(plan.source.picture(plan.split.validation_from, row)) for row in rows.tolist()]
    return packaging.Example(pixels, softmax(logits(some) / temperature))


def _facts(
    run: StudyRun,
    best: TrialRecord,
    trained: Trained,
    validation: Assessment,
    test: Assessment,
    threshold: Threshold | None,
) -> CardData:
    """What the model card says."""
    planned, study, mirror = run.planned, run.study, run.mirror
    return CardData(
        **facts_of_data(run.plan, planned),
        arch=planned.short_arch,
        parameters=sum(parameter.numel() for parameter in trained.network.parameters()),
        study=study.name,
        trial=best.number,
        run=mirror.run_name(best.number),
        metric=run.plan.settings.metric,
        searched=best.params,
        fixed=best.attributes["run"]["params"],
        history=best.history,
        epoch=trained.epoch,
        validation=validation,
        test=test,
        threshold=threshold.reason if threshold else "",
        opened=len(study.noted(TEST) or {}),
        choice=study.how_chosen(),
        provenance=_provenance(run, best, trained),
    )


def facts_of_data(plan: Plan, planned: PlannedStudy) -> dict[str, Any]:
    """What a model card says of the images: fields of CardData by name."""
    source, split, shared = plan.source, plan.split, overlaps(plan)
    listings = {
        "train": source.splits["train"].select(split.train),
        "validation": source.splits[split.validation_from].select(split.validation),
        "test": source.splits["test"],
    }
    return {
        "name": source.name,
        "image_size": planned.image_size,
        "classes": source.classes,
        "counts": {
            part: dict(
                zip(source.classes, np.bincount(listing.labels, minlength=len(source.classes)).tolist(), strict=True)
            )
            for part, listing in listings.items()
        },
        "patients": {part: len(set(listing.patients)) for part, listing in listings.items()},
        "split": (
            "whole patients taken from the training images, none of whom is left among them"
            if split.validation_from == "train"
            else "the data set's own, beside the training images"
        ),
        "limits": (
            *known_limits(source),
            *_limits_of_pixels(plan, planned),
            *sentences_of(overlap for overlap in shared if not overlap.serious),
        ),
        "warnings": sentences_of(overlap for overlap in shared if overlap.serious),
    }


def _limits_of_pixels(plan: Plan, planned: PlannedStudy) -> tuple[str, ...]:
    """How images are read otherwise than their files alone say, one sentence each without a full stop."""
    depth, native = plan.source.depth, native_size(plan.source.largest, planned.image_size)
    sentences = []
    if depth is not None:
        sentences.append(f"An image of more than 8 bits that states no depth is read as one of {depth} bits")
    if native is not None:
        sentences.append(
            f"It learned from images of at most {native[0]} x {native[1]} pixels: a larger one is brought down to "
            "that before anything else"
        )
    return tuple(sentences)


def _provenance(run: StudyRun, best: TrialRecord, trained: Trained) -> dict[str, Any]:
    """Where a model comes from: its data, its trial, and the code and machine of today."""
    return {
        **provenance_of_data(run.plan),
        "study": run.study.name,
        "trial": best.number,
        "run": run.mirror.runs[best.number],
        "seed": best.attributes["run"]["params"]["seed"],
        "epoch": trained.epoch,
        **{key.removeprefix("sweep."): value for key, value in provenance.tags().items()},
    }


def provenance_of_data(plan: Plan) -> dict[str, Any]:
    """The digests of the images that a model learned from and was tested on."""
    source = plan.source
    return {
        "data": source.name,
        "data kind": source.kind,
        "data digest": source.digest,
        "test digest": digest_of_images(source.splits["test"]),
        "split digest": plan.split.digest,
    }


def _version_tags(
    run: StudyRun, best: TrialRecord, temperature: float, threshold: Threshold | None, missed: Sequence[str]
) -> dict[str, str]:
    kept = (tag.STUDY, tag.STUDY_ID, tag.ARCH, tag.DATA, tag.DATA_DIGEST, tag.SPLIT_DIGEST)
    described, metric, commit = run.mirror.description.tags, run.plan.settings.metric, provenance.tags().get(tag.COMMIT)
    return {
        **{key: described[key] for key in kept if key in described},
        **leakage_tags(run.plan),  # again: a study of an earlier release has no such tag
        **({tag.MISSED_CLASSES: "; ".join(missed)} if missed else {}),
        **({tag.THRESHOLD: f"{threshold.value:.4g}"} if threshold else {}),
        **({tag.COMMIT: commit} if commit else {}),
        tag.TRIAL: str(best.number),
        tag.METRIC: metric,
        metric: f"{best.value:.4f}",
        tag.TRAIN_IMAGES: str(len(run.plan.split.train)),
        tag.TEMPERATURE: f"{temperature:.4f}",
    }


def _description(facts: CardData) -> str:
    """The description of a version: a sentence, which lists show, and the main parts of the card."""
    score = facts.validation.scores.get(facts.metric.removeprefix("val/"))
    value = "" if score is None else f" ({score.value:.4f})"
    how = facts.choice or f"chosen by {facts.metric}{value}"
    sentence = f"{facts.arch}, trial {facts.trial} of study {facts.study}, {how} on validation."
    return f"{sentence}\n\n{card_summary(facts)}"[:DESCRIPTION_LENGTH]


def _model_spec(
    run: StudyRun, facts: CardData, scores: Mapping[str, float], tags: Mapping[str, str], validation: Predictions
) -> packaging.ModelSpec:
    planned, mirror = run.planned, run.mirror
    row, run_id, test = architecture(planned.arch), mirror.runs[facts.trial], facts.test
    parts = {"validation": validation}
    with tempfile.TemporaryDirectory() as folder:
        if path := mirror.tracking.fetch(run_id, "predictions/test.csv", Path(folder)):
            parts["test"] = read_predictions(path)
    pictures = figures.of_model(facts.history, facts.epoch, parts, test.temperature, test.threshold, facts.run)
    return packaging.ModelSpec(
        name=facts.name,
        run_id=run_id,
        architecture=planned.short_arch,
        image_size=planned.image_size,
        mean=row.mean,
        std=row.std,
        classes=facts.classes,
        temperature=test.temperature,
        threshold=test.threshold,
        metrics=scores,
        tags=tags,
        provenance={**facts.provenance, "params": dict(facts.searched)},
        description=_description(facts),
        params=facts.fixed,
        depth=run.plan.source.depth,
        native=native_size(run.plan.source.largest, planned.image_size),
        files={**pictures, "model_card.md": card_markdown(facts, list(pictures))},
    )
