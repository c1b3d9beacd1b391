"""The end of a study: choose by validation, open the test set once for the chosen trial, register it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.cache import Images
from models import ARCHITECTURES
from sweep import provenance
from sweep.errors import StudyFailedError
from sweep.mirror import CONCLUSION, TEST, Mirror
from sweep.plan import Plan, PlannedStudy
from sweep.record import describe_params
from sweep.results import figures
from sweep.results.metrics import Threshold, choose_threshold, probabilities, scores
from sweep.stores import registry
from sweep.stores.study import Recorded, Study
from sweep.training import Trained, predict, restore


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
        validation: Its validation scores, `val/...`.
        test: Its test scores at a threshold of 0.5, `test/...`.
        threshold: The decision threshold that goes with it; None for more than two classes.
        test_at_threshold: Its test scores at that threshold, where it is not 0.5.
        model: Name of the registered model.
        version: Its version there.
        seats: What became of each alias: alias -> sentence.
    """

    arch: str
    study: str
    counts: Mapping[str, int]
    best: Recorded
    run_id: str
    parent_run_id: str
    validation: Mapping[str, float]
    test: Mapping[str, float]
    threshold: Threshold | None
    test_at_threshold: Mapping[str, float] | None
    model: str
    version: str
    seats: Mapping[str, str]


def conclude(
    plan: Plan,
    planned: PlannedStudy,
    study: Study,
    mirror: Mirror,
    images: Mapping[str, Images],
    train_again: Callable[[Recorded, Path], Path],
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
    client = mirror.tracking.client
    best = study.best()
    if best is None:
        raise StudyFailedError(
            f"study {study.name}: every trial was pruned or failed, so there is no best one; "
            "allow more with a larger --trials, or use --pruner none"
        )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        trained = restore(mirror.fetch_checkpoint(best.number, place) or train_again(best, place))
    likely = probabilities(trained.validation_logits)
    two = len(plan.source.classes) == 2
    threshold = choose_threshold(images["validation"].labels, likely[:, 1]) if two else None
    test, test_at_threshold = _open_test(plan, study, mirror, images["test"], best, trained, threshold)
    at_best = best.history[trained.epoch - 1]
    validation = {name: value for name, value in at_best.items() if name.startswith("val/")}

    description = _describe(plan, planned, study, best, validation, test, threshold)
    spec = _model_spec(plan, planned, mirror, best, {**validation, **test}, threshold, description)
    version = registry.register(client, spec, trained.network)
    seats = {
        alias: registry.seat(client, version.name, alias, version.version).reason
        for alias in (planned.arch, registry.CHAMPION)
    }
    scored = {**validation, **test}
    study.note(CONCLUSION, {"best": best.number, "scores": scored, "description": description})
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
        test_at_threshold,
        version.name,
        version.version,
        seats,
    )


def _open_test(
    plan: Plan,
    study: Study,
    mirror: Mirror,
    images: Images,
    best: Recorded,
    trained: Trained,
    threshold: Threshold | None,
) -> tuple[dict[str, float], dict[str, float] | None]:
    """Scores a trial on the test set, once: the scores are noted on the study and never measured again."""
    opened: dict[str, Any] = study.noted(TEST) or {}
    key = str(best.number)
    if key not in opened:
        device = trained.config.device if trained.config.device == plan.device else "cpu"
        likely = probabilities(predict(trained.network.to(device), trained.config, images))
        trained.network.to("cpu")
        scored = _named("test", scores(images.labels, likely))
        tags: dict[str, Any] = {"sweep.test_opened": f"for {len(opened) + 1} of this study's trials so far"}
        if threshold is not None:
            tags |= {"sweep.threshold": threshold.value, "sweep.threshold_reason": threshold.reason}
            if threshold.supported:
                scored |= _named("test_at_threshold", scores(images.labels, likely, threshold.value))
        opened[key] = {"scores": scored, "tags": tags, "epoch": trained.epoch}
        title, value = mirror.run_name(best.number), threshold.value if threshold else 0.5
        files = figures.predictions(images.names, images.labels, likely, plan.source.classes, "test", title, value)
        mirror.tracking.log_files(mirror.runs[best.number], files)
        study.note(TEST, opened)
    mirror.show_test(best.number)  # each time: the server may have gone away the moment after they were noted
    scored = opened[key]["scores"]
    at_threshold = {name: value for name, value in scored.items() if name.startswith("test_at_threshold/")}
    return {name: value for name, value in scored.items() if name not in at_threshold}, at_threshold or None


def _model_spec(
    plan: Plan,
    planned: PlannedStudy,
    mirror: Mirror,
    best: Recorded,
    metrics: Mapping[str, float],
    threshold: Threshold | None,
    description: str,
) -> registry.ModelSpec:
    architecture, source = ARCHITECTURES[planned.arch], plan.source
    return registry.ModelSpec(
        name=source.name,
        run_id=mirror.runs[best.number],
        architecture=planned.arch,
        image_size=planned.image_size,
        mean=architecture.mean,
        std=architecture.std,
        classes=source.classes,
        threshold=threshold.value if threshold else None,
        metrics=metrics,
        tags={
            **mirror.about["tags"],
            "sweep.trial": str(best.number),
            "sweep.metric": plan.settings.metric,
            "sweep.train_images": str(len(plan.split.train)),
        },
        provenance={
            **provenance.tags(),
            "data": source.name,
            "data_kind": source.kind,
            "data_digest": source.digest,
            "split_digest": plan.split.digest,
            "study": mirror.study.name,
            "trial": best.number,
            "params": best.params,
            "seed": best.attributes["run"]["params"]["seed"],
            "epoch": best.best_epoch,
        },
        description=description,
    )


def _describe(
    plan: Plan,
    planned: PlannedStudy,
    study: Study,
    best: Recorded,
    validation: Mapping[str, float],
    test: Mapping[str, float],
    threshold: Threshold | None,
) -> str:
    split = plan.split
    synthetic = plan.source.kind == "phantom"
    warning = "**Learned from synthetic pictures: says nothing about X-rays.**\n\n" if synthetic else ""
    opened = len(study.noted(TEST) or {})
    patients = "whose patients are not among the" if split.validation_from == "train" else "from val/, beside"
    rows = "\n".join(
        f"| {name.removeprefix('test/')} | {validation.get(name.replace('test/', 'val/'), np.nan):.4f} | {value:.4f} |"
        for name, value in test.items()
    )
    decision = f"Threshold {threshold.value:g}: {threshold.reason}.\n\n" if threshold else ""
    return (
        f"{warning}{planned.arch}, {planned.image_size} x {planned.image_size} pixels: {describe_params(best.params)}. "
        f"Trial {best.number} of study {study.name}, chosen by {plan.settings.metric} on "
        f"{len(split.validation):,} validation images {patients} {len(split.train):,} training images. "
        f"The test set was opened for {opened} of the study's trials, each when it was chosen.\n\n"
        f"| score | validation | test |\n|---|---|---|\n{rows}\n\n{decision}Not a medical device."
    )


def _named(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}
