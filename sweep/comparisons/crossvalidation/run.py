"""Train the best trials of a search again on each fold of patients: enqueued trials of one study per fold."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from data.faults import InputError
from data.leakage import OPTION
from data.listing import path_of
from data.recorded import open_recorded
from data.sources import PATIENT_PATTERN
from data.splits import split_source
from models import architecture
from sweep.comparisons.crossvalidation.analysis import Choice, Finalist, choose, rows, sentences, to_markdown
from sweep.comparisons.enqueued import EnqueuedResult
from sweep.comparisons.run_log import log_run
from sweep.metrics.formatting import format_metric
from sweep.metrics.names import sign_of
from sweep.orchestrator.run_params import (
    StudyDescription,
    depth_of,
    description_of,
    leakage_tags,
    refuse_other_pixels,
    settings_of,
)
from sweep.plan import Plan, leakage_paragraphs, make_plan, seed_of
from sweep.settings import Settings
from sweep.stores import tags as tag
from sweep.stores.study import Study
from sweep.stores.tracking import Tracking
from sweep.stores.trials import EnqueuedTrial, TrialRecord

KIND = "crossvalidation"


@dataclass(frozen=True)
class Searched:
    """A study that has searched.

    Attributes:
        study: The study.
        description: What it stores about itself.
        complete: Its complete trials, the best first, one per configuration.
    """

    study: Study
    description: StudyDescription
    complete: tuple[TrialRecord, ...]

    @property
    def metric(self) -> str:
        """The metric that it chose by."""
        return self.description.metric

    @property
    def sign(self) -> int:
        """1 where more of it is better, else -1."""
        return sign_of(self.metric)

    def run_name(self, trial: TrialRecord) -> str:
        """The name of a trial's run."""
        return self.description.run_name(trial.number)


def searched(studies: Sequence[Study], name: str | None, command: str = "crossvalidate") -> Searched:
    """Finds a study that has searched, and its complete trials.

    Args:
        studies: Those of Optuna's store.
        name: With its experiment or without; None for the only one there is.
        command: What was typed, for errors.

    Raises:
        InputError: There is none such, or several.
    """
    searches = {
        study.name: study for study in studies if any("label" not in trial.attributes for trial in study.trials())
    }
    there = ", ".join(searches) or "none"
    if name is None:  # a single configuration, trained as this command advises, is no search
        searches = {full: study for full, study in searches.items() if len(_configurations(study)) > 1}
    matching = [full for full in searches if name in (None, full, full.rpartition("/")[2])]
    if not matching:
        raise InputError(f"{name or 'STUDY'}: there is no such study with a search; there are: {there}")
    if len(matching) > 1:
        raise InputError(f"there are several studies: {', '.join(matching)}; name one: sweep {command} STUDY")
    study = searches[matching[0]]
    complete = _configurations(study)
    if not complete:
        raise InputError(f"{study.name}: none of its trials is complete, so there is nothing to choose from")
    return Searched(study, description_of(study), complete)


def _configurations(study: Study) -> tuple[TrialRecord, ...]:
    """A study's complete trials, the best first; of those with the same hyperparameters the best alone."""
    sign = sign_of(description_of(study).metric)
    complete = [trial for trial in study.trials() if trial.state == "COMPLETE" and trial.value is not None]
    best: dict[tuple[tuple[str, Any], ...], TrialRecord] = {}
    for trial in sorted(complete, key=lambda trial: (-sign * (trial.value or 0.0), trial.number)):
        best.setdefault(tuple(sorted(trial.params.items())), trial)
    return tuple(best.values())


def plan_of_search(search: Searched, location: Path | None, trials: int, machine: Mapping[str, Any]) -> Plan:
    """Plans to train as a search trained, on the same images.

    Args:
        search: The study.
        location: Where its images are; None for where they were.
        trials: How many trials.
        machine: Settings of the machine and its stores: workers, device, tracking_uri, storage; and what else is to be
            different.

    Raises:
        InputError: The images are not those that it learned from.
    """
    data, params = search.description.data, search.complete[0].attributes["run"]["params"]
    source = open_recorded(
        data.name,
        data.location,
        location,
        whose="the study",
        patient_pattern=params.get("patient_pattern", PATIENT_PATTERN),
        depth=depth_of(params),
    )
    refuse_other_pixels(search.study, source)
    settings = settings_of(
        params,
        trials=trials,
        data=location or path_of(data.location),
        metrics=(search.metric,),
        experiment=search.study.experiment,
        **machine,
    )
    plan = make_plan(settings, fetch=True, source=source)
    if plan.source.digest != (there := data.digests["train"]):
        raise InputError(
            f"{plan.source.location}: its data digest is {plan.source.digest}; {search.study.name} has {there}"
        )
    return plan


