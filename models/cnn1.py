"""CNN architecture 1 of the report (section 3.1): three convolutions and one pooling."""

from __future__ import annotations

from torch import nn

from models.layers import ACTIVATIONS, Dropout, gathered


def build(activation: str, dropout: float, classes: int, image_size: int, pooling: str = "own") -> nn.Sequential:
    """Builds cnn1; the report leaves the widths to a figure that is lost, so 12, 20 and 32 are ours.

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
    gather, features = gathered(pooling, 32, image_size // 2)
    # A convolution that batch normalisation follows needs no bias: the mean takes it away again.
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        act(),
        nn.Conv2d(12, 20, 3, padding=1, bias=False),
        nn.BatchNorm2d(20),
        nn.MaxPool2d(2),
        act(),
        nn.Conv2d(20, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        act(),
        gather,
        Dropout(dropout),
        nn.Linear(features, classes),
    )
