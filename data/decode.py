"""One image file to one square of gray pixels: the same bytes give the same pixels in training and in serving.

This file needs Pillow and numpy alone, because a copy of it travels inside every registered model.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")


class UnreadableImageError(ValueError):
    """An image that cannot be used; the message is one sentence that says why."""


def decode(source: Path | bytes, size: int) -> np.ndarray:
    """Decodes one image to gray and resizes it to a square.

    Args:
        source: A file's path, or a file's bytes.
        size: Side of the result, in pixels.

    Returns:
        uint8 array of shape [size, size], 0 black to 255 white.

    Raises:
        UnreadableImageError: It is no image, is damaged, or is larger than MAX_BYTES or MAX_PIXELS.
    """
    return resize(open_gray(source), size)


def open_gray(source: Path | bytes) -> Image.Image:
    """Decodes one image to 8-bit gray, turned as its camera says, in its own size.

    JPEGs are decoded straight to luminance, which for gray content is what `convert("RGB")` followed by
    `convert("L")` gives, at a third of the work.

    Args:
        source: A file's path, or a file's bytes.

    Raises:
        UnreadableImageError: It is no image, is damaged, or is larger than MAX_BYTES or MAX_PIXELS.
    """
    try:
        length = len(source) if isinstance(source, bytes) else source.stat().st_size
    except OSError as error:
        raise UnreadableImageError(str(error.strerror)) from error
    if length == 0:
        raise UnreadableImageError("the file is empty")
    if length > MAX_BYTES:
        raise UnreadableImageError(f"{length:,} bytes, more than the {MAX_BYTES:,} allowed")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnreadableImageError(f"{width} x {height} pixels, more than the {MAX_PIXELS:,} allowed")
            image.draft("L", None)
            return gray(ImageOps.exif_transpose(image))
    except UnreadableImageError:
        raise
    # Pillow's decoders raise whatever the damage runs into: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        known = "not an image of a known format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise UnreadableImageError(known or type(error).__name__) from error


def gray(image: Image.Image) -> Image.Image:
    """Turns any image into 8-bit gray: 16-bit is scaled, not clipped, and transparency is laid on black."""
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N", "F"):
        values = np.asarray(image)
        low, high = values.min(initial=0), values.max(initial=0)
        if not np.isfinite([low, high]).all():
            raise UnreadableImageError("a pixel is not a finite number")
        # 16-bit files say their range; a float or 32-bit one does not, so its own largest value decides.
        top = 65535.0 if image.mode.startswith("I;16") else max(float(high), 1.0)
        table = np.clip(values, 0, None).astype(np.float32)
        table *= 255 / top
        return Image.fromarray(np.rint(table, out=table).astype(np.uint8), mode="L")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("L")


def resize(image: Image.Image, size: int) -> np.ndarray:
    """Resizes an 8-bit gray image to a uint8 array of shape [size, size], bilinear with anti-aliasing."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8)
