"""Comparisons of networks that never were, for the tests of what is made of them."""

from functools import cache

import numpy as np

from sweep.comparisons.architectures.analysis import (
    CHOSEN,
    ComparedModel,
    Comparison,
    Cost,
    paired_tests,
)
from sweep.comparisons.architectures.searches import ScoredTrial, Search
from sweep.metrics.assessment import assess
from sweep.metrics.predictions import Predictions
from sweep.metrics.scores import scores

ARCHS = ("cnn1", "cnn2", "cnn3", "resnet50")
CLASSES = ("NORMAL", "PNEUMONIA")


def predictions(seed: int, classes=CLASSES, patients: int = 120, images: int = 200) -> Predictions:
    labels = np.arange(images) % len(classes)
    owners = [f"person{index % patients}" for index in range(images)]
    kinds = ("bacteria", "virus")
    names = [
        f"test/{owner}_{kinds[index % 4 // 2]}_{index}.jpeg" if label else f"test/IM-{index:04d}.jpeg"
        for index, (owner, label) in enumerate(zip(owners, labels, strict=True))
    ]
    logits = 1.5 * np.eye(len(classes))[labels] + np.random.default_rng(seed).normal(0, 1, (images, len(classes)))
    return Predictions(names, owners, labels, logits.astype(np.float32), tuple(classes))


def trials(arch: str, found: Predictions) -> tuple[ScoredTrial, ...]:
    states = ("COMPLETE", "COMPLETE", "PRUNED", "FAIL", "COMPLETE")
    known = scores(found.labels, found.probabilities())
    return tuple(
        ScoredTrial(
            name=f"{arch}-{number:03d}",
            number=number,
            state=state,
            value=None if state == "FAIL" else 0.9 + 0.01 * number,
            validation={"accuracy": 0.95 - 0.01 * number, "auroc": 0.99 - 0.01 * number},
            test=known if state == "COMPLETE" else None,
            seconds=30.0,
            params={"learning_rate": 0.001, "optimizer": "adam", "batch_size": 64},
        )
        for number, state in enumerate(states)
    )


@cache
def compared_model(
    arch: str, seed: int, *, classes=CLASSES, search=True, seeds=True, patients: int = 120, threshold: float = 0.5
) -> ComparedModel:
    found = predictions(seed, classes, patients)
    epochs = [
        {
            "epoch": epoch,
            "train/loss": 1 / epoch,
            "train/accuracy": 0.7 + 0.05 * epoch,
            "val/loss": 0.5 + abs(3 - epoch),
            "val/accuracy": 0.8,
            "val/auroc": 0.9,
        }
        for epoch in range(1, 5)
    ]
    tried = trials(arch, found)
    return ComparedModel(
        arch=arch,
        version=str(seed + 1),
        run=f"{arch}-001",
        run_id="0" * 31 + str(seed),
        params={"arch": arch, "learning_rate": "0.0010000000000000002", "optimizer": "adam", "image_size": "64"},
        history=epochs,
        epoch=3,
        validation={"accuracy": 0.94, "auroc": 0.98},
        assessment=assess(found, 1.2, threshold if len(classes) == 2 else None),
        predictions=found,
        cost=Cost(73_694 * (seed + 1), 30_500_000 * (seed + 1), 315_000, 74.0, 790.0 if search else None, 450.0),
        search=Search(f"x/{arch}", "val/auroc", True, tried, {"learning_rate": 0.7, "optimizer": 0.3})
        if search
        else None,
        seeds={"accuracy": [0.8, 0.81, 0.79], "auroc": [0.9, 0.91, 0.92]} if seeds else {},
    )


@cache
def comparison(count: int = 3, **options) -> Comparison:
    models = tuple(compared_model(arch, seed, **options) for seed, arch in enumerate(ARCHS[:count]))
    return comparison_of(models)


def comparison_of(models: tuple[ComparedModel, ...], champion: str = "") -> Comparison:
    """Of models that are the first of ARCHS; the last of them is the champion, unless another is named."""
    count = len(models)
    champion = champion or ARCHS[count - 1]
    classes = models[0].predictions.classes
    images = {name: 10 * place + 30 for place, name in enumerate(classes)}
    return Comparison(
        name="chest-xray",
        models=models,
        champion=champion,
        chosen=CHOSEN["gate"],
        reference=ARCHS[0],
        paired_tests=paired_tests(models, ARCHS[0], champion),
        missing=ARCHS[count:],
        notes=("one seed is one draw (`sweep compare --seeds 5`)", "cnn1 began with random weights"),
        counts={"train": images, "validation": images, "test": images},
        provenance={
            "data digest": "6ed0f11b55fca413",
            "mlflow.source.git.commit": "4ca21b3",
            "version.torch": "2.15.0",
        },
    )
