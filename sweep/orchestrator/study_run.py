"""What runs: all studies of a plan together, and one of them as it is handed over to be concluded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data.cache import Images
from sweep.engines import Engine
from sweep.orchestrator.mlflow_mirror import Mirror
from sweep.orchestrator.progress import View
from sweep.plan import Plan, PlannedStudy
from sweep.stores.study import Study
from sweep.stores.tracking import Tracking
from sweep.stores.trials import TrialRecord

T = TypeVar("T")


@dataclass(frozen=True)
class SweepRun:
    """What all studies of a plan share while they run.

    Attributes:
        plan: What was asked for, checked.
        engine: Where trials run.
        tracking: The MLflow experiment.
        folder: The working directory; checkpoints of running trials go to `checkpoints/` in it, or in `--work-dir`.
        view: Shows what happens.
        stopping: Says whether somebody wants it to end.
        studies: All studies of the plan, each with Optuna's.
    """

    plan: Plan
    engine: Engine
    tracking: Tracking
    folder: Path
    view: View
    stopping: Callable[[], bool]
    studies: Sequence[tuple[PlannedStudy, Study]] = ()


@dataclass(frozen=True)
class StudyRun:
    """A study that has its trials and is to be concluded.

    Attributes:
        plan: The sweep.
        planned: The study, as planned.
        study: The same in Optuna.
        mirror: Its MLflow runs.
        images: `train`, `validation` and `test`.
        train_again: Trains a trial into a folder and returns its checkpoint, should the one in MLflow be gone.
    """

    plan: Plan
    planned: PlannedStudy
    study: Study
    mirror: Mirror
    images: Mapping[str, Images]
    train_again: Callable[[TrialRecord, Path], Path]


# Concludes a study; may be called again where a server went away meanwhile.
Finish = Callable[[StudyRun], T]


def missing_trials(planned: PlannedStudy, study: Study) -> int:
    """How many trials a study still lacks; none or fewer where nothing is left to train."""
    counts = study.counts()
    if planned.enqueued:  # one that failed is not replaced by another configuration
        return counts.waiting + counts.running
    return planned.trials - counts.done


def ended_trials(planned: PlannedStudy, study: Study) -> int:
    """How many of the trials that a study is to have need no more training."""
    return max(0, planned.trials - max(0, missing_trials(planned, study)))


def can_ask(planned: PlannedStudy, study: Study, training: int) -> bool:
    """Whether a study lacks a trial that is not in training; where trials were given, one that waits.

    Another program may have asked for a trial of the study: no configuration is drawn in its place.
    """
    waits = not planned.enqueued or study.counts().waiting > 0
    return waits and missing_trials(planned, study) > training
