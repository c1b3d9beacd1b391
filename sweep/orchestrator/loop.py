"""The loop: ask Optuna for a trial, have an engine train it, report each epoch, prune, tell, mirror it to MLflow.

This process is the only one that writes to Optuna and MLflow. Optuna is told first; MLflow shows what Optuna knows.
A trial that ends before its time is failed, and its configuration queued again where that may help: the next attempt
is a trial and a run of its own, and goes on from the last checkpoint.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import uuid4

import numpy as np
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from data.cache import Images, images_of
from data.faults import InputError
from sweep.engines import Cause, Engine, EpochFinished, Event, Job, JobFailed, JobFinished
from sweep.metrics.names import METRICS, STRESSED
from sweep.metrics.predictions import STRESSED_VALIDATION, VALIDATION
from sweep.orchestrator.figure_pool import Drawer
from sweep.orchestrator.mlflow_mirror import CONCLUSION, Mirror
from sweep.orchestrator.progress import Progress, Running, View
from sweep.orchestrator.reconcile import LEFT_RUNNING, checkpoints_of, requeue
from sweep.orchestrator.run_params import about, config_of, fingerprint, fixed_params, metrics_of, predictions_of
from sweep.plan import Plan, PlannedStudy, seed_of
from sweep.space import FIVE, decided
from sweep.stores import tags as tag
from sweep.stores.study import ABOUT, AskedTrial, Study, TrialCounts, TrialRecord, open_study, storage_away
from sweep.stores.tracking import Tracking
from sweep.system import provenance
from sweep.system.errors import EngineLostError, StudyFailedError, StudyInterruptedError, TrackingAwayError, disk_full
from sweep.system.hardware import usable_cores
from sweep.system.redaction import first_line, scrubbed, shown
from sweep.training.loop import BEST, EpochResult, TrainingConfig

# So many configurations in a row that come to nothing are no accident; the first ones of a study still less.
FAILURES_IN_A_ROW, FAILURES_AT_FIRST = 5, 3
# Somebody who stops a study waits so long for epochs to end, and then for the step that is being computed.
EPOCH_SECONDS, STEP_SECONDS = 15.0, 5.0
# At the end of a study there is nothing left to do but to wait for a server that is away.
AWAY_SECONDS, AGAIN_SECONDS = 600.0, 5.0
# So many workers leave the loop time to draw what trials came to; more of them do not (benchmarks/README.md, "Scale").
FEW_WORKERS, MOST_DRAWERS = 8, 4
# Hyperparameters whose names are too long for a column of the terminal.
SHORT = {"learning_rate": "rate", "batch_size": "batch"}

T = TypeVar("T")
# (plan, its study, the same in Optuna, its runs, its images, what trains a trial into a folder once more) -> a result
Finish = Callable[
    [Plan, PlannedStudy, Study, Mirror, Mapping[str, Images], Callable[[TrialRecord, Path], Path]],
    T,
]


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
            direction=METRICS[settings.metric],
            fingerprint=fingerprint(plan, planned),
            seed=seed_of(settings.seed, planned.arch),
            pruner=settings.pruner,
            warmup=settings.warmup,
            epochs=settings.epochs,
        )
        for planned in plan.studies
    ]
    try:
        for planned, study in zip(plan.studies, studies, strict=True):
            study.claim(shared=settings.storage is not None)
            known = study.noted(ABOUT)
            if known is None or not study.trials():
                identity = known["tags"][tag.STUDY_ID] if known else uuid4().hex
                study.note(ABOUT, about(plan, planned, study.name, identity))
            study.enqueue(planned.enqueued)
    except InputError:
        for study in studies:
            study.release()
        raise
    return studies


def run_study(
    plan: Plan,
    planned: PlannedStudy,
    study: Study,
    engine: Engine,
    tracking: Tracking,
    folder: Path,
    view: View,
    stopping: Callable[[], bool],
    finish: Finish[T],
    deadline: float = math.inf,
) -> T | None:
    """Runs a study until it has the trials that it is to have, or its time is over, and concludes it.

    Args:
        plan: The sweep.
        planned: The study of it to run.
        study: The same in Optuna.
        engine: Where trials run.
        tracking: The MLflow experiment.
        folder: The working directory; checkpoints of running trials go to `checkpoints/` in it, or in `--work-dir`.
        view: Who wants to know.
        stopping: Says whether somebody wants the study to end now.
        finish: Concludes it, such as `conclusion.conclude`; may be called again where a server went away.
        deadline: When its time is over, on the monotonic clock in seconds.

    Returns:
        What `finish` came to; None if its time was over before any trial was complete.

    Raises:
        InputError: Another process has claimed the study since it was opened.
        StudyFailedError: Trials fail and none ends well, a disk is full, or MLflow's server stays away.
        StudyInterruptedError: Ctrl-C or SIGTERM.
    """
    # The loop itself has a core.
    drawers = max(1, min(MOST_DRAWERS, usable_cores() - 1)) if plan.workers > FEW_WORKERS else 0
    drawer = Drawer(drawers)
    mirror = Mirror(study, tracking, checkpoints_of(folder, study, plan.settings.work_dir), view.say, drawer)
    loop = _Loop(plan, planned, study, engine, mirror, view, stopping, deadline)
    study.claim(shared=plan.settings.storage is not None)  # an hour may have passed with the studies before it
    try:
        loop.recover()
        loop.run()
        if loop.missing() > 0 and study.best() is None:
            mirror.close("its budget ended", failed=False)
            return None
        return loop.conclude(finish)
    except KeyboardInterrupt as error:
        with suppress(Exception):  # as below
            loop.abandon("the study was stopped", failed=False)
        raise StudyInterruptedError(f"study {study.name} was stopped; the same command goes on from here") from error
    except Exception as error:
        sentence = _outside(error, study, plan.settings.storage)
        with suppress(Exception):  # what cannot be written now is mended by the next start; the first error counts
            loop.abandon(sentence or scrubbed(str(error)), failed=True)
        if sentence is not None:
            raise StudyFailedError(sentence) from error
        raise
    finally:
        drawer.close()


def _outside(error: Exception, study: Study, storage: str | None) -> str | None:
    """Says what stopped a study, where that is a disk, a cluster or a database; None where it is anything else."""
    if disk_full(error):
        return f"study {study.name}: a disk is full; make room, and the same command goes on from here"
    if isinstance(error, EngineLostError):
        return f"study {study.name}: {error}; once it does, the same command goes on"
    if storage is not None and storage_away(error):
        why = first_line(error, storage)
        return f"study {study.name}: {shown(storage)} does not answer ({why}); once it does, the same command goes on"
    return None


def missing(planned: PlannedStudy, study: Study) -> int:
    """How many trials a study still lacks; none or fewer where nothing is left to train."""
    counts = study.counts()
    if planned.enqueued:  # one that came to nothing is not replaced by another configuration
        return counts.waiting + counts.running
    return planned.trials - counts.done


class _Loop:
    """One study on its way; see `run_study`."""

    def __init__(
        self,
        plan: Plan,
        planned: PlannedStudy,
        study: Study,
        engine: Engine,
        mirror: Mirror,
        view: View,
        stopping: Callable[[], bool],
        deadline: float,
    ) -> None:
        self.plan, self.planned, self.study = plan, planned, study
        self.engine, self.mirror, self.view = engine, mirror, view
        self.stopping, self.deadline = stopping, deadline
        self.settings = plan.settings
        self.images = images_of(plan.source, plan.split, planned.image_size)
        # The five are always shown, levers where there is a choice.
        self.shown = [name for name in planned.space if name in FIVE or name not in decided(planned.space)]
        self.running: dict[int, Running] = {}
        self.busy = False  # something had happened when the engine was last asked
        self.failures: list[str] = []  # causes since the last trial that ended well
        self.seconds = [row["epoch_seconds"] for trial in study.trials() for row in trial.history]  # of each epoch

    def recover(self) -> None:
        """Queues again what an earlier process left running, and brings runs and disk to what the study knows."""
        mended = requeue(self.study, LEFT_RUNNING)
        try:
            mended += self.mirror.open()
        except TrackingAwayError as error:
            raise StudyFailedError(f"{error}; start it, and the same command goes on from here") from error
        for sentence in mended:
            self.view.say(f"mended: {sentence}")

    def run(self) -> None:
        """Asks, submits and watches until the study has its trials or its time is over.

        Raises:
            KeyboardInterrupt: Somebody wants it to end.
        """
        wanted, missing = self.planned.trials, self.missing()
        if missing <= 0:
            self.view.say(
                f"study {self.study.name} has {wanted - missing} of {wanted} trials; nothing is left to train"
            )
            return
        self.study.note(CONCLUSION, None)
        names = [SHORT.get(name, name) for name in self.shown]
        self.view.say(
            self._columns("trial", "state", self.settings.metric.removeprefix("val/"), "epoch", "img/s", *names)
        )
        while True:
            if self.stopping():
                self._wind_down()
                raise KeyboardInterrupt
            while self.engine.free and self.missing() > len(self._training()) and self._time_for_an_epoch():
                self._submit(self.study.ask())
            if not self.running:
                self.mirror.end_runs()
                break
            if time.monotonic() > self.deadline:
                self._stop_all("its budget ended")
            self._tick(0.5)
        if self.missing() > 0:
            done = wanted - self.missing()
            self.view.say(f"the budget is used up after {done} of {wanted} trials; the same command goes on with them")

    def conclude(self, finish: Finish[T]) -> T:
        """Concludes the study; waits for MLflow's server if it is away, since nothing else is left to do."""

        def say(state: RetryCallState) -> None:
            if state.attempt_number == 1 and state.outcome is not None:
                self.view.say(f"{state.outcome.exception()}; waiting for it, since the study ends there")

        def stop(state: RetryCallState) -> bool:
            self.study.renew()
            if self.stopping():
                raise KeyboardInterrupt
            return stop_after_delay(AWAY_SECONDS)(state)

        def once() -> T:
            self.mirror.catch_up(now=True)
            if self.stopping():
                raise KeyboardInterrupt
            if self.settings.keep == "best" and (best := self.study.best()):
                self.mirror.thin(best.number)
            with self.mirror.tracking.reaching():
                return finish(self.plan, self.planned, self.study, self.mirror, self.images, self._train_again)

        retry, wait = retry_if_exception_type(TrackingAwayError), wait_fixed(AGAIN_SECONDS)
        try:
            return Retrying(retry=retry, wait=wait, stop=stop, before_sleep=say)(once)
        except RetryError as error:
            why = error.last_attempt.exception()
            raise StudyFailedError(f"{why}; the trials are safe, and the same command goes on from here") from error

    def missing(self) -> int:
        """How many trials the study still lacks."""
        return missing(self.planned, self.study)

    def abandon(self, reason: str, *, failed: bool) -> None:
        """Stops the trials that run and queues their configurations again; they go on from their last checkpoints.

        Args:
            reason: Why.
            failed: Whether the study failed, or was only stopped.
        """
        for number, running in list(self.running.items()):
            self.engine.stop(number)
            if not running.pruned:
                self._interrupted(running, reason)
        requeue(self.study, reason)
        # A second Ctrl-C comes at any moment: what had ended may not have been said to the mirror yet.
        for number in self.mirror.begun:
            self.mirror.trial_ended(number)
        self.mirror.end_runs()
        self.mirror.close(reason, failed=failed)
        self.study.release()

    def progress(self) -> Progress:
        """The study at the moment."""
        counts = self.study.counts()
        return Progress(
            self.planned.name,
            self.planned.trials,
            counts.done,
            counts.pruned,
            counts.failed,
            self._training(),
            counts.best,
            self.settings.metric,
            self.settings.epochs,
            self._seconds_left(counts),
            None if math.isinf(self.deadline) else max(0.0, self.deadline - time.monotonic()),
        )

    def _tick(self, timeout: float) -> None:
        # Figures and files can wait for a moment in which no worker waits for an answer, but not pile up on disk.
        self.mirror.end_runs(leave=self.plan.workers if self.busy else max(0, self.mirror.ending - 1))
        self.study.renew()
        self.mirror.catch_up()
        self.view.update(self.progress())
        events = self.engine.events(0.0 if self.mirror.ending else timeout)
        self.busy = bool(events)
        for event in events:
            self._handle(event)

    def _submit(self, asked: AskedTrial) -> None:
        config = TrainingConfig(
            arch=self.planned.arch,
            **asked.params,
            seed=seed_of(self.settings.seed, self.planned.arch, asked.origin) if asked.seed is None else asked.seed,
            epochs=self.settings.epochs,
            patience=self.settings.patience if asked.patience is None else asked.patience,
            image_size=self.planned.image_size,
            classes=len(self.plan.source.classes),
            precision=self.plan.precision,
            device=self.plan.device,
            options=self.planned.options,
            micro_batch=asked.micro_batch,
            stress=self.settings.metric in STRESSED,
        )
        parts = {} if asked.micro_batch is None else {"micro_batch": asked.micro_batch}
        params = {**asked.params, "seed": config.seed, **fixed_params(self.plan, self.planned), **parts}
        params["patience"] = config.patience
        label = {} if asked.label is None else {tag.LABEL: asked.label}
        folder = self.mirror.folder(asked.origin)
        self.running[asked.number] = Running(asked, config, folder, time.monotonic())
        self._send(asked.number, config, folder)  # first, so that it trains while its run is begun
        self.mirror.trial_started(asked, params, {**self.mirror.about["tags"], **provenance.tags(), **label})

    def _send(self, number: int, config: TrainingConfig, folder: Path) -> None:
        # Names are for tables; thousands of them would travel with every job.
        parts = (replace(self.images[name], names=(), patients=()) for name in ("train", "validation"))
        self.engine.submit(Job(number, config, *parts, folder=folder))

    def _handle(self, event: Event) -> None:
        running = self.running[event.number]
        if isinstance(event, EpochFinished):
            if not running.pruned:  # an epoch that ended while the decision was made does not count
                self._epoch(running, event.result, event.node)
            return
        del self.running[event.number]
        if running.pruned:
            self.mirror.trial_ended(event.number)
        elif isinstance(event, JobFailed):
            self._failed(running, event)
        elif event.stopped:
            self._interrupted(running, running.stopped)
        else:
            self._end(running, "COMPLETE")

    def _epoch(self, running: Running, result: EpochResult, node: str) -> None:
        row = {
            "epoch": result.epoch,
            "time": result.ended,
            **metrics_of(result, self.images["validation"].labels),
            "images_per_second": result.images_per_second,
            "epoch_seconds": result.seconds,
        }
        number, last = running.asked.number, result.epoch == self.settings.epochs
        running.node = node
        running.history.append(row)
        running.repeated += result.repeated
        self.seconds.append(result.seconds)
        if result.improved:
            running.best, running.best_logits = row, result.validation_logits
            running.best_stressed = result.stressed_logits
        self.study.report(number, result.epoch, row[self.settings.metric])
        self.mirror.epoch_ended(number, row)
        # Nothing is saved by stopping a trial that has just ended, and one from a checkpoint was let past before.
        if last or result.repeated or running.stopped:
            return
        if self.study.should_prune(number):
            self.engine.stop(number)
            self._end(running, "PRUNED")
        elif time.monotonic() + result.seconds > self.deadline:
            self._stop(running, "its budget ended", after_epoch=False)

    def _end(self, running: Running, state: Literal["COMPLETE", "PRUNED"]) -> None:
        """Ends a trial: its files go to a safe place on disk, then Optuna is told, then MLflow."""
        number, best, logits = running.asked.number, running.best, running.best_logits
        if best is None or logits is None:
            raise StudyFailedError(f"{self.mirror.run_name(number)} ended without a single epoch")
        files, checkpoint = {}, None
        if state == "COMPLETE":
            said = {VALIDATION: logits, STRESSED_VALIDATION: running.best_stressed}
            files = {
                name: predictions_of(self.images["validation"], found, self.plan).to_csv()
                for name, found in said.items()
                if found is not None
            }
            checkpoint = running.folder / BEST
        self.mirror.keep_files(running.asked.origin, files, checkpoint)
        self.study.note_trial(number, result=_result(running))
        if state == "COMPLETE":
            self.study.complete(number, best[self.settings.metric])
            self.mirror.trial_ended(number)
            if self.settings.keep == "best" and (leader := self.study.best()):
                among = self.study.recently_complete()
                self.mirror.follow(lambda: self.mirror.thin(leader.number, among))
        else:
            self.study.prune(number)
            running.pruned = True  # its run ends with its job, which may still be writing a checkpoint
        self.failures.clear()
        rate = np.mean([row["images_per_second"] for row in running.history])
        values = [running.asked.params[name] for name in self.shown]
        params = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
        shown = (f"{best[self.settings.metric]:.4f}", str(len(running.history)), f"{rate:,.0f}")
        self.view.say(self._columns(self.mirror.run_name(number), state.lower(), *shown, *params))

    def _failed(self, running: Running, event: JobFailed) -> None:
        """A trial failed: decides by the cause whether its configuration gets another attempt, and from where."""
        asked, at_once = running.asked, running.config.micro_batch or running.config.batch_size
        again, advice = next_attempt(event.cause, asked.failures, self.settings.retries, at_once)
        sentence = f"{event.cause}: {event.message}"
        self._give_up(running, event.cause, event.message, again, event.details)
        said = f"{sentence}; {advice}" if advice else sentence
        self.view.say(f"{self._columns(self.mirror.run_name(asked.number), 'failed')} {said}")
        if event.cause in ("disk full", "bad configuration"):  # the next trial would end the same way
            where = "make room, and the same command goes on from here" if again is not None else "no trial can begin"
            raise StudyFailedError(f"study {self.study.name}: {sentence}; {where}")
        if again is None:
            self.failures.append(event.cause)
        all_alike = len(set(self.failures)) == 1 and self.study.best() is None
        if len(self.failures) >= (FAILURES_AT_FIRST if all_alike else FAILURES_IN_A_ROW):
            which = "first " if all_alike else ""
            raise StudyFailedError(
                f"study {self.study.name}: the {which}{len(self.failures)} configurations "
                f"{'all' if all_alike else 'in a row'} failed, the last one of {sentence}"
            )

    def _interrupted(self, running: Running, reason: str) -> None:
        """A trial was stopped for now: its next attempt goes on from its last epoch."""
        self.running.pop(running.asked.number, None)
        self._give_up(running, "interrupted", reason, again={})
        epochs = f" after epoch {len(running.history)}" if running.history else ""
        self.view.say(
            f"{self._columns(self.mirror.run_name(running.asked.number), 'stopped')} {reason}{epochs}; queued again"
        )

    def _give_up(
        self, running: Running, cause: str, reason: str, again: Mapping[str, Any] | None, details: str = ""
    ) -> None:
        """Fails a trial in both stores, and queues its configuration again if it is to have another attempt."""
        number = running.asked.number
        failure = {"cause": cause, "reason": reason, **({"details": details} if details else {})}
        self.study.note_trial(number, result=_result(running), failure=failure)
        if again is not None:
            self.study.retry(number, **again)
        self.study.fail(number)
        self.mirror.trial_ended(number)
        if again is None:
            shutil.rmtree(running.folder, ignore_errors=True)

    def _train_again(self, best: TrialRecord, folder: Path) -> Path:
        """Trains the chosen trial once more where its checkpoint is gone, and sees that it gives the same numbers."""
        name = self.mirror.run_name(best.number)
        self.view.say(f"the checkpoint of {name} is gone; training it again from its seed")
        config = config_of(best.attributes["run"]["params"], len(self.plan.source.classes))
        self._send(best.number, config, folder)
        ended, losses = False, []
        while not ended:
            if self.stopping():
                raise KeyboardInterrupt
            self.study.renew()
            for event in self.engine.events(0.5):
                if isinstance(event, EpochFinished):
                    losses.append(event.result.validation_loss)
                elif isinstance(event, JobFailed):
                    raise StudyFailedError(f"{name} could not be trained again, {event.cause}: {event.message}")
                else:
                    ended = isinstance(event, JobFinished)
        if losses != [row["val/loss"] for row in best.history]:
            raise StudyFailedError(
                f"the checkpoint of {name} is gone, and training it again gave other numbers (another machine or other "
                "versions?); begin another study with --study NAME"
            )
        self.mirror.put_checkpoint(best.number, folder / BEST)
        return folder / BEST

    def _wind_down(self) -> None:
        """Lets every running trial end its epoch, within reason."""
        self.view.say("stopping after the epochs in training; once more to stop at once")
        for seconds, after_epoch in ((EPOCH_SECONDS, True), (STEP_SECONDS, False)):
            self._stop_all("the study was stopped", after_epoch=after_epoch)
            until = time.monotonic() + seconds
            while self.running and time.monotonic() < until:
                self._tick(0.2)

    def _stop_all(self, reason: str, *, after_epoch: bool = False) -> None:
        for running in self._training():
            self._stop(running, reason, after_epoch=after_epoch)

    def _stop(self, running: Running, reason: str, *, after_epoch: bool) -> None:
        running.stopped = reason
        self.engine.stop(running.asked.number, after_epoch=after_epoch)

    def _columns(self, *cells: str) -> str:
        """A line of the list of ended trials: name, state, metric, epochs, images/s and the hyperparameters."""
        # 80 columns with the names of the small networks, and more where there are levers
        widths = (len(self.mirror.run_name(0)), 8, 6, 5, 5, 10, 9, 8, 5, 7)
        padded = zip(cells, chain(widths, repeat(15)), strict=False)
        return " ".join(f"{cell:<{width}}" for cell, width in padded).rstrip()

    def _training(self) -> tuple[Running, ...]:
        return tuple(running for running in self.running.values() if not running.pruned)

    def _time_for_an_epoch(self) -> bool:
        """Whether a trial that starts now would get to the end of its first epoch within the budget."""
        if math.isinf(self.deadline):
            return True
        return time.monotonic() + (float(np.median(self.seconds)) if self.seconds else 0.0) < self.deadline

    def _seconds_left(self, counts: TrialCounts) -> float | None:
        if not counts.done:
            return None
        mean, now, training = counts.seconds / counts.done, time.monotonic(), self._training()
        waiting = max(0, self.missing() - len(training)) * mean
        begun = sum(max(0.0, mean - (now - running.started)) for running in training)
        return (waiting + begun) / self.plan.workers


