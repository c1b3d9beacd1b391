"""A study as MLflow shows it. All of it can be written again, from the study and the checkpoints on disk.

Optuna is always told first. Where MLflow cannot be told, because its server is away or this process dies, the next
`reconcile` finds what is missing and writes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sweep.metrics import figures, markdown
from sweep.metrics.formatting import counted
from sweep.metrics.names import main_test_scores
from sweep.orchestrator.artifacts import CHECKPOINT, Artifacts, study_files
from sweep.orchestrator.figure_pool import FigurePool
from sweep.orchestrator.leaderboard import leaderboard
from sweep.orchestrator.run_params import description_of
from sweep.stores import tags as tag
from sweep.stores.attributes import CONCLUSION, TEST
from sweep.stores.experiment_page import OBJECTIVE, describe_experiment
from sweep.stores.links import run_link
from sweep.stores.study import Study
from sweep.stores.system_metrics import MachineLoad
from sweep.stores.tracking import FAILED, FINISHED, KILLED, STATUS, Run, Tracking
from sweep.stores.trials import AskedTrial, TrialRecord
from sweep.system.errors import TrackingAwayError

SHOWN_IN_NOTE = 10
LOOK_SECONDS = 10.0  # between two attempts to find out whether a server is back, while trials run
LEFT_BEHIND = "left behind by a process that ended"


class Mirror:
    """The MLflow runs of one study."""

    def __init__(
        self,
        study: Study,
        tracking: Tracking,
        checkpoints: Path,
        say: Callable[[str], None],
        pool: FigurePool | None = None,
    ) -> None:
        """Makes the mirror; `open` or `reconcile` looks at the runs.

        Args:
            study: The study, which has its description already.
            tracking: The MLflow experiment.
            checkpoints: Where the folders of the study's trials are.
            say: Shows a line.
            pool: Draws figures of trials; in this process, unless it is given.
        """
        self.study, self.tracking, self.say = study, tracking, say
        self.description = description_of(study)
        self.run_name = self.description.run_name
        self.artifacts = Artifacts(checkpoints, tracking, self.run_name, pool)
        self.parent = ""
        self.runs: dict[int, str] = {}
        self._epochs: dict[int, list[dict[str, float]]] = {}  # of trials that have not ended
        self._thinned: set[int] = set()
        self._new: Run | None = None  # the study's, while it has no params
        self._ended: list[TrialRecord] = []  # trials whose runs have not ended yet
        self._tested: dict[str, Any] = {}  # test scores that the study stores, by trial
        self._away_since: float | None = None
        self._looked = 0.0
        self._machine, self._began = MachineLoad(), time.time()

    def find(self) -> Run | None:
        """Finds the study's run in MLflow, by the study's own id; None where there is none."""
        run = self.tracking.find_study(self.description.study_id)
        self.parent = run.run_id if run else ""
        return run

    def open(self, *, reopen: bool = True) -> list[str]:
        """Finds the study's run or starts it, makes everything agree with the study, and returns what was repaired.

        Args:
            reopen: Whether the study goes on, so that its run is to say that it runs.

        Raises:
            TrackingAwayError: The server does not answer.
        """
        run, repaired = self.find(), []
        about = self.description
        describe_experiment(self.tracking, about.data.name, about.classes, about.metric, about.hyperparameters)
        if run is None:
            if any(trial.state != "WAITING" for trial in self.study.trials()):
                repaired.append(f"study {self.study.name}: its run was missing; started again")
            tags = {**self.description.tags, tag.KIND: "study", tag.STATE: "RUNNING"}
            run = self.tracking.start(self.description.name, tags)
            self.parent = run.run_id
        elif reopen:
            self.tracking.reopen(self.parent)
        self._began = run.started
        if not self.description.params.keys() <= run.params.keys():  # it is new, or a process died as it began it
            self._new = run
        return repaired + self.reconcile()

    def describe(self) -> None:
        """Completes a new study's run with pictures, data and params: seconds, for which no trial should wait."""

        def write() -> None:
            if self._new is not None:
                self.tracking.log_files(self.parent, study_files(self.description))
                self._describe(self.parent, self.description.params, self._new)
                self._new = None

        self.follow(write)

    def reconcile(self) -> list[str]:
        """Makes the trials' runs and the files on disk agree with the study; a second time nothing is left to repair.

        Returns:
            A sentence for each thing that was repaired.

        Raises:
            TrackingAwayError: The server does not answer.
        """
        trials = {trial.number: trial for trial in self.study.trials() if trial.state != "WAITING"}
        repaired, self.runs, self._tested = [], {}, self.study.noted(TEST) or {}
        for run in self.tracking.children(self.parent):
            number = int(run.tags.get(tag.TRIAL, -1))
            if number in trials and number not in self.runs:
                self.runs[number] = run.run_id
                repaired += self._update_run(trials[number], run)
            elif run.status == "RUNNING":
                self._end_run(run.run_id, "FAIL", {"reason": LEFT_BEHIND})
                repaired.append(f"{run.name}: the study has no trial for its run; ended as failed")
        for number, trial in trials.items():
            if number not in self.runs:
                self._write_again(trial)
                repaired.append(f"{self.run_name(number)}: its run was missing; written again from the study")
        return repaired + self.artifacts.tidy_disk(self.study.trials(), self._ship)

    def follow(self, write: Callable[[], object]) -> None:
        """Writes to MLflow unless its server is away; `catch_up` writes later what is left out then."""
        if self._away_since is not None:
            return
        try:
            write()
        except TrackingAwayError as error:
            self._away_since = self._looked = time.monotonic()
            self.say(f"{error}; nothing is lost, the runs are completed once it is back")

    def trial_started(self, asked: AskedTrial, params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        """Starts the run of a trial, and stores on the trial what its run is to show."""
        run: Run | None = None

        def start() -> None:
            nonlocal run
            run = self._start_trial(asked.number, params, tags, asked.retry_of)
            self.study.show_note(asked.number, run_link(run, self.tracking))

        self._epochs[asked.number] = []
        self.follow(start)
        place = {"artifacts": run.artifacts} if run else {}
        self.study.note_trial(asked.number, run={"params": dict(params), "tags": dict(tags), **place})

    def epoch_ended(self, number: int, row: dict[str, float]) -> None:
        """Logs an epoch's metrics, in one request."""
        self._epochs[number].append(row)
        self.follow(lambda: self.tracking.log_epochs(self.runs[number], [row]))

    def trial_ended(self, number: int) -> None:
        """Has the run of a trial end as Optuna ended the trial, once there is time for it; see `end_runs`."""
        trial = self.study.trial(number)
        self._ended.append(trial)
        self._epochs.pop(number, None)
        if trial.state != "FAIL":
            self.artifacts.begin_figures(trial)

    @property
    def begun(self) -> list[int]:
        """The trials whose runs have begun, and for which `trial_ended` was not called yet."""
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
            except KeyboardInterrupt:  # the study is being stopped, which ends the runs that are left
                self._ended.insert(0, trial)
                raise

    def tick(self) -> None:
        """What is done every now and then while the study runs: catches up, and logs how busy this machine is."""
        self.catch_up()
        if load := self._machine.sample():
            seconds = int(time.time() - self._began)
            self.follow(lambda: self.tracking.log(self.parent, load, step=seconds))

    def catch_up(self, *, now: bool = False) -> None:
        """Writes what could not be written while the server was away, if it is back; called often.

        Args:
            now: Try at once, and raise if it is not back.

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
        self.describe()

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
            among: The complete trials to look at; None looks at all of the study.

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
        """Logs the test scores that the study stores for a trial."""
        self._tested = self.study.noted(TEST)
        run = self.tracking.get(self.runs[number])
        if run is None or not self._has_test(number, run):
            self._log_test(number, self.runs[number])

    def show_conclusion(self) -> None:
        """Completes the study's run: the search's plots, the leaderboard, the chosen trial's scores."""
        conclusion, metric, data = self.study.noted(CONCLUSION), self.description.metric, self.description.data
        table = leaderboard(self.study.trials(), self.description.metrics, self.run_name)
        best, usual = self.run_name(conclusion["best"]), f"the best of {counted(len(table), 'trial')} by {metric}"
        note = (
            f"**{best}** is {conclusion.get('choice') or usual}.\n\n{conclusion['description']}\n\n"
            f"{markdown.table(list(table.columns), table.head(SHOWN_IN_NOTE).to_numpy().tolist())}"
        )
        plots = {f"figures/{name}.png": figures.png(figure) for name, figure in self.study.figures(metric).items()}
        self.tracking.log_files(self.parent, plots)
        self.tracking.log_table(self.parent, table, "leaderboard.json")
        parts = {"val": (data.name, data.digests["validation"]), "test": (data.name, data.digests["train"])}
        self.tracking.log_scores(self.parent, conclusion["scores"], conclusion.get("model"), parts)
        tags = {"mlflow.note.content": note, tag.BEST: best, tag.STATE: "COMPLETE"}
        self.tracking.log(self.parent, {}, tags=tags)
        self.tracking.finish(self.parent, FINISHED)

    def close(self, reason: str, *, failed: bool) -> None:
        """Ends the study's run before its time; the next start opens it again."""
        tags = {tag.STATE: "FAIL" if failed else "STOPPED", tag.REASON: reason[:1000]}

        def end() -> None:
            self.tracking.log(self.parent, {}, tags=tags)
            self.tracking.finish(self.parent, FAILED if failed else KILLED)

        self.follow(end)

    def _update_run(self, trial: TrialRecord, run: Run) -> list[str]:
        """Makes one run agree with its trial; returns what was repaired."""
        repaired, name = [], self.run_name(trial.number)
        params = self._params(trial)
        if not params.keys() <= run.params.keys():
            self._describe(run.run_id, params, run)
            repaired.append(f"{name}: params were missing; logged")
        rows = self._epochs.get(trial.number) or trial.history
        if rows and any(run.metrics.get(key) != value for key, value in rows[-1].items() if "/" in key):
            self.tracking.log_epochs(run.run_id, rows)
            repaired.append(f"{name}: epochs were missing; logged")
        if str(trial.number) in self._tested and not self._has_test(trial.number, run):
            self._log_test(trial.number, run.run_id)
            repaired.append(f"{name}: test scores were missing; logged")
        if (trial.state, run.status, run.tags.get(tag.STATE)) == ("PRUNED", KILLED, "PRUNED"):
            # As earlier releases ended it: nothing is missing, so nothing is said of it.
            self.tracking.change_status(run.run_id, STATUS["PRUNED"])
        elif trial.state in STATUS and (run.status, run.tags.get(tag.STATE)) != (STATUS[trial.state], trial.state):
            self.artifacts.copy_files(trial, run)
            self._end_trial(trial)
            repaired.append(f"{name}: its run was {run.status}; ended as {trial.state}")
        return repaired

    def _write_again(self, trial: TrialRecord) -> None:
        """Writes a run again from the study alone, with the files of the lost one where they are still on this disk."""
        stored = trial.attributes.get("run", {})
        tags, retry_of = stored.get("tags", self.description.tags), trial.attributes.get("retry_of")
        run = self._start_trial(trial.number, self._params(trial), tags, retry_of, trial.started)
        self.study.show_note(trial.number, run_link(run, self.tracking))
        rows = self._epochs.get(trial.number) or trial.history
        metric = self.description.metric
        if rows:
            self.tracking.log_epochs(run.run_id, rows)
            self.artifacts.redraw(trial, rows, run.run_id)
        else:
            at = trial.ended or time.time()
            reported = [{"epoch": epoch, "time": at, metric: value} for epoch, value in trial.reports.items()]
            self.tracking.log_epochs(run.run_id, reported)
        self.artifacts.copy_files(trial, run)
        if str(trial.number) in self._tested:
            self._log_test(trial.number, run.run_id)
        if trial.state in STATUS:
            self._end_trial(trial)

    def _ship(self, trial: TrialRecord) -> None:
        self.artifacts.ship(trial, self.runs[trial.number])

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
        self._describe(run.run_id, params, run)
        return run

    def _describe(self, run_id: str, params: Mapping[str, Any], run: Run) -> None:
        """Logs data and params; params last, since where they are missing both are logged again."""
        self.tracking.log_data(run_id, **vars(self.description.data))
        self.tracking.log_params(run_id, params, run.params)

    def _end_trial(self, trial: TrialRecord) -> None:
        run_id = self.runs[trial.number]
        metrics = {OBJECTIVE: trial.value, "best_epoch": trial.best_epoch} if trial.state == "COMPLETE" else {}
        result = trial.attributes.get("result", {})
        tags = {name: result[name] for name in ("resumed_after", "node") if result.get(name)}
        failure = dict(trial.attributes.get("failure", {}))
        if details := failure.pop("details", ""):
            self.tracking.log_files(run_id, {"traceback.txt": details})
        self._end_run(run_id, trial.state, {**tags, **failure}, trial.ended, metrics)

    def _end_run(
        self,
        run_id: str,
        state: str,
        tags: Mapping[str, Any],
        ended: float | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        named = {f"sweep.{key}": str(value)[:1000] for key, value in tags.items()}
        self.tracking.log(run_id, metrics or {}, tags={tag.STATE: state, **named})
        self.tracking.finish(run_id, STATUS[state], ended)

    def _log_test(self, number: int, run_id: str) -> None:
        """Logs the main test scores of a trial; the study's run and the logged model have the others."""
        tested = self._tested[str(number)]
        scores = main_test_scores(tested["scores"])
        self.tracking.log(run_id, scores, tags=tested["tags"])  # of no epoch: MLflow draws a bar, not a lonely point

    def _has_test(self, number: int, run: Run) -> bool:
        tested = self._tested[str(number)]
        scores = main_test_scores(tested["scores"])
        return scores.keys() <= run.metrics.keys() and tested["tags"].keys() <= run.tags.keys()

    def _params(self, trial: TrialRecord) -> dict[str, Any]:
        # MLflow takes not every name, and a trial of another program may have any.
        own = {name: value for name, value in trial.params.items() if f"space/{name}" in self.description.params}
        return trial.attributes.get("run", {}).get("params", own)
