"""Train a search's best trials again, once a fold of patients: given trials of ordinary studies, a study a fold."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from data import phantom
from data.faults import InputError
from data.sources import read_phantom
from data.splits import split_source
from models import ARCHITECTURES
from sweep.comparisons.crossvalidation.analysis import Choice, Finalist, Fold, choose, rows, told, written
from sweep.comparisons.enqueued import Tried
from sweep.metrics import markdown
from sweep.metrics.formatting import format_metric
from sweep.metrics.names import sign_of
from sweep.orchestrator.run_params import settings_of
from sweep.plan import Plan, make_plan, seed_of
from sweep.settings import Settings
from sweep.space import EnqueuedTrial
from sweep.stores import tags as tag
from sweep.stores.study import ABOUT, Study, TrialRecord
from sweep.stores.tracking import FINISHED, Tracking
from sweep.system import provenance

KIND = "crossvalidation"


@dataclass(frozen=True)
class Searched:
    """A study that has searched.

    Attributes:
        study: The study.
        about: What it notes of itself.
        complete: Its complete trials, the best first, a configuration once.
    """

    study: Study
    about: Mapping[str, Any]
    complete: tuple[TrialRecord, ...]

    @property
    def metric(self) -> str:
        """What it chose by."""
        return self.about["metric"]

    @property
    def sign(self) -> int:
        """1 where more of it is better, else -1."""
        return sign_of(self.metric)

    def run_name(self, trial: TrialRecord) -> str:
        """What the run of a trial is called."""
        return f"{self.about['name']}-{trial.number:03d}"


def searched(studies: Sequence[Study], name: str | None) -> Searched:
    """Finds a study that has searched, and its complete trials.

    Args:
        studies: Those of Optuna's store.
        name: With its experiment or without; None for the only one there is.

    Raises:
        InputError: There is none such, or several.
    """
    known = {study.name: study for study in studies if any("label" not in one.attributes for one in study.trials())}
    there = ", ".join(known) or "none"
    if name is None:  # what was trained once, as this command advises, is no search
        known = {full: study for full, study in known.items() if len(_configurations(study)) > 1}
    matching = [full for full in known if name in (None, full, full.rpartition("/")[2])]
    if not matching:
        raise InputError(f"{name or 'STUDY'}: there is no such study with a search; there are: {there}")
    if len(matching) > 1:
        raise InputError(f"there are several studies: {', '.join(matching)}; name one: sweep crossvalidate STUDY")
    study = known[matching[0]]
    complete = _configurations(study)
    if not complete:
        raise InputError(f"{study.name}: none of its trials is complete, so there is nothing to choose from")
    return Searched(study, study.noted(ABOUT), complete)


def _configurations(study: Study) -> tuple[TrialRecord, ...]:
    """A study's complete trials, the best first; of those with the same hyperparameters the best alone."""
    sign = sign_of(study.noted(ABOUT)["metric"])
    complete = [trial for trial in study.trials() if trial.state == "COMPLETE" and trial.value is not None]
    best: dict[tuple[tuple[str, Any], ...], TrialRecord] = {}
    for trial in sorted(complete, key=lambda trial: (-sign * (trial.value or 0.0), trial.number)):
        best.setdefault(tuple(sorted(trial.params.items())), trial)
    return tuple(best.values())


