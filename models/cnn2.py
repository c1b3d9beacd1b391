"""CNN architecture 2 of the report (section 3.2): five convolutions, wide kernels first, and two poolings."""

from __future__ import annotations

from torch import nn

from models.layers import ACTIVATIONS, Dropout, gathered


def build(activation: str, dropout: float, classes: int, image_size: int, pooling: str = "own") -> nn.Sequential:
    """Builds cnn2; the report leaves the widths to a figure that is lost, so 16, 32 and 64 are ours.

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
    gather, features = gathered(pooling, 64, image_size // 4)
    # A convolution that batch normalisation follows needs no bias: the mean takes it away again.
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2, bias=False),
        nn.BatchNorm2d(16),
        act(),
        nn.Conv2d(16, 16, 5, padding=2, bias=False),
        nn.BatchNorm2d(16),
        act(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        act(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        act(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        act(),
        Dropout(dropout),
        gather,
        nn.Linear(features, classes),
    )
