"""What the networks share: the activation functions that a study may choose from, and what makes their steps fast."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class Flatten(nn.Flatten):
    """Flattens images, and hands their gradient back in the memory format that they came in.

    The gradient of a flattened image lies in memory channel by channel. The layers before would walk through it beside
    images in channels_last, several times slower than turning it once (1.02x to 1.08x on a step).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Maps [N, C, H, W] to [N, C * H * W]."""
        if self.training and input.requires_grad:
            input.register_hook(_channels_last)
        return super().forward(input)


def _channels_last(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def hastened(network: nn.Module) -> nn.Module:
    """The same network on the same weights, in the order in which its steps are cheapest.

    The largest of four rectified numbers is the largest of the four, rectified, to the bit, and gradients are as equal.
    Pooled first, a quarter as many remain to be rectified (1.15x to 1.28x on a step of cnn3).

    Args:
        network: Stays as it is; its layers are shared.

    Returns:
        For training alone: a Sequential of the network's layers, or the network itself where it is none.
    """
    if not isinstance(network, nn.Sequential):
        return network
    layers = list(network)
    for index, (layer, following) in enumerate(pairwise(network)):
        if isinstance(layer, nn.ReLU) and isinstance(following, nn.MaxPool2d):
            layers[index : index + 2] = following, layer
    return nn.Sequential(*layers)
