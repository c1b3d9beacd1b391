"""What each architecture's best brings to a comparison, read from the registry, MLflow and Optuna."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data import cache, phantom
from data.faults import InputError
from data.sources import Source, read_phantom
from models import ARCHITECTURES
from models.outline import cost, sketch
from sweep.comparisons.architectures.analysis import SHOWN, ComparedModel, Cost, Search, Tried
from sweep.comparisons.architectures.audit import TESTED, audit, runs_of
from sweep.metrics.assessment import assess
from sweep.metrics.names import CALIBRATED, METRICS, STRESSED
from sweep.metrics.predictions import Predictions, read_predictions
from sweep.metrics.scores import all_scores, scores
from sweep.orchestrator.run_params import settings_of
from sweep.plan import Plan, make_plan, seed_of
from sweep.space import Choice, EnqueuedTrial, layout
from sweep.stores import registry
from sweep.stores import tags as tag
from sweep.stores.registry import Version
from sweep.stores.study import ABOUT, Study, TrialRecord
from sweep.stores.tracking import PastRun, Tracking, read_run, tracking_of

BATCH, LEAST_SECONDS, LEAST_BATCHES = 32, 0.5, 3


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


def winners(client: registry.MlflowClient, name: str, studies: Sequence[Study]) -> dict[str, BestVersion]:
    """Finds who holds each architecture's alias.

    Args:
        client: Of the registry.
        name: The registered model.
        studies: Those of Optuna's store.

    Returns:
        By architecture, in their usual order, without those that nobody holds.
    """
    known = {study.noted(ABOUT)["tags"][tag.STUDY_ID]: study for study in studies}
    found = {}
    for arch in ARCHITECTURES:
        version = registry.alias_holder(client, name, arch)
        if version is not None:
            tracking = tracking_of(client, version.run_id)
            past = read_run(tracking.uri, version.run_id)
            found[arch] = BestVersion(arch, version, tracking, past, known.get(version.tags.get(tag.STUDY_ID, "")))
    return found


def plan_of_seeds(winner: BestVersion, location: Path, seeds: int, settings: Mapping[str, Any]) -> Plan:
    """Plans to train a winner's configuration anew with other seeds; its own was chosen, and would flatter.

    Args:
        winner: The winner.
        location: Where its images are.
        seeds: How many.
        settings: Further ones: workers, device, stores.

    Raises:
        InputError: The images or the split are not those that it learned from.
    """
    metric = winner.version.tags.get(tag.METRIC, "")
    plan = make_plan(
        settings_of(
            winner.past.params,
            trials=seeds,
            data=location,
            experiment=winner.tracking.experiment,
            **({"metric": metric} if metric in STRESSED else {}),  # epochs are judged by it, too
            **settings,
        ),
        fetch=True,
        source=read_phantom() if winner.past.data_name == phantom.NAME else None,
    )
    for what, here in (("data", plan.source.digest), ("split", plan.split.digest)):
        if here != (there := winner.past.tags[f"sweep.{what}_digest"]):
            raise InputError(f"{plan.source.location}: its {what} digest is {here}; {winner.past.name} has {there}")
    # Every hyperparameter is fixed, so its space holds the one value.
    chosen = {name: domain.values[0] for name, domain in plan.studies[0].space.items() if isinstance(domain, Choice)}
    label = winner.past.name
    enqueued = [EnqueuedTrial(label, chosen, seed_of("seeds", label, index)) for index in range(seeds)]
    planned = plan.studies[0].of(_seeds_name(winner), enqueued)
    return Plan(**{**vars(plan), "studies": (planned,)})


def contender(
    client: registry.MlflowClient,
    winner: BestVersion,
    source: Source | None,
    studies: Sequence[Study],
    progress: Callable[[int], None],
) -> ComparedModel:
    """Reads and measures all that a comparison shows of a winner.

    Args:
        client: Of the registry.
        winner: The winner.
        source: Its data set, for test scores of the trials that were not chosen; None to leave them out.
        studies: Those of Optuna's store; one of them may have trained it with other seeds.
        progress: Told how many trials are done; may raise to stop.

    Raises:
        InputError: Its predictions of the test images are gone.
    """
    past, version, params = winner.past, winner.version, winner.past.params
    size, classifier = int(params["image_size"]), registry.load(client, version)
    predictions = _tested(winner)
    classes = predictions.classes
    search = None if winner.study is None else _search(winner, source, size, classes, progress)
    outlined = cost(sketch(winner.arch, size, len(classes), **layout(params)), size)
    epoch = int(classifier.about["provenance"]["epoch"])
    shown = next((row for row in past.epochs if row["epoch"] == epoch), {})
    return ComparedModel(
        arch=winner.arch,
        version=version.version,
        run=past.name,
        run_id=version.run_id,
        params=params,
        history=past.epochs,
        epoch=epoch,
        validation={key.removeprefix("val/"): value for key, value in shown.items() if key.startswith("val/")},
        assessment=assess(predictions, classifier.about["temperature"], classifier.about["threshold"]),
        predictions=predictions,
        cost=Cost(
            outlined.parameters,
            outlined.flops,
            classifier.bytes,
            _seconds(past.epochs),
            None if search is None else sum(trial.seconds for trial in search.trials),
            _speed(classifier, size),
        ),
        search=search,
        seeds=_seeds(winner, studies),
    )


def _tested(winner: BestVersion) -> Predictions:
    with tempfile.TemporaryDirectory() as folder:
        path = winner.tracking.fetch(winner.version.run_id, TESTED, Path(folder))
        if path is None:
            raise InputError(
                f"{winner.past.name}: its run has no {TESTED} any more, so {winner.arch} cannot be compared"
            )
        return read_predictions(path)


def _search(
    winner: BestVersion, source: Source | None, size: int, classes: tuple[str, ...], progress: Callable[[int], None]
) -> Search:
    study, tracking = winner.study, winner.tracking
    assert study is not None  # noqa: S101
    trials, about = study.trials(), study.noted(ABOUT)
    run = tracking.get(winner.version.run_id)
    parent = run.tags.get("mlflow.parentRunId", "") if run else ""
    runs = runs_of(tracking, parent)
    images = None
    if source is not None:
        cache.build(source, size)
        images = cache.test_images(source, size)
    found = audit(trials, runs, tracking, images, winner.past.tags[tag.DATA_DIGEST], classes, progress)
    if images is not None:
        tracking.log(parent, {}, tags={tag.AUDITED: f"{len(found)} trials, after the choice"})
    return Search(
        study.name,
        about["metric"],
        METRICS[about["metric"]] == "maximize",
        tuple(
            _tried(trial, runs[trial.number].name if trial.number in runs else str(trial.number), found)
            for trial in trials
            if trial.state in ("COMPLETE", "PRUNED", "FAIL")
        ),
        study.importances(),
    )


def _tried(trial: TrialRecord, name: str, found: Mapping[int, Predictions]) -> Tried:
    history, test = trial.history, found.get(trial.number)
    best = history[(trial.best_epoch or len(history)) - 1] if history else {}
    return Tried(
        name,
        trial.number,
        trial.state,
        trial.value,
        {key.removeprefix("val/"): value for key, value in best.items() if key.startswith("val/")},
        None if test is None else scores(test.labels, test.probabilities()),
        _seconds(history),
        trial.params,
    )


def _seeds(winner: BestVersion, studies: Sequence[Study]) -> dict[str, list[float]]:
    """Test scores of the trainings with other seeds, where there were any."""
    name = f"{winner.tracking.experiment}/{_seeds_name(winner)}"
    study = next((study for study in studies if study.name == name), None)
    if study is None:
        return {}
    identity = study.noted(ABOUT)["tags"][tag.STUDY_ID]
    parents = winner.tracking.search(f"tags.`sweep.study_id` = '{identity}' and tags.`sweep.kind` = 'study'")
    runs = runs_of(winner.tracking, parents[0].run_id) if parents else {}
    digest = winner.past.tags[tag.DATA_DIGEST]
    found = audit(study.trials(), runs, winner.tracking, None, digest, ()).values()
    every = [all_scores(tested.labels, tested.probabilities()) for tested in found]
    # Those of a calibration depend on the temperature, which only the winner has.
    names = [name for name in SHOWN if name not in CALIBRATED and every and name in every[0]]
    return {name: [one[name] for one in every] for name in names}


def _seeds_name(winner: BestVersion) -> str:
    return f"{winner.past.name}-seeds"


def _seconds(history: Sequence[Mapping[str, float]]) -> float:
    return float(sum(row.get("epoch_seconds", 0.0) for row in history))


def _speed(classifier: Any, size: int) -> float:
    """Images a second that a loaded model labels here, in batches: the median of some."""
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, size, size), dtype=np.uint8)
    classifier.logits(pixels)  # the first one warms up
    seconds: list[float] = []
    while len(seconds) < LEAST_BATCHES or sum(seconds) < LEAST_SECONDS:
        started = time.perf_counter()
        classifier.logits(pixels)
        seconds.append(time.perf_counter() - started)
    return BATCH / float(np.median(seconds))
