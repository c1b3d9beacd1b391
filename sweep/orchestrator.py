"""The loop: ask Optuna for a trial, have an engine train it, report each epoch, prune, tell, mirror it to MLflow.

This process is the only one that writes to Optuna and MLflow. Optuna is told first; MLflow shows what Optuna knows.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from data.cache import images_of
from data.sources import slug
from sweep.conclusion import Outcome, conclude
from sweep.engines import Engine, EpochFinished, Event, Job, JobFailed
from sweep.errors import StudyFailedError, StudyInterruptedError
from sweep.interrupt import deferred
from sweep.mirror import Mirror
from sweep.plan import Plan, PlannedStudy
from sweep.results.metrics import probabilities, scores
from sweep.settings import METRICS
from sweep.stores.study import Asked, Recorded, Study, open_study
from sweep.stores.tracking import Tracking
from sweep.training import BEST, EpochResult, TrainingConfig

# So many trials that fail in a row are no accident.
FAILURES_IN_A_ROW = 5


@dataclass
class Running:
    """A trial that is being trained.

    Attributes:
        asked: What Optuna asked for.
        run_id: Its MLflow run.
        folder: Its checkpoints.
        started: On the monotonic clock, in seconds.
        history: A row of metrics an epoch.
        best: The row of the epoch with the lowest validation loss.
        pruned: Whether it has been told to stop, and counts as ended.
    """

    asked: Asked
    run_id: str
    folder: Path
    started: float
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None
    pruned: bool = False


@dataclass(frozen=True)
class Progress:
    """What a study looks like at the moment.

    Attributes:
        study: The study's short name.
        wanted: Trials that it is to have.
        done: Trials that are complete or pruned.
        pruned: Pruned ones among them.
        failed: Trials that failed.
        running: Those in training.
        best: The best complete trial so far.
        metric: What the study chooses by.
        epochs: Epochs of a trial at most.
        seconds_left: Estimated time to the end; None before there is anything to go by.
    """

    study: str
    wanted: int
    done: int
    pruned: int
    failed: int
    running: tuple[Running, ...]
    best: Recorded | None
    metric: str
    epochs: int
    seconds_left: float | None


class View(Protocol):
    """Where a study tells what happens; the terminal is one."""

    def update(self, progress: Progress) -> None:
        """Shows the study as it is now; called often."""
        ...

    def say(self, text: str) -> None:
        """Says something once."""
        ...


def open_studies(plan: Plan, storage: str) -> list[Study]:
    """Opens every study of a sweep, so that none is refused after another has run for hours.

    Args:
        plan: The sweep.
        storage: Optuna's storage URL.

    Raises:
        InputError: The storage cannot be opened, or a study was begun with other data, split, size or space.
    """
    settings = plan.settings
    return [
        open_study(
            storage,
            plan.full_name(planned),
            planned.space,
            direction=METRICS[settings.metric],
            fingerprint=_fingerprint(plan, planned),
            seed=_seed(settings.seed, planned.arch),
            pruner=settings.pruner,
            warmup=settings.warmup,
            epochs=settings.epochs,
        )
        for planned in plan.studies
    ]


def run_study(
    plan: Plan, planned: PlannedStudy, study: Study, engine: Engine, tracking: Tracking, folder: Path, view: View
) -> Outcome:
    """Runs a study until it has the trials that it is to have, and registers its best.

    Args:
        plan: The sweep.
        planned: The study of it to run.
        study: The same in Optuna.
        engine: Where trials run.
        tracking: The MLflow experiment.
        folder: The working directory; checkpoints of running trials go to `checkpoints/` in it.
        view: Who wants to know.

    Raises:
        StudyFailedError: Trials fail and none ends well.
        StudyInterruptedError: Ctrl-C or SIGTERM.
    """
    settings = plan.settings
    mirror = Mirror(plan, planned, study, tracking, images_of(plan.source, plan.split, planned.image_size))
    loop = _Loop(mirror, engine, folder / "checkpoints" / slug(study.name), view)
    loop.recover()
    if loop.missing() <= 0:
        done = settings.trials - loop.missing()
        view.say(f"study {study.name} has {done} of {settings.trials} trials; nothing is left to train")
    try:
        with deferred() as stopping:
            loop.run(stopping)
    except BaseException as error:
        # Whatever ended the loop, no trial is left running for ever: they wait in the queue for the next start.
        loop.abandon()
        if isinstance(error, KeyboardInterrupt):
            raise StudyInterruptedError(
                f"study {study.name} was stopped; the same command goes on from here"
            ) from error
        raise
    finally:
        loop.clean()
    return conclude(mirror)


class _Loop:
    """One study on its way; see `run_study`."""

    def __init__(self, mirror: Mirror, engine: Engine, checkpoints: Path, view: View) -> None:
        self.mirror, self.engine, self.checkpoints, self.view = mirror, engine, checkpoints, view
        self.plan, self.planned, self.study = mirror.plan, mirror.planned, mirror.study
        self.settings = mirror.plan.settings
        self.running: dict[int, Running] = {}
        self.failures_in_a_row = 0

    def recover(self) -> None:
        """Ends the trials that an earlier process left running, and queues their configurations again."""
        left = self._requeue("the process that trained it ended")
        self.mirror.end_left_behind()
        self.clean()
        if left:
            names = ", ".join(self.mirror.run_name(trial.number) for trial in left)
            self.view.say(f"{names} had not ended; queued again")

    def missing(self) -> int:
        """How many trials the study still lacks."""
        return self.settings.trials - sum(trial.state in ("COMPLETE", "PRUNED") for trial in self.study.trials())

    def run(self, stopping: Callable[[], bool]) -> None:
        """Asks, submits and watches until the study has its trials.

        Args:
            stopping: Says whether somebody wants it to end now.

        Raises:
            KeyboardInterrupt: Somebody does.
        """
        if self.missing() > 0:
            short = {"learning_rate": "rate", "batch_size": "batch"}
            names = [short.get(name, name) for name in self.planned.space]
            metric = self.settings.metric.removeprefix("val/")
            self.view.say(_columns("trial", "state", metric, "epoch", "img/s", *names))
        while True:
            if stopping():
                raise KeyboardInterrupt
            while self.engine.free and self.missing() > len(self._training()):
                self._submit(self.study.ask())
            if not self.running:
                return
            for event in self.engine.events(timeout=0.5):
                self._handle(event)
            self.view.update(self.progress())

    def clean(self) -> None:
        """Removes the checkpoints of trials that run; MLflow has those of the complete ones."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        with suppress(OSError):  # other studies may have theirs beside it
            self.checkpoints.parent.rmdir()

    def abandon(self) -> None:
        """Stops the trials that run and queues their configurations again."""
        for number in self.running:
            self.engine.stop(number)
        self._requeue("the study was stopped")
        self.mirror.fail()

    def progress(self) -> Progress:
        """The study at the moment."""
        trials = self.study.trials()
        states = [trial.state for trial in trials]
        return Progress(
            self.planned.name,
            self.settings.trials,
            states.count("COMPLETE") + states.count("PRUNED"),
            states.count("PRUNED"),
            states.count("FAIL"),
            self._training(),
            self.study.best(),
            self.settings.metric,
            self.settings.epochs,
            self._seconds_left(trials),
        )

    def _submit(self, asked: Asked) -> None:
        seed = _seed(self.settings.seed, self.planned.arch, asked.number) if asked.seed is None else asked.seed
        config = TrainingConfig(
            arch=self.planned.arch,
            **asked.params,
            seed=seed,
            epochs=self.settings.epochs,
            patience=self.settings.patience,
            image_size=self.planned.image_size,
            classes=len(self.plan.source.classes),
            precision=self.plan.precision,
            device=self.plan.device,
            options=self.planned.options,
        )
        self.study.note_trial(asked.number, seed=seed)
        run_id = self.mirror.start_trial(asked, config)
        self.study.note_trial(asked.number, run_id=run_id)
        folder, images = self.checkpoints / f"{asked.number:03d}", self.mirror.images
        self.running[asked.number] = Running(asked, run_id, folder, time.monotonic())
        self.engine.submit(Job(asked.number, config, images["train"], images["validation"], folder))

    def _handle(self, event: Event) -> None:
        running = self.running[event.number]
        if isinstance(event, EpochFinished):
            if not running.pruned:  # an epoch that ended while the decision was made does not count
                self._epoch(running, event.result)
            return
        del self.running[event.number]
        if not running.pruned:
            if isinstance(event, JobFailed):
                self._failed(running, event)
            else:
                self._end(running, "COMPLETE")
        shutil.rmtree(running.folder, ignore_errors=True)

    def _epoch(self, running: Running, result: EpochResult) -> None:
        labels = self.mirror.images["validation"].labels
        score = scores(labels, probabilities(result.validation_logits))
        row = {
            "epoch": result.epoch,
            "train/loss": result.train_loss,
            "train/accuracy": result.train_accuracy,
            "val/loss": result.validation_loss,
            **{f"val/{name}": value for name, value in score.items()},
            "images_per_second": result.images_per_second,
            "epoch_seconds": result.seconds,
        }
        running.history.append(row)
        if result.improved:
            running.best = row
        prune = self.study.report(running.asked.number, result.epoch, row[self.settings.metric])
        self.mirror.epoch(running.run_id, row)
        if prune and result.epoch < self.settings.epochs:  # nothing is saved by pruning a trial that has just ended
            running.pruned = True
            self.engine.stop(running.asked.number)
            self._end(running, "PRUNED")

    def _end(self, running: Running, state: Literal["COMPLETE", "PRUNED"]) -> None:
        """Ends a trial: its files first, then Optuna, then its run's status.

        Killed before Optuna is told, the trial is trained again; killed after, the next start ends the run.
        """
        number, best = running.asked.number, running.best
        if state == "COMPLETE" and best is None:
            raise StudyFailedError(f"{self.mirror.run_name(number)} ended well without a single epoch")
        best_epoch = int(best["epoch"]) if best else None
        checkpoint = running.folder / BEST if state == "COMPLETE" else None
        self.mirror.log_trial_files(number, running.run_id, running.history, best_epoch, checkpoint)
        self.study.note_trial(number, best_epoch=best_epoch, history=running.history)
        if best is not None and state == "COMPLETE":
            self.study.complete(number, best[self.settings.metric])
        else:
            self.study.prune(number)
        self.failures_in_a_row = 0
        self.mirror.end_trial(self.study.trials()[number])
        at = best or running.history[-1]
        rate = np.mean([row["images_per_second"] for row in running.history])
        params = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in running.asked.params.values()]
        name = self.mirror.run_name(number)
        figures = (f"{at[self.settings.metric]:.4f}", str(len(running.history)), f"{rate:,.0f}")
        self.view.say(_columns(name, state.lower(), *figures, *params))

    def _failed(self, running: Running, event: JobFailed) -> None:
        number, name = running.asked.number, self.mirror.run_name(running.asked.number)
        retry = event.cause == "worker lost" and running.asked.retry_of is None
        self._give_up(number, running.run_id, f"{event.cause}: {event.message}", retry=retry, details=event.details)
        again = "; queued again" if retry else ""
        self.view.say(f"{_columns(name, 'failed')} {event.cause}: {event.message}{again}")
        self.failures_in_a_row += 1
        if self.failures_in_a_row == FAILURES_IN_A_ROW:
            raise StudyFailedError(
                f"{FAILURES_IN_A_ROW} trials in a row failed, the last one of {event.cause}: {event.message}"
            )

    def _give_up(self, number: int, run_id: str | None, reason: str, *, retry: bool, details: str = "") -> None:
        """Ends a trial as failed in both stores, and queues its configuration again if that may help."""
        self.study.fail(number)
        if retry:
            self.study.retry(number)
        if run_id:
            self.mirror.fail_trial(run_id, reason, details)

    def _requeue(self, reason: str) -> list[Recorded]:
        """Ends every trial that Optuna thinks is running, and queues those again that had got their seed."""
        left = [trial for trial in self.study.trials() if trial.state == "RUNNING"]
        for trial in left:
            self._give_up(trial.number, trial.attributes.get("run_id"), reason, retry="seed" in trial.attributes)
        return left

    def _training(self) -> tuple[Running, ...]:
        return tuple(running for running in self.running.values() if not running.pruned)

    def _seconds_left(self, trials: list[Recorded]) -> float | None:
        ended = [trial.seconds for trial in trials if trial.state in ("COMPLETE", "PRUNED") and trial.seconds]
        if not ended:
            return None
        mean, now, training = float(np.mean(ended)), time.monotonic(), self._training()
        waiting = max(0, self.missing() - len(training)) * mean
        begun = sum(max(0.0, mean - (now - running.started)) for running in training)
        return (waiting + begun) / self.plan.workers


def _fingerprint(plan: Plan, planned: PlannedStudy) -> dict[str, Any]:
    """What must stay the same while a study lives, in people's words."""
    settings = plan.settings
    return {
        "arch": planned.arch,
        "data digest": plan.source.digest,
        "split digest": plan.split.digest,
        "image size": planned.image_size,
        "epochs": settings.epochs,
        "patience": settings.patience,
        "metric": settings.metric,
        **{name: getattr(settings, name) for name in planned.options},
    }


def _columns(*cells: str) -> str:
    """A line of the list of ended trials: name, state, metric, epochs, images/s and the hyperparameters."""
    widths = (8, 8, 6, 5, 5, 10, 9, 8, 5, 7)  # 80 columns with the names of the small networks
    return " ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=False)).rstrip()


def _seed(*parts: int | str) -> int:
    """A seed from what it belongs to; 31 bits, which every library takes."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big") >> 1
