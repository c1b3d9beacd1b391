"""The state of a training between two epochs: written after each one, read to resume.

`resume` gives the network, the optimiser and the results exactly as `save_last` found them. The checkpoint before the
last one is kept, in case the last one is damaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sweep.training import checkpoint
from sweep.training.checkpoint import with_prefix
from sweep.training.config import LAST, PREVIOUS, EpochResult, TrainingConfig

# The fields of a result that a checkpoint holds as JSON. Logits are tensors; `repeated` says how a result was read.
_JSON_FIELDS = [
    column.name
    for column in fields(EpochResult)
    if column.name not in ("validation_logits", "stressed_logits", "repeated")
]
_DEFAULTS = {column.name: column.default for column in fields(TrainingConfig) if column.default is not MISSING}


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes:
        results: Of every epoch so far.
        best_epoch: From 1; 0 before the first.
        best_weights: Of the best epoch, on the CPU.
    """

    results: tuple[EpochResult, ...] = ()
    best_epoch: int = 0
    best_weights: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def best_loss(self) -> float:
        """The lowest loss so far; infinite before the first epoch."""
        return self.results[self.best_epoch - 1].judged_by if self.best_epoch else math.inf

    def after(self, result: EpochResult, network: nn.Module) -> Progress:
        """The progress after a further epoch; copies the weights of the network if the result is an improvement."""
        results = (*self.results, result)
        if not result.improved:
            return Progress(results, self.best_epoch, self.best_weights)
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
        return Progress(results, result.epoch, weights)

    def out_of_patience(self, patience: int) -> bool:
        """Whether there were so many epochs without an improvement; never with a patience of 0."""
        return 0 < patience <= len(self.results) - self.best_epoch


def save_best(path: Path, config: TrainingConfig, progress: Progress) -> None:
    """Writes the weights and the validation logits of the best epoch, for `inference.restore`."""
    tensors = {f"network.{name}": tensor for name, tensor in progress.best_weights.items()}
    logits = torch.from_numpy(progress.results[progress.best_epoch - 1].validation_logits)
    checkpoint.write(
        path, {**tensors, "validation.logits": logits}, {"config": config.to_dict(), "epoch": progress.best_epoch}
    )


def save_last(
    folder: Path,
    config: TrainingConfig,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: nn.Module | None,
    progress: Progress,
) -> None:
    """Writes everything that `resume` needs; the checkpoint before is kept as the previous one."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    if averaged is not None:
        tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.state_dict().items()}
    if progress.best_epoch != len(progress.results):  # else the best weights are those that were validated just now
        tensors |= {f"best.{name}": tensor for name, tensor in progress.best_weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items() if value is not None}
    tensors["logits"] = torch.from_numpy(np.stack([result.validation_logits for result in progress.results]))
    if stressed := [result.stressed_logits for result in progress.results if result.stressed_logits is not None]:
        tensors["stressed"] = torch.from_numpy(np.stack(stressed))
    rows = [{name: getattr(result, name) for name in _JSON_FIELDS} for result in progress.results]
    set_aside(folder)
    checkpoint.write(folder / LAST, tensors, {"config": config.to_dict(), "results": rows})


def set_aside(folder: Path) -> None:
    """Renames the last checkpoint of a folder to the previous one, to make room for the next."""
    with suppress(FileNotFoundError):  # it is the first, or a worker that was given up wrote at this very moment
        (folder / LAST).replace(folder / PREVIOUS)


def resume(
    folder: Path,
    config: TrainingConfig,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: nn.Module | None,
) -> Progress:
    """Loads the newest readable checkpoint of exactly this configuration; without one the training is at its start.

    Args:
        folder: Where the checkpoints are.
        config: How the network is trained.
        network: Gets the weights of the checkpoint.
        optimizer: Gets its moments.
        averaged: Gets the average of the weights, if one is kept.
    """
    for name in (LAST, PREVIOUS):
        with suppress(FileNotFoundError, ValueError):
            tensors, metadata = checkpoint.read(folder / name)
            # A checkpoint that is older than a field of the configuration was trained with the field's default.
            if {**_DEFAULTS, **metadata["config"]} == config.to_dict():
                return _load(tensors, metadata["results"], network, optimizer, averaged)
    return Progress()


def _load(
    tensors: Mapping[str, torch.Tensor],
    rows: list[dict[str, Any]],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: nn.Module | None,
) -> Progress:
    network.load_state_dict(with_prefix(tensors, "network."))
    if averaged is not None:
        averaged.load_state_dict(with_prefix(tensors, "averaged."))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in with_prefix(tensors, "optimizer.").items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # Fused optimisers walk through memory: moments must lie there as their parameter does (channels last).
            tensor = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    stressed = tensors["stressed"].numpy() if "stressed" in tensors else [None] * len(rows)
    results = tuple(
        EpochResult(**row, validation_logits=logits, stressed_logits=stressed_logits, repeated=True)
        for row, logits, stressed_logits in zip(rows, tensors["logits"].numpy(), stressed, strict=True)
    )
    best_epoch = max(result.epoch for result in results if result.improved)
    validated = "network." if averaged is None else "averaged."
    best_weights = with_prefix(tensors, validated if best_epoch == len(results) else "best.")
    return Progress(results, best_epoch, best_weights)