def plans_of_folds(
    search: Searched,
    studies: Sequence[Study],
    location: Path | None,
    folds: int,
    top: int,
    name: str,
    machine: Mapping[str, Any],
) -> tuple[Plan, list[Plan]]:
    """Plans to train the finalists on each fold, all with the same seed there.

    Args:
        search: The study.
        studies: Those of Optuna's store; some may be of these folds.
        location: Where its images are; None for where they were.
        folds: How many.
        top: How many finalists.
        name: Of the folds' studies, after the study's own.
        machine: Settings of the machine and its stores: workers, device, tracking_uri, storage.

    Returns:
        The study's own plan, and one per fold.

    Raises:
        InputError: The images are not those that it learned from, or there are too few for so many folds.
    """
    plan = plan_of_search(search, location, min(top, len(search.complete)), machine)
    labels = {study.name: {trial.attributes.get("label") for trial in study.trials()} for study in studies}
    return plan, [_plan_of_fold(search, labels, plan, fold, folds, name) for fold in range(1, folds + 1)]


def _plan_of_fold(
    search: Searched, labels: Mapping[str, set[Any]], plan: Plan, fold: int, folds: int, name: str
) -> Plan:
    settings = replace(plan.settings, validation=f"{fold}/{folds}")
    try:
        split = split_source(
            plan.source, validation=settings.validation, limit=settings.limit, seed=settings.split_seed
        )
    except InputError as error:
        faults = (fault.removeprefix(f"--validation {settings.validation}: ") for fault in error.faults)
        raise InputError(*(f"--folds {folds}: {fault}" for fault in faults)) from error
    seed = seed_of("fold", fold, folds)
    enqueued = tuple(
        EnqueuedTrial(search.run_name(trial), trial.params, seed) for trial in search.complete[: settings.trials]
    )
    faults = [
        f"--folds {folds}: {trial.label} has batches of {trial.params['batch_size']}, and {len(split.train):,} images "
        "train"
        for trial in enqueued
        if int(trial.params["batch_size"]) > len(split.train)
    ]
    if faults:
        raise InputError(*faults)
    name = f"{search.description.name}-{name}-{fold}-of-{folds}"
    begun = labels.get(f"{plan.experiment}/{name}", set())  # finalists of before the search went on, say
    study = replace(
        plan.studies[0],
        name=name,
        space=search.study.space(),  # so that more of its trials may follow in the same study
        trials=len(begun | {trial.label for trial in enqueued}),
        starts=(),
        enqueued=enqueued,
    )
    return replace(plan, settings=settings, split=split, studies=(study,))


def finalists_of(search: Searched, top: int, folds: Sequence[EnqueuedResult]) -> list[Finalist]:
    """The best trials with their results on each fold, in the study's own order.

    Args:
        search: The study.
        top: How many.
        folds: The results of the folds' studies, in order.
    """
    finalists = []
    for trial in search.complete[:top]:
        name = search.run_name(trial)
        results = {number: fold.results(name) for number, fold in enumerate(folds, 1)}
        # Of several trainings on one fold the last counts.
        last = {number: trained[-1] for number, trained in results.items() if trained}
        finalists.append(Finalist(name, trial.value or 0.0, last))
    return finalists


