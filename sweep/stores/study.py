"""Optuna: open a study, resume it, ask, report, tell. The study is the truth; everything else mirrors it."""

from __future__ import annotations

import copy
import json
import time
import warnings
from bisect import insort
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import matplotlib as mpl
import optuna
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import InterfaceError, OperationalError

from data.faults import InputError
from sweep.space import Choice, EnqueuedTrial, Range, Space
from sweep.stores.databases import check_database, file_of, is_database, open_whole
from sweep.system.errors import StudyFailedError
from sweep.system.processes import alive, describe_owner, myself
from sweep.system.redaction import first_line, shown

optuna.logging.set_verbosity(optuna.logging.WARNING)

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
FINGERPRINT, ABOUT, OWNER = "sweep.fingerprint", "sweep.about", "sweep.owner"
KEPT = ("seed", "patience", "label", "failures", "micro_batch", "origin")  # from one attempt to the next
RENEW_SECONDS, CONFIRM_SECONDS = 15.0, 0.5
# What sampler and pruner look at: so many of the latest trials, so many of the best before them, who are chosen anew
# whenever so many trials have been added.
LATEST, BEST_EARLIER, AGAIN = 1000, 100, 100
# Seconds, and milliseconds of the last: a machine of PostgreSQL that is gone is noticed within a minute or so.
PATIENCE = {"connect_timeout": 15, "keepalives_idle": 30, "tcp_user_timeout": 60_000}


@dataclass(frozen=True)
class AskedTrial:
    """A trial that Optuna wants to be trained.

    Attributes:
        number: From 0.
        params: Its hyperparameters.
        origin: The first trial of this configuration; its own number where it is the first.
        retry_of: The trial that this one repeats, if it does.
        failures: How often the configuration has failed before.
        seed: The seed to train it with, if it was given one or had got one.
        patience: Its own, if it was given one.
        label: What it was called as it was given.
        micro_batch: As many images at once as memory takes, if that is known.
    """

    number: int
    params: dict[str, Any]
    origin: int
    retry_of: int | None
    failures: int
    seed: int | None
    patience: int | None
    label: str | None
    micro_batch: int | None


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the study remembers it.

    Attributes:
        number: From 0.
        state: `COMPLETE`, `PRUNED`, `FAIL`, `RUNNING` or `WAITING`.
        params: Its hyperparameters.
        value: What it was worth, in the study's metric; None without one.
        reports: The metric by epoch.
        started: In seconds since 1970; None while it waits.
        ended: Likewise; None while it runs.
        attributes: What was noted on it: `origin`, `retry_of`, `run`, `result`, `failure`, ...
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    reports: dict[int, float]
    started: float | None
    ended: float | None
    attributes: dict[str, Any]

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        return None if self.started is None or self.ended is None else self.ended - self.started

    @property
    def origin(self) -> int:
        """The first trial of its configuration."""
        return self.attributes.get("origin", self.number)

    @property
    def history(self) -> list[dict[str, float]]:
        """A row of metrics an epoch, once it has ended."""
        return self.attributes.get("result", {}).get("history", [])

    @property
    def validation(self) -> dict[str, float]:
        """Its validation scores at the epoch whose weights were kept, as `auroc` and `loss`, once it has ended."""
        kept = self.history[(self.best_epoch or 1) - 1]
        return {key.removeprefix("val/"): score for key, score in kept.items() if key.startswith("val/")}

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights were kept, from 1, once it has ended."""
        return self.attributes.get("result", {}).get("best_epoch")


@dataclass(frozen=True)
class TrialCounts:
    """How far a study is.

    Attributes:
        complete: Trials that trained as long as they had to.
        pruned: Trials that were ended early.
        failed: Trials that came to nothing.
        running: Trials in training.
        waiting: Trials in the queue.
        best: The complete trial with the best value; None before the first one.
        seconds: What the complete and pruned ones took together.
    """

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    best: TrialRecord | None = None
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Trials that count towards those that a study is to have."""
        return self.complete + self.pruned


