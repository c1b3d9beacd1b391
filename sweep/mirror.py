"""A study as MLflow shows it: what is written on the study's run and on each trial's. Optuna knows it all already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.cache import Images
from sweep import provenance
from sweep.plan import Plan, PlannedStudy
from sweep.results import figures
from sweep.results.metrics import probabilities
from sweep.settings import METRICS
from sweep.stores.study import Asked, Recorded, Study
from sweep.stores.tracking import FAILED, FINISHED, STATUS, Tracking
from sweep.training import BEST, TrainingConfig, restore

SHOWN_IN_NOTE = 10


class Mirror:
    """The MLflow runs of one study."""

    def __init__(
        self, plan: Plan, planned: PlannedStudy, study: Study, tracking: Tracking, images: Mapping[str, Images]
    ) -> None:
        """Finds the study's run, or starts it.

        Args:
            plan: The sweep.
            planned: The study.
            study: The same in Optuna; remembers the run's id.
            tracking: The MLflow experiment.
            images: `train`, `validation` and `test`.
        """
        self.plan, self.planned, self.study, self.tracking, self.images = plan, planned, study, tracking, images
        known = study.noted("run_id")
        if known and tracking.exists(known):
            self.parent: str = known
            tracking.reopen(known)
        else:
            self.parent = self._start_study()
            study.note("run_id", self.parent)

    def run_name(self, number: int) -> str:
        """What the run of a trial is called."""
        return f"{self.planned.name}-{number:03d}"

    def tags(self) -> dict[str, str]:
        """Tags that every run and version of the study has."""
        return {
            "sweep.study": self.study.name,
            "sweep.arch": self.planned.arch,
            "sweep.data": self.plan.source.name,
            "sweep.data_digest": self.plan.source.digest,
            "sweep.split_digest": self.plan.split.digest,
            **provenance.tags(),
        }

    def start_trial(self, asked: Asked, config: TrainingConfig) -> str:
        """Starts the run of a trial and returns its id."""
        retry = {} if asked.retry_of is None else {"sweep.retry_of": self.run_name(asked.retry_of)}
        run_id = self.tracking.start(
            self.run_name(asked.number),
            {**self.tags(), "sweep.trial": asked.number, "sweep.state": "RUNNING", **retry},
            {**asked.params, "arch": config.arch, "seed": config.seed, **self._fixed_params()},
            parent=self.parent,
        )
        self._log_data(run_id)
        return run_id

    def epoch(self, run_id: str, row: Mapping[str, float]) -> None:
        """Logs an epoch's metrics, in one request."""
        self.tracking.log(
            run_id, {name: value for name, value in row.items() if name != "epoch"}, step=int(row["epoch"])
        )

    def log_trial_files(
        self, number: int, run_id: str, history: list[dict[str, float]], best_epoch: int | None, checkpoint: Path | None
    ) -> None:
        """Logs a trial's figures, predictions and checkpoint; doing it again replaces them.

        Args:
            number: The trial.
            run_id: Its run.
            history: A row an epoch.
            best_epoch: From 1, if there is one.
            checkpoint: Its `best.safetensors`; None for a pruned trial.
        """
        title = self.run_name(number)
        curves = figures.learning_curves(pd.DataFrame(history), best_epoch or 0, title)
        files: dict[str, bytes | Path | str] = {"figures/learning_curves.png": figures.png(curves)}
        if checkpoint is not None:
            likely = probabilities(restore(checkpoint).validation_logits)
            files |= {f"checkpoint/{BEST}": checkpoint, **self._prediction_files("validation", title, likely)}
        self.tracking.log_files(run_id, files)

    def end_trial(self, trial: Recorded) -> None:
        """Ends the run of a trial as Optuna ended the trial."""
        run_id, best_epoch = trial.attributes["run_id"], trial.attributes["best_epoch"]
        summary = {"objective": trial.value, "best_epoch": best_epoch} if trial.state == "COMPLETE" else {}
        self.tracking.log(run_id, summary, step=best_epoch or 0, tags={"sweep.state": trial.state})
        self.tracking.finish(run_id, STATUS[trial.state])

    def fail_trial(self, run_id: str, reason: str, details: str = "") -> None:
        """Ends the run of a trial that came to nothing, with the reason as a tag."""
        if not self.tracking.exists(run_id):
            return
        if details:
            self.tracking.log_files(run_id, {"traceback.txt": details})
        self.tracking.log(run_id, {}, tags={"sweep.state": "FAIL", "sweep.reason": reason[:1000]})
        self.tracking.finish(run_id, FAILED)

    def end_left_behind(self) -> None:
        """Ends child runs that an earlier process left running, as Optuna knows their trials."""
        ended = {trial.attributes.get("run_id"): trial for trial in self.study.trials() if trial.state in STATUS}
        for run_id in self.tracking.running_children(self.parent):
            trial = ended.get(run_id)
            if trial is None or trial.state == "FAIL":
                self.fail_trial(run_id, "left behind by a process that ended")
            else:
                self.end_trial(trial)

    def fetch_checkpoint(self, run_id: str, folder: Path) -> Path:
        """Downloads the best checkpoint of a complete trial."""
        return self.tracking.fetch(run_id, f"checkpoint/{BEST}", folder)

    def test_opened(
        self,
        trial: Recorded,
        likely: np.ndarray,
        scores: Mapping[str, float],
        tags: Mapping[str, Any],
        threshold: float,
    ) -> None:
        """Logs what the test set said of the chosen trial, on its run."""
        self.tracking.log(trial.attributes["run_id"], scores, step=trial.attributes["best_epoch"], tags=tags)
        files = self._prediction_files("test", self.run_name(trial.number), likely, threshold)
        self.tracking.log_files(trial.attributes["run_id"], files)

    def complete(self, best: Recorded, scores: Mapping[str, float], description: str) -> None:
        """Completes the study's run: the search's plots, the leaderboard, the chosen trial's scores."""
        metric = self.plan.settings.metric
        table = leaderboard(self.study.trials(), metric, self.run_name)
        note = (
            f"**{self.run_name(best.number)}** is the best of {len(table)} trials by {metric}.\n\n{description}\n\n"
            f"{_markdown(table.head(SHOWN_IN_NOTE))}"
        )
        plots = {f"figures/{name}.png": figures.png(figure) for name, figure in self.study.figures(metric).items()}
        self.tracking.log_files(self.parent, plots)
        self.tracking.log_table(self.parent, table, "leaderboard.json")
        tags = {"mlflow.note.content": note, "sweep.best": self.run_name(best.number), "sweep.state": "COMPLETE"}
        self.tracking.log(self.parent, scores, tags=tags)
        self.tracking.finish(self.parent, FINISHED)

    def fail(self) -> None:
        """Ends the study's run as failed; the next start opens it again."""
        self.tracking.finish(self.parent, FAILED)

    def _start_study(self) -> str:
        settings = self.plan.settings
        params = {
            "arch": self.planned.arch,
            "metric": settings.metric,
            "pruner": settings.pruner,
            "warmup": settings.warmup,
            "study_seed": settings.seed,
            **self._fixed_params(),
            **{f"space/{name}": domain for name, domain in self.planned.space.items()},
        }
        run_id = self.tracking.start(self.planned.name, self.tags(), params)
        self._log_data(run_id)
        classes = self.plan.source.classes
        counts = {
            part: dict(zip(classes, np.bincount(images.labels).tolist(), strict=True))
            for part, images in self.images.items()
        }
        chart = figures.class_balance(counts, f"{self.plan.source.name}: images by class")
        self.tracking.log_files(run_id, {"figures/class_balance.png": figures.png(chart)})
        return run_id

    def _fixed_params(self) -> dict[str, Any]:
        settings = self.plan.settings
        options = {name: getattr(settings, name) for name in self.planned.options}
        return {
            "epochs": settings.epochs,
            "patience": settings.patience,
            "image_size": self.planned.image_size,
            "precision": self.plan.precision,
            "device": self.plan.device,
            "train_images": len(self.plan.split.train),
            "validation_images": len(self.plan.split.validation),
            **({} if settings.limit is None else {"limit": settings.limit}),
            **options,
        }

    def _log_data(self, run_id: str) -> None:
        source, split = self.plan.source, self.plan.split
        profile = json.dumps({"train": len(split.train), "validation": len(split.validation)})
        digests = {"train": source.digest, "validation": split.digest}
        self.tracking.log_data(run_id, source.name, source.location, digests, profile)

    def _prediction_files(
        self, part: str, title: str, likely: np.ndarray, threshold: float = 0.5
    ) -> dict[str, bytes | Path | str]:
        """Confusion matrix, ROC curve and a table of every prediction on `validation` or `test`."""
        images, classes = self.images[part], self.plan.source.classes
        predicted = (likely[:, 1] >= threshold).astype(int) if len(classes) == 2 else likely.argmax(axis=1)
        table = pd.DataFrame({"image": images.names, "class": [classes[label] for label in images.labels]})
        table[[f"probability_{name}" for name in classes]] = likely.round(6)
        confusion = figures.confusion_matrix(images.labels, predicted, classes, f"{title}, {part}")
        roc = figures.roc_curve(images.labels, likely, classes, f"{title}, {part}", threshold)
        before = "" if part == "validation" else f"{part}_"
        return {
            f"figures/{before}confusion_matrix.png": figures.png(confusion),
            f"figures/{before}roc.png": figures.png(roc),
            f"predictions/{part}.csv": table.to_csv(index=False),
        }


def leaderboard(trials: list[Recorded], metric: str, name: Any) -> pd.DataFrame:
    """Lists complete trials, the best first, then pruned ones with the best that they had reached.

    Args:
        trials: Of one study.
        metric: What the study chooses by.
        name: Turns a trial's number into its run's name.
    """
    rows = []
    for trial in trials:
        history = trial.attributes.get("history")
        if trial.state not in ("COMPLETE", "PRUNED") or not history:
            continue
        at = history[(trial.attributes["best_epoch"] or len(history)) - 1]
        params = {
            key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in trial.params.items()
        }
        rows.append(
            {
                "trial": name(trial.number),
                "state": trial.state,
                **{key: round(at[key], 4) for key in dict.fromkeys((metric, "val/accuracy", "val/loss"))},
                **params,
                "epochs": len(history),
                "seconds": round(trial.seconds or 0, 1),
            }
        )
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    sign = -1 if METRICS[metric] == "maximize" else 1
    order = np.lexsort((sign * table[metric], table["state"] == "PRUNED"))
    return table.iloc[order].reset_index(drop=True)


def describe_params(params: Mapping[str, Any]) -> str:
    """Writes hyperparameters as `name=value`, as --fix takes them."""
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


def _markdown(table: pd.DataFrame) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