def plans_of_folds(
    found: Searched,
    studies: Sequence[Study],
    location: Path | None,
    folds: int,
    top: int,
    name: str,
    machine: Mapping[str, Any],
) -> tuple[Plan, list[Plan]]:
    """Plans to train the finalists on each fold, all with the same seed there.

    Args:
        found: The study.
        studies: Those of Optuna's store; some may be of these folds.
        location: Where its images are; None for where they were.
        folds: How many.
        top: How many finalists.
        name: Of the folds' studies, after the study's own.
        machine: Settings of the machine and its stores: workers, device, tracking_uri, storage.

    Returns:
        The study's own plan, and one a fold.

    Raises:
        InputError: The images are not those that it learned from, or there are too few for so many folds.
    """
    best, data = found.complete[0], found.about["data"]
    drawn = data["name"] == phantom.NAME
    if location is None and not drawn and not Path(data["location"]).exists():
        raise InputError(f"the study's images were at {data['location']}, which is not here; say where with --data")
    settings = settings_of(
        best.attributes["run"]["params"],
        trials=min(top, len(found.complete)),
        data=location or Path(data["location"]),
        metric=found.metric,
        experiment=found.study.experiment,
        **machine,
    )
    plan = make_plan(settings, fetch=True, source=read_phantom() if drawn and location is None else None)
    if plan.source.digest != (there := data["digests"]["train"]):
        raise InputError(
            f"{plan.source.location}: its data digest is {plan.source.digest}; {found.study.name} has {there}"
        )
    known = {study.name: {one.attributes.get("label") for one in study.trials()} for study in studies}
    return plan, [_plan_of_fold(found, known, plan, fold, folds, name) for fold in range(1, folds + 1)]


def _plan_of_fold(found: Searched, known: Mapping[str, set[Any]], plan: Plan, fold: int, folds: int, name: str) -> Plan:
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
        EnqueuedTrial(found.run_name(trial), trial.params, seed) for trial in found.complete[: settings.trials]
    )
    faults = [
        f"--folds {folds}: {one.label} has batches of {one.params['batch_size']}, and {len(split.train):,} images train"
        for one in enqueued
        if int(one.params["batch_size"]) > len(split.train)
    ]
    if faults:
        raise InputError(*faults)
    name = f"{found.about['name']}-{name}-{fold}-of-{folds}"
    begun = known.get(f"{plan.experiment}/{name}", set())  # finalists of before the search went on, say
    study = replace(
        plan.studies[0],
        name=name,
        space=found.study.space(),  # so that more of its trials may follow in the same study
        trials=len(begun | {one.label for one in enqueued}),
        enqueued=enqueued,
    )
    return replace(plan, settings=settings, split=split, studies=(study,))


def finalists_of(found: Searched, top: int, tried: Sequence[Tried]) -> list[Finalist]:
    """The best trials with what became of them on each fold, in the study's own order.

    Args:
        found: The study.
        top: How many.
        tried: What the folds' studies came to, in the folds' order.
    """
    finalists = []
    for trial in found.complete[:top]:
        name, folds = found.run_name(trial), {}
        for number, study in enumerate(tried, 1):
            for one in study.trials:
                if one.state == "COMPLETE" and one.attributes.get("label") == name:
                    folds[number] = Fold(one.validation, study.predictions.get(one.number))
        finalists.append(Finalist(name, trial.value or 0.0, folds))
    return finalists


def command_of(found: Searched, plan: Plan, name: str) -> str:
    """The command that trains one of the finalists as the search trained it, as a study of its own, and registers it.

    Args:
        found: The search.
        plan: As `plans_of_folds` gives it: the search's own.
        name: The finalist's.
    """
    settings, usual = plan.settings, Settings(archs=())
    trial = next(one for one in found.complete if found.run_name(one) == name)
    wanted: dict[str, Any] = {
        "--study": f"{found.about['name']}-chosen",
        "--trials": 1,
        "--metric": settings.metric,
        "--epochs": settings.epochs,
        "--patience": settings.patience,
        "--image-size": settings.image_size,
        "--precision": settings.precision,
    }
    if plan.source.kind != "phantom":
        wanted["--data"] = plan.source.location
    if plan.experiment != plan.source.name:
        wanted["--experiment"] = plan.experiment
    names = ["validation", "split_seed", "limit", "patient_pattern", *ARCHITECTURES[settings.archs[0]].options]
    wanted |= {
        f"--{option.replace('_', '-')}": getattr(settings, option)
        for option in names
        if getattr(settings, option) != getattr(usual, option)
    }
    fixed = [part for key, value in trial.params.items() for part in ("--fix", f"{key}={value}")]
    options = [str(part) for option in wanted.items() for part in option]
    return shlex.join(["python", "-m", "sweep", "--arch", settings.archs[0], *fixed, *options])


