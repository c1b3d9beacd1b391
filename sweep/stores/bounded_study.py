"""A study as Optuna's sampler and pruner see it, and what else needs Optuna's private attributes.

No other file of the project touches them. `tests/stores/test_bounded_study.py` checks that each of them does in the
installed Optuna what is relied on here; pyproject.toml allows no newer Optuna than was checked.
"""

from __future__ import annotations

import copy
from bisect import insort
from collections.abc import Container, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweep.stores.trial_attributes import PREFIX, split_attribute

COMPLETE = (TrialState.COMPLETE,)
# Sampler and pruner see the latest `LATEST` trials and the `BEST_EARLIER` best of those before, which are chosen again
# after every `REFRESH_EVERY` trials.
LATEST, BEST_EARLIER, REFRESH_EVERY = 1000, 100, 100


class BoundedStudy(optuna.Study):
    """A study as its sampler and its pruner see it, kept in the memory of this process, its only writer.

    Optuna reads every trial that has not ended from the database again whenever anybody asks for trials, several times
    for each one asked and at each verdict of the pruner: with 256 at once that is most of what the loop does. Here the
    store is read once; trials that were asked and told since are remembered.

    Of a long study they see the latest trials, and the best of those before. What both cost grows with the trials that
    they look at: at 10,000 an unbounded TPE and the median pruner take three times as long for a trial as everything
    else together (benchmarks/README.md). Up to `LATEST` trials nothing is left out. The hyperband pruner is not
    bounded: it makes studies of its own, which read the store, and has the sampler look at those.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.forget()

    def forget(self) -> None:
        """Has the store be read again: others may have written."""
        self._ended: list[FrozenTrial] | None = None  # by number
        self._running: dict[int, optuna.Trial] = {}
        self._best: tuple[int, list[FrozenTrial]] = (0, [])  # of how many earlier trials, and these
        self._complete: list[FrozenTrial] | None = None  # what the median pruner asks for after each epoch
        self.queued = True  # whether a trial may wait in the store

    def forget_trial(self, number: int) -> None:
        """Forgets a trial that another program has ended."""
        self._running.pop(number, None)

    def stop(self) -> None:
        """Does nothing: samplers of finite spaces call it after the last combination, and the loop counts trials."""

    def ask(self, *arguments: Any, **named: Any) -> optuna.Trial:
        """As Optuna's own; the trial is remembered."""
        trial = super().ask(*arguments, **named)
        self._running[trial.number] = trial
        return trial

    def tell(self, *arguments: Any, **named: Any) -> FrozenTrial:
        """As Optuna's own; how the trial ended is remembered."""
        ended = super().tell(*arguments, **named)
        self._running.pop(ended.number, None)
        if self._ended is not None:
            insort(self._ended, ended, key=lambda trial: trial.number)
        self._complete = None
        return ended

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """As Optuna's own, of the trials that sampler and pruner are to see."""
        return self._get_trials(deepcopy, states)

    def _pop_waiting_trial_id(self) -> int | None:
        popped = super()._pop_waiting_trial_id() if self.queued else None
        self.queued = popped is not None
        return popped

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        if self._complete is not None and states == COMPLETE and not deepcopy:
            return self._complete
        if self._ended is None:
            trials = super()._get_trials(deepcopy=False)
            self._ended = [trial for trial in trials if trial.state.is_finished() and not ended_elsewhere(trial)]
        running = [trial._cached_frozen_trial for trial in self._running.values()]
        trials = sorted([*self._ended, *running], key=lambda trial: trial.number)
        if len(trials) > LATEST:
            earlier = (len(trials) - LATEST) // REFRESH_EVERY * REFRESH_EVERY
            if earlier != self._best[0]:
                self._best = (earlier, self._best_of(trials[:earlier]))
            trials = [*self._best[1], *trials[earlier:]]
        chosen = [trial for trial in trials if states is None or trial.state in states]
        if states == COMPLETE:
            self._complete = chosen
        return copy.deepcopy(chosen) if deepcopy else chosen

    def _best_of(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """The best complete ones of some trials by the first metric, by number; of equals the first by number."""
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        maximize = self.directions[0] == StudyDirection.MAXIMIZE
        ranked = sorted(complete, key=lambda trial: trial.values[0], reverse=maximize)
        return sorted(ranked[:BEST_EARLIER], key=lambda trial: trial.number)


def read_trial(study: optuna.Study, trial: optuna.Trial | int) -> FrozenTrial:
    """Reads one trial from the store; costs the same however many there are."""
    return study._storage.get_trial(_identifier(study, trial))


def set_trial_attributes(study: optuna.Study, trial: optuna.Trial | int, attributes: Mapping[str, Any]) -> None:
    """Sets attributes of a trial that has not ended; Optuna allows none later.

    Past `optuna.Trial`: the one of a process that died cannot be had again without a draw of the sampler.
    """
    identifier = _identifier(study, trial)
    for name, value in attributes.items():
        shown, hidden = split_attribute(name, value)
        if hidden is not None:
            study._storage.set_trial_system_attr(identifier, f"{PREFIX}{name}", hidden)
        if shown is not None:
            study._storage.set_trial_user_attr(identifier, name, shown)


def write_note(study: optuna.Study, trial: optuna.Trial | int, text: str) -> None:
    """Writes the note on a trial's page in Optuna's dashboard, where it stores that itself (its `save_note`).

    Args:
        study: The study.
        trial: The trial; one that has ended, too.
        text: A link in Markdown. A note that is there stays; one that begins with a link of the same words gets this.
    """
    identifier = _identifier(study, trial)
    version, body = f"dashboard:{identifier}:note_ver", f"dashboard:{identifier}:note_str:0"
    # Nobody can have written about a trial that was drawn a moment ago; reading all notes would take ever longer.
    drawn = isinstance(trial, optuna.Trial) and "fixed_params" not in trial._cached_frozen_trial.system_attrs
    stored = {} if drawn else study._storage.get_study_system_attrs(study._study_id)
    note, words = stored.get(body, ""), text.partition("(")[0]
    if not note or note.startswith(words):
        study._storage.set_study_system_attr(study._study_id, body, text + note.partition(")")[2])
        study._storage.set_study_system_attr(study._study_id, version, stored.get(version, 0) + 1)


def ended_elsewhere(trial: FrozenTrial) -> bool:
    """Whether another program ended or added a trial: it has a value, but nothing that a training leaves.

    Its distributions and values need not be those of the study, so the sampler could not even read it.
    """
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and not isinstance(
        trial.user_attrs.get("result"), dict
    )


def given_params(trial: optuna.Trial) -> dict[str, Any]:
    """The hyperparameters that a trial has when it is asked for: none, unless it waited in the queue."""
    waiting = trial._cached_frozen_trial
    return {**enqueued_params(waiting), **waiting.params}


def suggest(trial: optuna.Trial, distributions: Mapping[str, BaseDistribution]) -> None:
    """Gives a trial its hyperparameters, as `Study.ask` does where it is told the distributions.

    Raises:
        ValueError: This trial, or an earlier one of the study, has other distributions.
    """
    for name, distribution in distributions.items():
        trial._suggest(name, distribution)


def enqueued_params(trial: FrozenTrial) -> dict[str, Any]:
    """The hyperparameters that a trial was enqueued with, also where it ended before they were suggested."""
    return trial.system_attrs.get("fixed_params", {})


def _identifier(study: optuna.Study, trial: optuna.Trial | int) -> int:
    """The id of a trial in the store, by its number or, without a query, by Optuna's own object."""
    if isinstance(trial, optuna.Trial):
        return trial._trial_id
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, trial)
