"""A study as MLflow shows it. All of it can be written again, from the study and the checkpoints on disk.

Optuna is told first, always. Where MLflow cannot be told, because its server is away or this process dies, the next
`reconcile` finds what is missing and writes it. A trial's files wait in `<its checkpoints>/artifacts` until they are
in its run: such a folder is the sign that they are not. Figures are drawn then, while other trials train.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from models.outline import outline, sketch
from sweep.metrics import figures, markdown
from sweep.metrics import network_diagram as diagrams
from sweep.metrics.predictions import VALIDATION
from sweep.orchestrator.figure_pool import Drawer, draw
from sweep.orchestrator.leaderboard import leaderboard
from sweep.space import EXTRA, layout
from sweep.stores import tags as tag
from sweep.stores.attributes import ABOUT, CONCLUSION, TEST
from sweep.stores.study import Study
from sweep.stores.tracking import FAILED, FINISHED, KILLED, STATUS, Run, Tracking, write_files
from sweep.stores.trials import AskedTrial, TrialRecord
from sweep.system.errors import TrackingAwayError
from sweep.training.config import BEST

SHOWN_IN_NOTE = 10
LOOK_SECONDS = 10.0  # between two looks whether a server is back, while trials run
ARTIFACTS = "artifacts"
CHECKPOINT = f"checkpoint/{BEST}"
LEFT_BEHIND = "left behind by a process that ended"


class Mirror:
    """The MLflow runs of one study."""

    def __init__(
        self,
        study: Study,
        tracking: Tracking,
        checkpoints: Path,
        say: Callable[[str], None],
        drawer: Drawer | None = None,
    ) -> None:
        """Makes the mirror; `open` or `reconcile` looks at the runs.

        Args:
            study: The study; its attribute ABOUT says what its own run is to show.
            tracking: The MLflow experiment.
            checkpoints: Where the folders of the study's trials are.
            say: Says a sentence to whoever watches.
            drawer: Draws figures of trials; here, unless it is given.
        """
        self.drawer = drawer or Drawer()
        self.study, self.tracking, self.checkpoints, self.say = study, tracking, checkpoints, say
        self.about: dict[str, Any] = study.noted(ABOUT)
        self.parent = ""
        self.runs: dict[int, str] = {}
        self._epochs: dict[int, list[dict[str, float]]] = {}  # of trials that have not ended
        self._thinned: set[int] = set()
        self._ended: list[TrialRecord] = []  # trials whose runs have not ended yet
        self._tested: dict[str, Any] = {}  # what the study notes of its test scores
        self._away_since: float | None = None
        self._looked = 0.0

    def run_name(self, number: int) -> str:
        """What the run of a trial is called."""
        return f"{self.about['name']}-{number:03d}"

    def folder(self, trial: TrialRecord | int) -> Path:
        """Where the checkpoints of a configuration are, whichever attempt at it trains."""
        return self.checkpoints / f"{trial if isinstance(trial, int) else trial.origin:03d}"

    def find(self) -> Run | None:
        """Finds the study's run in MLflow, by the study's own id; None where there is none."""
        run = self.tracking.find_study(self.about["tags"][tag.STUDY_ID])
        self.parent = run.run_id if run else ""
        return run

    def open(self, *, reopen: bool = True) -> list[str]:
        """Finds the study's run or starts it, brings everything to what the study knows, and says what was mended.

        Args:
            reopen: Whether the study goes on, so that its run is to say that it runs.

        Raises:
            TrackingAwayError: The server does not answer.
        """
        run, mended = self.find(), []
        if run is None:
            if any(trial.state != "WAITING" for trial in self.study.trials()):
                mended.append(f"study {self.study.name}: its run was missing; started again")
            tags = {**self.about["tags"], tag.KIND: "study", tag.STATE: "RUNNING"}
            run = self.tracking.start(self.about["name"], tags)
            self.parent = run.run_id
        elif reopen:
            self.tracking.reopen(self.parent)
        if not self.about["params"].keys() <= run.params.keys():  # new, or a process died as it began it
            self.tracking.log_files(self.parent, self._pictures())
            self._describe(self.parent, self.about["params"])
        return mended + self.reconcile()

    def reconcile(self) -> list[str]:
        """Brings the trials' runs and the files on disk to what the study knows; doing it again mends nothing more.

        Returns:
            A sentence for each thing mended.

        Raises:
            TrackingAwayError: The server does not answer.
        """
        trials = {trial.number: trial for trial in self.study.trials() if trial.state != "WAITING"}
        mended, self.runs, self._tested = [], {}, self.study.noted(TEST) or {}
        for run in self.tracking.children(self.parent):
            number = int(run.tags.get(tag.TRIAL, -1))
            if number in trials and number not in self.runs:
                self.runs[number] = run.run_id
                mended += self._bring(trials[number], run)
            elif run.status == "RUNNING":
                self._end_run(run.run_id, "FAIL", {"reason": LEFT_BEHIND})
                mended.append(f"{run.name}: the study has no trial for its run; ended as failed")
        for number, trial in trials.items():
            if number not in self.runs:
                self._write_again(trial)
                mended.append(f"{self.run_name(number)}: its run was missing; written again from the study")
        return mended + self._tidy_disk()

    def follow(self, write: Callable[[], object]) -> None:
        """Does a write to MLflow, unless its server is away; what is left out then comes with `catch_up`."""
        if self._away_since is not None:
            return
        try:
            write()
        except TrackingAwayError as error:
            self._away_since = self._looked = time.monotonic()
            self.say(f"{error}; nothing is lost, the runs are completed once it is back")

    def trial_started(self, asked: AskedTrial, params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        """Starts the run of a trial, and notes on the trial what its run is to show."""
        run: Run | None = None

        def start() -> None:
            nonlocal run
            run = self._start_trial(asked.number, params, tags, asked.retry_of)

        self._epochs[asked.number] = []
        self.follow(start)
        place = {"artifacts": run.artifacts} if run else {}
        self.study.note_trial(asked.number, run={"params": dict(params), "tags": dict(tags), **place})

    def epoch_ended(self, number: int, row: dict[str, float]) -> None:
        """Logs an epoch's metrics, in one request."""
        self._epochs[number].append(row)
        self.follow(lambda: self.tracking.log_epochs(self.runs[number], [row]))

    def keep_files(self, number: int, files: Mapping[str, bytes | str], best: Path | None = None) -> None:
        """Puts a trial's files on disk for `end_runs` to log, before Optuna is told of its end.

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

    def trial_ended(self, number: int) -> None:
        """Has the run of a trial end as Optuna ended the trial, once there is time for it; see `end_runs`."""
        trial = self.study.trial(number)
        self._ended.append(trial)
        self._epochs.pop(number, None)
        if trial.state != "FAIL":
            self.drawer.begin(number, *self._to_draw(trial))

    @property
    def begun(self) -> list[int]:
        """The trials whose runs have begun, and of which nobody has said that they ended."""
        return [number for number in self._epochs if number in self.runs]

    @property
    def ending(self) -> int:
        """How many trials have ended whose runs have not."""
        return len(self._ended)

    def end_runs(self, leave: int = 0) -> None:
        """Logs the files of ended trials and ends their runs, the earliest first, until so many are left."""
        while len(self._ended) > leave:
            trial = self._ended.pop(0)
            try:
                self.follow(partial(self._ship, trial))
                self.follow(partial(self._end_trial, trial))
            except KeyboardInterrupt:  # who abandons the study does it again
                self._ended.insert(0, trial)
                raise

    def catch_up(self, *, now: bool = False) -> None:
        """Writes what could not be written while the server was away, if it is back; called often.

        Args:
            now: Try at once, and say if it is not back.

        Raises:
            TrackingAwayError: It is not back; only with `now`.
        """
        if self._away_since is None or (not now and time.monotonic() - self._looked < LOOK_SECONDS):
            return
        self._looked = time.monotonic()
        try:
            self.reconcile()
        except TrackingAwayError:
            if now:
                raise
            return
        self.say(f"MLflow answers again after {time.monotonic() - self._away_since:.0f} s; nothing is missing")
        self._away_since = None

    def fetch_checkpoint(self, number: int, folder: Path) -> Path | None:
        """Downloads the best checkpoint of a complete trial; None where it is gone."""
        return self.tracking.fetch(self.runs[number], CHECKPOINT, folder)

    def put_checkpoint(self, number: int, checkpoint: Path) -> None:
        """Logs the best checkpoint of a complete trial again."""
        self.tracking.log_files(self.runs[number], {CHECKPOINT: checkpoint.read_bytes()})

    def thin(self, best: int, among: Iterable[int] | None = None) -> list[str]:
        """Removes the checkpoints of all complete trials but the best one and those that are registered.

        Args:
            best: The best trial.
            among: The complete trials to look at; all of the study, unless they are given.

        Returns:
            The names of the runs that lost theirs.
        """
        thinned = []
        spared = {best, *self._thinned, *(trial.number for trial in self._ended)}
        if among is None:
            among = [trial.number for trial in self.study.trials() if trial.state == "COMPLETE"]
        for number in among:
            if number in spared:
                continue
            run_id = self.runs[number]
            if not self.tracking.registered(run_id):
                if self.tracking.remove(run_id, str(Path(CHECKPOINT).parent)):
                    thinned.append(self.run_name(number))
                self._thinned.add(number)
        return thinned

    def show_test(self, number: int) -> None:
        """Shows on a trial's run what the study notes of its test scores."""
        self._tested = self.study.noted(TEST)
        self._log_test(number, self.runs[number])

    def show_conclusion(self) -> None:
        """Completes the study's run: the search's plots, the leaderboard, the chosen trial's scores."""
        noted, metric = self.study.noted(CONCLUSION), self.about["metric"]
        table = leaderboard(self.study.trials(), metric, self.run_name)
        best = self.run_name(noted["best"])
        note = (
            f"**{best}** is the best of {len(table)} trials by {metric}.\n\n{noted['description']}\n\n"
            f"{markdown.table(list(table.columns), table.head(SHOWN_IN_NOTE).to_numpy().tolist())}"
        )
        plots = {f"figures/{name}.png": figures.png(figure) for name, figure in self.study.figures(metric).items()}
        self.tracking.log_files(self.parent, plots)
        self.tracking.log_table(self.parent, table, "leaderboard.json")
        tags = {"mlflow.note.content": note, tag.BEST: best, tag.STATE: "COMPLETE"}
        self.tracking.log(self.parent, noted["scores"], tags=tags)
        self.tracking.finish(self.parent, FINISHED)

    def close(self, reason: str, *, failed: bool) -> None:
        """Ends the study's run before its time; the next start opens it again."""
        tags = {tag.STATE: "FAIL" if failed else "STOPPED", tag.REASON: reason[:1000]}

        def end() -> None:
            self.tracking.log(self.parent, {}, tags=tags)
            self.tracking.finish(self.parent, FAILED if failed else KILLED)

        self.follow(end)

    def end_left_open(self) -> list[str]:
        """Ends the study's run where no process is at it, and says so."""
        run = self.tracking.get(self.parent)
        if run is None or run.status != "RUNNING":
            return []
        if self.study.noted(CONCLUSION):
            self.show_conclusion()
        else:
            self.close(LEFT_BEHIND, failed=False)
        return [f"study {self.study.name}: its run had not ended; ended"]

    def _pictures(self) -> dict[str, bytes]:
        """What a study is about: its images by class, and its network (report figures 2, 4, 6, 8 and 11)."""
        params, counts = self.about["params"], self.about["counts"]
        size, classes = int(params["image_size"]), len(next(iter(counts.values())))
        # Where a study searches it too, the usual one is shown.
        searched = {name: params[f"space/{name}"] for name in EXTRA if f"space/{name}" in params}
        decided = {name: text for name, text in searched.items() if "," not in text}
        layers = outline(sketch(params["arch"], size, classes, **layout(decided)), size)
        drawn = {
            "class_balance": figures.class_balance(counts, f"{self.about['data']['name']}: images by class"),
            "architecture": diagrams.architecture(layers, f"{params['arch']}, {size} x {size} pixels"),
        }
        return {f"figures/{name}.png": figures.png(figure) for name, figure in drawn.items()}

    def _bring(self, trial: TrialRecord, run: Run) -> list[str]:
        """Brings one run to what the study knows of its trial."""
        mended, name = [], self.run_name(trial.number)
        params = self._params(trial)
        if not params.keys() <= run.params.keys():
            self._describe(run.run_id, params)
            mended.append(f"{name}: params were missing; logged")
        rows = self._epochs.get(trial.number) or trial.history
        if rows and any(run.metrics.get(key) != value for key, value in rows[-1].items() if "/" in key):
            self.tracking.log_epochs(run.run_id, rows)
            mended.append(f"{name}: epochs were missing; logged")
        tested = self._tested.get(str(trial.number))
        if tested and not tested["scores"].keys() <= run.metrics.keys():
            self._log_test(trial.number, run.run_id)
            mended.append(f"{name}: test scores were missing; logged")
        if trial.state in STATUS and (run.status, run.tags.get(tag.STATE)) != (STATUS[trial.state], trial.state):
            self._copy_files(trial, run)
            self._end_trial(trial)
            mended.append(f"{name}: its run was {run.status}; ended as {trial.state}")
        return mended

    def _write_again(self, trial: TrialRecord) -> None:
        """Writes a run from nothing but the study, and the files of the old one where they are still on this disk."""
        noted = trial.attributes.get("run", {})
        tags, retry_of = noted.get("tags", self.about["tags"]), trial.attributes.get("retry_of")
        run = self._start_trial(trial.number, self._params(trial), tags, retry_of, trial.started)
        rows = self._epochs.get(trial.number) or trial.history
        metric = self.about["metric"]
        if rows:
            self.tracking.log_epochs(run.run_id, rows)
            self.tracking.log_files(run.run_id, draw(rows, *self._to_draw(trial)[1:]))
        else:
            at = trial.ended or time.time()
            reported = [{"epoch": epoch, "time": at, metric: value} for epoch, value in trial.reports.items()]
            self.tracking.log_epochs(run.run_id, reported)
        self._copy_files(trial, run)
        if str(trial.number) in self._tested:
            self._log_test(trial.number, run.run_id)
        if trial.state in STATUS:
            self._end_trial(trial)

    def _copy_files(self, trial: TrialRecord, run: Run) -> None:
        """Copies the files of a trial's first run into another one, where they are still on this disk."""
        noted = trial.attributes.get("run", {}).get("artifacts", "").removeprefix("file://")
        old = Path(noted or "/nowhere")
        if noted != run.artifacts.removeprefix("file://") and old.is_absolute() and old.is_dir() and any(old.iterdir()):
            self.tracking.log_folder(run.run_id, old)

    def _tidy_disk(self) -> list[str]:
        """Logs files that wait on disk, and removes the checkpoints of configurations that are done with."""
        mended: list[str] = []
        latest = {trial.origin: trial for trial in self.study.trials()}  # by number, so the last attempt wins
        for folder in sorted(self.checkpoints.iterdir()) if self.checkpoints.is_dir() else []:
            trial = latest.get(int(folder.name)) if folder.name.isdigit() else None
            if trial is not None and trial.state in ("WAITING", "RUNNING"):
                for torn in folder.glob(".*-*"):  # by a process killed while it wrote; see sweep/training/checkpoint.py
                    if trial.state == "WAITING":
                        torn.unlink()
                        mended.append(f"{torn}: an unfinished file; removed")
            elif trial is not None and trial.state in ("COMPLETE", "PRUNED") and (folder / ARTIFACTS).is_dir():
                self._ship(trial)
                mended.append(f"{self.run_name(trial.number)}: files were still on disk; logged")
            else:
                shutil.rmtree(folder)
                mended.append(f"{folder}: checkpoints that no trial needs; removed")
        self._remove_if_empty()
        return mended

    def _ship(self, trial: TrialRecord) -> None:
        """Logs the files of a trial that wait on disk; then its folder can go."""
        folder = self.folder(trial)
        if trial.state not in ("COMPLETE", "PRUNED"):
            return  # the next attempt goes on from it
        if (folder / ARTIFACTS).is_dir():
            write_files(folder / ARTIFACTS, self._figures(trial))
            self.tracking.log_folder(self.runs[trial.number], folder / ARTIFACTS)
        shutil.rmtree(folder, ignore_errors=True)
        self._remove_if_empty()

    def _figures(self, trial: TrialRecord) -> dict[str, bytes | str]:
        """Draws what a trial came to, unless that has been done aside."""
        return self.drawer.take(trial.number, *self._to_draw(trial))

    def _to_draw(self, trial: TrialRecord) -> tuple[list[dict[str, float]], int, Path, str]:
        table = self.folder(trial) / ARTIFACTS / VALIDATION
        return trial.history, trial.best_epoch or 0, table, self.run_name(trial.number)

    def _remove_if_empty(self) -> None:
        for folder in (self.checkpoints, self.checkpoints.parent):
            with suppress(OSError):  # it is not empty, or not there
                folder.rmdir()

    def _start_trial(
        self,
        number: int,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
        retry_of: int | None,
        started: float | None = None,
    ) -> Run:
        retry = {} if retry_of is None else {tag.RETRY_OF: self.run_name(retry_of)}
        run = self.tracking.start(
            self.run_name(number),
            {**tags, tag.TRIAL: number, tag.STATE: "RUNNING", **retry},
            parent=self.parent,
            started=started,
        )
        self.runs[number] = run.run_id
        self._describe(run.run_id, params)
        return run

    def _describe(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Logs data and params; params last, since where they are missing both are logged again."""
        self.tracking.log_data(run_id, **self.about["data"])
        self.tracking.log_params(run_id, params)

    def _end_trial(self, trial: TrialRecord) -> None:
        run_id = self.runs[trial.number]
        best_epoch = trial.best_epoch
        metrics = {"objective": trial.value, "best_epoch": best_epoch} if trial.state == "COMPLETE" else {}
        result = trial.attributes.get("result", {})
        tags = {name: result[name] for name in ("resumed_after", "node") if result.get(name)}
        failure = dict(trial.attributes.get("failure", {}))
        if details := failure.pop("details", ""):
            self.tracking.log_files(run_id, {"traceback.txt": details})
        self._end_run(run_id, trial.state, {**tags, **failure}, trial.ended, metrics, best_epoch or 0)

    def _end_run(
        self,
        run_id: str,
        state: str,
        tags: Mapping[str, Any],
        ended: float | None = None,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
    ) -> None:
        named = {f"sweep.{key}": str(value)[:1000] for key, value in tags.items()}
        self.tracking.log(run_id, metrics or {}, step, tags={tag.STATE: state, **named})
        self.tracking.finish(run_id, STATUS[state], ended)

    def _log_test(self, number: int, run_id: str) -> None:
        tested = self._tested[str(number)]
        self.tracking.log(run_id, tested["scores"], step=tested["epoch"], tags=tested["tags"])

    def _params(self, trial: TrialRecord) -> dict[str, Any]:
        return trial.attributes.get("run", {}).get("params", trial.params)
