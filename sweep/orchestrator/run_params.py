"""What a study and its runs store about how they were made, and the way back: from a run's params to its training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from data.cache import images_of
from data.faults import InputError
from data.listing import path_of, text_of
from data.source import Source
from data.sources import PATIENT_PATTERN
from sweep.metrics.names import STRESSED
from sweep.plan import DEFAULT_START, Plan, PlannedStudy, leakage_of
from sweep.settings import Settings
from sweep.settings_file import write_settings
from sweep.space import EXTRA, FIVE, value_of
from sweep.stores import tags as tag
from sweep.stores.attributes import ABOUT, FINGERPRINT
from sweep.stores.fingerprint import WEIGHTS_DIGEST
from sweep.stores.study import Study
from sweep.system import provenance
from sweep.training.config import TrainingConfig

DEEP_IMAGES = "images of more than 8 bits"  # what a study's fingerprint calls them


@dataclass(frozen=True)
class DataDescription:
    """The data set of a study, as `Tracking.log_data` takes it.

    Attributes:
        name: Of the data set.
        location: Where its images were.
        digests: `train` -> digest of the data, `validation` -> digest of the split.
        profile: How many images train and validate, as JSON.
    """

    name: str
    location: str
    digests: Mapping[str, str]
    profile: str


@dataclass(frozen=True)
class StudyDescription:
    """What MLflow shows of a study; the study itself stores it as its attribute ABOUT, so that runs can be rebuilt.

    Attributes:
        name: The study's short name, also its run's.
        experiment: The MLflow experiment.
        metric: What the study chooses by; the first of several.
        tags: Of its run and of its trials' runs.
        params: Of its run.
        data: The data set.
        counts: Images per class: part (`train`, `validation`, `test`) -> class -> count.
        configuration: All settings and the whole space as a file, which `sweep search` takes; empty where trials were
            given, and for studies of earlier releases.
        further: What it chooses by besides, in the order named.
    """

    name: str
    experiment: str
    metric: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]
    data: DataDescription
    counts: Mapping[str, Mapping[str, int]]
    configuration: str = ""
    further: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that the study chooses by."""
        return (self.metric, *self.further)

    @property
    def study_id(self) -> str:
        """What finds the study's run: names come again, in another store or after a study was deleted."""
        return self.tags[tag.STUDY_ID]

    @property
    def classes(self) -> list[str]:
        """The classes of the images."""
        return list(next(iter(self.counts.values())))

    @property
    def hyperparameters(self) -> list[str]:
        """What the study searches."""
        return [name.removeprefix("space/") for name in self.params if name.startswith("space/")]

    def run_name(self, number: int) -> str:
        """What the run of a trial is called."""
        return f"{self.name}-{number:03d}"

    def to_dict(self) -> dict[str, Any]:
        """The stored form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> StudyDescription:
        """Reads what `to_dict` gave."""
        further = tuple(stored.get("further", ()))
        return cls(**{**stored, "data": DataDescription(**stored["data"]), "further": further})


def description_of(study: Study) -> StudyDescription:
    """Reads the description that a study stores."""
    return StudyDescription.from_dict(study.noted(ABOUT))


def describe_study(plan: Plan, planned: PlannedStudy, name: str, study_id: str) -> StudyDescription:
    """Describes a study that is about to begin.

    Args:
        plan: The sweep.
        planned: The study.
        name: Its full name.
        study_id: Its `StudyDescription.study_id`.
    """
    settings, source, split = plan.settings, plan.source, plan.split
    images = images_of(source, split, planned.image_size)
    return StudyDescription(
        name=planned.name,
        experiment=plan.experiment,
        metric=settings.metric,
        tags={
            tag.STUDY: name,
            tag.STUDY_ID: study_id,
            tag.ARCH: planned.short_arch,
            tag.DATA: source.name,
            tag.DATA_DIGEST: source.digest,
            tag.SPLIT_DIGEST: split.digest,
            **leakage_tags(plan),
            **provenance.tags(),
        },
        params={
            "metric": settings.metric,
            **({"further_metrics": ", ".join(settings.metrics[1:])} if len(settings.metrics) > 1 else {}),
            "sampler": settings.sampler,
            "pruner": settings.pruning,
            "warmup": settings.warmup,
            "study_seed": settings.seed,
            **fixed_params(plan, planned),
            **{f"space/{key}": str(domain) for key, domain in planned.space.items()},
        },
        data=DataDescription(
            name=source.name,
            location=source.location if source.kind == "synthetic" else text_of(path_of(source.location).resolve()),
            digests={"train": source.digest, "validation": split.digest},
            profile=json.dumps({"train": len(split.train), "validation": len(split.validation)}),
        ),
        counts={
            part: dict(zip(source.classes, np.bincount(listing.labels).tolist(), strict=True))
            for part, listing in images.items()
        },
        configuration="" if planned.enqueued else configuration_of(plan, planned),
        further=settings.metrics[1:],
    )


def configuration_of(plan: Plan, planned: PlannedStudy) -> str:
    """The settings of one architecture's study as a file, which says the same from any directory."""
    settings = plan.settings
    given = (dict(start.params) for start in planned.starts if start.source != DEFAULT_START)
    return write_settings(
        replace(
            settings,
            archs=(planned.arch,),
            data=None if settings.data is None else settings.data.absolute(),
            enqueue=tuple(map(json.dumps, given)),  # files change, and other studies get another best
            tracking_uri=None,
            storage=None,
            notify=None,
        )
    )