def command_of(search: Searched, plan: Plan, name: str) -> str:
    """The command that trains one of the finalists as the search trained it, as a study of its own, and registers it.

    Args:
        search: The search.
        plan: The search's own, as `plans_of_folds` returns it.
        name: The finalist's.
    """
    settings, usual = plan.settings, Settings(archs=())
    trial = next(trial for trial in search.complete if search.run_name(trial) == name)
    wanted: dict[str, Any] = {
        "--study": f"{search.description.name}-chosen",
        "--trials": 1,
        "--metric": settings.metric,
        "--epochs": settings.epochs,
        "--patience": settings.patience,
        "--image-size": settings.image_size,
        "--precision": settings.precision,
    }
    if plan.source.kind != "synthetic":
        wanted["--data"] = plan.source.location
    if plan.experiment != plan.source.name:
        wanted["--experiment"] = plan.experiment
    names = ["validation", "split_seed", "limit", "patient_pattern", "depth"]
    names += [name for name in architecture(settings.archs[0]).options if name in ("weights", "finetune")]
    wanted |= {
        f"--{option.replace('_', '-')}": getattr(settings, option)
        for option in names
        if getattr(settings, option) != getattr(usual, option)
    }
    fixed = [part for key, value in trial.params.items() for part in ("--fix", f"{key}={value}")]
    options = [str(part) for option in wanted.items() for part in option]
    flags = [OPTION] if settings.allow_leakage else []
    return shlex.join(["python", "-m", "sweep", "--arch", settings.archs[0], *fixed, *options, *flags])


@dataclass(frozen=True)
class Logged:
    """A cross-validation as a run of its own.

    Attributes:
        run_id: The run's.
        lines: One row per finalist as plain data, the best first.
        sentences: What the folds choose.
        choice: The finalist that they choose; None where none was trained on all of them.
        command: The command that trains and registers that one; empty where the study did.
        page: All of it in Markdown.
    """

    run_id: str
    lines: list[dict[str, Any]]
    sentences: list[str]
    choice: Choice | None
    command: str
    page: str


def log(
    search: Searched, finalists: Sequence[Finalist], plan: Plan, folds: Sequence[EnqueuedResult], tracking: Tracking
) -> Logged:
    """Chooses a finalist, and logs how as a run of its own.

    Args:
        search: The study.
        finalists: Its best trials with their results.
        plan: The study's own.
        folds: The results of the folds' studies.
        tracking: The study's experiment.
    """
    metric = search.metric.removeprefix("val/")
    choice = choose(finalists, metric, search.sign, len(folds))
    lines = rows(finalists, metric, search.sign, len(folds))
    summary = sentences(choice, finalists[0].name, format_metric(search.metric), len(folds))
    command = "" if choice is None or choice.own else command_of(search, plan, choice.finalist.name)
    opened = any(fold.opened for fold in folds)
    parts = [
        f"# Cross-validation of the best of {search.study.name}",
        *leakage_paragraphs(plan),
        _protocol(search, plan, opened=opened),
        to_markdown(lines, summary),
    ]
    if command:
        parts += ["To train and register the folds' choice:", f"    {command}"]
    page = "\n\n".join(parts) + "\n"
    (planned,) = plan.studies
    params = {"study": search.study.name, "metric": search.metric, "folds": len(folds), "finalists": len(finalists)}
    run_id = log_run(
        tracking,
        f"{KIND}-{search.description.name}",
        {
            tag.KIND: KIND,
            tag.ARCH: planned.short_arch,
            tag.STUDY: search.study.name,
            tag.DATA: plan.source.name,
            tag.DATA_DIGEST: plan.source.digest,
            **leakage_tags(plan),
        },
        params={
            **params,
            **({"choice": choice.finalist.name} if choice else {}),
            "image_size": planned.image_size,
        },
        metrics={f"{line['trial']}/{metric}": line["mean"] for line in lines if line["mean"] is not None},
        files={f"{KIND}.md": page, "finalists.json": pd.DataFrame(lines)},
        page=f"{KIND}.md",
    )
    return Logged(run_id, lines, summary, choice, command, page)


def _protocol(search: Searched, plan: Plan, *, opened: bool) -> str:
    """How the finalists were trained and compared."""
    (planned,), split = plan.studies, plan.split
    images = len(split.train) + (len(split.validation) if split.validation_from == "train" else 0)
    others = "" if split.validation_from == "val" else ", those that the study chose by among them"
    return (
        f"{planned.short_arch} on {plan.source.name}, {planned.image_size} x {planned.image_size} pixels, up to "
        f"{plan.settings.epochs} epochs, patience {plan.settings.patience}, split seed {plan.settings.split_seed}. "
        f"All {images:,} training images validate once, whole patients at a time{others}, and in a fold all "
        f"finalists have one seed. By {format_metric(search.metric)}; intervals are Student's t over folds, widened "
        "because folds share what they train on (Nadeau and Bengio 2003), and in the sentence because the best of "
        "several was picked (Bonferroni). "
        + (
            "Test was scored, too, now or before, and nothing was chosen by it."
            if opened
            else "The test set stayed closed."
        )
    )