class Study:
    """One study in Optuna's store. Only one process may write it at a time; see `claim`."""

    def __init__(self, study: optuna.Study, space: Space, search: optuna.Study | None = None) -> None:
        """Wraps an Optuna study.

        Args:
            study: The study.
            space: What is searched.
            search: The same study as sampler and pruner are to see it; None for one that is only looked at or mended.
        """
        self._study, self._search = study, search or study
        self._counts: TrialCounts | None = None
        self._distributions = {name: _distribution(domain) for name, domain in space.items()}
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
                directory has decided already, and an old claim only says that a process did not live to give it up.

        Raises:
            InputError: Another process runs the study; says which.
        """
        if shared:
            self._refuse_another()
        self._counts = None  # others may have written until now
        self._forget()
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

    def release(self) -> None:
        """Lets another process have the study."""
        if self._owner:
            self._owner = {}
            with suppress(Exception):  # a disk may be full; the claim ends with this process, too
                self.note(OWNER, None)

    def _refuse_another(self) -> None:
        owner = self.noted(OWNER)
        if owner and alive(owner):
            raise InputError(f"study {self.name} is run by {describe_owner(owner)}; wait for it, or stop it")

    def note(self, name: str, value: Any) -> None:
        """Notes an attribute on the study."""
        self._study.set_user_attr(name, value)

    def noted(self, name: str) -> Any:
        """Returns an attribute of the study, or None."""
        return self._study.user_attrs.get(name)

    def enqueue(self, enqueued: Iterable[EnqueuedTrial]) -> None:
        """Puts given trials into the queue, those that are not in the study yet."""
        known = {(trial.attributes.get("label"), trial.attributes.get("seed")) for trial in self.trials()}
        for trial in enqueued:
            if (trial.label, trial.seed) not in known:
                patience = {} if trial.patience is None else {"patience": trial.patience}
                noted = {"label": trial.label, "seed": trial.seed, **patience}
                self._enqueue(trial.params, noted)

    def ask(self) -> AskedTrial:
        """Asks for the next trial, one waiting in the queue first."""
        trial = self._search.ask(self._distributions)
        self._asked[trial.number] = trial
        noted = trial.user_attrs
        if self._counts is not None:  # one out of the queue is known to be in it no more by counting again
            counts = self._counts
            self._counts = None if counts.waiting else replace(counts, running=counts.running + 1)
        return AskedTrial(
            trial.number,
            trial.params,
            noted.get("origin", trial.number),
            noted.get("retry_of"),
            noted.get("failures", 0),
            noted.get("seed"),
            noted.get("patience"),
            noted.get("label"),
            noted.get("micro_batch"),
        )

    def note_trial(self, number: int, **attributes: Any) -> None:
        """Notes attributes on a trial that has not ended; Optuna allows none later."""
        # Past Optuna's own Trial: that of a process that died cannot be had again without drawing for the sampler.
        identifier = self._identifier(number)
        for name, value in attributes.items():
            self._study._storage.set_trial_user_attr(identifier, name, value)

    def report(self, number: int, epoch: int, value: float) -> None:
        """Reports the metric after an epoch."""
        self._asked[number].report(value, epoch)

    def should_prune(self, number: int) -> bool:
        """Whether a trial should be ended, by what it reported last."""
        return self._asked[number].should_prune()

    def complete(self, number: int, value: float) -> None:
        """Ends a trial that trained as long as it had to."""
        self._tell(number, TrialState.COMPLETE, value)

    def prune(self, number: int) -> None:
        """Ends a trial that was not worth going on with."""
        self._tell(number, TrialState.PRUNED)

    def fail(self, number: int) -> None:
        """Ends a trial that came to nothing."""
        self._tell(number, TrialState.FAIL)

    def retry(self, number: int, **attributes: Any) -> bool:
        """Puts a running trial's configuration into the queue again: same hyperparameters, same seed.

        Call it before `fail`: killed in between, the next start finds it queued and does not queue it twice.

        Args:
            number: The trial.
            attributes: What the next attempt is to know beside the seed: `failures`, `micro_batch`.

        Returns:
            Whether there was anything to repeat; a trial that died before it got its hyperparameters had nothing.
        """
        trials = self._study.get_trials(deepcopy=False)
        trial = trials[number]
        # A queued trial that ended before its parameters were suggested has them only here.
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if not params:
            return False
        if all(other.user_attrs.get("retry_of") != number for other in trials):
            noted = trial.user_attrs
            kept = {key: noted[key] for key in KEPT if key in noted}
            trained = {"seed": noted["run"]["params"]["seed"]} if "run" in noted else {}
            everything = {"origin": number, **trained, **kept, **attributes, "retry_of": number}
            self._enqueue(params, everything)
        return True

    def space(self) -> dict[str, Choice | Range]:
        """What its latest trial was drawn from; empty before the first one."""
        drawn = [trial.distributions for trial in self._study.get_trials(deepcopy=False) if trial.distributions]
        return {name: _domain(distribution) for name, distribution in drawn[-1].items()} if drawn else {}

    def recently_complete(self) -> list[int]:
        """The numbers of complete trials, of a long study the latest and the best; costs next to nothing."""
        return [trial.number for trial in self._search.get_trials(deepcopy=False, states=DONE[:1])]

    def trials(self) -> list[TrialRecord]:
        """All trials, by number."""
        return [_recorded(trial) for trial in self._study.get_trials(deepcopy=False)]

    def trial(self, number: int) -> TrialRecord:
        """One trial; costs the same however many there are."""
        return _recorded(self._study._storage.get_trial(self._identifier(number)))

    def counts(self) -> TrialCounts:
        """How far the study is, counted on from what this process, its only writer, did; see `claim`."""
        if self._counts is None:
            counts = TrialCounts()
            for trial in self.trials():
                counts = self._counted(counts, trial)
            self._counts = counts
        return self._counts

    def best(self) -> TrialRecord | None:
        """The complete trial with the best value, the first of equals; None before the first one."""
        return self.counts().best

    def _enqueue(self, params: Mapping[str, Any], noted: Mapping[str, Any]) -> None:
        self._study.enqueue_trial(dict(params), user_attrs=dict(noted))
        self._counts = None
        if isinstance(self._search, _Search):
            self._search.queued = True

    def _forget(self) -> None:
        if isinstance(self._search, _Search):
            self._search.forget()

    def _identifier(self, number: int) -> int:
        if number in self._asked:
            return self._asked[number]._trial_id
        return self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)

    def _tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        told = _recorded(self._search.tell(number, value, state))
        self._asked.pop(number, None)
        if self._counts is not None:
            self._counts = self._counted(replace(self._counts, running=self._counts.running - 1), told)

    def _counted(self, counts: TrialCounts, trial: TrialRecord) -> TrialCounts:
        """A counts with one trial more."""
        name = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}.get(trial.state)
        name = name or "waiting"
        counted = replace(counts, **{name: getattr(counts, name) + 1})
        if trial.state in ("COMPLETE", "PRUNED"):
            counted = replace(counted, seconds=counts.seconds + (trial.seconds or 0.0))
        if trial.state == "COMPLETE" and self._better(trial, counts.best):
            counted = replace(counted, best=trial)
        return counted

    def _better(self, trial: TrialRecord, best: TrialRecord | None) -> bool:
        if best is None or best.value is None or trial.value is None:
            return True
        maximize = self._study.direction == optuna.study.StudyDirection.MAXIMIZE
        return trial.value > best.value if maximize else trial.value < best.value

    def importances(self) -> dict[str, float]:
        """How much of the value's variance each hyperparameter explains; empty where too few trials tell."""
        values = {trial.value for trial in self.trials() if trial.state == "COMPLETE"}
        if len(values) < 2:  # where all are the same nothing made a difference
            return {}
        with warnings.catch_warnings(record=True):  # Optuna calls its own default experimental
            return {name: float(share) for name, share in optuna.importance.get_param_importances(self._study).items()}

    def figures(self, metric: str) -> dict[str, Figure]:
        """Draws Optuna's history, importance, parallel coordinate and timeline plots, those that the trials allow.

        Args:
            metric: What the study's value is called.
        """
        import optuna.visualization.matplotlib as plots

        mpl.use("agg")
        from matplotlib import pyplot

        values = {trial.value for trial in self.trials() if trial.state == "COMPLETE"}
        wanted = {}
        if values:
            wanted["history"] = partial(plots.plot_optimization_history, target_name=metric)
            wanted["timeline"] = plots.plot_timeline
        if len(values) > 1:  # where all are the same nothing made a difference
            wanted["importance"] = partial(plots.plot_param_importances, target_name=metric)
            wanted["parallel_coordinate"] = partial(plots.plot_parallel_coordinate, target_name=metric)
        figures: dict[str, Figure] = {}
        for name, plot in wanted.items():
            # Optuna calls its own plots experimental, and leaves their style to whatever is drawn next.
            with warnings.catch_warnings(record=True), mpl.rc_context():
                figure = plot(self._study).figure
            figure.set_size_inches(9, 5)
            figure.set_layout_engine("tight")
            for axes in figure.axes:
                axes.set_facecolor("white")
                for lines in axes.collections:
                    if lines.get_array() is not None:
                        lines.set_cmap("viridis_r")  # Optuna's own fades to white
                if axes.get_label() != "<colorbar>":
                    axes.grid(visible=True, color="#e5e7eb")
            figures[name] = figure
            pyplot.close(figure)  # Optuna opens them in pyplot, which would keep them for ever
        return figures


