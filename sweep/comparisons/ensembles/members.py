"""The members of an ensemble: which trials they are, and their networks from the checkpoints that MLflow keeps."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.cache import Images, images_of
from data.faults import InputError
from data.splits import split_source
from sweep.comparisons.architectures.audit import runs_of
from sweep.comparisons.crossvalidation.analysis import choose
from sweep.comparisons.crossvalidation.run import Searched, finalists_of
from sweep.comparisons.enqueued import EnqueuedResult
from sweep.comparisons.ensembles.asked import LEAST_MEMBERS, Asked
from sweep.orchestrator.artifacts import CHECKPOINT
from sweep.orchestrator.run_params import description_of, refuse_other_pixels
from sweep.plan import Plan
from sweep.stores import tags as tag
from sweep.stores.study import Study
from sweep.stores.tracking import Run, Tracking
from sweep.stores.trials import TrialRecord
from sweep.training.inference import Trained, restore


@dataclass(frozen=True)
class Candidate:
    """A trial that is to be a member.

    Attributes:
        study: Its study.
        trial: The trial.
        validation: `I/N` where it left out the I-th of N folds; empty where it left out the study's own validation.
    """

    study: Study
    trial: TrialRecord
    validation: str = ""

    @property
    def name(self) -> str:
        """The name of its run."""
        return description_of(self.study).run_name(self.trial.number)


@dataclass(frozen=True)
class Selection:
    """The trials that are to be members, and how they were chosen.

    Attributes:
        asked: As it is typed: `top:5`, `seeds`, `folds:5`.
        chosen: How, a sentence without its subject and its end.
        candidates: The trials, in the order in which the ensemble holds them.
    """

    asked: str
    chosen: str
    candidates: tuple[Candidate, ...]

    @property
    def of_folds(self) -> bool:
        """Whether each member left out a fold of its own."""
        return any(candidate.validation for candidate in self.candidates)


@dataclass(frozen=True)
class Member:
    """A network of an ensemble.

    Attributes:
        name: Its run's name.
        run: Its run.
        trial: Its trial.
        trained: The network, with the weights of its best epoch.
        validation: Images that it did not learn from.
    """

    name: str
    run: Run
    trial: TrialRecord
    trained: Trained
    validation: Images

    def value(self, metric: str) -> float:
        """A validation metric of the kept epoch; a study of other seeds may have chosen by another one."""
        return self.trial.validation[metric.removeprefix("val/")]


def select(search: Searched, studies: Sequence[Study], asked: Asked, folds_name: str) -> Selection:
    """Chooses the members by validation alone.

    Args:
        search: The study.
        studies: Those of Optuna's store; some may have its winner's other seeds, or its folds.
        asked: What was typed.
        folds_name: Of the folds' studies, after the study's own.

    Raises:
        InputError: There are too few.
    """
    by_name = {study.name: study for study in studies}
    if asked.kind == "top":
        count, there = asked.count or 0, len(search.complete)
        if there < count:
            raise InputError(
                f"--members {asked}: {search.study.name} has {there} complete configurations; ask for fewer"
            )
        chosen = f"the {count} best configurations of study {search.study.name} by {search.metric}"
        return Selection(str(asked), chosen, tuple(Candidate(search.study, trial) for trial in search.complete[:count]))
    if asked.kind == "seeds":
        return _seeds(search, by_name, asked)
    return _folds(search, by_name, asked, folds_name)


def _seeds(search: Searched, studies: dict[str, Study], asked: Asked) -> Selection:
    """The trainings of the study's winner with other seeds; of the best trial that has such a study."""
    experiment = search.study.experiment
    names = {f"{experiment}/{search.run_name(trial)}-seeds": search.run_name(trial) for trial in search.complete}
    name = next((name for name in names if name in studies), None)
    if name is None:
        raise InputError(
            f"--members {asked}: no configuration of {search.study.name} was trained with other seeds; "
            "`sweep compare --seeds 5` does that for each architecture's best"
        )
    complete = [trial for trial in studies[name].trials() if trial.state == "COMPLETE"]
    if len(complete) < LEAST_MEMBERS:
        raise InputError(
            f"--members {asked}: {len(complete)} trials of {name} are complete, and an ensemble has "
            f"{LEAST_MEMBERS} members or more; `sweep compare --seeds 5` trains more"
        )
    candidates = tuple(Candidate(studies[name], trial) for trial in complete)
    return Selection(str(asked), f"{len(complete)} trainings of {names[name]} with other seeds", candidates)


