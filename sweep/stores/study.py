"""Optuna: open a study, resume it, ask, report, tell. The study is the truth; everything else mirrors it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import optuna
from matplotlib.figure import Figure
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import TrialState

from data.faults import InputError
from sweep.metrics import pareto
from sweep.space import Choice, Range, Space, faults_of
from sweep.stores import study_figures
from sweep.stores.attributes import ABOUT, OWNER
from sweep.stores.bounded_study import (
    COMPLETE,
    BoundedStudy,
    enqueued_params,
    given_params,
    read_trial,
    set_trial_attributes,
    suggest,
    write_note,
)
from sweep.stores.conversion import attributes_of, own_attributes, to_distribution, to_domain, to_record
from sweep.stores.databases import check_database, file_of, open_whole
from sweep.stores.fingerprint import check_fingerprint
from sweep.stores.pruning import Pruning
from sweep.stores.samplers import sampler_of
from sweep.stores.storage import Direction, make_study, name_metrics, open_storage
from sweep.stores.trials import AskedTrial, EnqueuedTrial, StartingPoint, TrialCounts, TrialRecord, chosen_of
from sweep.system.errors import StudyFailedError, TrialEndedElsewhereError
from sweep.system.processes import alive, describe_owner, myself
from sweep.system.redaction import first_line, shown

optuna.logging.set_verbosity(optuna.logging.WARNING)

INHERITED = ("seed", "patience", "label", "start", "failures", "micro_batch", "origin")  # by a retry from its trial
RENEW_SECONDS, CONFIRM_SECONDS = 15.0, 0.5


class Study:
    """One study in Optuna's store. Only one process may write it at a time; see `claim`."""

    def __init__(self, study: optuna.Study, space: Space, search: BoundedStudy | None = None) -> None:
        """Wraps an Optuna study.

        Args:
            study: The study.
            space: What is searched.
            search: The same study as sampler and pruner are to see it; None for one that is only read or repaired.
        """
        self._study, self._search, self._space = study, search or study, space
        self._counts: TrialCounts | None = None
        self._distributions = {name: to_distribution(domain) for name, domain in space.items()}
        self._asked: dict[int, optuna.Trial] = {}
        self._owner: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The study's full name."""
        return self._study.study_name

    @property
    def experiment(self) -> str:
        """The MLflow experiment that shows the study."""
        return self.noted(ABOUT)["experiment"]

    def claim(self, *, shared: bool) -> None:
        """Makes this process the study's only writer.

        A claim ends with `release`, with its process, or, where that ran on another machine, two minutes after it
        was last renewed.

        Args:
            shared: Whether processes in other directories can reach the store. Where they cannot, the lock on the
                directory has decided already, and an old claim only says that a process died before its release.

        Raises:
            InputError: Another process runs the study; says which.
        """
        if shared:
            self._refuse_another()
        self._counts = None  # others may have written until now
        if isinstance(self._search, BoundedStudy):
            self._search.forget()
        self._owner = myself()
        self.note(OWNER, self._owner)
        if shared:
            # Stores do not lock attributes: of two that claim at the same moment the later one is to win.
            time.sleep(CONFIRM_SECONDS)
            self._refuse_another()

    def renew(self) -> None:
        """Says that this process still runs the study; costs nothing most of the time.

        Raises:
            StudyFailedError: Another process has taken it over, since this one was silent for too long.
        """
        if self._owner and time.time() - self._owner["seen"] > RENEW_SECONDS:
            owner = self.noted(OWNER)
            if owner and (owner["host"], owner["pid"]) != (self._owner["host"], self._owner["pid"]):
                self._owner = {}
                raise StudyFailedError(f"study {self.name} was taken over by {describe_owner(owner)}")
            self._owner["seen"] = time.time()
            self.note(OWNER, self._owner)
            if isinstance(self._search, BoundedStudy):
                self._search.queued = True  # another program may have enqueued a trial meanwhile

    def release(self) -> None:
        """Ends the claim, so that another process can have the study."""
        if self._owner:
            self._owner = {}
            with suppress(Exception):  # a disk may be full; the claim ends with this process, too
                self.note(OWNER, None)

    def _refuse_another(self) -> None:
        owner = self.noted(OWNER)
        if owner and alive(owner):
            raise InputError(f"study {self.name} is run by {describe_owner(owner)}; wait for it, or stop it")

    def note(self, name: str, value: Any) -> None:
        """Sets an attribute of the study; `attributes` has their names."""
        self._study.set_user_attr(name, value)

    def noted(self, name: str) -> Any:
        """Returns an attribute of the study, or None."""
        return self._study.user_attrs.get(name)

    def enqueue(self, enqueued: Iterable[EnqueuedTrial]) -> None:
        """Puts given trials into the queue, those that are not in the study yet."""
        present = {(trial.attributes.get("label"), trial.attributes.get("seed")) for trial in self.trials()}
        for trial in enqueued:
            if (trial.label, trial.seed) not in present:
                patience = {} if trial.patience is None else {"patience": trial.patience}
                self._enqueue(trial.params, {"label": trial.label, "seed": trial.seed, **patience})

    def begin_with(self, starts: Iterable[StartingPoint]) -> None:
        """Puts configurations into the queue, those that are not in the study yet."""
        trials = self._study.get_trials(deepcopy=False)
        present = [(attributes_of(trial).get("start"), {**enqueued_params(trial), **trial.params}) for trial in trials]
        for start in starts:
            if not any(source == start.source and start.params.items() <= all_.items() for source, all_ in present):
                self._enqueue(start.params, {"start": start.source})

    def ask(self) -> AskedTrial:
        """Asks for the next trial, one waiting in the queue first; one with a `fault` can only be failed.

        Raises:
            StudyFailedError: Another program added trials before the first one, with which Optuna allows none of ours.
        """
        trial = self._search.ask()
        self._asked[trial.number] = trial
        given = given_params(trial)
        fault = "; ".join(faults_of(given, self._space))
        if not fault:
            try:
                with self._changing(trial.number):
                    suggest(trial, self._distributions)
            except ValueError as error:
                how = f"another program added trials with other distributions ({error})"
                raise StudyFailedError(f"study {self.name}: {how}; begin another one with --study NAME") from error
        if self._counts is not None:  # only counting again tells whether it came out of the queue
            counts = self._counts
            self._counts = None if counts.waiting else replace(counts, running=counts.running + 1)
        attributes = own_attributes(trial.user_attrs)
        return AskedTrial(
            number=trial.number,
            # A value from outside may be 16.0 where the choice is 16.
            params=given if fault else {name: self._space[name].own(value) for name, value in trial.params.items()},
            origin=attributes.get("origin", trial.number),
            retry_of=attributes.get("retry_of"),
            failures=attributes.get("failures", 0),
            seed=attributes.get("seed"),
            patience=attributes.get("patience"),
            label=attributes.get("label"),
            micro_batch=attributes.get("micro_batch"),
            fault=fault,
            start=attributes.get("start"),
        )

    def note_trial(self, number: int, **attributes: Any) -> None:
        """Sets attributes of a trial that has not ended; Optuna allows none later.

        Raises:
            TrialEndedElsewhereError: Another program has ended it; also of each method below that changes a trial.
        """
        with self._changing(number):
            set_trial_attributes(self._study, self._asked.get(number, number), attributes)

    def show_note(self, number: int, text: str) -> None:
        """Writes a note on a trial's page in Optuna's dashboard, as Markdown, unless a person has written one."""
        write_note(self._study, self._asked.get(number, number), text)

    def report(self, number: int, epoch: int, value: float) -> None:
        """Reports the metric after an epoch; nothing with several, since Optuna takes no reports then."""
        if self._several:
            return
        with self._changing(number):
            self._asked[number].report(value, epoch)

    def should_prune(self, number: int) -> bool:
        """Whether a trial should be ended, by what it reported last."""
        return not self._several and self._asked[number].should_prune()

    def complete(self, number: int, value: float | Sequence[float], result: Mapping[str, Any] | None = None) -> None:
        """Ends a trial that trained until its end; `result` is what the training left. Several metrics, as named."""
        self.note_trial(number, result=dict(result or {}))
        self._tell(number, TrialState.COMPLETE, value)

    def prune(self, number: int, result: Mapping[str, Any] | None = None) -> None:
        """Ends a trial early, since others were better."""
        self.note_trial(number, result=dict(result or {}))
        self._tell(number, TrialState.PRUNED)

    def fail(self, number: int) -> None:
        """Ends a trial that failed."""
        self._tell(number, TrialState.FAIL)

    def retry(self, number: int, **attributes: Any) -> bool:
        """Puts a running trial's configuration into the queue again: same hyperparameters, same seed.

        Call it before `fail`: killed in between, the next start finds it queued and does not queue it twice.

        Args:
            number: The trial.
            attributes: What the next attempt is to know beside the seed: `failures`, `micro_batch`.

        Returns:
            Whether there was anything to repeat: a trial that died before it got its hyperparameters had nothing, and
            one that another program asked for may have what the study does not search.
        """
        trials = self._study.get_trials(deepcopy=False)
        trial = trials[number]
        params = {**enqueued_params(trial), **trial.params}
        if not params or (self._space and faults_of(params, self._space)):
            return False
        if all(other.user_attrs.get("retry_of") != number for other in trials):
            own = attributes_of(trial)
            seed = {"seed": own["run"]["params"]["seed"]} if "run" in own else {}
            inherited = {key: own[key] for key in INHERITED if key in own}
            self._enqueue(params, {"origin": number, **seed, **inherited, **attributes, "retry_of": number})
        return True

    def space(self) -> dict[str, Choice | Range]:
        """What its latest trial was drawn from; empty before the first one."""
        trials = self._study.get_trials(deepcopy=False)
        # Others may have added trials with distributions of their own; those that were trained have a run.
        drawn = [trial.distributions for trial in trials if trial.distributions and "run" in attributes_of(trial)]
        drawn = drawn or [trial.distributions for trial in trials if trial.distributions]
        return {name: to_domain(distribution) for name, distribution in drawn[-1].items()} if drawn else {}

    def recently_complete(self) -> list[int]:
        """The numbers of complete trials, of a long study the latest and the best; costs next to nothing."""
        return [trial.number for trial in self._search.get_trials(deepcopy=False, states=COMPLETE)]

    def trials(self) -> list[TrialRecord]:
        """All trials, by number."""
        return [to_record(trial) for trial in self._study.get_trials(deepcopy=False)]

    def trial(self, number: int) -> TrialRecord:
        """One trial; costs the same however many there are."""
        return to_record(read_trial(self._study, self._asked.get(number, number)))

    def counts(self) -> TrialCounts:
        """How many trials there are of each state, counted on from what this process, its only writer, did."""
        if self._counts is None:
            counts = TrialCounts()
            for trial in self.trials():
                counts = counts.plus(trial, maximize=self._maximize)
            self._counts = counts
        return self._counts

    def best(self) -> TrialRecord | None:
        """The complete trial with the best value, the first by number of equals; None before the first one.

        With several metrics it is the one that is chosen by them.
        """
        choice = self.choice()
        return self.counts().best if choice is None else self.trial(choice.chosen.number)

    def how_chosen(self) -> str:
        """How the best trial was chosen by several metrics, a sentence without its end; empty with one."""
        return "" if (choice := self.choice()) is None else choice.sentence

    def choice(self) -> pareto.Choice | None:
        """How a trial is chosen by several metrics; None with one, and before the first complete trial."""
        return chosen_of(self._study.metric_names or (), self.trials()) if self._several else None

    def importances(self) -> dict[str, float]:
        """How much of the value's variance each hyperparameter explains; empty where too few trials differ in value."""
        return study_figures.importances(self._study)

    def figures(self, metric: str) -> dict[str, Figure]:
        """Draws the search, as `study_figures.figures` does; `metric` is what its value is called."""
        return study_figures.figures(self._study, metric, self.choice())

    @property
    def _maximize(self) -> bool:
        return self._study.directions[0] == StudyDirection.MAXIMIZE

    @property
    def _several(self) -> bool:
        return len(self._study.directions) > 1

    def _enqueue(self, params: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        self._study.enqueue_trial(dict(params), user_attrs=dict(attributes))
        self._counts = None
        if isinstance(self._search, BoundedStudy):
            self._search.queued = True

    def _tell(self, number: int, state: TrialState, value: float | Sequence[float] | None = None) -> None:
        with self._changing(number):
            trial = to_record(self._search.tell(number, value, state))
        self._asked.pop(number, None)
        if self._counts is not None:
            counts = replace(self._counts, running=self._counts.running - 1)
            self._counts = counts.plus(trial, maximize=self._maximize)

    @contextmanager
    def _changing(self, number: int) -> Iterator[None]:
        """Says so where a trial cannot be changed because another program has ended it."""
        try:
            yield
        except (UpdateFinishedTrialError, ValueError) as error:
            ended = read_trial(self._study, number)
            if not ended.state.is_finished():
                raise
            self._asked.pop(number, None)
            self._counts = None
            if isinstance(self._search, BoundedStudy):
                self._search.forget_trial(number)
            how = f"another program ended it as {ended.state.name}; it does not count"
            raise TrialEndedElsewhereError(how) from error


def open_study(
    storage: str,
    name: str,
    space: Space,
    *,
    direction: Direction | Sequence[Direction],
    fingerprint: Mapping[str, Any],
    seed: int,
    pruning: Pruning,
    sampler: str = "tpe",
) -> Study:
    """Opens a study, or makes it.

    Args:
        storage: Optuna's storage URL.
        name: The study's name.
        space: What it searches.
        direction: `maximize` or `minimize`; of several metrics, one for each.
        fingerprint: What must not change while a study lives; its trials could not be compared otherwise.
        seed: Seeds the sampler.
        pruning: When trials are ended early.
        sampler: As `sampler_of` takes it.

    Raises:
        InputError: The storage cannot be opened, or the study was begun with another fingerprint; says what differs.
    """
    open_whole("--storage", storage, lambda url: optuna.storages.RDBStorage(url).engine.dispose())
    try:
        opened = open_storage(storage)
        directions: list[Direction] = [direction] if isinstance(direction, str) else list(direction)
        study = make_study(opened, name, directions)
        draws = sampler_of(sampler, seed, len(study.get_trials(deepcopy=False)), space)
        search = BoundedStudy(name, opened, draws, pruning.pruner())
    except Exception as error:  # SQLAlchemy's and each driver's own
        raise InputError(f"--storage {shown(storage)}: cannot be opened ({first_line(error, storage)})") from error
    check_fingerprint(study, {**fingerprint, "space": {key: str(domain) for key, domain in space.items()}})
    names = [fingerprint["metric"], *fingerprint.get("further metrics", ())] if "metric" in fingerprint else []
    name_metrics(study, names)
    return Study(study, space, search)


def stored_studies(storage: str) -> list[Study]:
    """Opens all of a store's studies that sweeps made, to read and to repair them, not to ask for trials.

    Raises:
        InputError: The storage cannot be opened.
    """
    check_database("--storage", storage)
    if (path := file_of(storage)) is not None and not path.exists():
        raise InputError(f"--storage {shown(storage)}: there is no such file")
    try:
        opened = open_storage(storage)
        names = optuna.get_all_study_names(opened)
        studies = [optuna.load_study(study_name=name, storage=opened) for name in names]
    except Exception as error:
        raise InputError(f"--storage {shown(storage)}: cannot be opened ({first_line(error, storage)})") from error
    return [Study(study, {}) for study in studies if ABOUT in study.user_attrs]
