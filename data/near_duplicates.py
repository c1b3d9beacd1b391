"""Images that are nearly the same: saved anew, resized, cropped by a few pixels, lit otherwise or mirrored.

Each image has perceptual hashes (ImageHash's pHash) of 256 bits: of the whole image, of the image without a margin, and
of its mirror image. Two images are near duplicates where the hash of one as it is and any hash of the other differ in at
most MOST_BITS. Radiographs resemble each other: 64 bits cannot tell them apart (docs/searching.md has the figures that
length and limit were chosen by).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

SIZE = 128  # pixels that a decoded image needs
BITS = 16  # a side of the hash
MOST_BITS = 40
MARGINS = (0.0, 0.02, 0.04)  # of each side; the first is the image as it is
FLAT = 1.0  # standard deviation of gray values below which an image has nothing to compare
MOST_PAIRS = 10_000  # that are named of each two splits; all are counted
CHUNK = 512  # images compared with all others at once


@dataclass(frozen=True)
class NearPair:
    """Two images that are nearly the same.

    Attributes:
        first: The name of one.
        second: The name of the other.
        bits: In how many of 256 bits their hashes differ.
    """

    first: str
    second: str
    bits: int


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
    names: Sequence[str], splits: Sequence[str], same: Sequence[str], hashed: Sequence[np.ndarray | None]
) -> tuple[dict[str, int], dict[str, list[NearPair]]]:
    """Finds the near duplicates among images; those that are identical are left out.

    Args:
        names: Of each image.
        splits: Of each image.
        same: Equal for images that are identical.
        hashed: What `hashes` gave for each.

    Returns:
        How many pairs there are by their splits, such as `train and test` or `train alone`; and the pairs, those with
        the fewest different bits first, MOST_PAIRS at most of each two splits.
    """
    rows = np.array([row for row, bits in enumerate(hashed) if bits is not None], dtype=np.int64)
    if len(rows) < 2:
        return {}, {}
    signs = np.stack([bits for bits in hashed if bits is not None]).astype(np.float32) * 2 - 1
    plain = signs[:, 0]
    counts: Counter[str] = Counter()
    pairs: dict[str, list[NearPair]] = {}
    for start in range(0, len(rows), CHUNK):
        # A view of one against the other as it is, and the other way round: a crop may be on either side.
        here = signs[start : start + CHUNK]
        agreement = np.max([here[:, view] @ plain.T for view in range(signs.shape[1])], axis=0)
        for view in range(1, len(MARGINS)):
            np.maximum(agreement, plain[start : start + CHUNK] @ signs[:, view].T, out=agreement)
        bits = (BITS * BITS - agreement) / 2
        for one, other in np.argwhere(bits <= MOST_BITS):
            left, right = int(rows[start + one]), int(rows[other])
            if left >= right or same[left] == same[right]:
                continue
            kind = f"{splits[left]} and {splits[right]}" if splits[left] != splits[right] else f"{splits[left]} alone"
            counts[kind] += 1
            pairs.setdefault(kind, []).append(NearPair(names[left], names[right], int(bits[one, other])))
    for kind, found in pairs.items():
        pairs[kind] = sorted(found, key=lambda pair: (pair.bits, pair.first, pair.second))[:MOST_PAIRS]
    return dict(counts), pairs