def open_study(
    storage: str,
    name: str,
    space: Space,
    *,
    direction: Literal["maximize", "minimize"],
    fingerprint: Mapping[str, Any],
    seed: int,
    pruner: str,
    warmup: int,
    epochs: int,
) -> Study:
    """Opens a study, or makes it.

    Args:
        storage: Optuna's storage URL.
        name: The study's name.
        space: What it searches.
        direction: `maximize` or `minimize`.
        fingerprint: What must not change while a study lives; its trials would not compare otherwise.
        seed: Seeds the sampler.
        pruner: `median`, `hyperband` or `none`.
        warmup: Epochs before a trial can be pruned.
        epochs: Epochs of a trial at most.

    Raises:
        InputError: The storage cannot be opened, or the study was begun with another fingerprint; says what differs.
    """
    # Epochs count from 1, and a pruner may act at its warm-up step itself.
    pruners: dict[str, optuna.pruners.BasePruner] = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup + 1),
        "hyperband": optuna.pruners.HyperbandPruner(min_resource=warmup + 1, max_resource=max(epochs, warmup + 1)),
        "none": optuna.pruners.NopPruner(),
    }
    open_whole("--storage", storage, lambda url: optuna.storages.RDBStorage(url).engine.dispose())
    try:
        study = optuna.create_study(
            storage=_opened(storage),
            study_name=name,
            load_if_exists=True,
            direction=direction,
            pruner=pruners[pruner],
        )
        # A sampler that started with the same seed again would repeat the draws of the first trials.
        sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
        search = _Search(name, study._storage, sampler, study.pruner)
    except Exception as error:  # SQLAlchemy's and each driver's own
        raise InputError(f"--storage {shown(storage)}: cannot be opened ({first_line(error, storage)})") from error
    wanted = json.loads(json.dumps({**fingerprint, "space": {key: str(domain) for key, domain in space.items()}}))
    found = study.user_attrs.get(FINGERPRINT)
    # A command that was refused for something else may have left one, but no trials.
    if found is None or not study.get_trials(deepcopy=False):
        study.set_user_attr(FINGERPRINT, wanted)
    elif found != wanted:
        differing = [
            f"study {name} was begun with {key} {_said(found.get(key))}, not {_said(wanted.get(key))}"
            for key in sorted(found.keys() | wanted.keys())
            if found.get(key) != wanted.get(key)
        ]
        raise InputError(*differing, "go on with what it was begun with, or begin another one with --study NAME")
    return Study(study, space, search)


