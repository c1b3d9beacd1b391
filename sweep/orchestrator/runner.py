"""Every study of a plan, one after the other: opened, run by its loop and concluded, or stopped with a clear error."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from data.faults import InputError
from sweep.engines import Engine
from sweep.metrics.formatting import counted
from sweep.metrics.names import direction_of
from sweep.orchestrator.artifacts import checkpoints_of
from sweep.orchestrator.engine import engine_of
from sweep.orchestrator.figure_pool import FigurePool
from sweep.orchestrator.loop import Loop
from sweep.orchestrator.mlflow_mirror import Mirror
from sweep.orchestrator.progress import View
from sweep.orchestrator.run_params import StudyDescription, describe_study, fingerprint
from sweep.orchestrator.study_run import Finish, StudyRun, SweepRun, missing_trials
from sweep.orchestrator.workdir import locked, mlflow_in, optuna_in
from sweep.plan import DEFAULT_START, Plan, PlannedStudy, seed_of
from sweep.stores.attributes import ABOUT
from sweep.stores.databases import file_of, storage_away
from sweep.stores.mlflow_stores import open_tracking
from sweep.stores.study import Pruning, Study, open_study
from sweep.stores.tracking import Tracking
from sweep.system.errors import EngineLostError, StudyFailedError, StudyInterruptedError, TrackingAwayError, disk_full
from sweep.system.hardware import usable_cores
from sweep.system.redaction import first_line, scrubbed, shown

# A few workers leave the loop time to draw figures; with more of them, so many processes draw at most
# (benchmarks/README.md, "Scale").
FEW_WORKERS, MOST_DRAWERS = 8, 4
# At the end of a study there is nothing left to do but to wait for a server that is away.
AWAY_SECONDS, AGAIN_SECONDS = 600.0, 5.0

T = TypeVar("T")


def run_plan(
    plan: Plan,
    folder: Path,
    view: View,
    stopping: Callable[[], bool],
    finish: Finish[T],
    ended: Callable[[T], None],
    engine: Engine | None = None,
) -> tuple[list[T], Tracking]:
    """Runs the studies of a plan, after `workdir.prepare`, until each has its trials or the budget is used up.

    Args:
        plan: What was asked for, checked.
        folder: The working directory.
        view: Shows what happens.
        stopping: Says whether somebody wants it to end.
        finish: Concludes a study, such as `conclude.conclude`.
        ended: Called with what `finish` returned, once a study has ended.
        engine: Where trials run, where it was made before; the caller closes it.

    Returns:
        What `finish` returned for each study that was concluded, and the MLflow experiment that shows them.

    Raises:
        InputError: A store cannot be opened, or a study was begun with something else.
        StudyFailedError: As `run_study`, or the budget ended before any trial was complete.
        KeyboardInterrupt: Somebody wants it to end.
    """
    settings = plan.settings
    uri = settings.tracking_uri or mlflow_in(folder)
    with locked(folder), ExitStack() as at_end:
        if file_of(uri) is None:  # a server that does not answer is to be known before a study is begun
            open_tracking(uri, plan.experiment)
        studies = open_studies(plan, settings.storage or optuna_in(folder))
        both = tuple(zip(plan.studies, studies, strict=True))
        for study in studies:
            at_end.callback(study.release)
        if engine is None:
            engine = engine_of(plan)
            at_end.callback(engine.close)
        # Its workers import torch while MLflow opens.
        engine.start(max(missing_trials(planned, study) for planned, study in both))
        end = math.inf if settings.budget is None else time.monotonic() + settings.budget
        tracking = open_tracking(uri, plan.experiment, view.say)
        sweep = SweepRun(plan, engine, tracking, folder, view, stopping, both)
        outcomes = []
        for left, planned, study in zip(range(len(studies), 0, -1), plan.studies, studies, strict=True):
            if stopping():
                raise KeyboardInterrupt
            view.say(
                f"study {plan.full_name(planned)}: {counted(planned.trials, 'trial')}, "
                f"{planned.image_size} x {planned.image_size} pixels, "
                f"{plan.workers} at once on {plan.device} in {plan.precision}"
            )
            if planned.starts and not study.counts().done:
                view.say(_beginning(planned))
            now = time.monotonic()
            deadline = now + (end - now) / left  # what one study does not use, the others have
            with view.live():
                outcome = run_study(sweep, planned, study, finish, deadline)
            if outcome is not None:
                ended(outcome)
                outcomes.append(outcome)
        if not outcomes:
            raise StudyFailedError("the budget ended before any trial was complete; the same command goes on from here")
    return outcomes, sweep.tracking


def _beginning(planned: PlannedStudy) -> str:
    """Says what a new study begins with, so that nobody takes it for a find of the search."""
    default = sum(start.source == DEFAULT_START for start in planned.starts)
    given = len(planned.starts) - default
    parts = ["the default configuration"] * default
    parts += [f"{given} given {'configurations' if given > 1 else 'configuration'}"] if given else []
    return f"it begins with {' and '.join(parts)}"


def open_studies(plan: Plan, storage: str) -> list[Study]:
    """Opens every study of a sweep, so that none is refused after another has run for hours.

    Args:
        plan: The sweep.
        storage: Optuna's storage URL.

    Raises:
        InputError: The storage cannot be opened, a study was begun with other data, split, size or space, or another
            process runs it.
    """
    settings = plan.settings
    studies = [
        open_study(
            storage,
            plan.full_name(planned),
            planned.space,
            direction=[direction_of(metric) for metric in settings.metrics],
            fingerprint=fingerprint(plan, planned),
            seed=seed_of(settings.seed, planned.short_arch),
            pruning=Pruning(settings.pruning, settings.warmup, settings.epochs),
            sampler=settings.sampler,
        )
        for planned in plan.studies
    ]
    try:
        for planned, study in zip(plan.studies, studies, strict=True):
            study.claim(shared=settings.storage is not None)
            stored = study.noted(ABOUT)
            new = stored is None or not study.trials()
            if new:
                study_id = StudyDescription.from_dict(stored).study_id if stored else uuid4().hex
                study.note(ABOUT, describe_study(plan, planned, study.name, study_id).to_dict())
            # A study of an earlier release has begun without it.
            study.begin_with(start for start in planned.starts if new or start.source != DEFAULT_START)
            study.enqueue(planned.enqueued)
    except InputError:
        for study in studies:
            study.release()
        raise
    return studies


def run_study(
    sweep: SweepRun, planned: PlannedStudy, study: Study, finish: Finish[T], deadline: float = math.inf
) -> T | None:
    """Runs a study until it has the trials that it is to have, or its time is over, and concludes it.

    Args:
        sweep: What it shares with the other studies of its plan.
        planned: The study.
        study: The same in Optuna.
        finish: Concludes it.
        deadline: When its time is over, on the monotonic clock in seconds.

    Returns:
        What `finish` returned; None if its time was over before any trial was complete.

    Raises:
        InputError: Another process has claimed the study since it was opened.
        StudyFailedError: Trials fail and none ends well, a disk is full, or MLflow's server stays away.
        StudyInterruptedError: Ctrl-C or SIGTERM.
    """
    plan, shared = sweep.plan, sweep.plan.settings.storage
    # The loop itself has a core.
    pool = FigurePool(max(1, min(MOST_DRAWERS, usable_cores() - 1)) if plan.workers > FEW_WORKERS else 0)
    checkpoints = checkpoints_of(sweep.folder, study, plan.settings.work_dir)
    mirror = Mirror(study, sweep.tracking, checkpoints, sweep.view.say, pool)
    loop = Loop(sweep, planned, study, mirror, deadline)
    study.claim(shared=shared is not None)  # an hour may have passed with the studies before it
    try:
        loop.recover()
        loop.run()
        if loop.missing() > 0 and study.best() is None:
            mirror.close("its budget ended", failed=False)
            return None
        return _conclude(sweep, loop.study_run, finish)
    except KeyboardInterrupt as error:
        with suppress(Exception):  # as below
            loop.abandon("the study was stopped", failed=False)
        raise StudyInterruptedError(f"study {study.name} was stopped; the same command goes on from here") from error
    except Exception as error:
        reason = _outside_reason(error, study, shared)
        with suppress(Exception):  # what cannot be written now is repaired by the next start; the first error counts
            loop.abandon(reason or scrubbed(str(error)), failed=True)
        if reason is not None:
            raise StudyFailedError(reason) from error
        raise
    finally:
        pool.close()


def _conclude(sweep: SweepRun, run: StudyRun, finish: Finish[T]) -> T:
    """Concludes a study; waits for MLflow's server if it is away, since nothing else is left to do."""
    study, mirror = run.study, run.mirror

    def say(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            sweep.view.say(f"{state.outcome.exception()}; waiting for it, since the study ends there")

    def stop(state: RetryCallState) -> bool:
        study.renew()
        if sweep.stopping():
            raise KeyboardInterrupt
        return stop_after_delay(AWAY_SECONDS)(state)

    def once() -> T:
        mirror.catch_up(now=True)
        if sweep.stopping():
            raise KeyboardInterrupt
        if run.plan.settings.keep == "best" and (best := study.best()):
            mirror.thin(best.number)
        with mirror.tracking.reaching():
            return finish(run)

    retry, wait = retry_if_exception_type(TrackingAwayError), wait_fixed(AGAIN_SECONDS)
    try:
        return Retrying(retry=retry, wait=wait, stop=stop, before_sleep=say)(once)
    except RetryError as error:
        why = error.last_attempt.exception()
        raise StudyFailedError(f"{why}; the trials are safe, and the same command goes on from here") from error


def _outside_reason(error: Exception, study: Study, storage: str | None) -> str | None:
    """Says what stopped a study, where that is a disk, a cluster or a database; None where it is anything else."""
    if disk_full(error):
        return f"study {study.name}: a disk is full; make room, and the same command goes on from here"
    if isinstance(error, EngineLostError):
        return f"study {study.name}: {error}; once it does, the same command goes on"
    if storage is not None and storage_away(error):
        why = first_line(error, storage)
        return f"study {study.name}: {shown(storage)} does not answer ({why}); once it does, the same command goes on"
    return None
