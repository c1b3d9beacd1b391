"""The end of a study: choose by validation, open the test set once for the chosen trial, register it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models import ARCHITECTURES
from sweep import provenance
from sweep.errors import StudyFailedError
from sweep.mirror import Mirror, describe_params
from sweep.results.metrics import Threshold, choose_threshold, probabilities, scores
from sweep.stores import registry
from sweep.stores.study import Recorded
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


def conclude(mirror: Mirror) -> Outcome:
    """Concludes a study that has its trials; concluding it again changes nothing.

    Args:
        mirror: The study's runs, and all that they are made of.

    Raises:
        StudyFailedError: No trial is complete.
    """
    plan, planned, study, client = mirror.plan, mirror.planned, mirror.study, mirror.tracking.client
    best = study.best()
    if best is None:
        mirror.fail()
        raise StudyFailedError(
            f"study {study.name}: every trial was pruned or failed, so there is no best one; "
            "allow more with a larger --trials, or use --pruner none"
        )
    run_id = best.attributes["run_id"]
    with tempfile.TemporaryDirectory() as folder:
        trained = restore(mirror.fetch_checkpoint(run_id, Path(folder)))
    likely = probabilities(trained.validation_logits)
    two = len(plan.source.classes) == 2
    threshold = choose_threshold(mirror.images["validation"].labels, likely[:, 1]) if two else None
    test, test_at_threshold = _open_test(mirror, best, trained, threshold)
    at_best = best.attributes["history"][best.attributes["best_epoch"] - 1]
    validation = {name: value for name, value in at_best.items() if name.startswith("val/")}

    description = _describe(mirror, best, validation, test, threshold)
    spec = _model_spec(mirror, best, {**validation, **test}, threshold, description)
    version = registry.register(client, spec, trained.network)
    seats = {
        alias: registry.seat(client, version.name, alias, version.version).reason
        for alias in (planned.arch, registry.CHAMPION)
    }
    mirror.complete(best, {**validation, **test}, description)
    return Outcome(
        planned.arch,
        study.name,
        Counter(trial.state for trial in study.trials()),
        best,
        run_id,
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
    mirror: Mirror, best: Recorded, trained: Trained, threshold: Threshold | None
) -> tuple[dict[str, float], dict[str, float] | None]:
    """Scores a trial on the test set, once: the scores are noted on the study and never measured again."""
    opened: dict[str, Any] = mirror.study.noted("test") or {}
    key = str(best.number)
    if key not in opened:
        images = mirror.images["test"]
        likely = probabilities(predict(trained.network.to(mirror.plan.device), trained.config, images))
        trained.network.to("cpu")
        test = _named("test", scores(images.labels, likely))
        moved = None
        tags: dict[str, Any] = {"sweep.test_opened": f"for {len(opened) + 1} of this study's trials so far"}
        if threshold is not None:
            tags |= {"sweep.threshold": threshold.value, "sweep.threshold_reason": threshold.reason}
            if threshold.supported:
                moved = _named("test_at_threshold", scores(images.labels, likely, threshold.value))
        opened[key] = {"test": test, "at_threshold": moved}
        # Killed in between, the next start measures the same again; the other way round MLflow would never be told.
        mirror.test_opened(best, likely, {**test, **(moved or {})}, tags, threshold.value if threshold else 0.5)
        mirror.study.note("test", opened)
    return opened[key]["test"], opened[key]["at_threshold"]


def _model_spec(
    mirror: Mirror, best: Recorded, metrics: Mapping[str, float], threshold: Threshold | None, description: str
) -> registry.ModelSpec:
    plan, planned, source = mirror.plan, mirror.planned, mirror.plan.source
    architecture = ARCHITECTURES[planned.arch]
    return registry.ModelSpec(
        name=source.name,
        run_id=best.attributes["run_id"],
        architecture=planned.arch,
        image_size=planned.image_size,
        mean=architecture.mean,
        std=architecture.std,
        classes=source.classes,
        threshold=threshold.value if threshold else None,
        metrics=metrics,
        tags={
            **mirror.tags(),
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
            "seed": best.attributes["seed"],
            "epoch": best.attributes["best_epoch"],
        },
        description=description,
    )


def _describe(
    mirror: Mirror,
    best: Recorded,
    validation: Mapping[str, float],
    test: Mapping[str, float],
    threshold: Threshold | None,
) -> str:
    plan, planned, split = mirror.plan, mirror.planned, mirror.plan.split
    synthetic = plan.source.kind == "phantom"
    warning = "**Learned from synthetic pictures: says nothing about X-rays.**\n\n" if synthetic else ""
    opened = len(mirror.study.noted("test") or {})
    patients = "whose patients are not among the" if split.validation_from == "train" else "from val/, beside"
    rows = "\n".join(
        f"| {name.removeprefix('test/')} | {validation.get(name.replace('test/', 'val/'), np.nan):.4f} | {value:.4f} |"
        for name, value in test.items()
    )
    decision = f"Threshold {threshold.value:g}: {threshold.reason}.\n\n" if threshold else ""
    return (
        f"{warning}{planned.arch}, {planned.image_size} x {planned.image_size} pixels: {describe_params(best.params)}. "
        f"Trial {best.number} of study {mirror.study.name}, chosen by {plan.settings.metric} on "
        f"{len(split.validation):,} validation images {patients} {len(split.train):,} training images. "
        f"The test set was opened for {opened} of the study's trials, each when it was chosen.\n\n"
        f"| score | validation | test |\n|---|---|---|\n{rows}\n\n{decision}Not a medical device."
    )


def _named(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}