def _folds(search: Searched, studies: dict[str, Study], asked: Asked, folds_name: str) -> Selection:
    """The trainings of the configuration that cross-validation chose, one from each fold."""
    prefix = f"{search.study.experiment}/{search.description.name}-{folds_name}-"
    matches = (re.fullmatch(rf"{re.escape(prefix)}\d+-of-(\d+)", name) for name in studies)
    there = sorted({int(match[1]) for match in matches if match})
    if asked.count is not None:
        there = [count for count in there if count == asked.count]
    if not there:
        raise InputError(
            f"--members {asked}: there is no study {prefix}1-of-{asked.count or 5}; `sweep crossvalidate "
            f"{search.description.name}` trains the folds"
        )
    if len(there) > 1:
        several = " or ".join(f"--members folds:{count}" for count in there)
        raise InputError(f"--members {asked}: {search.study.name} was cross-validated more than once; say {several}")
    (count,) = there
    names = [f"{prefix}{fold}-of-{count}" for fold in range(1, count + 1)]
    trials = [tuple(studies[name].trials()) if name in studies else () for name in names]
    results = [
        EnqueuedResult("", name, "", of_fold, {}, opened=False) for name, of_fold in zip(names, trials, strict=True)
    ]
    finalists = finalists_of(search, len(search.complete), results)
    choice = choose(finalists, search.metric.removeprefix("val/"), search.sign, count)
    if choice is None:
        raise InputError(
            f"--members {asked}: no configuration was trained on all {count} folds; the same `sweep crossvalidate` "
            "trains what is missing"
        )
    name = choice.finalist.name
    candidates = []
    for fold, (full, of_fold) in enumerate(zip(names, trials, strict=True), 1):
        own = [trial for trial in of_fold if trial.state == "COMPLETE" and trial.attributes.get("label") == name]
        candidates.append(Candidate(studies[full], own[-1], f"{fold}/{count}"))
    chosen = f"{name}, which {count} folds of the training patients chose, trained once without each fold"
    return Selection(f"folds:{count}", chosen, tuple(candidates))


def identity_of(selection: Selection, *, flip: bool) -> str:
    """What finds the run of an ensemble again: 32 hexadecimal digits of its members' studies and numbers."""
    trials = (f"{description_of(one.study).study_id} {one.trial.number}" for one in selection.candidates)
    text = "\n".join([*trials, "flip" if flip else ""])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def load(selection: Selection, plan: Plan, tracking: Tracking) -> tuple[Member, ...]:
    """Fetches the members' networks, and finds the images that each did not learn from.

    Args:
        selection: The trials.
        plan: The study's own, whose images are cached.
        tracking: Their experiment.

    Raises:
        InputError: A run or a checkpoint is gone, or members learned from other images.
    """
    runs, faults = _runs(selection, tracking), []
    members: list[Member] = []
    with tempfile.TemporaryDirectory() as name:
        for number, candidate in enumerate(selection.candidates):
            run = runs[number]
            path = None if run is None else tracking.fetch(run.run_id, CHECKPOINT, Path(name) / str(number))
            if run is None:
                faults.append(f"{candidate.name}: MLflow has no run of it; `sweep doctor` writes it again")
            elif path is None:
                faults.append(
                    f"{candidate.name}: MLflow keeps no checkpoint of it (with --keep best it keeps the chosen trial's "
                    "alone), so it cannot be a member"
                )
            else:
                trained = restore(path, plan.studies[0].arch)
                faults += _faults(candidate, run, trained, plan)
                images = _validation_of(candidate, plan, trained.config.image_size, faults)
                members.append(Member(candidate.name, run, candidate.trial, trained, images))
    if faults:
        raise InputError(*faults)
    return tuple(members)


def _runs(selection: Selection, tracking: Tracking) -> list[Run | None]:
    by_study: dict[str, dict[int, Run]] = {}
    for candidate in selection.candidates:
        if candidate.study.name not in by_study:
            parent = tracking.find_study(description_of(candidate.study).study_id)
            by_study[candidate.study.name] = runs_of(tracking, parent.run_id) if parent else {}
    return [by_study[candidate.study.name].get(candidate.trial.number) for candidate in selection.candidates]


def _faults(candidate: Candidate, run: Run, trained: Trained, plan: Plan) -> list[str]:
    """Why a network cannot be a member: all read the same pixels, and answer the same classes."""
    refuse_other_pixels(candidate.study, plan.source)
    (planned,) = plan.studies
    config = trained.config
    wanted: dict[str, tuple[Any, Any]] = {
        "data digest": (run.tags.get(tag.DATA_DIGEST), plan.source.digest),
        "architecture": (run.tags.get(tag.ARCH), planned.short_arch),
        "image size": (config.image_size, planned.image_size),
        "number of classes": (config.classes, len(plan.source.classes)),
    }
    return [
        f"{candidate.name}: its {what} is {theirs}, and that of the other members {ours}"
        for what, (theirs, ours) in wanted.items()
        if theirs != ours
    ]


def _validation_of(candidate: Candidate, plan: Plan, size: int, faults: list[str]) -> Images:
    """The images that a member validated on; adds a sentence to the faults where they are not the same any more."""
    settings, split = plan.settings, plan.split
    if candidate.validation:
        split = split_source(
            plan.source, validation=candidate.validation, limit=settings.limit, seed=settings.split_seed
        )
    there = description_of(candidate.study).tags.get(tag.SPLIT_DIGEST)
    if there is not None and there != split.digest:
        faults.append(f"{candidate.name}: its split digest is {there}, and that of these images {split.digest}")
    return images_of(plan.source, split, size)["validation"]