def leakage_tags(plan: Plan) -> dict[str, str]:
    """The tag of runs and versions whose train, validation and test share images or patients; empty for others."""
    sentence = leakage_of(plan)
    return {tag.LEAKAGE: sentence} if sentence else {}


def fixed_params(plan: Plan, planned: PlannedStudy) -> dict[str, Any]:
    """What a trial was trained with beside its hyperparameters: enough to train it again, with the data."""
    settings = plan.settings
    weights_file = planned.options.get("weights")
    optional = {
        "limit": settings.limit,
        "patient_pattern": None if settings.patient_pattern == PATIENT_PATTERN else settings.patient_pattern,
        "depth": settings.depth,
        "allow_leakage": settings.allow_leakage or None,
        "weights_file": weights_file,
        "weights_digest": None if weights_file is None else digest_of(weights_file),
        "stress": settings.metric in STRESSED or None,
    }
    return {
        "arch": planned.arch,
        "epochs": settings.epochs,
        "patience": settings.patience,
        "image_size": planned.image_size,
        "precision": plan.precision,
        "device": plan.device,
        "threads": plan.threads,
        "train_images": len(plan.split.train),
        "validation_images": len(plan.split.validation),
        "validation": settings.validation,
        "split_seed": settings.split_seed,
        **recorded_options(settings, planned),
        **{name: value for name, value in optional.items() if value is not None},
    }


@cache
def digest_of(file: str) -> str:
    """How the SHA-256 of a file of weights begins."""
    with Path(file).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def recorded_options(settings: Settings, planned: PlannedStudy) -> dict[str, Any]:
    """The options that only some architectures have, as runs and studies record them."""
    return {
        name: planned.options[name] if name == "source_digest" else settings.option_of(planned.arch, name)
        for name in planned.options
    }


