"""Read and measure the best version of each architecture, from the registry, MLflow and Optuna."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data import cache
from data.cache import Images
from data.faults import InputError
from data.listing import path_of
from data.recorded import open_recorded
from data.sources import PATIENT_PATTERN, Source
from models.outline import served_cost
from sweep.comparisons.architectures.analysis import SHOWN, ComparedModel, Cost
from sweep.comparisons.architectures.audit import TESTED, audit, runs_of
from sweep.comparisons.architectures.heat_images import check_heat
from sweep.comparisons.architectures.searches import ScoredTrial, Search
from sweep.lifecycle.evaluate import BATCH
from sweep.metrics.assessment import assess
from sweep.metrics.formatting import counted
from sweep.metrics.heat import HeatCheck
from sweep.metrics.names import CALIBRATED, METRICS, STRESSED
from sweep.metrics.predictions import Predictions, predictions_of, read_predictions
from sweep.metrics.scores import all_scores, scores
from sweep.orchestrator.run_params import depth_of, description_of, refuse_other_pixels, settings_of
from sweep.plan import Plan, make_plan, seed_of
from sweep.space import Choice
from sweep.stores import registry
from sweep.stores import tags as tag
from sweep.stores.heat_map import NoHeatMapError
from sweep.stores.mlflow_stores import PastRun, read_run, tracking_of
from sweep.stores.registry import Version
from sweep.stores.study import Study
from sweep.stores.tracking import Tracking
from sweep.stores.trials import EnqueuedTrial, TrialRecord

LEAST_SECONDS, LEAST_BATCHES = 0.5, 3


@dataclass(frozen=True)
class BestVersion:
    """The version that holds an architecture's alias, and where it came from.

    Attributes:
        arch: The architecture.
        version: The version.
        tracking: The experiment of its run.
        past: Its run.
        study: The study that found it; None where Optuna's store does not have it.
    """

    arch: str
    version: Version
    tracking: Tracking
    past: PastRun
    study: Study | None


def best_versions(client: registry.MlflowClient, name: str, studies: Sequence[Study]) -> dict[str, BestVersion]:
    """Finds the version that holds each architecture's alias.

    Args:
        client: Of the registry.
        name: The registered model.
        studies: Those of Optuna's store.

    Returns:
        By the short name of the architecture, which is the alias: the project's own in their usual order, then others.
    """
    by_id = {description_of(study).study_id: study for study in studies}
    versions = {}
    for arch in registry.architectures_of(client, name):
        version = registry.alias_holder(client, name, arch)
        if version is not None:
            tracking = tracking_of(client, version.run_id)
            past = read_run(tracking.uri, version.run_id)
            versions[arch] = BestVersion(arch, version, tracking, past, by_id.get(version.tags.get(tag.STUDY_ID, "")))
    return versions


def plan_of_seeds(best: BestVersion, location: Path | None, seeds: int, settings: Mapping[str, Any]) -> Plan:
    """Plans to train the configuration of a best version with other seeds; its own was chosen, and would flatter.

    Args:
        best: The best version.
        location: Where its images are; None for where they were.
        seeds: How many.
        settings: Further ones: workers, device, stores.

    Raises:
        InputError: The images or the split are not those that it learned from.
    """
    metric, past = best.version.tags.get(tag.METRIC, ""), best.past
    pattern = past.params.get("patient_pattern", PATIENT_PATTERN)
    depth = depth_of(past.params)
    source = open_recorded(
        past.data_name, past.data_location, location, whose=past.name, patient_pattern=pattern, depth=depth
    )
    if best.study is not None:
        refuse_other_pixels(best.study, source)
    plan = make_plan(
        settings_of(
            best.past.params,
            trials=seeds,
            data=location or path_of(past.data_location),
            experiment=best.tracking.experiment,
            **({"metrics": (metric,)} if metric in STRESSED else {}),  # epochs are judged by it, too
            **settings,
        ),
        fetch=True,
        source=source,
    )
    for what, here in (("data", plan.source.digest), ("split", plan.split.digest)):
        if here != (there := best.past.tags[f"sweep.{what}_digest"]):
            raise InputError(f"{plan.source.location}: its {what} digest is {here}; {best.past.name} has {there}")
    # Every hyperparameter is fixed, so its space holds the one value.
    chosen = {name: domain.values[0] for name, domain in plan.studies[0].space.items() if isinstance(domain, Choice)}
    label = best.past.name
    enqueued = [EnqueuedTrial(label, chosen, seed_of("seeds", label, index)) for index in range(seeds)]
    planned = plan.studies[0].of(_seeds_name(best), enqueued)
    return Plan(**{**vars(plan), "studies": (planned,)})


def measure(
    client: registry.MlflowClient,
    best: BestVersion,
    source: Source | None,
    studies: Sequence[Study],
    progress: Callable[[int], None],
    prevalence: float | None = None,
) -> ComparedModel:
    """Reads and measures everything that a comparison shows of a best version.

    Args:
        client: Of the registry.
        best: The best version.
        source: Its data set, for test scores of the trials that were not chosen and for heat maps; None to leave
            them out.
        studies: Those of Optuna's store; one of them may have trained it with other seeds.
        progress: Called with the number of trials done; may raise to stop.
        prevalence: Of another population than the test images', for predictive values there; None without.

    Raises:
        InputError: Neither its test images nor its predictions of them are here.
    """
    past, version, params = best.past, best.version, best.past.params
    size, classifier = int(params["image_size"]), registry.load(client, version)
    images = _test_images(best, source, size)
    predictions, seconds = (_tested(best), []) if images is None else _served(classifier, images)
    classes = predictions.classes
    search = None if best.study is None else _search(best, images, classes, progress)
    outlined = served_cost(classifier.network, size)
    epoch = int(classifier.about["provenance"]["epoch"])
    kept = next((row for row in past.epochs if row["epoch"] == epoch), {})
    return ComparedModel(
        arch=best.arch,
        version=version.version,
        run=past.name,
        run_id=version.run_id,
        params=params,
        history=past.epochs,
        epoch=epoch,
        validation={key.removeprefix("val/"): value for key, value in kept.items() if key.startswith("val/")},
        assessment=assess(
            predictions, classifier.about["temperature"], classifier.about["threshold"], prevalence=prevalence
        ),
        predictions=predictions,
        cost=Cost(
            outlined.parameters,
            outlined.flops,
            classifier.bytes,
            _seconds(past.epochs),
            None if search is None else sum(trial.seconds for trial in search.trials),
            _speed(classifier, size, seconds),
        ),
        search=search,
        seeds=_seeds(best, studies),
        heat=None if source is None or images is None else _heat(classifier, source, images),
    )


def _heat(classifier: Any, source: Source, images: Images) -> HeatCheck | None:
    """How its heat maps are; None where none can be made of such a network."""
    try:
        return check_heat(classifier, source, images)
    except NoHeatMapError:
        return None


def _test_images(best: BestVersion, source: Source | None, size: int) -> Images | None:
    """The test images as the model's training would have had them; None where they are not here."""
    if source is None:
        return None
    if best.study is not None:
        refuse_other_pixels(best.study, source)
    cache.build(source, size)
    return cache.test_images(source, size)


