"""A network from its configuration: built, restored from a checkpoint, and applied to images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data.augment import batches, stress
from data.cache import Images
from data.recipe import STRESS
from models import architecture
from sweep.training import checkpoint
from sweep.training.config import TrainingConfig

PREDICTION_BATCH = 64


@dataclass(frozen=True)
class Trained:
    """A network with the weights of its best epoch.

    Attributes:
        network: On the CPU, in evaluation mode.
        config: How it was trained.
        epoch: The best epoch, from 1.
        validation_logits: float32 [N, classes] of that epoch.
    """

    network: nn.Module
    config: TrainingConfig
    epoch: int
    validation_logits: np.ndarray


def build_network(config: TrainingConfig) -> nn.Module:
    """Builds a freshly initialised network; its initial weights come from torch's global generator."""
    return architecture(config.arch).build(
        config.activation,
        config.dropout,
        config.classes,
        config.image_size,
        config.normalisation,
        config.pooling,
        drop_path=config.drop_path,
        **config.options,
    )


def restore(path: Path, arch: str | None = None) -> Trained:
    """Reads a network from its `best.safetensors`.

    Args:
        path: The file.
        arch: The architecture, where the caller knows the place of a file of the user's; None for what is recorded.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is not a best checkpoint.
        InputError: The file of a network of the user's is gone or another one.
    """
    tensors, metadata = checkpoint.read(path)
    config = TrainingConfig(**{**metadata["config"], **({} if arch is None else {"arch": arch})})
    # The weights come from the checkpoint; the file of those that the training started from may be gone.
    options = {**config.options, "weights": None} if "weights" in config.options else config.options
    with torch.random.fork_rng(devices=[]):
        network = build_network(replace(config, options=options))
    network.load_state_dict(checkpoint.with_prefix(tensors, "network."))
    return Trained(network.eval(), config, metadata["epoch"], tensors["validation.logits"].numpy())


def predict(
    network: nn.Module, config: TrainingConfig, images: Images, *, stressed: bool = False, mirrored: bool = False
) -> np.ndarray:
    """Computes a network's logits in float32.

    Args:
        network: As `restore` returns it; stays on its device.
        config: How it was trained; decides how images are prepared.
        images: N images.
        stressed: Whether the images are first changed as another machine might have made them, as in training.
        mirrored: Whether left and right change places, after that.

    Returns:
        float32 [N, classes].
    """
    device = next(network.parameters()).device
    pixels, rows, _ = to_device(images, device)
    if stressed:
        pixels, rows = stress(pixels, rows, STRESS), torch.arange(len(rows), device=device)
    if mirrored:
        pixels, rows = pixels[rows].flip(-1), torch.arange(len(rows), device=device)
    return compute_logits(network, config, pixels, rows).cpu().numpy()


@torch.inference_mode()
def compute_logits(
    network: nn.Module, config: TrainingConfig, pixels: torch.Tensor, rows: torch.Tensor
) -> torch.Tensor:
    """Computes logits, float32 [N, classes], of the `rows` of `pixels`; leaves the network in evaluation mode."""
    row = architecture(config.arch)
    network.eval()
    return torch.cat(
        [
            network(normalise(images, row.mean, row.std))
            for images in batches(pixels, rows, min(PREDICTION_BATCH, config.micro_batch or PREDICTION_BATCH))
        ]
    )


def normalise(images: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Subtracts the mean and divides by the standard deviation; float32 [N, 1, H, W] in channels-last memory."""
    images = images if (mean, std) == (0.0, 1.0) else (images - mean) / std
    return images.contiguous(memory_format=torch.channels_last)


def to_device(images: Images, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns what `data.augment.batches` takes: on a CPU the shared memory map, on a GPU a copy of these rows alone.

    Returns:
        Pixels, uint8 [M, size, size]; rows, int64 [N], of these; labels, int64 [N].
    """
    pixels = images.pixels()
    labels = torch.from_numpy(images.labels).to(device)
    if device.type == "cpu":
        return torch.from_numpy(pixels), torch.from_numpy(images.rows), labels
    return torch.from_numpy(pixels[images.rows]).to(device), torch.arange(len(images), device=device), labels
