"""Studies whose trials are given and not searched: rows of a table, or seeds of a winner. Nothing is registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweep.comparisons.architectures.audit import audit, runs_of
from sweep.metrics.predictions import Predictions
from sweep.orchestrator.study_run import StudyRun
from sweep.stores.attributes import CONCLUSION, OPENED
from sweep.stores.trials import TrialRecord
from sweep.system.errors import StudyFailedError

ABOUT_IT = (
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
class Tried:
    """What a study of given trials came to.

    Attributes:
        arch: The architecture.
        study: The study's full name.
        parent_run_id: Its MLflow run.
        trials: All of its trials, failed attempts too.
        predictions: What each complete one says of the test images, by number; empty where this command did not ask.
        opened: Whether any of them has been scored on test, now or before.
    """

    arch: str
    study: str
    parent_run_id: str
    trials: tuple[TrialRecord, ...]
    predictions: Mapping[int, Predictions]
    opened: bool = True

    def labelled(self, label: str) -> list[TrialRecord]:
        """The complete trials that were given under a label, in the order in which they were."""
        return [
            trial
            for trial in self.trials
            if trial.number in self.predictions and trial.attributes.get("label") == label
        ]


def conclude_enqueued(run: StudyRun, *, scored: bool = True) -> Tried:
    """Scores every trial on the test images; takes what `conclude.conclude` takes.

    Args:
        run: The study. A trial whose checkpoint is gone is not trained again, but left out.
        scored: Whether the test set is opened at all; one that was opened before stays so.

    Raises:
        StudyFailedError: No trial is complete.
    """
    planned, study, mirror, source = run.planned, run.study, run.mirror, run.plan.source
    best, trials, found = study.best(), study.trials(), {}
    if best is None:
        raise StudyFailedError(f"study {study.name}: none of its {planned.trials} trials is complete")
    if scored:
        study.note(OPENED, True)
        runs = runs_of(mirror.tracking, mirror.parent)
        found = audit(trials, runs, mirror.tracking, run.images["test"], source.digest, source.classes)
    opened = bool(study.noted(OPENED))
    told = ABOUT_IT if scored else OPENED_BEFORE if opened else CLOSED
    study.note(CONCLUSION, {"best": best.number, "scores": {}, "description": told})
    mirror.show_conclusion()
    return Tried(planned.arch, study.name, mirror.parent, tuple(trials), found, opened)
