"""Every study of a plan, one after the other: caches, stores and the engine are opened, used and closed here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sweep.cli import terminal as display
from sweep.engines import Engine
from sweep.engines.local import LocalEngine
from sweep.orchestrator.loop import Finish, missing, open_studies, run_study
from sweep.orchestrator.workdir import alone, mlflow_in, optuna_in
from sweep.plan import Plan
from sweep.stores.databases import file_of
from sweep.stores.mlflow_stores import open_tracking
from sweep.stores.tracking import Tracking
from sweep.system.errors import StudyFailedError

T = TypeVar("T")


def run_plan(
    plan: Plan,
    folder: Path,
    terminal: display.Terminal,
    stopping: Callable[[], bool],
    finish: Finish[T],
    view: Callable[[T, Plan], Any],
) -> tuple[list[T], Tracking]:
    """Runs the studies of a plan, for which `prepare` has prepared, until each has its trials or the budget is used up.

    Args:
        plan: What was asked for, checked.
        folder: The working directory.
        terminal: Where it is told.
        stopping: Says whether somebody wants it to end.
        finish: Concludes a study.
        view: What the terminal shows of that.

    Returns:
        What the studies came to, and the MLflow experiment that shows them.

    Raises:
        InputError: A store cannot be opened, or a study was begun with something else.
        StudyFailedError: As `run_study`, or the budget ended before any trial was complete.
        KeyboardInterrupt: Somebody wants it to end.
    """
    with alone(folder):
        return _run(plan, folder, terminal, stopping, finish, view)


def engine_of(plan: Plan) -> Engine:
    """Makes the engine that a plan asks for; nothing runs yet."""
    if plan.settings.engine == "ray":
        from sweep.engines.ray import RayEngine

        return RayEngine(plan.workers, plan.device, plan.threads, plan.gpus, plan.settings.work_dir)
    return LocalEngine(plan.workers, plan.device, plan.threads)


def _run(
    plan: Plan,
    folder: Path,
    terminal: display.Terminal,
    stopping: Callable[[], bool],
    finish: Finish[T],
    view: Callable[[T, Plan], Any],
) -> tuple[list[T], Tracking]:
    settings = plan.settings
    uri = settings.tracking_uri or mlflow_in(folder)
    if file_of(uri) is None:  # a server that does not answer is to be known before a study is begun
        open_tracking(uri, plan.experiment)
    studies = open_studies(plan, settings.storage or optuna_in(folder))
    engine = engine_of(plan)
    if any(missing(planned, study) > 0 for planned, study in zip(plan.studies, studies, strict=True)):
        engine.start()  # its workers import torch while MLflow opens
    end = math.inf if settings.budget is None else time.monotonic() + settings.budget
    try:
        tracking = open_tracking(uri, plan.experiment)
        outcomes = []
        for left, planned, study in zip(range(len(studies), 0, -1), plan.studies, studies, strict=True):
            if stopping():
                raise KeyboardInterrupt
            terminal.say(
                f"study {plan.full_name(planned)}: {planned.trials} trials, "
                f"{planned.image_size} x {planned.image_size} pixels, "
                f"{plan.workers} at once on {plan.device} in {plan.precision}"
            )
            now = time.monotonic()
            deadline = now + (end - now) / left  # what one study does not use, the others have
            with terminal.live():
                outcome = run_study(
                    plan, planned, study, engine, tracking, folder, terminal, stopping, finish, deadline
                )
            if outcome is not None:
                terminal.show(view(outcome, plan))
                outcomes.append(outcome)
        if not outcomes:
            raise StudyFailedError("the budget ended before any trial was complete; the same command goes on from here")
    finally:
        engine.close()
        for study in studies:
            study.release()
    return outcomes, tracking