def _served(classifier: Any, images: Images) -> tuple[Predictions, list[float]]:
    """The registered version's own predictions, in batches as `evaluate` makes them, so that every digit is the same.

    Those that were stored at the end of its study may come from another device, whose sums differ in the last digits.

    Returns:
        The predictions, and how many seconds each whole batch took, without the first, which warms up.
    """
    rows, pixels = images.rows, images.pixels()
    logits, seconds = [], []
    for start in range(0, len(rows), BATCH):
        batch = pixels[rows[start : start + BATCH]]
        started = time.perf_counter()
        logits.append(classifier.logits(batch))
        if start and len(batch) == BATCH:
            seconds.append(time.perf_counter() - started)
    return predictions_of(images, np.concatenate(logits), tuple(classifier.about["classes"])), seconds


def _tested(best: BestVersion) -> Predictions:
    with tempfile.TemporaryDirectory() as folder:
        path = best.tracking.fetch(best.version.run_id, TESTED, Path(folder))
        if path is None:
            raise InputError(f"{best.past.name}: its run has no {TESTED} any more, so {best.arch} cannot be compared")
        return read_predictions(path)


def _search(
    best: BestVersion, images: Images | None, classes: tuple[str, ...], progress: Callable[[int], None]
) -> Search:
    study, tracking = best.study, best.tracking
    assert study is not None  # noqa: S101
    trials, metric = study.trials(), description_of(study).metric
    run = tracking.get(best.version.run_id)
    parent = run.tags.get("mlflow.parentRunId", "") if run else ""
    runs = runs_of(tracking, parent)
    predictions = audit(trials, runs, tracking, images, best.past.tags[tag.DATA_DIGEST], classes, progress)
    if images is not None:
        tracking.log(parent, {}, tags={tag.AUDITED: f"{counted(len(predictions), 'trial')}, after the choice"})
    names = {number: run.name for number, run in runs.items()}
    return Search(
        study.name,
        metric,
        METRICS[metric] == "maximize",
        tuple(
            _scored_trial(trial, names.get(trial.number, str(trial.number)), predictions.get(trial.number))
            for trial in trials
            if trial.state in ("COMPLETE", "PRUNED", "FAIL")
        ),
        study.importances(),
        study.choice(),
    )


