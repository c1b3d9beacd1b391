"""CNN architecture 3 of the report (section 3.3): three convolutions, each pooled, and two linear layers."""

from __future__ import annotations

from torch import nn

from models.layers import ACTIVATIONS, Dropout, gathered


def build(activation: str, dropout: float, classes: int, image_size: int, pooling: str = "own") -> nn.Sequential:
    """Builds cnn3; the report leaves the widths to a figure that is lost, so 32, 64 and 128 are ours.

    Args:
        activation: A key of ACTIVATIONS.
        dropout: Probability from 0 to 1.
        classes: Number of logits.
        image_size: Side of the input, in pixels.
        pooling: As `models.layers.gathered` takes it.

    Returns:
        A network from float [N, 1, image_size, image_size] to logits [N, classes].
    """
    act = ACTIVATIONS[activation]
    gather, features = gathered(pooling, 128, image_size // 8)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        act(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        act(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1),
        act(),
        nn.MaxPool2d(2),
        gather,
        nn.Linear(features, 128),
        act(),
        Dropout(dropout),
        nn.Linear(128, classes),
    )
