"""Study, runs and disk brought to one truth, where no process is at a study: at a start, and by `sweep doctor`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data.sources import slug
from sweep.orchestrator.mlflow_mirror import Mirror
from sweep.stores import tags as tag
from sweep.stores.attributes import ABOUT
from sweep.stores.study import Study
from sweep.stores.tracking import Tracking

LEFT_RUNNING = "the process that trained it ended"


def mend(
    study: Study,
    tracking: Tracking,
    folder: Path,
    work_dir: Path | None,
    say: Callable[[str], None],
    *,
    rebuild: bool,
) -> tuple[list[str], bool]:
    """Brings a study's trials, its runs and its files to one truth; doing it again mends nothing more.

    Args:
        study: One that this process has claimed.
        tracking: The MLflow experiment of its runs.
        folder: The working directory.
        work_dir: Where its checkpoints were to go, if not there.
        say: Says a sentence to whoever watches.
        rebuild: Whether to write all of its runs again where MLflow has none of them.

    Returns:
        A sentence for each thing mended, and whether MLflow has its runs now.

    Raises:
        TrackingAwayError: MLflow's server does not answer.
    """
    mended = requeue(study, LEFT_RUNNING)
    mirror = Mirror(study, tracking, checkpoints_of(folder, study, work_dir), say)
    if not rebuild and mirror.find() is None:
        return mended, False
    return [*mended, *mirror.open(reopen=False), *mirror.end_left_open()], True


def requeue(study: Study, reason: str) -> list[str]:
    """Fails every trial that Optuna thinks is running, and queues their configurations again.

    Args:
        study: One that no process is at, but this one.
        reason: Why they did not end.

    Returns:
        A sentence for each.
    """
    mended = []
    for trial in study.trials():
        if trial.state == "RUNNING":
            study.note_trial(trial.number, failure={"cause": "interrupted", "reason": reason})
            again = study.retry(trial.number)
            study.fail(trial.number)
            mended.append(
                f"trial {trial.number} of {study.name} was left running; {'queued again' if again else 'failed'}"
            )
    return mended


def checkpoints_of(folder: Path, study: Study, work_dir: Path | None = None) -> Path:
    """Where the checkpoints of a study's trials are.

    Args:
        folder: The working directory.
        study: The study.
        work_dir: The folder that was given for them, which studies of one name in other stores may use, too.
    """
    if work_dir is None:
        return folder / "checkpoints" / slug(study.name)
    return work_dir / "checkpoints" / f"{slug(study.name)}-{study.noted(ABOUT)['tags'][tag.STUDY_ID][:8]}"
