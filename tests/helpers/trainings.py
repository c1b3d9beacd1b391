"""Trainings in this process: run, cut in the middle, and set beside one that was not."""

from __future__ import annotations

import numpy as np
import torch

from sweep.training import checkpoint
from sweep.training.config import BEST, LAST, TrainingConfig
from sweep.training.loop import train

CONFIG = TrainingConfig("cnn1", "relu", "adam", 1e-3, 32, 0.2, seed=7, epochs=3, patience=0, image_size=24, classes=2)
EXTRA = {
    "augmentation": "both",
    "normalisation": "image",
    "pooling": "average",
    "label_smoothing": 0.1,
    "averaging": "ema",
    "schedule": "cosine",
    "warmup_ratio": 0.3,
    "first_layer_rate": 0.1,
    "weight_decay": 0.05,
    "mix": "cutmix",
}


def run(config, images, folder, **options):
    return list(train(config, images["train"], images["validation"], folder, **options))


def state(folder, name=LAST):
    return checkpoint.read(folder / name)[0]


def same(ours, theirs):
    """Whether two results are one, but for how fast and when."""
    numbers = ("epoch", "train_loss", "train_accuracy", "validation_loss", "improved")
    return all(getattr(ours, name) == getattr(theirs, name) for name in numbers) and np.array_equal(
        ours.validation_logits, theirs.validation_logits
    )


def interrupted(config, images, folder, epochs=1):
    """As a process that died after some epochs."""
    cut = train(config, images["train"], images["validation"], folder)
    for _ in range(epochs):
        next(cut)
    cut.close()
    torch.manual_seed(12345)


def goes_on_as(whole, config, images, folder):
    """Resumes the training in `cut` after its first epoch; its numbers and files are those of the one in `whole`."""
    rest = run(config, images, folder / "cut")
    assert [result.epoch for result in rest] == [1, 2, 3]
    assert [result.repeated for result in rest] == [True, False, False]
    assert all(same(ours, theirs) for ours, theirs in zip(rest, whole, strict=True))
    for name in (LAST, BEST):
        ours, theirs = state(folder / "cut", name), state(folder / "whole", name)
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert torch.equal(tensor, ours[key]), key