@dataclass(frozen=True)
class Logged:
    """A cross-validation as a run of its own.

    Attributes:
        run_id: The run's.
        lines: A row a finalist as plain data, the best first.
        sentences: What comes of it.
        choice: Whom the folds choose; None where nobody was trained on all of them.
        command: What trains and registers that one; empty where the study did.
        page: All of it in Markdown.
    """

    run_id: str
    lines: list[dict[str, Any]]
    sentences: list[str]
    choice: Choice | None
    command: str
    page: str


def log(
    found: Searched, finalists: Sequence[Finalist], plan: Plan, tried: Sequence[Tried], tracking: Tracking
) -> Logged:
    """Chooses, and logs how.

    Args:
        found: The study.
        finalists: What became of its best trials.
        plan: The study's own.
        tried: What the folds' studies came to.
        tracking: The study's experiment.
    """
    folds = len(tried)
    metric = found.metric.removeprefix("val/")
    choice = choose(finalists, metric, found.sign, folds)
    lines = rows(finalists, metric, found.sign, folds)
    sentences = told(choice, finalists[0].name, format_metric(found.metric), folds)
    command = "" if choice is None or choice.own else command_of(found, plan, choice.finalist.name)
    (planned,) = plan.studies
    images = len(plan.split.train) + (len(plan.split.validation) if plan.split.validation_from == "train" else 0)
    others = "" if plan.split.validation_from == "val" else ", those that the study chose by among them"
    parts = [
        f"# Cross-validation of the best of {found.study.name}",
        f"{planned.arch} on {plan.source.name}, {planned.image_size} x {planned.image_size} pixels, up to "
        f"{plan.settings.epochs} epochs, patience {plan.settings.patience}, split seed {plan.settings.split_seed}. "
        f"All {images:,} training images validate once, whole patients at a time{others}, and in a fold all "
        f"finalists have one seed. By {format_metric(found.metric)}; intervals are Student's t over folds, widened "
        "because folds share what they train on (Nadeau and Bengio 2003), and in the sentence because the best of "
        "several was picked (Bonferroni). "
        + (
            "Test was scored, too, now or before, and nothing was chosen by it."
            if any(one.opened for one in tried)
            else "The test set stayed closed."
        ),
        written(lines, sentences),
    ]
    if command:
        parts += ["To train and register the folds' choice:", f"    {command}"]
    page = "\n\n".join(parts) + "\n"
    run = tracking.start(
        f"{KIND}-{found.about['name']}",
        {
            tag.KIND: KIND,
            tag.STATE: "RUNNING",
            tag.ARCH: planned.arch,
            tag.STUDY: found.study.name,
            tag.DATA: plan.source.name,
            tag.DATA_DIGEST: plan.source.digest,
            "mlflow.note.content": markdown.note(page, f"{KIND}.md"),
            **provenance.tags(),
        },
    )
    params = {"study": found.study.name, "metric": found.metric, "folds": folds, "finalists": len(finalists)}
    choice_of = {"choice": choice.finalist.name} if choice else {}
    tracking.log_params(run.run_id, {**params, **choice_of, "image_size": planned.image_size})
    scores = {f"{line['trial']}/{metric}": line["mean"] for line in lines if line["mean"] is not None}
    tracking.log(run.run_id, scores, tags={tag.STATE: "COMPLETE"})
    tracking.log_files(run.run_id, {f"{KIND}.md": page})
    tracking.log_table(run.run_id, pd.DataFrame(lines), "finalists.json")
    tracking.finish(run.run_id, FINISHED)
    return Logged(run.run_id, lines, sentences, choice, command, page)