def next_attempt(cause: Cause, failures: int, retries: int, at_once: int) -> tuple[dict[str, int] | None, str]:
    """Decides whether a configuration whose trial failed gets another attempt.

    Args:
        cause: Why it failed.
        failures: How often it had failed before, other than by somebody's wish.
        retries: How many failures are forgiven.
        at_once: Images that went through the network at once.

    Returns:
        What the next attempt does otherwise, as `Study.retry` takes it, None where there is to be none; and a remark
        for people, which may be empty.
    """
    if cause == "disk full":
        return {}, ""
    if cause not in ("worker lost", "out of memory"):
        return None, ""  # the same seed would end the same way
    if failures >= retries:
        return None, f"given up after {failures + 1} attempts"
    if cause == "worker lost":
        return {"failures": failures + 1}, "again from its last checkpoint"
    if at_once == 1:
        return None, "even one image at once is too many"
    half = math.ceil(at_once / 2)
    again = {"failures": failures + 1, "micro_batch": half}
    return again, f"again with {half} images at once, the batch as large as before"


def _result(running: Running) -> dict[str, Any]:
    """What is noted on a trial when it ends."""
    best_epoch = int(running.best["epoch"]) if running.best else None
    where = {"node": running.node} if running.node else {}
    return {"history": running.history, "best_epoch": best_epoch, "resumed_after": running.repeated, **where}
