"""Optuna: open a study, resume it, ask, report, tell. The study is the truth; everything else mirrors it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import matplotlib as mpl
import optuna
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from data.faults import InputError
from sweep.space import Choice, Space

optuna.logging.set_verbosity(optuna.logging.WARNING)

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
FINGERPRINT = "sweep.fingerprint"


@dataclass(frozen=True)
class Asked:
    """A trial that Optuna wants to be trained.

    Attributes:
        number: From 0.
        params: Its hyperparameters.
        retry_of: The trial that this one repeats, if it does.
        seed: The seed to repeat it with, likewise.
    """

    number: int
    params: dict[str, Any]
    retry_of: int | None
    seed: int | None


@dataclass(frozen=True)
class Recorded:
    """A trial as the study remembers it.

    Attributes:
        number: From 0.
        state: `COMPLETE`, `PRUNED`, `FAIL`, `RUNNING` or `WAITING`.
        params: Its hyperparameters.
        value: What it was worth, in the study's metric; None without one.
        seconds: How long it took; None while it runs.
        attributes: What was noted on it: `run_id`, `best_epoch`, `history`, `reason`, ...
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    seconds: float | None
    attributes: dict[str, Any]


class Study:
    """One study in Optuna's store. Only one process may write it at a time."""

    def __init__(self, study: optuna.Study, space: Space) -> None:
        self._study = study
        self._distributions = {name: _distribution(domain) for name, domain in space.items()}
        self._asked: dict[int, optuna.Trial] = {}

    @property
    def name(self) -> str:
        """The study's full name."""
        return self._study.study_name

    def note(self, name: str, value: Any) -> None:
        """Notes an attribute on the study."""
        self._study.set_user_attr(name, value)

    def noted(self, name: str) -> Any:
        """Returns an attribute of the study, or None."""
        return self._study.user_attrs.get(name)

    def ask(self) -> Asked:
        """Asks for the next trial, one waiting in the queue first."""
        trial = self._study.ask(self._distributions)
        self._asked[trial.number] = trial
        return Asked(trial.number, trial.params, trial.user_attrs.get("retry_of"), trial.user_attrs.get("seed"))

    def note_trial(self, number: int, **attributes: Any) -> None:
        """Notes attributes on a trial that this process asked for and has not ended."""
        for name, value in attributes.items():
            self._asked[number].set_user_attr(name, value)

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Reports the metric after an epoch; returns whether the trial should be pruned."""
        self._asked[number].report(value, epoch)
        return self._asked[number].should_prune()

    def complete(self, number: int, value: float) -> None:
        """Ends a trial that trained as long as it had to."""
        self._study.tell(number, value)

    def prune(self, number: int) -> None:
        """Ends a trial that was not worth going on with."""
        self._study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int) -> None:
        """Ends a trial that came to nothing."""
        self._study.tell(number, state=TrialState.FAIL)

    def retry(self, number: int) -> None:
        """Puts a trial into the queue again: same hyperparameters, same seed."""
        trial = self._study.get_trials(deepcopy=False)[number]
        # A queued trial that ended before its parameters were suggested has them only here.
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        self._study.enqueue_trial(params, user_attrs={"retry_of": number, "seed": trial.user_attrs["seed"]})

    def trials(self) -> list[Recorded]:
        """All trials, by number."""
        return [_recorded(trial) for trial in self._study.get_trials(deepcopy=False)]

    def best(self) -> Recorded | None:
        """The complete trial with the best value; None before the first one."""
        with suppress(ValueError):  # Optuna's way to say that no trial is complete
            return _recorded(self._study.best_trial)
        return None

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
            with warnings.catch_warnings(record=True):  # Optuna calls its own plots experimental
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
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            load_if_exists=True,
            direction=direction,
            pruner=pruners[pruner],
        )
        # A sampler that started with the same seed again would repeat the draws of the first trials.
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
    except Exception as error:  # SQLAlchemy's and each driver's own
        raise InputError(f"--storage {storage}: cannot be opened ({_first_line(error)})") from error
    wanted = json.loads(json.dumps({**fingerprint, "space": {key: str(domain) for key, domain in space.items()}}))
    found = study.user_attrs.get(FINGERPRINT)
    if found is None:
        study.set_user_attr(FINGERPRINT, wanted)
    elif found != wanted:
        differing = [
            f"study {name} was begun with {key} {_said(found.get(key))}, not {_said(wanted.get(key))}"
            for key in sorted(found.keys() | wanted.keys())
            if found.get(key) != wanted.get(key)
        ]
        raise InputError(*differing, "go on with what it was begun with, or begin another one with --study NAME")
    return Study(study, space)


def _distribution(domain: Any) -> optuna.distributions.BaseDistribution:
    if isinstance(domain, Choice):
        return optuna.distributions.CategoricalDistribution(list[Any](domain.values))
    return optuna.distributions.FloatDistribution(domain.low, domain.high, log=domain.log)


def _recorded(trial: FrozenTrial) -> Recorded:
    return Recorded(
        trial.number,
        trial.state.name,
        trial.params,
        trial.value if trial.state in DONE else None,
        trial.duration.total_seconds() if trial.duration else None,
        trial.user_attrs,
    )


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {part}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