def _opened(storage: str) -> optuna.storages.BaseStorage | str:
    """A storage as Optuna takes it."""
    if not is_database(storage):
        return storage
    # An epoch may take longer than a firewall keeps a silent connection: each is tried before it is used.
    limits = {"connect_args": PATIENCE} if storage.startswith("postgresql") else {}
    return optuna.storages.RDBStorage(storage, engine_kwargs={"pool_pre_ping": True, **limits})


class _Search(optuna.Study):
    """A study as its sampler and its pruner see it, from what this process, its only writer, did itself.

    Optuna reads every trial that has not ended from the database again whenever anybody asks for trials, several times
    for each one asked and at each verdict of the pruner: with 256 at once that is most of what the loop does. Here the
    store is read once, and then told and asked trials are remembered.

    Of a long study they see the latest trials, and the best of those before. What both cost grows with the trials that
    they look at: at 10,000 an unbounded TPE and the median pruner take three times as long for a trial as everything
    else together (benchmarks/README.md). Up to `LATEST` trials nothing is left out.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.forget()

    def forget(self) -> None:
        """Has the store be read again: others may have written."""
        self._ended: list[FrozenTrial] | None = None  # by number
        self._running: dict[int, optuna.Trial] = {}
        self._best: tuple[int, list[FrozenTrial]] = (0, [])  # of how many earlier trials, and these
        self._complete: list[FrozenTrial] | None = None  # what the median pruner asks for after each epoch
        self.queued = True  # whether a trial may wait in the store

    def ask(self, *arguments: Any, **named: Any) -> optuna.Trial:
        trial = super().ask(*arguments, **named)
        self._running[trial.number] = trial
        return trial

    def tell(self, *arguments: Any, **named: Any) -> FrozenTrial:
        told = super().tell(*arguments, **named)
        self._running.pop(told.number, None)
        if self._ended is not None:
            insort(self._ended, told, key=lambda trial: trial.number)
        self._complete = None
        return told

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return self._get_trials(deepcopy, states)

    def _pop_waiting_trial_id(self) -> int | None:
        popped = super()._pop_waiting_trial_id() if self.queued else None
        self.queued = popped is not None
        return popped

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        if self._complete is not None and states == DONE[:1] and not deepcopy:
            return self._complete
        if self._ended is None:
            self._ended = [trial for trial in super()._get_trials(deepcopy=False) if trial.state.is_finished()]
        running = [trial._cached_frozen_trial for trial in self._running.values()]
        trials = sorted([*self._ended, *running], key=lambda trial: trial.number)
        if len(trials) > LATEST:
            earlier = (len(trials) - LATEST) // AGAIN * AGAIN
            if earlier != self._best[0]:
                self._best = (earlier, self._best_of(trials[:earlier]))
            trials = [*self._best[1], *trials[earlier:]]
        chosen = [trial for trial in trials if states is None or trial.state in states]
        if states == DONE[:1]:
            self._complete = chosen
        return copy.deepcopy(chosen) if deepcopy else chosen

    def _best_of(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """The best complete ones of some trials, by number, as samplers want them."""
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        maximize = self.direction == optuna.study.StudyDirection.MAXIMIZE
        ranked = sorted(complete, key=lambda trial: trial.value or 0.0, reverse=maximize)
        return sorted(ranked[:BEST_EARLIER], key=lambda trial: trial.number)


def _distribution(domain: Any) -> optuna.distributions.BaseDistribution:
    if isinstance(domain, Choice):
        return optuna.distributions.CategoricalDistribution(list[Any](domain.values))
    return optuna.distributions.FloatDistribution(domain.low, domain.high, log=domain.log)


def _domain(distribution: Any) -> Choice | Range:
    """The way back of `_distribution`."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        choices: tuple[Any, ...] = tuple(distribution.choices)
        return Choice(choices)
    return Range(distribution.low, distribution.high, distribution.log)


