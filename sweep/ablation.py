"""Train one configuration and some that differ from it, all with the same seeds: given trials of an ordinary study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from data.faults import InputError
from sweep.plan import Plan, seed_of
from sweep.space import FIVE, LEVERS, Choice, Listed, Value, decided, study_space

BASE = "as it is"


@dataclass(frozen=True)
class Change:
    """What is tried.

    Attributes:
        label: As it was written: `augmentation=both+schedule=cosine`.
        params: What differs from the base.
    """

    label: str
    params: Mapping[str, Value]


def changes_of(arch: str, written: Sequence[str]) -> tuple[Change, ...]:
    """Reads changes, `name=value` each, several at once with `+` between them.

    Raises:
        InputError: A text cannot be understood, or names what does not exist; all of them are said.
    """
    changes, faults = [], []
    if len(set(written)) < len(written):
        faults.append("--change: one is given twice")
    for text in written:
        parts = text.split("+")
        names = [part.partition("=")[0] for part in parts]
        try:
            space = study_space(arch, fix=parts)
            changes.append(Change(text, {name: decided(space)[name] for name in names}))
        except InputError as error:
            faults += [fault.replace("--fix ", "--change ", 1) for fault in error.faults]
    if faults:
        raise InputError(*faults)
    return tuple(changes)


def plan_of_changes(plan: Plan, changes: Sequence[Change], seeds: int, name: str) -> Plan:
    """Turns a plan of one architecture into one that trains its configuration and each change of it.

    Args:
        plan: As the settings give it; its space leaves no choice in the five hyperparameters.
        changes: What is tried.
        seeds: How often each is trained. The same seeds serve all, so that they are compared pairwise.
        name: Of the study, after its architecture.

    Raises:
        InputError: The base is not fully given.
    """
    (planned,) = plan.studies
    base = {**LEVERS, **decided(planned.space)}
    missing = [name for name in FIVE if name not in base]
    if missing:
        raise InputError(
            f"--fix: an ablation changes one configuration; fix {', '.join(missing)} too, such as --fix {missing[0]}="
            + ("relu" if missing[0] == "activation" else "...")
        )
    everything = (Change(BASE, {}), *changes)
    names = [*FIVE, *(name for name in LEVERS if any(name in change.params for change in everything))]
    names += [name for name in planned.space if name not in names]
    listed = [
        Listed(change.label, {name: {**base, **change.params}[name] for name in names}, seed)
        for index in range(seeds)  # all of them once before any a second time
        for seed in (seed_of(plan.settings.seed, "ablation", index),)
        for change in everything
    ]
    wide = replace(planned, space={name: planned.space.get(name, Choice((base[name],))) for name in names})
    return replace(plan, studies=(wide.of(f"{planned.arch}-{name}", listed),))
