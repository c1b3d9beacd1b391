"""The end of a study: choose by validation, open the test set once for the chosen trial, register it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.cache import Images
from data.sources import known_limits
from models import ARCHITECTURES
from sweep.lifecycle.model_card import CardData, card_markdown, card_summary
from sweep.lifecycle.promotion import settle
from sweep.metrics import figures
from sweep.metrics.assessment import Assessment, assess, assessment_of
from sweep.metrics.calibration import fit_temperature
from sweep.metrics.names import STRESSED
from sweep.metrics.predictions import Predictions, read_predictions
from sweep.metrics.scores import softmax
from sweep.metrics.threshold import Threshold, choose_threshold
from sweep.orchestrator.mlflow_mirror import CONCLUSION, TEST, Mirror
from sweep.orchestrator.run_params import predictions_of
from sweep.plan import Plan, PlannedStudy
from sweep.stores import registry
from sweep.stores import tags as tag
from sweep.stores.study import Study, TrialRecord
from sweep.system import provenance
from sweep.system.errors import StudyFailedError
from sweep.training.loop import Trained, predict, restore

EXAMPLES = 16  # images that a model is tried with before it becomes a version


@dataclass(frozen=True)
class Outcome:
    """What a study came to.

    Attributes:
        arch: The architecture.
        study: The study's full name.
        counts: Trials by state.
        best: The chosen trial.
        run_id: Its MLflow run.
        parent_run_id: The study's MLflow run.
        validation: What it is worth on validation, as it is served.
        test: What it is worth on test, likewise.
        threshold: The decision threshold that goes with it; None for more than two classes.
        model: Name of the registered model.
        version: Its version there.
        seats: What became of each alias: alias -> sentence.
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
    seats: Mapping[str, str]


def conclude(
    plan: Plan,
    planned: PlannedStudy,
    study: Study,
    mirror: Mirror,
    images: Mapping[str, Images],
    train_again: Callable[[TrialRecord, Path], Path],
) -> Outcome:
    """Concludes a study that has its trials; concluding it again changes nothing.

    Args:
        plan: The sweep.
        planned: The study.
        study: The same in Optuna.
        mirror: Its runs.
        images: `train`, `validation` and `test`.
        train_again: Trains a trial into a folder and returns its checkpoint, should the one in MLflow be gone.

    Raises:
        StudyFailedError: No trial is complete.
        TrackingAwayError: MLflow's server does not answer.
    """
    best = study.best()
    if best is None:
        raise StudyFailedError(
            f"study {study.name}: every trial was pruned or failed, so there is no best one; "
            "allow more with a larger --trials, or use --pruner none"
        )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        trained = restore(mirror.fetch_checkpoint(best.number, place) or train_again(best, place))
    chosen = predictions_of(images["validation"], trained.validation_logits, plan)
    temperature = fit_temperature(chosen.labels, chosen.logits)
    threshold = _threshold(plan, study, images["validation"], best, trained, chosen, temperature)
    validation = assess(chosen, temperature, threshold.value if threshold else None)
    test = _open_test(plan, study, mirror, images["test"], best, trained, validation, threshold)
    trained.network.to("cpu")

    scores = {**validation.values("val"), **test.values("test")}
    facts = _facts(plan, planned, study, mirror, best, trained, validation, test, threshold)
    client, run_id = mirror.tracking.client, mirror.runs[best.number]
    tags = _version_tags(plan, mirror, best, temperature)
    version = registry.registered(client, plan.source.name, run_id, tags)
    if version is None:
        spec = _model_spec(planned, mirror, facts, scores, tags, chosen)
        try:
            version = registry.register(client, spec, trained.network, _example(trained, images, temperature))
        except registry.ModelDiffersError as error:
            raise StudyFailedError(f"{facts.run} cannot be registered: {error}") from error
    aliases = (planned.arch, registry.CHAMPION)
    seats = {alias: settle(mirror.tracking, version, alias) for alias in aliases}
    study.note(CONCLUSION, {"best": best.number, "scores": scores, "description": card_summary(facts)})
    mirror.show_conclusion()
    return Outcome(
        planned.arch,
        study.name,
        Counter(trial.state for trial in study.trials()),
        best,
        mirror.runs[best.number],
        mirror.parent,
        validation,
        test,
        threshold,
        version.name,
        version.version,
        seats,
    )


def _threshold(
    plan: Plan,
    study: Study,
    images: Images,
    best: TrialRecord,
    trained: Trained,
    chosen: Predictions,
    temperature: float,
) -> Threshold | None:
    """The threshold of a trial: the one that its test set was opened with, or a new one; None for several classes."""
    if len(plan.source.classes) > 2:
        return None
    known = (study.noted(TEST) or {}).get(str(best.number), {}).get("threshold")
    if known is not None:  # another device might answer a little otherwise today
        return Threshold(**known)
    judged, on = chosen, "validation"
    if plan.settings.metric in STRESSED:  # on images as they are a network looks surer than another machine leaves it
        judged, on = _said(plan, trained, images, stressed=True), "validation under stress"
    return choose_threshold(judged.labels, judged.probabilities(temperature)[:, 1], on=on)


