"""Random warps and light for a whole batch at once, one draw for each image, on the device that trains.

torchvision's random transforms draw one parameter for a whole batch; these draw one for each image, and warp all of
them in one `grid_sample`. The matrices are torchvision's own (tests hold them to it, image by image).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch.nn import functional

from data.recipe import Augmentation

# The grid of 16 images of 160 x 160 stays within a core's cache; larger chunks are slower (FACTS: 9 ms against 52).
CHUNK = 16


@dataclass(frozen=True)
class Draw:
    """One epoch's random draws, one entry per image.

    Attributes:
        matrix: float32 [N, 2, 3], from output to input coordinates in pixels from the image's centre.
        brightness: float32 [N], a factor.
        contrast: float32 [N], a factor.
        gamma: float32 [N], an exponent.
    """

    matrix: torch.Tensor
    brightness: torch.Tensor
    contrast: torch.Tensor
    gamma: torch.Tensor

    def to(self, device: torch.device) -> Draw:
        """The same draws on a device."""
        return Draw(*(getattr(self, column.name).to(device) for column in fields(self)))

    def part(self, rows: slice) -> Draw:
        """Those of some images."""
        return Draw(*(getattr(self, column.name)[rows] for column in fields(self)))


def draw(augmentation: Augmentation, count: int, size: int, generator: torch.Generator) -> Draw:
    """Draws the parameters of `count` images of side `size`, on the CPU so that every device sees the same ones."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    def mirrored(wanted: bool) -> torch.Tensor:
        coin = torch.rand(count, generator=generator) < 0.5
        return coin if wanted else torch.zeros_like(coin)

    angle = uniform(-augmentation.rotation, augmentation.rotation)
    shear = uniform(-augmentation.shear, augmentation.shear)
    scale = uniform(1 - augmentation.zoom, 1 + augmentation.zoom)
    shift = uniform(-augmentation.shift, augmentation.shift) * size
    brightness = uniform(*augmentation.brightness)
    flips = mirrored(augmentation.horizontal_flip), mirrored(augmentation.vertical_flip)
    # Drawn last, so that recipes without them draw the same numbers as before these two existed.
    drop = uniform(-augmentation.drop, augmentation.drop) * size
    contrast, gamma = uniform(*augmentation.contrast), uniform(*augmentation.gamma)
    stretch = uniform(1 - augmentation.stretch, 1 + augmentation.stretch)
    matrix = affine_matrix(angle, shear, scale, shift, drop)
    if augmentation.stretch:
        matrix[:, 0] /= stretch[:, None]  # like a mirror: the film itself is squeezed, before it is turned
    # The mirror is applied to the image before the warp, so it negates the coordinate that the warp looks up.
    for axis, flipped in enumerate(flips):
        matrix[flipped, axis] *= -1
    return Draw(matrix, brightness, contrast, gamma)


def affine_matrix(
    angle: torch.Tensor, shear: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, drop: torch.Tensor
) -> torch.Tensor:
    """Inverse affine matrices, the same as those of torchvision's `functional.affine`, for a whole batch.

    Args:
        angle: float [N], degrees, clockwise.
        shear: float [N], degrees along x.
        scale: float [N], above 0.
        shift: float [N], pixels to the right.
        drop: float [N], pixels down.

    Returns:
        float32 [N, 2, 3], from output to input coordinates in pixels from the image's centre.
    """
    rotation, slant = torch.deg2rad(angle), torch.tan(torch.deg2rad(shear))
    cosine, sine = torch.cos(rotation), torch.sin(rotation)
    # The inverse of scale * rotate(angle) @ [[1, -slant], [0, 1]].
    linear = torch.stack(
        [torch.stack([cosine - sine * slant, sine + cosine * slant], 1), torch.stack([-sine, cosine], 1)], 1
    )
    linear = linear / scale[:, None, None]
    offset = -linear @ torch.stack([shift, drop], 1)[:, :, None]
    return torch.cat([linear, offset], 2)


