"""What images are before they are decoded: how large, and whether their 16 bits are used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from data.decode import FORMATS, UNSTATED, open_gray, orientation

DEPTHS = (8, 10, 12, 14)  # of X-ray detectors, and of images that were made 16-bit
TURNED = range(5, 9)  # orientations that exchange width and height


def size_in_header(path: Path) -> tuple[int, int] | None:
    """Reads width and height of an image file as it will be decoded; None where its header cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            # Pillow exchanges a TIFF's by itself, and reads a whole PNG to look for EXIF where its header has none.
            turned = image.format != "TIFF" and "exif" in image.info and orientation(image) in TURNED
            return (height, width) if turned else (width, height)
    except Exception:  # whatever the damage runs into; decoding says it
        return None


def largest_sample(path: Path, depth: int | None) -> int | None:
    """Decodes an image file if it may be of 16 bits, and returns the picture's `UNSTATED`; None for others."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            wide = image.mode.startswith("I") or ";16" in str(image.tile)
        return open_gray(path, depth).info.get(UNSTATED) if wide else None
    except Exception:  # whatever the damage runs into; decoding says it
        return None


def read_otherwise(path: Path) -> bool:
    """Whether version 0.1.0 gave other pixels to an image file, told from its header.

    It inverted nothing of more than 8 bits, used no depth that a file states, and gave each PGM of 16 bits and each
    32-bit image a scale of its own.
    """
    if path.suffix.lower() not in (".png", ".tif", ".tiff", ".pgm", ".ppm"):
        return False
    try:
        with Image.open(path, formats=FORMATS) as image:
            if not image.mode.startswith(("I", "F")):
                return ";16" in str(image.tile)  # color, of which it kept the upper 8 bits
            if image.format == "PNG":
                with path.open("rb") as file:
                    return b"sBIT" in file.read(4096)
            tags: Any = getattr(image, "tag_v2", {})
            plain = tags.get(258) == (16,) and tags.get(262, 0) == 1 and tags.get(339, (1,)) == (1,)
            return not plain or 281 in tags or 341 in tags
    except Exception:  # whatever the damage runs into
        return False


def unused_depth(largest: Iterable[int | None]) -> tuple[int, int]:
    """Finds the depth that 16-bit images of unstated depth seem to have.

    Args:
        largest: The `UNSTATED` of each image, None where it has none; read no further than the answer needs.

    Returns:
        Bits, the fewest of DEPTHS that hold every sample, 16 where none does; and the number of such images.
    """
    depth, count = 0, 0
    for most in largest:
        if most is not None:
            count += 1
            depth = max(depth, next((bits for bits in DEPTHS if most < 2**bits), 16))
            if depth == 16:
                break
    return depth or 16, count


def depth_note(depth: int, count: int, images: str) -> tuple[str, ...]:
    """What a person should know of `unused_depth`: one sentence, or none where all 16 bits are used."""
    if depth == 16:
        return ()
    return (
        f"{count:,} {images} have 16 bits per pixel and state no depth, and none of their pixels is above "
        f"{2**depth - 1:,}, white at {depth} bits: as 16-bit images they are dark; if {depth} bits is their depth, "
        f"say --depth {depth}",
    )


def largest_size(sizes: Iterable[tuple[int, int] | None]) -> tuple[int, int] | None:
    """The largest width and the largest height of some images; None where no size is known."""
    known = [size for size in sizes if size is not None]
    return (max(width for width, _ in known), max(height for _, height in known)) if known else None


def native_size(largest: Sequence[int] | None, size: int) -> tuple[int, int] | None:
    """What larger images are brought down to first: the largest training images, where a side is below `size`."""
    return (largest[0], largest[1]) if largest is not None and min(largest) < size else None