def fingerprint(plan: Plan, planned: PlannedStudy) -> dict[str, Any]:
    """What must stay the same while a study lives, by names that people read where it differs."""
    settings = plan.settings
    return {
        "arch": planned.short_arch,
        "data digest": plan.source.digest,
        "split digest": plan.split.digest,
        "image size": planned.image_size,
        "epochs": settings.epochs,
        "patience": settings.patience,
        "metric": settings.metric,
        **({"further metrics": list(settings.metrics[1:])} if len(settings.metrics) > 1 else {}),
        **({} if settings.depth is None else {"depth": settings.depth}),
        # A study of version 0.1.0 has no such entry: its trials saw other pixels.
        **({DEEP_IMAGES: "read as their files state"} if plan.source.read_otherwise else {}),
        **recorded_options(settings, planned),
        **({WEIGHTS_DIGEST: digest_of(file)} if (file := planned.options.get("weights")) else {}),
    }


def refuse_other_pixels(study: Study, source: Source) -> None:
    """Refuses to set pixels as they are read now beside those that the trials of a study saw.

    Raises:
        InputError: Version 0.1.0 began the study, and read some of its images otherwise.
    """
    if source.read_otherwise and DEEP_IMAGES not in (study.noted(FINGERPRINT) or {}):
        raise InputError(
            f"study {study.name}: version 0.1.0 began it, and read its images of more than 8 bits otherwise, so its "
            "trials cannot be scored or trained again on them; begin another study with --study NAME (`compare "
            "--no-audit` sets side by side what was scored then)"
        )


def config_of(params: Mapping[str, Any], classes: int) -> TrainingConfig:
    """The training of a trial, from the params of its run.

    Args:
        params: As the run has them; strings are converted.
        classes: Number of logits.
    """
    options = {name: params[name] for name in ("weights", "finetune", "source_digest") if name in params}
    if "weights_file" in params:
        options["weights"] = params["weights_file"]
    elif options.get("weights") == "none":
        options["weights"] = None
    extra: dict[str, Any] = {name: value_of(name, str(params[name])) for name in EXTRA if name in params}
    return TrainingConfig(
        arch=params["arch"],
        activation=params["activation"],
        optimizer=params["optimizer"],
        learning_rate=float(params["learning_rate"]),
        batch_size=int(params["batch_size"]),
        dropout=float(params["dropout"]),
        seed=int(params["seed"]),
        epochs=int(params["epochs"]),
        patience=int(params["patience"]),
        image_size=int(params["image_size"]),
        classes=classes,
        precision=params["precision"],
        device=params["device"],
        options=options,
        micro_batch=int(params["micro_batch"]) if "micro_batch" in params else None,
        stress="stress" in params,
        **extra,
    )


def depth_of(params: Mapping[str, Any]) -> int | None:
    """The depth that was given for a run's images, as `data.decode.open_gray` takes it."""
    return int(params["depth"]) if "depth" in params else None


def settings_of(params: Mapping[str, Any], **others: Any) -> Settings:
    """A sweep that trains as a run was trained, its hyperparameters fixed; the inverse of `fixed_params`.

    Args:
        params: As the run has them; strings are converted.
        others: Settings that a run does not decide, such as its data and stores, or that are to be different.
    """
    limit, file = params.get("limit"), params.get("weights_file")
    weights = file if file is not None and Path(file).exists() else params.get("weights", "none")
    names = [*FIVE, *(name for name in EXTRA if name in params)]
    optional = {name: params[name] for name in ("patient_pattern", "finetune") if name in params}
    # An earlier release left pixels from 0 to 1 where weights were ImageNet's.
    before = () if params["arch"] != "resnet50" or "normalisation" in params else ("normalisation=fixed",)
    return Settings(
        **{
            "archs": (params["arch"],),
            "epochs": int(params["epochs"]),
            "patience": int(params["patience"]),
            "image_size": int(params["image_size"]),
            "limit": None if limit is None else int(limit),
            "depth": depth_of(params),
            "validation": params["validation"],
            "split_seed": int(params["split_seed"]),
            "precision": params["precision"],
            "weights": weights,
            "allow_leakage": "allow_leakage" in params,  # by whoever trained it
            "fix": (*(f"{name}={params[name]}" for name in names), *before),
            "pruner": "none",
            **optional,
            **others,
        }
    )
