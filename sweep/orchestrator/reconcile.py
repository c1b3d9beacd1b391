"""Makes study, runs and disk agree, where no process runs the study: what `sweep doctor` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sweep.orchestrator.artifacts import checkpoints_of
from sweep.orchestrator.mlflow_mirror import LEFT_BEHIND, Mirror
from sweep.orchestrator.retries import LEFT_RUNNING, requeue
from sweep.stores import tags as tag
from sweep.stores.attributes import CONCLUSION
from sweep.stores.study import Study
from sweep.stores.tracking import KILLED, Tracking


def repair(
    study: Study,
    tracking: Tracking,
    folder: Path,
    work_dir: Path | None,
    say: Callable[[str], None],
    *,
    rebuild: bool,
) -> tuple[list[str], bool]:
    """Makes the runs and files of a study agree with its trials; a second time there is nothing left to repair.

    Args:
        study: One that this process has claimed.
        tracking: The MLflow experiment of its runs.
        folder: The working directory.
        work_dir: Where its checkpoints were to go, if not there.
        say: Shows a line.
        rebuild: Whether to write all of its runs again where MLflow has none of them.

    Returns:
        A sentence for each thing that was repaired, and whether MLflow has its runs now.

    Raises:
        TrackingAwayError: MLflow's server does not answer.
    """
    repaired = requeue(study, LEFT_RUNNING)
    mirror = Mirror(study, tracking, checkpoints_of(folder, study, work_dir), say)
    if not rebuild and mirror.find() is None:
        return repaired, False
    repaired += mirror.open(reopen=False)
    mirror.describe()
    return [*repaired, *_end_left_open(mirror), *_end_ensembles(mirror)], True


def _end_left_open(mirror: Mirror) -> list[str]:
    """Ends the study's run, which nobody runs; returns what was repaired."""
    run = mirror.tracking.get(mirror.parent)
    if run is None or run.status != "RUNNING":
        return []
    if mirror.study.noted(CONCLUSION):
        mirror.show_conclusion()
    else:
        mirror.close(LEFT_BEHIND, failed=False)
    return [f"study {mirror.study.name}: its run had not ended; ended"]


def _end_ensembles(mirror: Mirror) -> list[str]:
    """Ends the runs of ensembles of a study that a process left behind; the same command goes on with them."""
    repaired, tracking = [], mirror.tracking
    of_study = f"tags.`{tag.STUDY_ID}` = '{mirror.description.study_id}'"
    for run in tracking.search(f"{of_study} and tags.`{tag.KIND}` = 'ensemble'"):
        if run.status == "RUNNING":
            reason = f"{LEFT_BEHIND}; the same `sweep ensemble` goes on with it"
            tracking.log(run.run_id, {}, tags={tag.STATE: "STOPPED", tag.REASON: reason})
            tracking.finish(run.run_id, KILLED)
            repaired.append(f"{run.name}: its run had not ended; ended, and the same `sweep ensemble` goes on with it")
    return repaired
