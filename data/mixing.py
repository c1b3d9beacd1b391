"""Training images mixed in pairs: mixup (Zhang et al., arXiv 1710.09412) and CutMix (Yun et al., arXiv 1905.04899)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

# Shares are drawn from Beta(alpha, alpha): mixup's paper takes .1 to .4 for ImageNet, CutMix's takes 1.
ALPHAS: Mapping[str, float] = {"mixup": 0.2, "cutmix": 1.0}


@dataclass(frozen=True)
class Mix:
    """How each image of a batch is mixed with its partner, the image before it in the batch.

    Batches are shuffled, so the image before is a random one; the partner of the first is the last.

    Attributes:
        share: Of the image itself in what comes out, from 0 to 1; the partner has the rest.
        box: Lines from and to, columns from and to, which come from the partner; None blends the whole images.
    """

    share: float
    box: tuple[int, int, int, int] | None = None

    def images(self, images: torch.Tensor) -> torch.Tensor:
        """Mixes a batch.

        Args:
            images: float32 [N, 1, size, size].

        Returns:
            The same shape; the argument stays as it is.
        """
        if self.box is None:
            return torch.lerp(partners(images), images, self.share)
        top, bottom, left, right = self.box
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = partners(images[:, :, top:bottom, left:right])
        return mixed


def partners(batch: torch.Tensor) -> torch.Tensor:
    """What each image of a batch is mixed with: of images [N, ...] or labels [N], the same shape."""
    return batch.roll(1, 0)


def draw_mix(kind: str, size: int, random: np.random.Generator) -> Mix:
    """Draws how a batch is mixed.

    Args:
        kind: A key of ALPHAS.
        size: Side of the images, in pixels.
        random: Where the draws come from.
    """
    share = random.beta(ALPHAS[kind], ALPHAS[kind])
    if kind == "mixup":
        return Mix(share)
    # A box around a pixel, with 1 - share of the area where it does not reach beyond the image.
    half = int(size * (1 - share) ** 0.5) // 2
    line, column = (int(place) for place in random.integers(size, size=2))
    top, bottom = max(0, line - half), min(size, line + half)
    left, right = max(0, column - half), min(size, column + half)
    return Mix(1 - (bottom - top) * (right - left) / size**2, (top, bottom, left, right))


def mixed_batches(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]], kind: str, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]]:
    """Mixes the batches of an epoch.

    Args:
        batches: Shuffled images, float32 [n, 1, size, size], and their labels.
        kind: `none`, or a key of ALPHAS.
        seed: Every draw comes from it.

    Yields:
        Images; their labels; those of their partners; the share of the former, 1 where nothing is mixed.
    """
    random = np.random.default_rng(seed)
    for images, labels in batches:
        if kind == "none":
            yield images, labels, labels, 1.0
        else:
            mix = draw_mix(kind, images.shape[-1], random)
            yield mix.images(images), labels, partners(labels), mix.share