def stored_studies(storage: str) -> list[Study]:
    """Opens all of a store's studies that sweeps made, to look at them and to mend them, not to ask.

    Raises:
        InputError: The storage cannot be opened.
    """
    check_database("--storage", storage)
    if (path := file_of(storage)) is not None and not path.exists():
        raise InputError(f"--storage {shown(storage)}: there is no such file")
    try:
        opened = optuna.storages.get_storage(_opened(storage))
        names = optuna.get_all_study_names(opened)
        studies = [optuna.load_study(study_name=name, storage=opened) for name in names]
    except Exception as error:
        raise InputError(f"--storage {shown(storage)}: cannot be opened ({first_line(error, storage)})") from error
    return [Study(study, {}) for study in studies if ABOUT in study.user_attrs]


def storage_away(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the study's database server does not answer."""
    while error is not None:
        if type(error).__module__.startswith("mlflow."):
            return False  # it is MLflow's database
        if isinstance(error, (OperationalError, InterfaceError)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _recorded(trial: FrozenTrial) -> TrialRecord:
    return TrialRecord(
        trial.number,
        trial.state.name,
        trial.params,
        trial.value if trial.state in DONE else None,
        trial.intermediate_values,
        trial.datetime_start.timestamp() if trial.datetime_start else None,
        trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        trial.user_attrs,
    )


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {part}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)
