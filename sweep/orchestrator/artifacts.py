"""The files of a study's runs: figures and tables are drawn, wait on disk, and are logged when there is time for it.

A trial's files wait in `<its checkpoints>/artifacts` until they are in its run: where that folder exists, they are not
in it yet. Figures are drawn when they are logged, while other trials train.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from data.faults import InputError
from data.sources import slug
from models.outline import outline, sketch
from sweep.metrics import figures
from sweep.metrics import network_diagram as diagrams
from sweep.metrics.predictions import VALIDATION
from sweep.orchestrator.figure_pool import FigurePool, draw
from sweep.orchestrator.run_params import StudyDescription, description_of
from sweep.space import EXTRA, layout
from sweep.stores.locations import local_folder
from sweep.stores.study import Study
from sweep.stores.tracking import Run, Tracking, write_files
from sweep.stores.trials import TrialRecord
from sweep.training.config import BEST

ARTIFACTS = "artifacts"
CONFIGURATION = "sweep.yaml"  # of a study, among the files of its run
CHECKPOINT = f"checkpoint/{BEST}"


def checkpoints_of(folder: Path, study: Study, work_dir: Path | None = None) -> Path:
    """Where the checkpoints of a study's trials are.

    Args:
        folder: The working directory.
        study: The study.
        work_dir: The folder that was given for them; studies of the same name in other stores may use it, too.
    """
    if work_dir is None:
        return folder / "checkpoints" / slug(study.name)
    return work_dir / "checkpoints" / f"{slug(study.name)}-{description_of(study).study_id[:8]}"


def study_files(description: StudyDescription) -> dict[str, bytes]:
    """What a study's run keeps of what it is about, by path: its images by class, its network, and its settings."""
    params, counts = description.params, description.counts
    size, classes, digest = int(params["image_size"]), len(next(iter(counts.values()))), params.get("source_digest")
    # Where a study searches the layout too, the usual one is shown.
    searched = {name: params[f"space/{name}"] for name in EXTRA if f"space/{name}" in params}
    decided = {name: text for name, text in searched.items() if "," not in text}
    drawn = {"class_balance": figures.class_balance(counts, f"{description.data.name}: images by class")}
    others = {CONFIGURATION: description.configuration.encode()} if description.configuration else {}
    try:
        layers = outline(sketch(params["arch"], size, classes, **layout(decided), source_digest=digest), size)
        drawn["architecture"] = diagrams.architecture(layers, f"{params['arch']}, {size} x {size} pixels")
    except InputError as error:  # when the run is written again and the user's file is gone or another one
        others["figures/architecture.txt"] = f"there is no diagram of the network: {error}".encode()
    return {f"figures/{name}.png": figures.png(figure) for name, figure in drawn.items()} | others


class Artifacts:
    """The files of the trials of one study."""

    def __init__(
        self, checkpoints: Path, tracking: Tracking, run_name: Callable[[int], str], pool: FigurePool | None = None
    ) -> None:
        """Looks at nothing yet.

        Args:
            checkpoints: Where the folders of the study's trials are.
            tracking: The MLflow experiment.
            run_name: Turns a trial's number into its run's name.
            pool: Draws figures of trials; in this process, unless it is given.
        """
        self.checkpoints, self.tracking, self.run_name = checkpoints, tracking, run_name
        self.pool = pool or FigurePool()

    def folder(self, trial: TrialRecord | int) -> Path:
        """Where the checkpoints of a configuration are, whichever attempt at it trains."""
        return self.checkpoints / f"{trial if isinstance(trial, int) else trial.origin:03d}"

    def keep_files(self, number: int, files: Mapping[str, bytes | str], best: Path | None = None) -> None:
        """Puts a trial's files on disk for `ship` to log, before Optuna is told of its end.

        Args:
            number: The first trial of the configuration.
            files: By their path in the run.
            best: Its `best.safetensors`, which is moved.
        """
        folder = self.folder(number) / ARTIFACTS
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_files(folder, files)
        if best is not None:
            (folder / CHECKPOINT).parent.mkdir(parents=True)
            best.rename(folder / CHECKPOINT)

    def begin_figures(self, trial: TrialRecord) -> None:
        """Begins to draw the figures of a trial that has ended, where there are processes for it."""
        self.pool.begin(trial.number, *self._to_draw(trial))

    def ship(self, trial: TrialRecord, run_id: str) -> None:
        """Logs the files of a trial that wait on disk; then its folder can go."""
        folder = self.folder(trial)
        if trial.state not in ("COMPLETE", "PRUNED"):
            return  # the next attempt goes on from it
        if (folder / ARTIFACTS).is_dir():
            write_files(folder / ARTIFACTS, self._figures(trial))
            self.tracking.log_folder(run_id, folder / ARTIFACTS)
        shutil.rmtree(folder, ignore_errors=True)
        self._remove_if_empty()

    def redraw(self, trial: TrialRecord, rows: list[dict[str, float]], run_id: str) -> None:
        """Draws the figures of a trial again and logs them.

        Args:
            trial: The trial.
            rows: Its metrics, a row per epoch; it may still be running.
            run_id: Its run.
        """
        self.tracking.log_files(run_id, draw(rows, *self._to_draw(trial)[1:]))

    def copy_files(self, trial: TrialRecord, run: Run) -> None:
        """Copies the files of a trial's first run into another one, where they are still on this disk."""
        first = local_folder(trial.attributes.get("run", {}).get("artifacts", ""), self.tracking.uri)
        now = local_folder(run.artifacts, self.tracking.uri)
        if first is not None and first != now and first.is_dir() and any(first.iterdir()):
            self.tracking.log_folder(run.run_id, first)

    def tidy_disk(self, trials: Iterable[TrialRecord], ship: Callable[[TrialRecord], None]) -> list[str]:
        """Logs files that wait on disk, and removes the checkpoints of configurations that need none any more.

        Args:
            trials: All of the study, by number.
            ship: Logs the files of one of them.

        Returns:
            A sentence for each thing that was repaired.
        """
        repaired: list[str] = []
        latest = {trial.origin: trial for trial in trials}  # the last attempt at each configuration
        for folder in sorted(self.checkpoints.iterdir()) if self.checkpoints.is_dir() else []:
            trial = latest.get(int(folder.name)) if folder.name.isdigit() else None
            if trial is not None and trial.state in ("WAITING", "RUNNING"):
                for torn in folder.glob(".*-*"):  # by a process killed while it wrote; see sweep/training/checkpoint.py
                    if trial.state == "WAITING":
                        torn.unlink()
                        repaired.append(f"{torn}: an unfinished file; removed")
            elif trial is not None and trial.state in ("COMPLETE", "PRUNED") and (folder / ARTIFACTS).is_dir():
                ship(trial)
                repaired.append(f"{self.run_name(trial.number)}: files were still on disk; logged")
            else:
                shutil.rmtree(folder)
                repaired.append(f"{folder}: checkpoints that no trial needs; removed")
        self._remove_if_empty()
        return repaired

    def _figures(self, trial: TrialRecord) -> dict[str, bytes | str]:
        """The figures of a trial; drawn now, unless another process has drawn them."""
        return self.pool.take(trial.number, *self._to_draw(trial))

    def _to_draw(self, trial: TrialRecord) -> tuple[list[dict[str, float]], int, Path, str]:
        table = self.folder(trial) / ARTIFACTS / VALIDATION
        return trial.history, trial.best_epoch or 0, table, self.run_name(trial.number)

    def _remove_if_empty(self) -> None:
        for folder in (self.checkpoints, self.checkpoints.parent):
            with suppress(OSError):  # it is not empty, or not there
                folder.rmdir()
