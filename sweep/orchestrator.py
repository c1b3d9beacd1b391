"""The loop: ask Optuna for a trial, have an engine train it, report each epoch, prune, tell, mirror it to MLflow.

This process is the only one that writes to Optuna and MLflow. Optuna is told first; MLflow shows what Optuna knows.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from data.cache import Images, images_of
from models import ARCHITECTURES
from sweep import provenance
from sweep.engines import Engine, EpochFinished, Event, Job, JobFailed, JobFinished
from sweep.errors import StudyFailedError
from sweep.plan import Plan, PlannedStudy
from sweep.results import figures
from sweep.results.metrics import Threshold, choose_threshold, probabilities, scores
from sweep.settings import METRICS
from sweep.stores import registry
from sweep.stores.study import Asked, Recorded, Study, open_study
from sweep.stores.tracking import FAILED, FINISHED, STATUS, Tracking
from sweep.training import BEST, EpochResult, TrainingConfig, predict, restore

# So many trials that fail in a row, with none that ends well, are no accident.
FAILURES_IN_A_ROW = 5


@dataclass
class Running:
    """A trial that is being trained."""

    asked: Asked
    config: TrainingConfig
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


@dataclass(frozen=True)
class Outcome:
    """What a study came to.

    Attributes:
        arch: The architecture.
        study: The study's full name.
        counts: Trials by state.
        best: The chosen trial.
        run_id: Its MLflow run.
        parent_run_id: The study's MLflow run.
        validation: Its validation scores.
        test: Its test scores, at a threshold of 0.5.
        threshold: The decision threshold that goes with it; None for more than two classes.
        test_at_threshold: Its test scores at that threshold, where it is not 0.5.
        model: Name of the registered model.
        version: Its version there.
        seats: What became of each alias: alias -> sentence.
        seconds: What this command took for the study.
    """

    arch: str
    study: str
    counts: Mapping[str, int]
    best: Recorded
    run_id: str
    parent_run_id: str
    validation: Mapping[str, float]
    test: Mapping[str, float]
    threshold: Threshold | None
    test_at_threshold: Mapping[str, float] | None
    model: str
    version: str
    seats: Mapping[str, str]
    seconds: float


class View(Protocol):
    """Where a study tells what happens; the terminal is one."""

    def update(self, progress: Progress) -> None:
        """Shows the study as it is now; called often."""
        ...

    def say(self, text: str) -> None:
        """Says something once."""
        ...


def run_study(
    plan: Plan, planned: PlannedStudy, engine: Engine, tracking: Tracking, storage: str, folder: Path, view: View
) -> Outcome:
    """Runs a study until it has the trials that it is to have, and registers its best.

    Args:
        plan: The sweep.
        planned: The study of it to run.
        engine: Where trials run.
        tracking: The MLflow experiment.
        storage: Optuna's storage URL.
        folder: The working directory; checkpoints go to `checkpoints/` in it.
        view: Who wants to know.

    Raises:
        InputError: The study was begun with other data, split, size or space.
        StudyFailedError: Trials fail and none ends well.
    """
    started = time.monotonic()
    settings = plan.settings
    study = open_study(
        storage,
        plan.full_name(planned),
        planned.space,
        direction=METRICS[settings.metric],
        fingerprint=_fingerprint(plan, planned),
        seed=_number(settings.seed, planned.arch),
        pruner=settings.pruner,
        warmup=settings.warmup,
        epochs=settings.epochs,
    )
    loop = _Loop(plan, planned, engine, tracking, study, folder, view)
    loop.open_parent()
    loop.recover()
    try:
        loop.run()
    except BaseException:
        # Whatever ended the loop, its trials are not left running for ever: they wait in the queue for the next start.
        loop.abandon()
        raise
    return loop.conclude(started)


class _Loop:
    """One study on its way; see `run_study`."""

    def __init__(
        self,
        plan: Plan,
        planned: PlannedStudy,
        engine: Engine,
        tracking: Tracking,
        study: Study,
        folder: Path,
        view: View,
    ) -> None:
        self.plan, self.planned, self.engine, self.tracking = plan, planned, engine, tracking
        self.study, self.view = study, view
        self.settings = plan.settings
        self.images: dict[str, Images] = images_of(plan.source, plan.split, planned.image_size)
        self.checkpoints = folder / "checkpoints" / study.name
        self.running: dict[int, Running] = {}
        self.failures_in_a_row = 0
        self.parent = ""

    def open_parent(self) -> None:
        """Finds the study's MLflow run, or starts it."""
        known = self.study.noted("run_id")
        if known and self.tracking.exists(known):
            self.parent = known
            self.tracking.reopen(known)
            return
        fixed = {
            "arch": self.planned.arch,
            "trials": self.settings.trials,
            "metric": self.settings.metric,
            "pruner": self.settings.pruner,
            "warmup": self.settings.warmup,
            "study_seed": self.settings.seed,
            **self._fixed_params(),
            **{f"space/{name}": domain for name, domain in self.planned.space.items()},
        }
        self.parent = self.tracking.start(self.planned.name, self._tags(), fixed)
        self.study.note("run_id", self.parent)
        self._log_data(self.parent)
        chart = figures.class_balance(self._counts(), f"{self.plan.source.name}: images by class")
        self.tracking.log_files(self.parent, {"figures/class_balance.png": figures.png(chart)})

    def recover(self) -> None:
        """Ends the trials that an earlier process left running, and queues their configurations again."""
        left = [trial for trial in self.study.trials() if trial.state == "RUNNING"]
        for trial in left:
            self._give_up(trial.number, trial.attributes.get("run_id"), "the process that trained it ended", retry=True)
        for run_id in self.tracking.running_children(self.parent):
            self.tracking.log(run_id, {}, tags={"sweep.state": "FAIL", "sweep.reason": "left behind"})
            self.tracking.finish(run_id, FAILED)
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        if left:
            names = ", ".join(self._run_name(trial.number) for trial in left)
            self.view.say(f"{names} had not ended; queued again")

    def run(self) -> None:
        """Asks, submits and watches until the study has its trials."""
        while True:
            while self.engine.free and self._missing() > len(self.running):
                self._submit(self.study.ask())
            if not self.running:
                break
            for event in self.engine.events(timeout=0.5):
                self._handle(event)
            self.view.update(self.progress())

    def abandon(self) -> None:
        """Stops the trials that run and queues their configurations again."""
        for running in self.running.values():
            self.engine.stop(running.asked.number)
            if not running.pruned:
                self._give_up(running.asked.number, running.run_id, "interrupted", retry=True)
        self.tracking.finish(self.parent, FAILED)

    def progress(self) -> Progress:
        """The study at the moment."""
        trials = self.study.trials()
        pruned = sum(trial.state == "PRUNED" for trial in trials)
        done = pruned + sum(trial.state == "COMPLETE" for trial in trials)
        running = tuple(running for running in self.running.values() if not running.pruned)
        return Progress(
            self.planned.name,
            self.settings.trials,
            done,
            pruned,
            sum(trial.state == "FAIL" for trial in trials),
            running,
            self.study.best(),
            self.settings.metric,
            self.settings.epochs,
            self._seconds_left(trials, running),
        )

    def conclude(self, started: float) -> Outcome:
        """Opens the test set for the chosen trial, registers it and completes the study's run."""
        best = self.study.best()
        if best is None:
            self.tracking.finish(self.parent, FAILED)
            raise StudyFailedError(
                f"study {self.study.name}: every trial was pruned or failed, there is no best one; "
                "allow more with a larger --trials, or use --pruner none"
            )
        run_id = best.attributes["run_id"]
        with tempfile.TemporaryDirectory() as folder:
            trained = restore(self.tracking.fetch(run_id, f"checkpoint/{BEST}", Path(folder)))
        validation_labels = self.images["validation"].labels
        validation_probabilities = probabilities(trained.validation_logits)
        two = len(self.plan.source.classes) == 2
        threshold = choose_threshold(validation_labels, validation_probabilities[:, 1]) if two else None

        test, test_at_threshold = self._test_scores(best, trained, threshold)
        validation = {
            name: value
            for name, value in best.attributes["history"][best.attributes["best_epoch"] - 1].items()
            if name.startswith("val/")
        }
        spec = self._model_spec(best, run_id, validation, test, threshold)
        version = registry.register(self.tracking.client, spec, trained.network)
        seats = {
            alias: registry.seat(self.tracking.client, version.name, alias, version.version).reason
            for alias in (self.planned.arch, "champion")
        }
        self._summarise(best, validation, test)
        self.tracking.finish(self.parent, FINISHED)
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        counts = pd.Series([trial.state for trial in self.study.trials()]).value_counts().to_dict()
        return Outcome(
            self.planned.arch,
            self.study.name,
            counts,
            best,
            run_id,
            self.parent,
            validation,
            test,
            threshold,
            test_at_threshold,
            version.name,
            version.version,
            seats,
            time.monotonic() - started,
        )

    # One trial -------------------------------------------------------------------------------------------------------

    def _submit(self, asked: Asked) -> None:
        config = TrainingConfig(
            arch=self.planned.arch,
            **asked.params,
            seed=_number(self.settings.seed, self.planned.arch, asked.number) if asked.seed is None else asked.seed,
            epochs=self.settings.epochs,
            patience=self.settings.patience,
            image_size=self.planned.image_size,
            classes=len(self.plan.source.classes),
            precision=self.plan.precision,
            device=self.plan.device,
            options=self.planned.options,
        )
        retry = {} if asked.retry_of is None else {"sweep.retry_of": self._run_name(asked.retry_of)}
        run_id = self.tracking.start(
            self._run_name(asked.number),
            {**self._tags(), "sweep.trial": asked.number, "sweep.state": "RUNNING", **retry},
            {**asked.params, "arch": config.arch, "seed": config.seed, **self._fixed_params()},
            parent=self.parent,
        )
        self.study.note_trial(asked.number, run_id=run_id, seed=config.seed)
        self._log_data(run_id)
        folder = self.checkpoints / f"{asked.number:03d}"
        self.running[asked.number] = Running(asked, config, run_id, folder, time.monotonic())
        self.engine.submit(Job(asked.number, config, self.images["train"], self.images["validation"], folder))

    def _handle(self, event: Event) -> None:
        running = self.running[event.number]
        if isinstance(event, EpochFinished):
            if not running.pruned:  # an epoch that ended while the decision was made does not count
                self._epoch(running, event.result)
            return
        del self.running[event.number]
        if isinstance(event, JobFailed):
            self._failed(running, event)
        elif isinstance(event, JobFinished) and not running.pruned:
            self._complete(running)
        shutil.rmtree(running.folder, ignore_errors=True)

    def _epoch(self, running: Running, result: EpochResult) -> None:
        labels = self.images["validation"].labels
        row = {
            "train/loss": result.train_loss,
            "train/accuracy": result.train_accuracy,
            "val/loss": result.validation_loss,
            **{f"val/{name}": score for name, score in scores(labels, probabilities(result.validation_logits)).items()},
            "images_per_second": result.images_per_second,
        }
        running.history.append({"epoch": result.epoch, **row})
        if result.improved:
            running.best = running.history[-1]
        prune = self.study.report(running.asked.number, result.epoch, row[self.settings.metric])
        self.tracking.log(running.run_id, row, step=result.epoch)
        if prune:
            running.pruned = True
            self.engine.stop(running.asked.number)
            self._note(running)
            self.study.prune(running.asked.number)
            self.failures_in_a_row = 0
            self._mirror(running, "PRUNED")

    def _complete(self, running: Running) -> None:
        if running.best is None:
            raise StudyFailedError(f"{self._run_name(running.asked.number)} finished without an epoch")
        value = running.best[self.settings.metric]
        self._note(running)
        self.study.complete(running.asked.number, value)
        self.failures_in_a_row = 0
        self._mirror(running, "COMPLETE", value)

    def _failed(self, running: Running, event: JobFailed) -> None:
        if running.pruned:
            return
        number = running.asked.number
        retry = event.cause == "worker lost" and running.asked.retry_of is None
        if event.details:
            self.tracking.log_files(running.run_id, {"traceback.txt": event.details})
        self._give_up(number, running.run_id, f"{event.cause}: {event.message}", retry=retry)
        self.view.say(
            f"{self._run_name(number)}  failed    {event.cause}: {event.message}" + ("; queued again" if retry else "")
        )
        self.failures_in_a_row += 1
        if self.failures_in_a_row == FAILURES_IN_A_ROW:
            raise StudyFailedError(
                f"{FAILURES_IN_A_ROW} trials in a row failed, the last one of {event.cause}: {event.message}"
            )

    def _give_up(self, number: int, run_id: str | None, reason: str, *, retry: bool) -> None:
        """Ends a trial as failed in both stores, and queues its configuration again if that may help."""
        self.study.fail(number)
        if retry:
            self.study.retry(number)
        if run_id and self.tracking.exists(run_id):
            self.tracking.log(run_id, {}, tags={"sweep.state": "FAIL", "sweep.reason": reason[:1000]})
            self.tracking.finish(run_id, FAILED)

    def _note(self, running: Running) -> None:
        best_epoch = running.best["epoch"] if running.best else None
        self.study.note_trial(running.asked.number, best_epoch=best_epoch, history=running.history)

    def _mirror(self, running: Running, state: str, value: float | None = None) -> None:
        """Completes a trial's MLflow run: figures, predictions, checkpoint, status."""
        number, title = running.asked.number, self._run_name(running.asked.number)
        best_epoch = int(running.best["epoch"]) if running.best else 0
        history = pd.DataFrame(running.history)
        files: dict[str, bytes | Path | str] = {
            "figures/learning_curves.png": figures.png(figures.learning_curves(history, best_epoch, title))
        }
        if state == "COMPLETE":
            validation, classes = self.images["validation"], self.plan.source.classes
            trained = restore(running.folder / BEST)
            likely = probabilities(trained.validation_logits)
            predicted = (likely[:, 1] >= 0.5).astype(int) if len(classes) == 2 else likely.argmax(1)
            table = pd.DataFrame({"image": validation.names, "class": [classes[label] for label in validation.labels]})
            table[[f"probability_{name}" for name in classes]] = likely.round(6)
            files |= {
                "figures/confusion_matrix.png": figures.png(
                    figures.confusion_matrix(validation.labels, predicted, classes, f"{title}, validation")
                ),
                "figures/roc.png": figures.png(
                    figures.roc_curve(validation.labels, likely, classes, f"{title}, validation")
                ),
                "predictions/validation.csv": table.to_csv(index=False),
                f"checkpoint/{BEST}": running.folder / BEST,
            }
        self.tracking.log_files(running.run_id, files)
        objective = {} if value is None else {"objective": value, "best_epoch": best_epoch}
        self.tracking.log(running.run_id, objective, step=best_epoch, tags={"sweep.state": state})
        self.tracking.finish(running.run_id, STATUS[state])
        shown = running.best or running.history[-1]
        rate = np.mean([row["images_per_second"] for row in running.history])
        self.view.say(
            f"{title}  {'complete' if state == 'COMPLETE' else 'pruned  '}  "
            f"{self.settings.metric} {shown[self.settings.metric]:.4f}  epoch {len(running.history):>2}  {rate:,.0f} img/s  "
            + describe_params(running.asked.params)
        )

    # The end ---------------------------------------------------------------------------------------------------------

    def _test_scores(
        self,
        best: Recorded,
        trained: Any,
        threshold: Threshold | None,
    ) -> tuple[dict[str, float], dict[str, float] | None]:
        """Opens the test set for a trial, once: what was measured is noted on the study and never measured again."""
        opened: dict[str, Any] = self.study.noted("test") or {}
        key = str(best.number)
        if key not in opened:
            images = self.images["test"]
            network = trained.network.to(self.plan.device)
            logits = predict(network, trained.config, images)
            trained.network.to("cpu")
            likely, classes, name = probabilities(logits), self.plan.source.classes, self._run_name(best.number)
            test = scores(images.labels, likely)
            moved = scores(images.labels, likely, threshold.value) if threshold and threshold.supported else None
            opened[key] = {"scores": test, "at_threshold": moved}
            self.study.note("test", opened)
            cut = threshold.value if threshold else 0.5
            predicted = (likely[:, 1] >= 0.5).astype(int) if threshold else likely.argmax(1)
            table = pd.DataFrame({"image": images.names, "class": [classes[label] for label in images.labels]})
            table[[f"probability_{name}" for name in classes]] = likely.round(6)
            metrics = {f"test/{score}": value for score, value in test.items()}
            metrics |= {f"test_at_threshold/{score}": value for score, value in (moved or {}).items()}
            tags = {"sweep.test_opened": f"{len(opened)} of this study's trials so far"} | (
                {"sweep.threshold": threshold.value, "sweep.threshold_reason": threshold.reason} if threshold else {}
            )
            run_id = best.attributes["run_id"]
            self.tracking.log(run_id, metrics, step=best.attributes["best_epoch"], tags=tags)
            self.tracking.log_files(
                run_id,
                {
                    "figures/test_confusion_matrix.png": figures.png(
                        figures.confusion_matrix(images.labels, predicted, classes, f"{name}, test")
                    ),
                    "figures/test_roc.png": figures.png(
                        figures.roc_curve(images.labels, likely, classes, f"{name}, test", threshold=cut)
                    ),
                    "predictions/test.csv": table.to_csv(index=False),
                },
            )
        return opened[key]["scores"], opened[key]["at_threshold"]

    def _model_spec(
        self,
        best: Recorded,
        run_id: str,
        validation: Mapping[str, float],
        test: Mapping[str, float],
        threshold: Threshold | None,
    ) -> registry.ModelSpec:
        architecture, source = ARCHITECTURES[self.planned.arch], self.plan.source
        metrics = {**validation, **{f"test/{name}": value for name, value in test.items()}}
        return registry.ModelSpec(
            name=source.name,
            run_id=run_id,
            architecture=self.planned.arch,
            image_size=self.planned.image_size,
            mean=architecture.mean,
            std=architecture.std,
            classes=source.classes,
            threshold=threshold.value if threshold else None,
            metrics=metrics,
            tags={
                **self._tags(),
                "sweep.trial": str(best.number),
                "sweep.metric": self.settings.metric,
                "sweep.train_images": str(len(self.plan.split.train)),
            },
            provenance={
                **provenance.tags(),
                "data": source.name,
                "data_kind": source.kind,
                "data_digest": source.digest,
                "split_digest": self.plan.split.digest,
                "study": self.study.name,
                "trial": best.number,
                "params": best.params,
                "seed": best.attributes["seed"],
                "epoch": best.attributes["best_epoch"],
            },
            description=self._describe(best, validation, test, threshold),
        )

    def _describe(
        self,
        best: Recorded,
        validation: Mapping[str, float],
        test: Mapping[str, float],
        threshold: Threshold | None,
    ) -> str:
        source, split = self.plan.source, self.plan.split
        warning = (
            "**Learned from synthetic pictures; says nothing about X-rays.**\n\n" if source.kind == "phantom" else ""
        )
        rows = "\n".join(
            f"| {name} | {validation.get(f'val/{name}', float('nan')):.4f} | {value:.4f} |"
            for name, value in test.items()
        )
        return (
            f"{warning}{self.planned.arch}, {self.planned.image_size} x {self.planned.image_size} pixels, "
            f"{describe_params(best.params)}. Trial {best.number} of study {self.study.name}, chosen by "
            f"{self.settings.metric} on {len(split.validation):,} validation images whose patients are not among the "
            f"{len(split.train):,} training images. The test set was opened for the chosen trial alone.\n\n"
            f"| score | validation | test |\n|---|---|---|\n{rows}\n\n"
            + (f"Threshold {threshold.value:g}: {threshold.reason}\n\n" if threshold else "")
            + "Not a medical device."
        )

    def _summarise(self, best: Recorded, validation: Mapping[str, float], test: Mapping[str, float]) -> None:
        """Puts the search's plots, the leaderboard and the chosen trial on the study's run."""
        table = leaderboard(self.study.trials(), self.settings.metric, METRICS[self.settings.metric], self._run_name)
        note = (
            f"**{self._run_name(best.number)}** is the best of {len(table)} trials by {self.settings.metric}: "
            f"{describe_params(best.params)}\n\n{_markdown(table.head(10))}"
        )
        self.tracking.log_files(
            self.parent,
            {f"figures/{name}.png": figures.png(figure) for name, figure in self.study.figures().items()},
        )
        self.tracking.log_table(self.parent, table, "leaderboard.json")
        metrics = {**validation, **{f"test/{name}": value for name, value in test.items()}}
        self.tracking.log(
            self.parent,
            metrics,
            tags={"mlflow.note.content": note, "sweep.best": self._run_name(best.number), "sweep.state": "COMPLETE"},
        )

    # Names and numbers -----------------------------------------------------------------------------------------------

    def _missing(self) -> int:
        return self.settings.trials - sum(trial.state in ("COMPLETE", "PRUNED") for trial in self.study.trials())

    def _run_name(self, number: int) -> str:
        return f"{self.planned.name}-{number:03d}"

    def _tags(self) -> dict[str, str]:
        return {
            "sweep.study": self.study.name,
            "sweep.arch": self.planned.arch,
            "sweep.data": self.plan.source.name,
            "sweep.data_digest": self.plan.source.digest,
            "sweep.split_digest": self.plan.split.digest,
            **provenance.tags(),
        }

    def _fixed_params(self) -> dict[str, Any]:
        return {
            "epochs": self.settings.epochs,
            "patience": self.settings.patience,
            "image_size": self.planned.image_size,
            "precision": self.plan.precision,
            "device": self.plan.device,
            "limit": self.settings.limit,
            "train_images": len(self.plan.split.train),
            "validation_images": len(self.plan.split.validation),
            **({"weights": self.settings.weights} if "weights" in self.planned.options else {}),
            **({"finetune": self.settings.finetune} if "finetune" in self.planned.options else {}),
        }

    def _log_data(self, run_id: str) -> None:
        source, split = self.plan.source, self.plan.split
        profile = pd.Series({"train": len(split.train), "validation": len(split.validation)}).to_json()
        digests = {"train": source.digest, "validation": split.digest}
        self.tracking.log_data(run_id, source.name, source.location, digests, profile)

    def _counts(self) -> dict[str, dict[str, int]]:
        return {
            part: dict(zip(self.plan.source.classes, np.bincount(images.labels).tolist(), strict=True))
            for part, images in self.images.items()
        }

    def _seconds_left(self, trials: list[Recorded], running: tuple[Running, ...]) -> float | None:
        ended = [trial.seconds for trial in trials if trial.state in ("COMPLETE", "PRUNED") and trial.seconds]
        if not ended:
            return None
        waiting = max(0, self._missing() - len(running))
        mean, now = float(np.mean(ended)), time.monotonic()
        halfway = sum(max(0.0, mean - (now - trial.started)) for trial in running)
        return (waiting * mean + halfway) / self.plan.workers


