"""Train a search's best trials again, once a fold of patients: given trials of ordinary studies, a study a fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd

from data import phantom
from data.faults import InputError
from data.splits import split_source
from sweep import markdown, provenance
from sweep.listed import Tried
from sweep.plan import Plan, make_plan, seed_of
from sweep.record import settings_of
from sweep.results.crossvalidation import Choice, Finalist, Fold, choose, rows, told, written
from sweep.results.wording import said_of_metric
from sweep.settings import METRICS
from sweep.space import Listed
from sweep.stores.study import ABOUT, Recorded, Study
from sweep.stores.tracking import FINISHED, Tracking

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
    complete: tuple[Recorded, ...]

    @property
    def metric(self) -> str:
        """What it chose by."""
        return self.about["metric"]

    @property
    def sign(self) -> int:
        """1 where more of it is better, else -1."""
        return 1 if METRICS[self.metric] == "maximize" else -1

    def run_name(self, trial: Recorded) -> str:
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
    matching = [full for full in known if name in (None, full, full.rpartition("/")[2])]
    there = ", ".join(known) or "none"
    if not matching:
        raise InputError(f"{name or 'STUDY'}: there is no such study with a search; there are: {there}")
    if len(matching) > 1:
        raise InputError(f"there are several studies: {', '.join(matching)}; name one: sweep crossvalidate STUDY")
    study = known[matching[0]]
    about = study.noted(ABOUT)
    sign = 1 if METRICS[about["metric"]] == "maximize" else -1
    complete = [trial for trial in study.trials() if trial.state == "COMPLETE" and trial.value is not None]
    ranked = sorted(complete, key=lambda trial: (-sign * (trial.value or 0.0), trial.number))
    once = {tuple(sorted(trial.params.items())): trial for trial in reversed(ranked)}  # of alike ones the first
    if not once:
        raise InputError(f"{study.name}: none of its trials is complete, so there is nothing to choose from")
    return Searched(study, about, tuple(reversed(once.values())))


def plans_of_folds(
    found: Searched, location: Path | None, folds: int, top: int, name: str, machine: Mapping[str, Any]
) -> list[Plan]:
    """Plans to train the finalists on each fold, all with the same seed there.

    Args:
        found: The study.
        location: Where its images are; None for where they were.
        folds: How many.
        top: How many finalists.
        name: Of the folds' studies, after the study's own.
        machine: Settings of the machine and its stores: workers, device, tracking_uri, storage.

    Raises:
        InputError: The images are not those that it learned from, or a class has too few patients.
    """
    best, data = found.complete[0], found.about["data"]
    if location is None and data["name"] != phantom.NAME and not Path(data["location"]).exists():
        raise InputError(f"the study's images were at {data['location']}, which is not here; say where with --data")
    settings = settings_of(
        best.attributes["run"]["params"],
        trials=min(top, len(found.complete)),
        data=location or (None if data["name"] == phantom.NAME else Path(data["location"])),
        metric=found.metric,
        validation=f"1/{folds}",
        experiment=found.study.experiment,
        **machine,
    )
    try:
        plan = make_plan(settings, fetch=True)
    except InputError as error:
        asked = f"--validation {settings.validation}:"
        raise InputError(*(fault.replace(asked, f"--folds {folds}:", 1) for fault in error.faults)) from error
    if plan.source.digest != (there := data["digests"]["train"]):
        raise InputError(
            f"{plan.source.location}: its data digest is {plan.source.digest}; {found.study.name} has {there}"
        )
    return [_plan_of_fold(found, plan, fold, folds, f"{found.about['name']}-{name}") for fold in range(1, folds + 1)]


def _plan_of_fold(found: Searched, plan: Plan, fold: int, folds: int, name: str) -> Plan:
    settings = replace(plan.settings, validation=f"{fold}/{folds}")
    split = split_source(plan.source, validation=settings.validation, limit=settings.limit, seed=settings.split_seed)
    seed = seed_of("fold", fold, folds)
    # The space is that of every trial, so that more of them may follow in the same study.
    everyone = [Listed(found.run_name(trial), trial.params, seed) for trial in found.complete]
    planned = plan.studies[0].of(f"{name}-{fold}-of-{folds}", everyone)
    listed = everyone[: settings.trials]
    faults = [
        f"--folds {folds}: {one.label} has batches of {one.params['batch_size']}, and {len(split.train):,} images train"
        for one in listed
        if int(one.params["batch_size"]) > len(split.train)
    ]
    if faults:
        raise InputError(*faults)
    some = replace(planned, listed=tuple(listed), trials=settings.trials)
    return replace(plan, settings=settings, split=split, studies=(some,))


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
                    kept = one.history[(one.best_epoch or 1) - 1]
                    scores = {key.removeprefix("val/"): score for key, score in kept.items() if key.startswith("val/")}
                    folds[number] = Fold(scores, study.predictions.get(one.number))
        finalists.append(Finalist(name, trial.value or 0.0, folds))
    return finalists


def command_of(found: Searched, chosen: Choice) -> str:
    """The command that trains what the folds chose as a study of its own, and registers it."""
    trial = next(one for one in found.complete if found.run_name(one) == chosen.finalist.name)
    params = trial.attributes["run"]["params"]
    fixed = " ".join(f"--fix {name}={value}" for name, value in trial.params.items())
    rest = {"image-size": params["image_size"], "epochs": params["epochs"], "patience": params["patience"]}
    rest |= {name.replace("_", "-"): params[name] for name in ("weights", "finetune", "limit") if name in params}
    where = "" if found.about["data"]["name"] == phantom.NAME else f" --data {quote(found.about['data']['location'])}"
    options = " ".join(f"--{name} {value}" for name, value in rest.items())
    return (
        f"python -m sweep --arch {params['arch']} --study {found.about['name']}-chosen --trials 1 {fixed} {options} "
        f"--metric {found.metric}{where}"
    )


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


def log(found: Searched, finalists: Sequence[Finalist], plans: Sequence[Plan], tracking: Tracking) -> Logged:
    """Chooses, and logs how.

    Args:
        found: The study.
        finalists: What became of its best trials.
        plans: One a fold.
        tracking: The study's experiment.
    """
    plan, folds = plans[0], len(plans)
    metric = found.metric.removeprefix("val/")
    choice = choose(finalists, metric, found.sign, folds)
    lines = rows(finalists, metric, found.sign, folds)
    sentences = told(choice, finalists[0].name, said_of_metric(found.metric), folds)
    command = command_of(found, choice) if choice is not None and choice.gain is not None else ""
    (planned,) = plan.studies
    opened = any(fold.test is not None for one in finalists for fold in one.folds.values())
    parts = [
        f"# Cross-validation of the best of {found.study.name}",
        f"{planned.arch} on {plan.source.name}, {planned.image_size} x {planned.image_size} pixels, up to "
        f"{plan.settings.epochs} epochs, patience {plan.settings.patience}, split seed {plan.settings.split_seed}. "
        f"All {sum(len(plan.split.validation) for plan in plans):,} training images validate once, whole patients at a "
        f"time, and in a fold all finalists have one seed. By {said_of_metric(found.metric)}; the intervals are "
        "Student's t over folds, widened because folds share what they train on (Nadeau and Bengio 2003). Whoever is "
        "ahead of several is flattered by that. "
        + ("Test was scored, too, and nothing was chosen by it." if opened else "The test set stayed closed."),
        written(lines, sentences),
    ]
    if command:
        parts += ["To train and register the folds' choice:", f"    {command}"]
    page = "\n\n".join(parts) + "\n"
    run = tracking.start(
        f"{KIND}-{found.about['name']}",
        {
            "sweep.kind": KIND,
            "sweep.state": "RUNNING",
            "sweep.arch": planned.arch,
            "sweep.study": found.study.name,
            "sweep.data": plan.source.name,
            "sweep.data_digest": plan.source.digest,
            "mlflow.note.content": markdown.note(page, f"{KIND}.md"),
            **provenance.tags(),
        },
    )
    params = {"study": found.study.name, "metric": found.metric, "folds": folds, "finalists": len(finalists)}
    choice_of = {"choice": choice.finalist.name} if choice else {}
    tracking.log_params(run.run_id, {**params, **choice_of, "image_size": planned.image_size})
    scores = {f"{line['trial']}/{metric}": line["mean"] for line in lines if line["mean"] is not None}
    tracking.log(run.run_id, scores, tags={"sweep.state": "COMPLETE"})
    tracking.log_files(run.run_id, {f"{KIND}.md": page})
    tracking.log_table(run.run_id, pd.DataFrame(lines), "finalists.json")
    tracking.finish(run.run_id, FINISHED)
    return Logged(run.run_id, lines, sentences, choice, command, page)
