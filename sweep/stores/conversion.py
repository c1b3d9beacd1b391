"""Between Optuna's objects and the project's own: domains and distributions, trials and their records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial

from sweep.space import Choice, Range
from sweep.stores.bounded_study import ended_elsewhere
from sweep.stores.trial_attributes import joined_attributes
from sweep.stores.trials import TrialRecord

KINDS = {
    "seed": int,
    "patience": int,
    "failures": int,
    "micro_batch": int,
    "origin": int,
    "retry_of": int,
    "label": str,
    "start": str,
}
KINDS |= {"run": dict, "result": dict, "failure": dict}


def to_distribution(domain: Choice | Range) -> BaseDistribution:
    """What Optuna draws a hyperparameter from."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(list[Any](domain.values))
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def to_domain(distribution: Any) -> Choice | Range:
    """The way back of `to_distribution`."""
    if isinstance(distribution, CategoricalDistribution):
        choices: tuple[Any, ...] = tuple(distribution.choices)
        return Choice(choices)
    return Range(distribution.low, distribution.high, distribution.log)


def to_record(trial: FrozenTrial) -> TrialRecord:
    """What is recorded of a trial; one that another program ended counts as failed."""
    state, attributes = trial.state.name, attributes_of(trial)
    if ended_elsewhere(trial):
        reason = f"another program ended or added it as {state}; it was not trained here and does not count"
        state, attributes["failure"] = "FAIL", {"cause": "not trained here", "reason": reason}
    elif state == "FAIL":
        attributes.setdefault("failure", {"cause": "not trained here", "reason": "another program ended it"})
    values = tuple(trial.values or ()) if state in ("COMPLETE", "PRUNED") else ()
    return TrialRecord(
        number=trial.number,
        state=state,
        params=trial.params,
        value=values[0] if values else None,
        reports=trial.intermediate_values,
        started=trial.datetime_start.timestamp() if trial.datetime_start else None,
        ended=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        attributes=attributes,
        values=values,
    )


def attributes_of(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's attributes, however they are stored, without those of another program."""
    return own_attributes(joined_attributes(trial.user_attrs, trial.system_attrs))


def own_attributes(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's attributes without those of another program that share a name with one of ours, but not its type."""
    return {name: value for name, value in stored.items() if isinstance(value, KINDS.get(name, object))}
