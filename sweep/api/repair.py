"""`sweep.doctor`: makes Optuna, MLflow and the checkpoints agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.faults import InputError
from sweep.api.view import view_or_terminal

if TYPE_CHECKING:
    from sweep.orchestrator.progress import View


@dataclass(frozen=True)
class Mended:
    """What `doctor` did.

    Attributes:
        studies: The studies that it looked at.
        mended: What was repaired, a sentence each.
        missing: Studies of which MLflow has no run.
    """

    studies: tuple[str, ...]
    mended: tuple[str, ...]
    missing: tuple[str, ...]


def doctor(
    *,
    storage: str | None = None,
    tracking_uri: str | None = None,
    work_dir: Path | None = None,
    rebuild: bool = False,
    view: View | None = None,
) -> Mended:
    """Makes Optuna, MLflow and the checkpoints on disk agree.

    Args:
        storage: Optuna's store; None for the one here.
        tracking_uri: MLflow's store; None for the one here.
        work_dir: Where checkpoints were to go, if not here.
        rebuild: Writes all runs of a study again where MLflow has none of them.
        view: Shows what happens; None prints it.

    Raises:
        InputError: There is no store, or another process uses it.
    """
    folder = Path.cwd()
    if storage is None and not (folder / "optuna.db").exists():
        raise InputError(f"{folder}: there is no optuna.db here; go where the sweep ran, or name its store: --storage")
    from data import cache
    from sweep.orchestrator.reconcile import repair
    from sweep.orchestrator.workdir import locked, mlflow_in, optuna_in, stoppable
    from sweep.stores.mlflow_stores import open_tracking
    from sweep.stores.study import stored_studies
    from sweep.system.errors import TrackingAwayError
    from sweep.system.redaction import shown

    view, uri = view_or_terminal(view), tracking_uri or mlflow_in(folder)
    repaired: list[str] = []
    missing: list[str] = []
    with stoppable() as stopping, locked(folder):
        studies = stored_studies(storage or optuna_in(folder))
        for study in studies:
            if stopping():
                raise KeyboardInterrupt
            study.claim(shared=storage is not None)
            try:
                tracking = open_tracking(uri, study.experiment, repaired.append)
                sentences, mirrored = repair(study, tracking, folder, work_dir, view.say, rebuild=rebuild)
            except TrackingAwayError as error:
                raise InputError(f"--tracking-uri {shown(uri)}: {error}") from error
            finally:
                study.release()
            repaired += sentences
            missing += [] if mirrored else [study.name]
        repaired += [f"{path}: an unfinished image cache; removed" for path in cache.remove_left_behind()]
    return Mended(tuple(study.name for study in studies), tuple(repaired), tuple(missing))