def leaderboard(trials: list[Recorded], metric: str, direction: str, name: Any) -> pd.DataFrame:  # noqa: ANN401
    """Lists complete and pruned trials, the best first; pruned ones with what they had reached."""
    rows = []
    for trial in trials:
        history = trial.attributes.get("history")
        if trial.state not in ("COMPLETE", "PRUNED") or not history:
            continue
        at = history[trial.attributes["best_epoch"] - 1] if trial.attributes.get("best_epoch") else history[-1]
        rows.append(
            {
                "trial": name(trial.number),
                "state": trial.state,
                metric: round(at[metric], 4),
                **{key: round(at[key], 4) for key in ("val/accuracy", "val/loss") if key != metric},
                **{
                    key: float(f"{value:.4g}") if isinstance(value, float) else value
                    for key, value in trial.params.items()
                },
                "epochs": len(history),
                "seconds": round(trial.seconds or 0, 1),
            }
        )
    table = pd.DataFrame(rows)
    order = {"COMPLETE": 0, "PRUNED": 1}
    if table.empty:
        return table
    sign = -1 if direction == "maximize" else 1
    return table.iloc[np.lexsort((sign * table[metric], table["state"].map(order)))].reset_index(drop=True)


def describe_params(params: Mapping[str, Any]) -> str:
    """Writes hyperparameters as `name=value`, as --fix takes them."""
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


def _fingerprint(plan: Plan, planned: PlannedStudy) -> dict[str, Any]:
    settings = plan.settings
    weights = {"weights": settings.weights, "finetune": settings.finetune} if planned.options else {}
    return {
        "arch": planned.arch,
        "data digest": plan.source.digest,
        "split digest": plan.split.digest,
        "image size": planned.image_size,
        "epochs": settings.epochs,
        "patience": settings.patience,
        "metric": settings.metric,
        **weights,
    }


def _number(*parts: int | str) -> int:
    """A seed from what it belongs to; 31 bits, which every library takes."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big") >> 1


def _markdown(table: pd.DataFrame) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
