"""What the networks share: the activation functions that a study may choose from, and what makes their steps fast."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

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


class Dropout(nn.Dropout):
    """Dropout that draws 16 random bits per number where a CPU trains; anywhere else it is torch's own.

    torch draws more for each number than deciding it needs: a tenth of a step of cnn1 (benchmarks/README.md). The
    probability is the nearest of 65,536ths, and what is kept is scaled by that one, so that the mean stays.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Maps any shape to the same."""
        dense = input.is_contiguous() or input.is_contiguous(memory_format=torch.channels_last)
        if not self.training or input.device.type != "cpu" or not 0 < self.p < 1 or not dense:
            return functional.dropout(input, self.p, self.training)
        return _Dropped.apply(input, self.p)  # pyright: ignore[reportReturnType]


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, probability: float) -> torch.Tensor:
        dropped = min(round(probability * 65_536), 65_535)
        draws = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16).as_strided(input.size(), input.stride())  # so that all lie in memory alike
        kept = (bits >= dropped - 32_768).to(input.dtype)
        ctx.save_for_backward(kept)
        ctx.scale = 65_536 / (65_536 - dropped)
        return (input * kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (gradients[0] * kept).mul_(ctx.scale), None


class GlobalAverage(nn.Module):
    """The mean of each feature map: what is seen counts, and not where."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps float [N, C, H, W] to [N, C]."""
        return maps.mean((2, 3))


def gathered(pooling: str, channels: int, side: int) -> tuple[nn.Module, int]:
    """What makes one vector of feature maps, and its length.

    Args:
        pooling: `own` flattens them, as the report does; `average` takes the mean of each.
        channels: How many there are.
        side: Of each.
    """
    return (GlobalAverage(), channels) if pooling == "average" else (Flatten(), channels * side**2)


class Standardise(nn.Module):
    """Gives each image the same mean and deviation, whatever its exposure was.

    They become .5 and .25, as of pixels, and then what the architecture makes of pixels: (x - mean) / std.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.centre, self.spread = (0.5 - mean) / std, 0.25 / std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps float [N, 1, H, W] to the same shape."""
        centred = images - images.mean((1, 2, 3), keepdim=True)
        # An image of one gray has no deviation; a thousandth of the range keeps it from being a division by 0.
        deviation = centred.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-3)
        return centred / deviation * self.spread + self.centre


class Equalise(nn.Module):
    """Replaces each pixel by the share of its image's pixels that are no brighter: histogram equalisation.

    What brightness, contrast and gamma do to a film does not change which pixel is the brighter one, so nothing is
    left of it. The shares, 0 to 1 as pixels are, become what the architecture makes of pixels: (x - mean) / std.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps float [N, 1, H, W] to the same shape."""
        flat = images.flatten(1).contiguous()
        shares = torch.searchsorted(flat.sort(1).values, flat, right=True) / flat.shape[1]
        return (shares.view_as(images) - self.mean) / self.std


class ImageNetPixels(nn.Module):
    """Scales pixels as networks that learned from ImageNet saw them: its mean and deviation, over the three colors.

    torchvision and timm publish (.485, .456, .406) and (.229, .224, .225); a gray image has the mean of the three.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.scale, self.shift = std / 0.226, (mean - 0.449) / 0.226

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps float [N, 1, H, W] to the same shape."""
        return images * self.scale + self.shift


NORMALISATIONS = {"image": Standardise, "histogram": Equalise, "imagenet": ImageNetPixels}


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
