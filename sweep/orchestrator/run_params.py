"""What studies and runs say of how they were made, and the way back from it to a training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.cache import Images, images_of
from data.sources import PATIENT_PATTERN
from sweep.metrics.names import STRESSED
from sweep.metrics.predictions import Predictions
from sweep.metrics.scores import scores, softmax
from sweep.plan import Plan, PlannedStudy
from sweep.settings import Settings
from sweep.space import EXTRA, SPACES
from sweep.stores import tags as tag
from sweep.system import provenance
from sweep.training.loop import EpochResult, TrainingConfig


def about(plan: Plan, planned: PlannedStudy, name: str, identity: str) -> dict[str, Any]:
    """What MLflow is to show of a study, as plain data that the study itself remembers.

    Args:
        plan: The sweep.
        planned: The study.
        name: Its full name.
        identity: What finds its run: names come again, in another store or after a study was deleted.
    """
    settings, source, split = plan.settings, plan.source, plan.split
    images = images_of(source, split, planned.image_size)
    return {
        "name": planned.name,
        "experiment": plan.experiment,
        "metric": settings.metric,
        "tags": {
            tag.STUDY: name,
            tag.STUDY_ID: identity,
            tag.ARCH: planned.arch,
            tag.DATA: source.name,
            tag.DATA_DIGEST: source.digest,
            tag.SPLIT_DIGEST: split.digest,
            **provenance.tags(),
        },
        "params": {
            "metric": settings.metric,
            "pruner": settings.pruner,
            "warmup": settings.warmup,
            "study_seed": settings.seed,
            **fixed_params(plan, planned),
            **{f"space/{key}": str(domain) for key, domain in planned.space.items()},
        },
        "data": {
            "name": source.name,
            "location": source.location if source.kind == "phantom" else str(Path(source.location).resolve()),
            "digests": {"train": source.digest, "validation": split.digest},
            "profile": json.dumps({"train": len(split.train), "validation": len(split.validation)}),
        },
        "counts": {
            part: dict(zip(source.classes, np.bincount(found.labels).tolist(), strict=True))
            for part, found in images.items()
        },
    }


def fixed_params(plan: Plan, planned: PlannedStudy) -> dict[str, Any]:
    """What a trial was trained with beside its hyperparameters: enough to train it again, with the data."""
    settings = plan.settings
    file = planned.options.get("weights")
    optional = {
        "limit": settings.limit,
        "patient_pattern": None if settings.patient_pattern == PATIENT_PATTERN else settings.patient_pattern,
        "weights_file": file,
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
        **{name: getattr(settings, name) for name in planned.options},
        **{name: value for name, value in optional.items() if value is not None},
    }


def fingerprint(plan: Plan, planned: PlannedStudy) -> dict[str, Any]:
    """What must stay the same while a study lives, in people's words."""
    settings = plan.settings
    return {
        "arch": planned.arch,
        "data digest": plan.source.digest,
        "split digest": plan.split.digest,
        "image size": planned.image_size,
        "epochs": settings.epochs,
        "patience": settings.patience,
        "metric": settings.metric,
        **{name: getattr(settings, name) for name in planned.options},
    }


def config_of(params: Mapping[str, Any], classes: int) -> TrainingConfig:
    """The training of a run, from the params of its run.

    Args:
        params: As a run has them; texts will do.
        classes: Number of logits.
    """
    options = {name: params[name] for name in ("weights", "finetune") if name in params}
    if "weights_file" in params:
        options["weights"] = params["weights_file"]
    elif options.get("weights") == "none":
        options["weights"] = None
    levers: dict[str, Any] = {name: type(usual)(params[name]) for name, usual in EXTRA.items() if name in params}
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
        **levers,
    )


def settings_of(params: Mapping[str, Any], **others: Any) -> Settings:
    """A sweep that trains as a run was trained, its hyperparameters fixed; the way back of `fixed_params`.

    Args:
        params: As a run has them; texts will do.
        others: Settings that a run does not decide, such as its data and stores, or that are to be different.
    """
    arch, limit, file = params["arch"], params.get("limit"), params.get("weights_file")
    weights = file if file is not None and Path(file).exists() else params.get("weights", "none")
    names = dict.fromkeys((*SPACES[arch], *(name for name in EXTRA if name in params)))
    optional = {name: params[name] for name in ("patient_pattern", "finetune") if name in params}
    return Settings(
        **{
            "archs": (arch,),
            "epochs": int(params["epochs"]),
            "patience": int(params["patience"]),
            "image_size": int(params["image_size"]),
            "limit": None if limit is None else int(limit),
            "validation": params["validation"],
            "split_seed": int(params["split_seed"]),
            "precision": params["precision"],
            "weights": weights,
            "fix": tuple(f"{name}={params[name]}" for name in names),
            "pruner": "none",
            **optional,
            **others,
        }
    )


def predictions_of(images: Images, logits: np.ndarray, plan: Plan) -> Predictions:
    """What a network said of cached images, with their names and patients."""
    return Predictions(images.names, images.patients, images.labels, logits, plan.source.classes)


def metrics_of(result: EpochResult, labels: np.ndarray) -> dict[str, float]:
    """The metrics of an epoch, by the names that every store has them under.

    Args:
        result: The epoch.
        labels: Of the validation images, int [N].
    """
    score = scores(labels, softmax(result.validation_logits))
    found = {
        "train/loss": result.train_loss,
        "train/accuracy": result.train_accuracy,
        "val/loss": result.validation_loss,
        **{f"val/{name}": value for name, value in score.items()},
    }
    if result.stressed_logits is not None and result.stressed_loss is not None:
        score = scores(labels, softmax(result.stressed_logits))
        found |= {"val/stressed_loss": result.stressed_loss, "val/stressed_auroc": score["auroc"]}
    return found


def describe_params(params: Mapping[str, Any]) -> str:
    """Writes hyperparameters as `name=value`, as --fix takes them."""
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )
