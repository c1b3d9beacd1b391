"""Images that are nearly the same: saved anew, resized, cropped by a few pixels, lit otherwise or mirrored.

Perceptual hashes (ImageHash's pHash, 256 bits) find candidates: of the whole image, of the image without a margin, and
of its mirror image. Radiographs resemble each other, so a candidate counts only where the fine structure of both
correlates: the figures that the limits were chosen by are in docs/searching.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageOps

SIZE = 128  # pixels of a side that a decoded image needs
BITS = 16  # of a side of the hash
MOST_BITS = 40  # that differ between candidates
LEAST_CORRELATION = 0.96
MARGINS = (0.0, 0.02, 0.04)  # without which an image is hashed, of each side; the first is the image as it is
FINE, BLUR = 64, 4.0  # pixels of a side, and standard deviation of the blur that fine structure is left without
# Parts of an image that a copy may show (left, upper, right, lower), from 0 to 1: the whole, without a margin, without
# a strip on one side or a corner.
PARTS = (
    *((margin, margin, 1 - margin, 1 - margin) for margin in (0.0, 0.01, 0.02, 0.03, 0.04)),
    *(
        side
        for strip in (0.015, 0.03)
        for side in ((strip, 0, 1, 1), (0, strip, 1, 1), (0, 0, 1 - strip, 1), (0, 0, 1, 1 - strip))
    ),
    (0.02, 0.02, 1, 1),
    (0, 0.02, 0.98, 1),
    (0.02, 0, 1, 0.98),
    (0, 0, 0.98, 0.98),
)
FLAT = 1.0  # standard deviation of gray values below which an image has nothing to compare
MOST_PAIRS = 10_000  # that are named of each two splits; all are counted
CHUNK = 512  # images compared with all others at once


@dataclass(frozen=True)
class NearPair:
    """Two images that are nearly the same.

    Attributes:
        first: The name of one.
        second: The name of the other.
        correlation: Of their fine structure, from LEAST_CORRELATION to 1.
    """

    first: str
    second: str
    correlation: float


def hashes(pixels: np.ndarray) -> np.ndarray | None:
    """The perceptual hashes of one image.

    Args:
        pixels: uint8 [SIZE, SIZE].

    Returns:
        bool [4, 256]: as it is, without a margin of 2 % and of 4 % on each side, and mirrored; None for a flat image.
    """
    from imagehash import phash  # imports SciPy's transforms, which only this needs

    if pixels.std() < FLAT:
        return None
    image, side = Image.fromarray(pixels), pixels.shape[0]
    boxes = [(margin * side, margin * side, (1 - margin) * side, (1 - margin) * side) for margin in MARGINS]
    views = [image.resize((4 * BITS, 4 * BITS), Image.Resampling.BILINEAR, box=box) for box in boxes]
    views.append(views[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    return np.stack([phash(view, hash_size=BITS).hash.ravel() for view in views])


def near_pairs(
    names: Sequence[str],
    splits: Sequence[str],
    same: Sequence[str],
    hashed: Sequence[np.ndarray | None],
    pixels: Callable[[int], np.ndarray],
) -> tuple[dict[str, int], dict[str, list[NearPair]]]:
    """Finds the near duplicates among images; those that are identical are left out.

    Args:
        names: Of each image.
        splits: Of each image.
        same: Equal for images that are identical.
        hashed: What `hashes` gave for each.
        pixels: The pixels of an image by its place, as `hashes` takes them.

    Returns:
        How many pairs there are by their splits, such as `train and test` or `train alone`; and the pairs, the likest
        first, MOST_PAIRS at most of each two splits.
    """
    rows = np.array([row for row, bits in enumerate(hashed) if bits is not None], dtype=np.int64)
    if len(rows) < 2:
        return {}, {}
    signs = np.stack([bits for bits in hashed if bits is not None]).astype(np.float32) * 2 - 1
    fine = lru_cache(maxsize=64)(lambda row: _fine_structure(pixels(row)))
    counts: Counter[str] = Counter()
    pairs: dict[str, list[NearPair]] = {}
    for start in range(0, len(rows), CHUNK):
        # A view of one against the other as it is, and the other way round: a crop may be on either side.
        here, rest = signs[start : start + CHUNK], signs[start:]  # earlier ones have been compared with these
        agreement = here[:, 0] @ rest[:, 0].T
        for view in range(1, signs.shape[1]):
            np.maximum(agreement, here[:, view] @ rest[:, 0].T, out=agreement)
        for view in range(1, len(MARGINS)):
            np.maximum(agreement, here[:, 0] @ rest[:, view].T, out=agreement)
        bits = (BITS * BITS - agreement) / 2
        for one, other in np.argwhere(bits <= MOST_BITS):
            left, right = int(rows[start + one]), int(rows[start + other])
            if left >= right or same[left] == same[right]:
                continue
            correlation = _correlation(fine(left), fine(right))
            if correlation < LEAST_CORRELATION:
                continue
            kind = f"{splits[left]} and {splits[right]}" if splits[left] != splits[right] else f"{splits[left]} alone"
            counts[kind] += 1
            pairs.setdefault(kind, []).append(NearPair(names[left], names[right], round(correlation, 3)))
    for kind, found in pairs.items():
        pairs[kind] = sorted(found, key=lambda pair: (-pair.correlation, pair.first, pair.second))[:MOST_PAIRS]
    return dict(counts), pairs


def _fine_structure(pixels: np.ndarray) -> np.ndarray:
    """What is left of PARTS of an image, and of its mirror image, without its coarse structure and its lighting.

    Returns:
        float32 [len(PARTS) + 1, FINE * FINE], each row of length 1.
    """
    from scipy.ndimage import gaussian_filter

    image, side = ImageOps.equalize(Image.fromarray(pixels)), pixels.shape[0]
    views = [
        image.resize((FINE, FINE), Image.Resampling.BILINEAR, box=tuple(side * end for end in part)) for part in PARTS
    ]
    views.append(views[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    stack = np.stack([np.asarray(view, dtype=np.float32) for view in views])
    stack = (stack - gaussian_filter(stack, (0, BLUR, BLUR))).reshape(len(views), -1)
    stack -= stack.mean(axis=1, keepdims=True)
    return stack / np.maximum(np.linalg.norm(stack, axis=1, keepdims=True), 1e-6)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """The highest correlation of one whole image with a part of the other or its mirror image."""
    return float(max((one @ other[0]).max(), (other @ one[0]).max()))