def _scored_trial(trial: TrialRecord, name: str, test: Predictions | None) -> ScoredTrial:
    history = trial.history
    kept = history[(trial.best_epoch or len(history)) - 1] if history else {}
    return ScoredTrial(
        name,
        trial.number,
        trial.state,
        trial.value,
        {key.removeprefix("val/"): value for key, value in kept.items() if key.startswith("val/")},
        None if test is None else scores(test.labels, test.probabilities()),
        _seconds(history),
        trial.params,
    )


def _seeds(best: BestVersion, studies: Sequence[Study]) -> dict[str, list[float]]:
    """Test scores of the trainings with other seeds, where there were any."""
    name = f"{best.tracking.experiment}/{_seeds_name(best)}"
    study = next((study for study in studies if study.name == name), None)
    if study is None:
        return {}
    parent = best.tracking.find_study(description_of(study).study_id)
    runs = runs_of(best.tracking, parent.run_id) if parent else {}
    digest = best.past.tags[tag.DATA_DIGEST]
    predictions = audit(study.trials(), runs, best.tracking, None, digest, ()).values()
    every = [all_scores(tested.labels, tested.probabilities()) for tested in predictions]
    # At 0.5, since only the registered model has a threshold; likewise a temperature, on which a calibration depends.
    names = [name for name in SHOWN if name not in CALIBRATED and every and name in every[0]]
    return {name: [tested[name] for tested in every] for name in names}


def _seeds_name(best: BestVersion) -> str:
    return f"{best.past.name}-seeds"


def _seconds(history: Sequence[Mapping[str, float]]) -> float:
    return float(sum(row.get("epoch_seconds", 0.0) for row in history))


def _speed(classifier: Any, size: int, seconds: Sequence[float]) -> float:
    """Images a second that a loaded model labels here, in batches: the median of those timed, and of more if needed."""
    seconds = list(seconds)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, size, size), dtype=np.uint8)
    if not seconds:
        classifier.logits(pixels)  # the first one warms up
    while len(seconds) < LEAST_BATCHES or sum(seconds) < LEAST_SECONDS:
        started = time.perf_counter()
        classifier.logits(pixels)
        seconds.append(time.perf_counter() - started)
    return BATCH / float(np.median(seconds))
