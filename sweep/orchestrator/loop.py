"""The loop of one study: ask Optuna for a trial, have an engine train it, report each epoch, prune, tell, log.

This process is the only one that writes to Optuna and MLflow. Optuna is told first; MLflow shows what Optuna knows.
Whether a trial that failed gets another attempt is decided in `retries`.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.cache import images_of
from sweep.engines import Cause, EpochFinished, Event, Job, JobFailed, JobFinished
from sweep.metrics.names import STRESSED
from sweep.metrics.predictions import STRESSED_VALIDATION, VALIDATION, predictions_of
from sweep.orchestrator import retries
from sweep.orchestrator.mlflow_mirror import Mirror
from sweep.orchestrator.progress import Progress, RunningTrial, seconds_left
from sweep.orchestrator.run_params import config_of, fixed_params
from sweep.orchestrator.several_metrics import costs_of, values_and_result
from sweep.orchestrator.study_run import StudyRun, SweepRun, can_ask, ended_trials, missing_trials
from sweep.orchestrator.trial_table import trial_table
from sweep.plan import PlannedStudy, seed_of
from sweep.stores import tags as tag
from sweep.stores.attributes import CONCLUSION
from sweep.stores.study import Study
from sweep.stores.trials import AskedTrial, TrialRecord
from sweep.system import provenance
from sweep.system.errors import StudyFailedError, TrackingAwayError, TrialEndedElsewhereError
from sweep.system.hardware import workers_alone
from sweep.training.config import BEST, EpochResult, TrainingConfig

# A study that is stopped waits so long for epochs to end, and then for the training step that is being computed.
EPOCH_SECONDS, STEP_SECONDS = 15.0, 5.0


class Loop:
    """Trains the trials of one study."""

    def __init__(
        self, sweep: SweepRun, planned: PlannedStudy, study: Study, mirror: Mirror, deadline: float = math.inf
    ) -> None:
        """Makes the loop; `recover` comes first, then `run`.

        Args:
            sweep: What it shares with other studies.
            planned: The study.
            study: The same in Optuna.
            mirror: Its MLflow runs.
            deadline: When its time is over, on the monotonic clock in seconds.
        """
        self.planned, self.study, self.mirror, self.deadline = planned, study, mirror, deadline
        self.plan, self.settings, self.studies = sweep.plan, sweep.plan.settings, sweep.studies or ((planned, study),)
        self.engine, self.view, self.stopping = sweep.engine, sweep.view, sweep.stopping
        self.images = images_of(self.plan.source, self.plan.split, planned.image_size)
        self.table = trial_table(self.settings.metric, planned.space, mirror.run_name(0))
        self.running: dict[int, RunningTrial] = {}
        self.at_once = self.plan.workers  # fewer once a GPU's memory was too small for that many
        self.alone = workers_alone(self.plan.workers, self.plan.device, self.plan.gpus)
        self.busy = False  # something had happened when the engine was last asked
        self.failures: list[Cause] = []  # causes since the last trial that ended well
        self.seconds = [row["epoch_seconds"] for trial in study.trials() for row in trial.history]  # of each epoch

    @property
    def study_run(self) -> StudyRun:
        """The study as it is handed over to be concluded."""
        return StudyRun(self.plan, self.planned, self.study, self.mirror, self.images, self.train_again)

    def recover(self) -> None:
        """Queues again what an earlier process left running, and makes runs and disk agree with the study."""
        repaired = retries.requeue(self.study, retries.LEFT_RUNNING)
        try:
            repaired += self.mirror.open()
        except TrackingAwayError as error:
            raise StudyFailedError(f"{error}; start it, and the same command goes on from here") from error
        for sentence in repaired:
            self.view.say(f"mended: {sentence}")

    def run(self) -> None:
        """Asks, submits and watches until the study has its trials or its time is over.

        Raises:
            KeyboardInterrupt: Somebody wants it to end.
        """
        name, wanted, missing = self.study.name, self.planned.trials, self.missing()
        if missing <= 0:
            self.mirror.describe()
            self.view.say(f"study {name} has {wanted - missing} of {wanted} trials; nothing is left to train")
            return
        self.study.note(CONCLUSION, None)
        self.view.say(self.table.header())
        self._begin_trials()
        self.mirror.describe()
        import sweep.orchestrator.conclude  # noqa: F401 - seconds, which pass while the first trials train

        while True:
            if self.stopping():
                self._wind_down()
                raise KeyboardInterrupt
            self._begin_trials()
            if not self.running:
                self.mirror.end_runs()
                break
            if time.monotonic() > self.deadline:
                self._stop_all("its budget ended")
            self._tick(0.5)
        if footer := self.table.footer():
            self.view.say(footer)
        if self.missing() > 0 and not math.isinf(self.deadline):
            done = wanted - self.missing()
            self.view.say(f"the budget is used up after {done} of {wanted} trials; the same command goes on with them")

    def _begin_trials(self) -> None:
        while self.engine.free and self._lacks_another() and self._time_for_an_epoch():
            with suppress(TrialEndedElsewhereError):  # before it had its hyperparameters
                self._submit(self.study.ask())

    def missing(self) -> int:
        """How many trials the study still lacks."""
        return missing_trials(self.planned, self.study)

    def _lacks_another(self) -> bool:
        return len(self.running) < self.at_once and can_ask(self.planned, self.study, len(self._training()))

    def abandon(self, reason: str, *, failed: bool) -> None:
        """Stops the trials that run and queues their configurations again; they go on from their last checkpoints.

        Args:
            reason: Why.
            failed: Whether the study failed, or was only stopped.
        """
        for number, running in list(self.running.items()):
            self.engine.stop(number)
            if not running.pruned:
                with suppress(TrialEndedElsewhereError):
                    self._interrupted(running, reason)
        retries.requeue(self.study, reason)
        # A second Ctrl-C comes at any moment, also before the mirror has been told of a trial that ended.
        for number in self.mirror.begun:
            self.mirror.trial_ended(number)
        self.mirror.end_runs()
        self.mirror.close(reason, failed=failed)
        self.study.release()

    def progress(self) -> Progress:
        """The study at the moment."""
        counts, training, epochs = self.study.counts(), self._training(), self.settings.epochs
        return Progress(
            self.planned.name,
            self.planned.trials,
            ended_trials(self.planned, self.study),
            counts,
            training,
            self.settings.metric,
            epochs,
            seconds_left(counts, training, self.missing(), self.plan.workers, epochs),
            None if math.isinf(self.deadline) else max(0.0, self.deadline - time.monotonic()),
            self.table,
            [(planned.trials, ended_trials(planned, study)) for planned, study in self.studies],
        )

    def _tick(self, timeout: float) -> None:
        # Figures and files can wait until no worker waits for an answer, but must not pile up on disk.
        self.mirror.end_runs(leave=self.plan.workers if self.busy else max(0, self.mirror.ending - 1))
        self.study.renew()
        self.mirror.tick()
        events = self.engine.events(0.0 if self.mirror.ending else timeout)
        self.busy = bool(events)
        for event in events:
            self._handle(event)
        self.view.update(self.progress())

    def _submit(self, asked: AskedTrial) -> None:
        if asked.fault:
            self._refuse(asked)
            return
        seed = seed_of(self.settings.seed, self.planned.short_arch, asked.origin)
        seeded = {**asked.params, "seed": seed if asked.seed is None else asked.seed}
        config = TrainingConfig(
            arch=self.planned.arch,
            **seeded,
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
        params = {**seeded, **fixed_params(self.plan, self.planned), **parts, "patience": config.patience}
        origin = {name: text for name, text in ((tag.LABEL, asked.label), (tag.START, asked.start)) if text}
        folder = self.mirror.artifacts.folder(asked.origin)
        running = self.running[asked.number] = RunningTrial(asked, config, folder, time.monotonic())
        self._send(asked.number, config, folder)  # first, so that it trains while its run is begun
        running.costs = costs_of(config, self.settings.metrics, self.study)
        try:
            self.mirror.trial_started(asked, params, {**self.mirror.description.tags, **provenance.tags(), **origin})
        except TrialEndedElsewhereError as error:
            self._ended_elsewhere(asked.number, error)

    def _refuse(self, asked: AskedTrial) -> None:
        """Fails a trial that somebody else enqueued and that cannot be trained; it is not queued again."""
        reason = f"enqueued with {asked.fault}"
        params = {name: value for name, value in asked.params.items() if name in self.planned.space}
        with suppress(TrialEndedElsewhereError):
            self.mirror.trial_started(asked, params, self.mirror.description.tags)
            self.study.note_trial(asked.number, failure={"cause": "not in the space", "reason": reason})
            self.study.fail(asked.number)
        self.mirror.trial_ended(asked.number)
        self._say(asked.number, "failed", f"{reason}; not queued again")

    def _send(self, number: int, config: TrainingConfig, folder: Path) -> None:
        # Names are for tables; thousands of them would travel with every job.
        parts = (replace(self.images[name], names=(), patients=()) for name in ("train", "validation"))
        self.engine.submit(Job(number, config, *parts, folder=folder))

    def _handle(self, event: Event) -> None:
        running = self.running[event.number]
        try:
            self._take(running, event)
        except TrialEndedElsewhereError as error:
            if event.number not in self.running:
                self.mirror.trial_ended(event.number)
                shutil.rmtree(running.folder, ignore_errors=True)
            self._ended_elsewhere(event.number, error)

    def _ended_elsewhere(self, number: int, error: TrialEndedElsewhereError) -> None:
        """Stops the training of a trial that another program ended; its run ends with its job."""
        if number in self.running:
            self.engine.stop(number)
            self.running[number].pruned, self.running[number].stopped = True, str(error)
        self._say(number, "stopped", str(error))

    def _take(self, running: RunningTrial, event: Event) -> None:
        if isinstance(event, EpochFinished):
            if not running.pruned:  # an epoch that ended while the decision was made does not count
                self._epoch(running, event.result, event.node)
            return
        del self.running[event.number]
        if running.pruned:
            self.mirror.trial_ended(event.number)
            if running.stopped:  # by another program, so nothing goes on from its checkpoints
                shutil.rmtree(running.folder, ignore_errors=True)
        elif isinstance(event, JobFailed):
            self._failed(running, event)
        elif event.stopped:
            self._interrupted(running, running.stopped)
        else:
            self._end(running, "COMPLETE")

    def _epoch(self, running: RunningTrial, result: EpochResult, node: str) -> None:
        row = running.epoch_ended(result, self.images["validation"].labels, node)
        number, last = running.asked.number, result.epoch == self.settings.epochs
        self.seconds.append(result.seconds)
        self.study.report(number, result.epoch, row[self.settings.metric])
        self.mirror.epoch_ended(number, row)
        # A trial that has just ended needs no stopping, and an epoch from a checkpoint was not pruned the first time.
        if last or result.repeated or running.stopped:
            return
        if self.study.should_prune(number):
            self.engine.stop(number)
            self._end(running, "PRUNED")
        elif time.monotonic() + result.seconds > self.deadline:
            self._stop(running, "its budget ended", after_epoch=False)

    def _end(self, running: RunningTrial, state: Literal["COMPLETE", "PRUNED"]) -> None:
        """Ends a trial: its files go to a safe place on disk, then Optuna is told, then MLflow."""
        number, best, logits = running.asked.number, running.best, running.best_logits
        if best is None or logits is None:
            raise StudyFailedError(f"{self.mirror.run_name(number)} ended without a single epoch")
        files, checkpoint = {}, None
        if state == "COMPLETE":
            outputs = {VALIDATION: logits, STRESSED_VALIDATION: running.best_stressed}
            files = {
                path: predictions_of(self.images["validation"], output, self.plan.source.classes).to_csv()
                for path, output in outputs.items()
                if output is not None
            }
            checkpoint = running.folder / BEST
        self.mirror.artifacts.keep_files(running.asked.origin, files, checkpoint)
        if state == "COMPLETE":
            self.study.complete(number, *values_and_result(running, self.plan, self.images["validation"]))
            self.mirror.trial_ended(number)
            if self.settings.keep == "best" and (leader := self.study.best()):
                among = self.study.recently_complete()
                self.mirror.follow(lambda: self.mirror.thin(leader.number, among))
        else:
            self.study.prune(number, running.result)
            running.pruned = True  # its run ends with its job, which may still be writing a checkpoint
        self.failures.clear()
        name, value = self.mirror.run_name(number), best[self.settings.metric]
        self.view.say(self.table.row(name, state.lower(), value, running.history, running.asked.params))

    def _failed(self, running: RunningTrial, event: JobFailed) -> None:
        """Fails a trial, and queues its configuration again or ends the study, as `retries` decides."""
        asked, at_once = running.asked, running.config.micro_batch or running.config.batch_size
        fewer = retries.fewer_at_once(event.cause, self.at_once, self.alone, len(self.running))
        self.at_once = fewer or self.at_once
        again, remark = retries.next_attempt(event.cause, asked.failures, self.settings.retries, at_once, fewer)
        failure = f"{event.cause}: {event.message}"
        self._give_up(running, event.cause, event.message, again, event.details)
        self._say(asked.number, "failed", f"{failure}{f'; {remark}' if remark else ''}")
        for sentence in retries.failures_alike(self.study.trials()):
            self.view.say(sentence)
        if event.cause in ("disk full", "bad configuration"):  # the next trial would end the same way
            advice = "make room, and the same command goes on from here" if again is not None else "no trial can begin"
            raise StudyFailedError(f"study {self.study.name}: {failure}; {advice}")
        if again is None:
            self.failures.append(event.cause)
        if which := retries.too_many_failures(self.failures, any_complete=self.study.best() is not None):
            raise StudyFailedError(f"study {self.study.name}: {which}, the last one of {failure}")

    def _interrupted(self, running: RunningTrial, reason: str) -> None:
        """A trial was stopped for now: its next attempt goes on from its last epoch."""
        self.running.pop(running.asked.number, None)
        self._give_up(running, "interrupted", reason, again={})
        epochs = f" after epoch {len(running.history)}" if running.history else ""
        self._say(running.asked.number, "stopped", f"{reason}{epochs}; queued again")

    def _say(self, number: int, state: str, sentence: str) -> None:
        self.view.say(f"{self.table.beginning(self.mirror.run_name(number), state)} {sentence}")

    def _give_up(
        self, running: RunningTrial, cause: str, reason: str, again: Mapping[str, Any] | None, details: str = ""
    ) -> None:
        """Fails a trial in both stores, and queues its configuration again if it is to have another attempt."""
        number, failure = running.asked.number, {"cause": cause, "reason": reason}
        failure |= {"details": details} if details else {}
        self.study.note_trial(number, result=running.result, failure=failure)
        if again is not None:
            self.study.retry(number, **again)
        self.study.fail(number)
        self.mirror.trial_ended(number)
        if again is None:
            shutil.rmtree(running.folder, ignore_errors=True)

    def train_again(self, best: TrialRecord, folder: Path) -> Path:
        """Trains the chosen trial once more where its checkpoint is gone; returns the checkpoint.

        Raises:
            StudyFailedError: It could not be trained, or gave other numbers.
            KeyboardInterrupt: Somebody wants the study to end.
        """
        name, ended, losses = self.mirror.run_name(best.number), False, []
        self.view.say(f"the checkpoint of {name} is gone; training it again from its seed")
        config = config_of(best.attributes["run"]["params"], len(self.plan.source.classes))
        self._send(best.number, config, folder)
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

    def _stop(self, running: RunningTrial, reason: str, *, after_epoch: bool) -> None:
        running.stopped = reason
        self.engine.stop(running.asked.number, after_epoch=after_epoch)

    def _training(self) -> tuple[RunningTrial, ...]:
        return tuple(running for running in self.running.values() if not running.pruned)

    def _time_for_an_epoch(self) -> bool:
        """Whether a trial that starts now would get to the end of its first epoch within the budget."""
        return time.monotonic() + (float(np.median(self.seconds)) if self.seconds else 0.0) < self.deadline
