"""Train one configuration and some changes of it, all with the same seeds: enqueued trials of an ordinary study."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from data.faults import InputError
from sweep.comparisons.ablation.analysis import Variant, rows, to_markdown
from sweep.comparisons.enqueued import EnqueuedResult
from sweep.comparisons.run_log import log_run
from sweep.metrics.names import sign_of
from sweep.orchestrator.run_params import leakage_tags
from sweep.plan import Plan, leakage_paragraphs, seed_of
from sweep.space import EXTRA, FIVE, Choice, Value, decided, study_space
from sweep.stores import tags as tag
from sweep.stores.tracking import Tracking
from sweep.stores.trials import EnqueuedTrial

BASE = "as it is"


@dataclass(frozen=True)
class Change:
    """A change of the configuration.

    Attributes:
        label: As it was typed: `augmentation=both+schedule=cosine`.
        params: What differs from the base.
    """

    label: str
    params: Mapping[str, Value]


def changes_of(arch: str, texts: Sequence[str]) -> tuple[Change, ...]:
    """Reads changes, `name=value` each, several at once with `+` between them.

    Raises:
        InputError: A text cannot be understood, or names what does not exist; with every fault.
    """
    changes, faults = [], []
    if len(set(texts)) < len(texts):
        faults.append("--change: one is given twice")
    for text in texts:
        parts = re.split(r"\+(?=[a-z_]+=)", text)  # not within 1e+3
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
        changes: The changes.
        seeds: How often each is trained. The same seeds serve all, so that they are compared pairwise.
        name: Of the study, after its architecture.

    Raises:
        InputError: The base is not fully given, a change is none, or a batch is larger than the training set.
    """
    (planned,) = plan.studies
    base = {**EXTRA, **decided(planned.space)}
    missing = [name for name in FIVE if name not in base]
    if missing:
        raise InputError(
            f"--fix: an ablation changes one configuration; fix {', '.join(missing)} too, such as --fix {missing[0]}="
            + ("relu" if missing[0] == "activation" else "...")
        )
    by_label, faults = {BASE: base}, []
    for change in changes:
        params = {**base, **change.params}
        twin = next((label for label, other in by_label.items() if other == params), None)
        if twin is not None:
            faults.append(f"--change {change.label}: that is {'the configuration itself' if twin == BASE else twin}")
        by_label[change.label] = params
        if int(params["batch_size"]) > len(plan.split.train):
            faults.append(f"--change {change.label}: the training set has {len(plan.split.train):,} images")
    if faults:
        raise InputError(*faults)
    everything = (Change(BASE, {}), *changes)
    names = [*FIVE, *(name for name in EXTRA if any(name in change.params for change in everything))]
    names += [name for name in planned.space if name not in names]
    enqueued = [
        EnqueuedTrial(change.label, {name: {**base, **change.params}[name] for name in names}, seed)
        for index in range(seeds)  # all of them once before any a second time
        for seed in (seed_of(plan.settings.seed, "ablation", index),)
        for change in everything
    ]
    wide = replace(planned, space={name: planned.space.get(name, Choice((base[name],))) for name in names})
    return replace(plan, studies=(wide.of(f"{planned.short_arch}-{name}", enqueued),))


def variants_of(study: EnqueuedResult, changes: Sequence[Change]) -> list[Variant]:
    """The base and its changes with their results, in the order in which they were given."""
    return [Variant(label, study.tested(label)) for label in (BASE, *(change.label for change in changes))]


def log(variants: Sequence[Variant], plan: Plan, tracking: Tracking) -> tuple[str, list[dict[str, Any]], str]:
    """Logs an ablation as a run of its own.

    Returns:
        The run's id, one row per variant as plain data, and the page in Markdown.
    """
    settings, (planned,) = plan.settings, plan.studies
    metric, sign = settings.metric.removeprefix("val/"), sign_of(settings.metric)
    lines = rows(variants, metric, sign)
    fixed = dict(planned.enqueued[0].params)
    page = "\n\n".join(
        (
            f"# Changes of one configuration: {plan.full_name(planned)}",
            f"{planned.short_arch}, {', '.join(f'{name} {value}' for name, value in fixed.items())}; "
            f"{plan.source.name}, {planned.image_size} x {planned.image_size} pixels, up to {settings.epochs} epochs, "
            f"patience {settings.patience}, split seed {settings.split_seed}. Gains are means over seeds of the "
            "difference to the same seed without the change, with 95 % intervals (Student's t) over seeds, "
            "not over patients. They are not corrected for multiple comparisons: of twenty changes without effect "
            "about one seems to have one. Validation decides; test can only contradict it.",
            *leakage_paragraphs(plan),
            to_markdown(lines, metric),
        )
    )
    page += "\n"
    common = {"study": plan.full_name(planned), "epochs": settings.epochs, "patience": settings.patience}
    run_id = log_run(
        tracking,
        f"ablation-{planned.name}",
        {
            tag.KIND: "ablation",
            tag.ARCH: planned.short_arch,
            tag.DATA: plan.source.name,
            tag.DATA_DIGEST: plan.source.digest,
            tag.SPLIT_DIGEST: plan.split.digest,
            **leakage_tags(plan),
        },
        params={**common, "metric": settings.metric, "image_size": planned.image_size, **fixed},
        metrics={
            f"{line['change'].replace('=', '_').replace('+', '_').replace(' ', '_')}/{name}": line[name]
            for line in lines
            if line["seeds"]
            for name in ("validation", "test_accuracy", "test_auroc")
        },
        files={
            "ablation.md": page,
            "changes.json": pd.DataFrame([{**line, "gaps": str(line["gaps"])} for line in lines]),
        },
        page="ablation.md",
    )
    return run_id, lines, page