def _said(plan: Plan, trained: Trained, images: Images, *, stressed: bool = False) -> Predictions:
    """What a network says of images, where it was trained if that is here."""
    device = trained.config.device if trained.config.device == plan.device else "cpu"
    logits = predict(trained.network.to(device), trained.config, images, stressed=stressed)
    return predictions_of(images, logits, plan)


def _open_test(
    plan: Plan,
    study: Study,
    mirror: Mirror,
    images: Images,
    best: TrialRecord,
    trained: Trained,
    validation: Assessment,
    threshold: Threshold | None,
) -> Assessment:
    """Assesses a trial on the test set, once: what comes of it is noted on the study and never measured again."""
    opened: dict[str, Any] = study.noted(TEST) or {}
    key = str(best.number)
    if "assessment" not in opened.get(key, {}):  # an earlier release noted less
        found = _said(plan, trained, images)
        test = assess(found, validation.temperature, validation.threshold)
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
            "tags": tags,
            "epoch": trained.epoch,
        }
        files = figures.predictions(found, "test", mirror.run_name(best.number), test.temperature, test.threshold)
        mirror.tracking.log_files(mirror.runs[best.number], files)
        study.note(TEST, opened)
    mirror.show_test(best.number)  # each time: the server may have gone away the moment after they were noted
    return assessment_of(opened[key]["assessment"])


def _example(trained: Trained, images: Mapping[str, Images], temperature: float) -> registry.Example:
    """Validation images, evenly spread, with what the network of the training says of them here."""
    found = images["validation"]
    rows = found.rows[np.unique(np.linspace(0, len(found) - 1, EXAMPLES).astype(int))]
    some = Images(found.path, rows, np.zeros(len(rows), dtype=np.int64), (), ())
    logits = predict(trained.network, trained.config, some)
    return registry.Example(found.pixels()[rows], softmax(logits / temperature))


def _facts(
    plan: Plan,
    planned: PlannedStudy,
    study: Study,
    mirror: Mirror,
    best: TrialRecord,
    trained: Trained,
    validation: Assessment,
    test: Assessment,
    threshold: Threshold | None,
) -> CardData:
    """What the model card says."""
    source, split = plan.source, plan.split
    listings = {
        "train": source.splits["train"].select(split.train),
        "validation": source.splits[split.validation_from].select(split.validation),
        "test": source.splits["test"],
    }
    noted = best.attributes["run"]
    return CardData(
        name=source.name,
        arch=planned.arch,
        parameters=sum(parameter.numel() for parameter in trained.network.parameters()),
        image_size=planned.image_size,
        classes=source.classes,
        study=study.name,
        trial=best.number,
        run=mirror.run_name(best.number),
        metric=plan.settings.metric,
        searched=best.params,
        fixed=noted["params"],
        history=best.history,
        epoch=trained.epoch,
        counts={
            part: dict(
                zip(source.classes, np.bincount(listing.labels, minlength=len(source.classes)).tolist(), strict=True)
            )
            for part, listing in listings.items()
        },
        patients={part: len(set(listing.patients)) for part, listing in listings.items()},
        split=(
            "whole patients taken from the training images, none of whom is left among them"
            if split.validation_from == "train"
            else "the data set's own, beside the training images"
        ),
        validation=validation,
        test=test,
        threshold=threshold.reason if threshold else "",
        opened=len(study.noted(TEST) or {}),
        limits=known_limits(source),
        provenance={
            "data": source.name,
            "data kind": source.kind,
            "data digest": source.digest,
            "split digest": split.digest,
            "study": study.name,
            "trial": best.number,
            "run": mirror.runs[best.number],
            "seed": noted["params"]["seed"],
            "epoch": trained.epoch,
            **{key.removeprefix("sweep."): value for key, value in provenance.tags().items()},
        },
    )


def _version_tags(plan: Plan, mirror: Mirror, best: TrialRecord, temperature: float) -> dict[str, str]:
    return {
        **mirror.about["tags"],
        tag.TRIAL: str(best.number),
        tag.METRIC: plan.settings.metric,
        tag.TRAIN_IMAGES: str(len(plan.split.train)),
        tag.TEMPERATURE: f"{temperature:.4f}",
    }


def _model_spec(
    planned: PlannedStudy,
    mirror: Mirror,
    facts: CardData,
    scores: Mapping[str, float],
    tags: Mapping[str, str],
    chosen: Predictions,
) -> registry.ModelSpec:
    architecture, run_id, test = ARCHITECTURES[planned.arch], mirror.runs[facts.trial], facts.test
    parts = {"validation": chosen}
    with tempfile.TemporaryDirectory() as folder:
        if path := mirror.tracking.fetch(run_id, "predictions/test.csv", Path(folder)):
            parts["test"] = read_predictions(path)
    pictures = figures.of_model(facts.history, facts.epoch, parts, test.temperature, test.threshold, facts.run)
    return registry.ModelSpec(
        name=facts.name,
        run_id=run_id,
        architecture=planned.arch,
        image_size=planned.image_size,
        mean=architecture.mean,
        std=architecture.std,
        classes=facts.classes,
        temperature=test.temperature,
        threshold=test.threshold,
        metrics=scores,
        tags=tags,
        provenance={**facts.provenance, "params": dict(facts.searched)},
        description=card_summary(facts),
        files={**pictures, "model_card.md": card_markdown(facts, list(pictures))},
    )