def warp(images: torch.Tensor, matrix: torch.Tensor, fill: str) -> torch.Tensor:
    """Warps each image by its own matrix, bilinear.

    Args:
        images: float32 [N, 1, size, size].
        matrix: float32 [N, 2, 3] as `affine_matrix` gives, on the same device.
        fill: `zeros` or `border`.

    Returns:
        float32 [N, 1, size, size].
    """
    size = images.shape[-1]
    centred = torch.arange(size, device=images.device, dtype=torch.float32) - (size - 1) / 2
    unit = matrix * (2 / size)  # grid_sample counts from -1 to 1
    chunks = []
    for chunk, part in zip(images.split(CHUNK), unit.split(CHUNK), strict=True):
        down = part[:, :, 1, None] * centred + part[:, :, 2, None]  # [n, 2, size], the part that depends on the line
        grid = (part[:, None, None, :, 0] * centred[:, None]) + down.transpose(1, 2)[:, :, None, :]
        chunks.append(functional.grid_sample(chunk, grid, "bilinear", padding_mode=fill, align_corners=False))
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def augment(pixels: torch.Tensor, augmentation: Augmentation, drawn: Draw) -> torch.Tensor:
    """Applies the draws to a batch.

    Args:
        pixels: uint8 [N, size, size].
        augmentation: What was drawn for; decides what can be skipped.
        drawn: N draws, on the same device.

    Returns:
        float32 [N, 1, size, size], 0 to 1.
    """
    images = pixels.unsqueeze(1).float().div_(255)
    if augmentation.warps:
        images = warp(images, drawn.matrix, augmentation.fill)
    else:
        for axis, wanted in ((0, augmentation.horizontal_flip), (1, augmentation.vertical_flip)):
            if wanted:
                flipped = drawn.matrix[:, axis, axis].lt(0).view(-1, 1, 1, 1)
                images = torch.where(flipped, images.flip(3 - axis), images)
    if augmentation.brightness != (1.0, 1.0):
        images = images.mul_(drawn.brightness.view(-1, 1, 1, 1)).clamp_(0, 1)
    if augmentation.contrast != (1.0, 1.0):
        images = images.lerp_(images.mean((2, 3), keepdim=True), 1 - drawn.contrast.view(-1, 1, 1, 1)).clamp_(0, 1)
    if augmentation.gamma != (1.0, 1.0):
        images = images.pow_(drawn.gamma.view(-1, 1, 1, 1))
    return images


def batches(pixels: torch.Tensor, rows: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
    """Yields batches in order, as they are.

    Args:
        pixels: uint8 [M, size, size].
        rows: int64 [N], which of the M; on the same device.
        batch_size: Images a batch; the last may be smaller.

    Yields:
        float32 [n, 1, size, size] from 0 to 1.
    """
    for chosen in rows.split(batch_size):
        yield pixels[chosen].unsqueeze(1).float().div_(255)


def stress(pixels: torch.Tensor, rows: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """Images as another machine might have made them: each goes through one draw of its own, always the same one.

    Args:
        pixels: uint8 [M, size, size].
        rows: int64 [N], which of the M; on the same device.
        augmentation: What happens to them.

    Returns:
        uint8 [N, size, size].
    """
    generator = torch.Generator().manual_seed(0)
    drawn = draw(augmentation, len(rows), pixels.shape[-1], generator).to(pixels.device)
    done = []
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        images = augment(pixels[rows[part]], augmentation, drawn.part(part))
        done.append(images.squeeze(1).mul_(255).round_().to(torch.uint8))
    return torch.cat(done)


def augmented_batches(
    pixels: torch.Tensor,
    rows: torch.Tensor,
    labels: torch.Tensor,
    batch_size: int,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields one epoch of shuffled, augmented batches, with their labels; arguments as in `batches`.

    All draws of the epoch are made first and sent to the device together, so nothing waits for the host in between.
    """
    count, size, device = len(rows), pixels.shape[-1], pixels.device
    order = torch.randperm(count, generator=generator).to(device)
    drawn = draw(augmentation, count, size, generator).to(device)
    rows, labels = rows[order], labels[order]
    for number in range(math.ceil(count / batch_size)):
        part = slice(number * batch_size, (number + 1) * batch_size)
        yield augment(pixels[rows[part]], augmentation, drawn.part(part)), labels[part]
