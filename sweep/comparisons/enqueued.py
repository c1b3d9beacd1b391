"""Studies whose trials are enqueued and not searched: rows of a table, other seeds. Nothing is registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweep.comparisons.architectures.audit import audit, runs_of
from sweep.comparisons.seed_result import SeedResult
from sweep.metrics.predictions import Predictions
from sweep.orchestrator.study_run import StudyRun
from sweep.stores.attributes import CONCLUSION, OPENED
from sweep.stores.trials import TrialRecord
from sweep.system.errors import StudyFailedError

SCORED = (
    "Its trials were given and not searched, and every one of them was scored on the test images (`audit/...`). "
    "Nothing was chosen by that, and nothing is registered from this study."
)
OPENED_BEFORE = (
    "Its trials were given and not searched; some of them were scored on the test images before (`audit/...`). "
    "Nothing is registered from this study."
)
CLOSED = (
    "Its trials were given and not searched. The test set stayed closed, and nothing is registered from this study."
)


@dataclass(frozen=True)
class EnqueuedResult:
    """The result of a study of enqueued trials.

    Attributes:
        arch: The architecture.
        study: The study's full name.
        parent_run_id: Its MLflow run.
        trials: All of its trials, failed attempts too.
        predictions: Predictions of the test images by the number of the complete trial; empty where this command did
            not open the test set.
        opened: Whether any of them has been scored on test, now or before.
    """

    arch: str
    study: str
    parent_run_id: str
    trials: tuple[TrialRecord, ...]
    predictions: Mapping[int, Predictions]
    opened: bool = True

    def results(self, label: str) -> tuple[SeedResult, ...]:
        """Complete trainings that were enqueued under a label, in the order of their trials."""
        return tuple(
            SeedResult(
                trial.attributes["seed"], len(trial.history), trial.validation, self.predictions.get(trial.number)
            )
            for trial in self.trials
            if trial.state == "COMPLETE" and trial.attributes.get("label") == label
        )

    def tested(self, label: str) -> tuple[SeedResult, ...]:
        """Those of them whose predictions of the test images are there."""
        return tuple(result for result in self.results(label) if result.test is not None)


def conclude_enqueued(run: StudyRun, *, scored: bool = True) -> EnqueuedResult:
    """Scores every trial on the test images; takes what `conclude.conclude` takes.

    Args:
        run: The study. A trial whose checkpoint is gone is not trained again, but left out.
        scored: Whether the test set is opened at all; one that was opened before stays so.

    Raises:
        StudyFailedError: No trial is complete.
    """
    planned, study, mirror, source = run.planned, run.study, run.mirror, run.plan.source
    best, trials, predictions = study.best(), study.trials(), {}
    if best is None:
        raise StudyFailedError(f"study {study.name}: none of its {planned.trials} trials is complete")
    if scored:
        study.note(OPENED, True)
        runs = runs_of(mirror.tracking, mirror.parent)
        predictions = audit(trials, runs, mirror.tracking, run.images["test"], source.digest, source.classes)
    opened = bool(study.noted(OPENED))
    description = SCORED if scored else OPENED_BEFORE if opened else CLOSED
    study.note(CONCLUSION, {"best": best.number, "scores": {}, "description": description})
    mirror.show_conclusion()
    return EnqueuedResult(planned.short_arch, study.name, mirror.parent, tuple(trials), predictions, opened)
