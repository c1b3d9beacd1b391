"""Test scores of trials that were not chosen: computed after the choice, to see what choosing gains.

No choice is made by them. They are called `audit/...`, so that they are not taken for the `test/...` of a chosen trial.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data.cache import Images
from data.faults import InputError
from sweep.metrics.predictions import Predictions, read_predictions
from sweep.metrics.scores import scores
from sweep.orchestrator.artifacts import CHECKPOINT
from sweep.stores import tags as tag
from sweep.stores.tracking import Run, Tracking
from sweep.stores.trials import TrialRecord
from sweep.training.inference import predict, restore

TESTED, AUDITED = "predictions/test.csv", "predictions/audit.csv"
DIGEST = tag.AUDITED  # of the data that a run was scored on


def audit(
    trials: Sequence[TrialRecord],
    runs: Mapping[int, Run],
    tracking: Tracking,
    images: Images | None,
    digest: str,
    classes: tuple[str, ...],
    progress: Callable[[int], None] = lambda done: None,
) -> dict[int, Predictions]:
    """Scores every complete trial on the test images, or reads what an earlier audit has written to its run.

    Args:
        trials: Of a study that has made its choice.
        runs: Their runs, by number.
        tracking: The experiment of these.
        images: The test images at the study's size; None where they are not here, and then only what was written.
        digest: Of the data set.
        classes: Names in logit order.
        progress: Called with the number of trials done; may raise to stop.

    Returns:
        Predictions by the trial's number, without those whose checkpoint is gone, or whose network cannot be built any
        more since its file is not what it was.
    """
    audited = {}
    for done, trial in enumerate(trials, 1):
        run = runs.get(trial.number)
        if trial.state == "COMPLETE" and run is not None:
            predictions = _stored(run, tracking, digest)
            if predictions is None and images is not None:
                predictions = _score(run, trial, tracking, images, digest, classes)
            if predictions is not None:
                audited[trial.number] = predictions
        progress(done)
    return audited


def runs_of(tracking: Tracking, parent: str) -> dict[int, Run]:
    """The runs of a study's trials, by number."""
    runs: dict[int, Run] = {}
    for run in tracking.children(parent):
        if tag.TRIAL in run.tags:
            runs.setdefault(int(run.tags[tag.TRIAL]), run)
    return runs


def _stored(run: Run, tracking: Tracking, digest: str) -> Predictions | None:
    with tempfile.TemporaryDirectory() as folder:
        path = None
        # It was the chosen one; an earlier release named its scores `test/...`.
        if any(name.startswith(("served_test_", "test/")) for name in run.metrics):
            path = tracking.fetch(run.run_id, TESTED, Path(folder))
        if path is None and run.tags.get(DIGEST) == digest:
            path = tracking.fetch(run.run_id, AUDITED, Path(folder))
        return None if path is None else read_predictions(path)


def _score(
    run: Run, trial: TrialRecord, tracking: Tracking, images: Images, digest: str, classes: tuple[str, ...]
) -> Predictions | None:
    with tempfile.TemporaryDirectory() as folder:
        path = tracking.fetch(run.run_id, CHECKPOINT, Path(folder))
        if path is None:
            return None
        try:
            trained = restore(path, run.params.get("arch"))
        except InputError:
            return None
    logits = predict(trained.network, trained.config, images)
    predictions = Predictions(images.names, images.patients, images.labels, logits, classes)
    named = {f"audit/{name}": value for name, value in scores(predictions.labels, predictions.probabilities()).items()}
    tracking.log_files(run.run_id, {AUDITED: predictions.to_csv()})
    tracking.log(run.run_id, named, step=trial.best_epoch or 0, tags={DIGEST: digest})
    return predictions
