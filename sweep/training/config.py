"""The configuration and the results of a training, and what its files are called. Imports no torch.

A folder of checkpoints holds `last.safetensors` (network, optimiser, best weights and the result of every epoch), the
one before it as `previous.safetensors`, and `best.safetensors` once the training has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models import file_of

BEST, LAST, PREVIOUS = "best.safetensors", "last.safetensors", "previous.safetensors"


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number: this configuration cannot be trained."""


class ConfigurationError(ValueError):
    """A training cannot begin: its images are missing, or its network cannot be built."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides the numbers of a training, on a given kind of device.

    Attributes:
        arch: A key of ARCHITECTURES.
        activation: A key of models.layers.ACTIVATIONS.
        optimizer: A key of OPTIMIZERS.
        learning_rate: Above 0.
        batch_size: Images per step.
        dropout: Probability from 0 to 1.
        seed: Every random draw comes from it.
        epochs: Epochs at most.
        patience: Epochs without a lower `EpochResult.judged_by` before the training stops; 0 trains all epochs.
        image_size: Side of the images, in pixels.
        classes: Number of logits.
        precision: `float32` or `bfloat16` for training steps; validation is always float32, as serving is.
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        options: Further arguments of the architecture's `build`.
        micro_batch: Images that pass through the network at once; the gradients of a batch add up over its parts. None
            takes the whole batch. For when memory is short: dropout and batch statistics are then drawn part by part.
        augmentation: `own` is the architecture's; else a key of `data.recipe.RECIPES`.
        normalisation: `fixed`, or a normalisation of each image before the network, as `Architecture.build` takes it.
        pooling: `own` or `average`, as `Architecture.build` takes it.
        label_smoothing: Share of each label that is spread evenly over all classes, from 0 to below 1.
        averaging: `none`, or `ema`: a moving average of the weights is validated, kept and served.
        stress: Whether the validation images are also scored as another machine might have made them, by
            `data.recipe.STRESS`; the loss on these then decides which weights are kept.
        schedule: `constant`, or `cosine`: the learning rate rises at first (`warmup_ratio`) and then falls to 0.
        warmup_ratio: Share of `epochs` in which the learning rate rises from 0, from 0 to below 1; `own` is half an
            epoch with the schedule `cosine` and nothing with `constant`.
        first_layer_rate: Learning rate of the network's first layer as a share of that of its last one, above 0, at
            most 1; `optimizers.parameter_groups` says what the layers between get.
        weight_decay: As torch's optimisers take it, 0 or more; `own` is the optimiser's default, .01 for adamw and 0
            for the others.
        mix: `none`, or a key of `data.mixing.ALPHAS`: training images are mixed in pairs, and so are their labels.
        drop_path: Probability, from 0 to below 1, that the last residual block leaves an image as it is (stochastic
            depth); 0 for architectures that have none.
    """

    arch: str
    activation: str
    optimizer: str
    learning_rate: float
    batch_size: int
    dropout: float
    seed: int
    epochs: int
    patience: int
    image_size: int
    classes: int
    precision: str = "float32"
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
    micro_batch: int | None = None
    augmentation: str = "own"
    normalisation: str = "fixed"
    pooling: str = "own"
    label_smoothing: float = 0.0
    averaging: str = "none"
    schedule: str = "constant"
    stress: bool = False
    warmup_ratio: float | str = "own"
    first_layer_rate: float = 1.0
    weight_decay: float | str = "own"
    mix: str = "none"
    drop_path: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a checkpoint holds it, so that one read back compares equal, on another machine too.

        >>> weights = {"weights": "/home/ann/resnet50.safetensors"}
        >>> config = TrainingConfig("resnet50", "relu", "adam", 1e-3, 32, 0.2, 7, 9, 3, 224, 2, options=weights)
        >>> config.to_dict()["options"]
        {'weights': 'resnet50.safetensors'}
        """
        values = asdict(self)
        if file := file_of(self.arch):  # what it holds is known by its `source_digest`
            values["arch"] = f"{file[0].name}:{file[1]}"
        if self.options.get("weights"):  # each machine may have the file in a place of its own
            values["options"] = {**self.options, "weights": Path(self.options["weights"]).name}
        return values


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch.

    Attributes:
        epoch: From 1.
        train_loss: Weighted cross entropy over the epoch, in training mode, while the weights moved; with smoothed
            or mixed labels, if they are.
        train_accuracy: Likewise, from 0 to 1. Of mixed images the label of the larger share counts.
        validation_loss: Weighted cross entropy after the epoch.
        validation_logits: float32 [N, classes], after the epoch.
        improved: Whether `judged_by` is the lowest so far; then these weights are the best ones.
        seconds: The whole epoch except for writing its checkpoint.
        images_per_second: Training images over the seconds of training alone.
        ended: When, in seconds since 1970.
        repeated: Whether it was trained before and is read from the checkpoint.
        stressed_loss: As `validation_loss`, of the stressed validation images; None without them.
        stressed_logits: float32 [N, classes], likewise.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_logits: np.ndarray
    improved: bool
    seconds: float
    images_per_second: float
    ended: float
    repeated: bool = False
    stressed_loss: float | None = None
    stressed_logits: np.ndarray | None = None

    @property
    def judged_by(self) -> float:
        """The loss that decides: of the stressed images, if there are any."""
        return self.validation_loss if self.stressed_loss is None else self.stressed_loss
