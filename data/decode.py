"""One image file to one square of gray pixels: the same bytes give the same pixels in training and in serving.

This file needs Pillow and numpy alone, because a copy of it travels inside every registered model.
"""

from __future__ import annotations

import io
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
UNSTATED = "largest of unstated depth"  # key in a picture's `info`, see `open_gray`

_PNG = b"\x89PNG\r\n\x1a\n"
_GRAY = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # Pillow's modes of more than 8 bits
_WIDE = re.compile(r"(RGB|RGBA|LA);16[BLN]")  # color of 16 bits, of which Pillow itself keeps the upper 8
_LUMA = np.array([19595, 38470, 7471], dtype=np.uint32)  # of 65536, as Pillow's `convert("L")` weighs
_BITS, _PHOTOMETRIC, _MAX_SAMPLE, _SAMPLE_FORMAT, _SMAX_SAMPLE, _ORIENTATION = 258, 262, 281, 339, 341, 274
# Tags that a TIFF's pixels need: size, samples, strips, tiles, compression, palette, orientation, JPEG's and YCbCr's.
_TIFF_NEEDED = frozenset((*range(254, 285), 292, 293, 317, *range(320, 326), *range(338, 348), *range(512, 533)))
_T = Image.Transpose
_TURNS = {2: _T.FLIP_LEFT_RIGHT, 3: _T.ROTATE_180, 4: _T.FLIP_TOP_BOTTOM, 5: _T.TRANSPOSE, 6: _T.ROTATE_270}
_TURNS |= {7: _T.TRANSVERSE, 8: _T.ROTATE_90}

# Pillow knows some kinds of gray TIFF in one byte order only, or only where black is zero: here are the others.
# Samples come as they are in the file; `_gray_of` inverts those where white is zero.
for _order, _end in ((b"II", ""), (b"MM", "B")):
    for _photometric in (0, 1):
        for _format, _bits, _modes in (
            (1, 12, ("I;16", "I;12")),  # packed from the first bit on, whatever the byte order
            (1, 16, (f"I;16{_end}", f"I;16{_end}")),
            (1, 32, ("I", f"I;32{_end}")),
            (2, 8, ("L", "L")),
            (2, 16, ("I", f"I;16{_end}S")),
            (2, 32, ("I", f"I;32{_end}S")),
        ):
            TiffImagePlugin.OPEN_INFO.setdefault((_order, _photometric, (_format,), 1, (_bits,), ()), _modes)


class UnreadableImageError(ValueError):
    """An image that cannot be used; the message is one sentence that says why."""


class _Samples(NamedTuple):
    """The numbers of an image of more than 8 bits.

    Attributes:
        values: [H, W] or, in color, [H, W, 3]; black is 0 unless `inverted`.
        stated: The number that is white, as the file says; None where it says none.
        usual: The largest number that the container holds; None where that says nothing about white.
        inverted: Whether 0 is white.
        alpha: [H, W] from 0 to 1, or None.
    """

    values: np.ndarray
    stated: int | None
    usual: int | None
    inverted: bool = False
    alpha: np.ndarray | None = None


def decode(source: Path | bytes, size: int, depth: int | None = None) -> np.ndarray:
    """Decodes one image to gray and resizes it to a square.

    Args:
        source: A file's path, or a file's bytes.
        size: Side of the result, in pixels.
        depth: As `open_gray` takes it.

    Returns:
        uint8 array of shape [size, size], 0 black to 255 white.

    Raises:
        UnreadableImageError: It is no image, is damaged, or is larger than MAX_BYTES or MAX_PIXELS.
    """
    return resize(open_gray(source, depth), size)


def open_gray(source: Path | bytes, depth: int | None = None) -> Image.Image:
    """Decodes one image to 8-bit gray, turned as its camera says, in its own size.

    JPEGs are decoded straight to luminance, which for gray content is what `convert("RGB")` followed by
    `convert("L")` gives, at a third of the work. What is wrong with metadata costs no image.

    White is what the file states: TIFF BitsPerSample of 12, or MaxSampleValue where that is a depth (such as 4095);
    PNG sBIT, unless the samples fill 16 bits, as PNG has them; PGM maxval. Where it states nothing, white is
    `depth`; without that, the largest value of 16 bits, and 1 of floating-point numbers. WhiteIsZero is inverted.

    Args:
        source: A file's path, or a file's bytes.
        depth: Bits per sample of images of more than 8 bits that state no depth of their own.

    Returns:
        The picture. `info[UNSTATED]` is the largest sample of a 16-bit image where neither it nor `depth` says what
        is white.

    Raises:
        UnreadableImageError: It is no image, is damaged, or is larger than MAX_BYTES or MAX_PIXELS; or a sample is
            negative or above white, or nothing says what is white.
    """
    try:
        length = len(source) if isinstance(source, bytes) else source.stat().st_size
        if length > MAX_BYTES:
            raise UnreadableImageError(f"{length:,} bytes, more than the {MAX_BYTES:,} allowed")
        content = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise UnreadableImageError(str(error.strerror)) from error
    if not content:
        raise UnreadableImageError("the file is empty")
    try:
        return _open(content, depth)
    except UnreadableImageError:
        raise
    # Pillow's decoders raise whatever the damage runs into: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        try:
            return _open(_without_metadata(content), depth)
        except UnreadableImageError:
            raise
        except Exception:  # then the first error is the one to tell
            raise UnreadableImageError(_reason(error, content)) from error


def resize(image: Image.Image, size: int, native: Sequence[int] | None = None) -> np.ndarray:
    """Resizes an 8-bit gray image to a uint8 array of shape [size, size], bilinear with anti-aliasing.

    Args:
        image: The image.
        size: In pixels.
        native: Largest width and height of the images that a network learned from. A larger image is brought down
            to them first, so that it has no more detail than those had; None leaves that out.
    """
    if native is not None:
        # A side that those images had to be made smaller in has all the detail that the network takes.
        width, height = (min(s, most) if most < size else s for s, most in zip(image.size, native, strict=True))
        image = _resized(image, (width, height))
    return np.asarray(_resized(image, (size, size)), dtype=np.uint8)


def orientation(image: Image.Image) -> int:
    """How an image is to be turned, EXIF's number from 1 to 8; 1, which is not at all, where that cannot be read."""
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever a damaged tag runs into
        return 1
    return turn if turn in _TURNS else 1


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def _open(content: bytes, depth: int | None) -> Image.Image:
    """As `open_gray`, and raises whatever Pillow does."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise UnreadableImageError(f"{width} x {height} pixels, more than the {MAX_PIXELS:,} allowed")
        samples = _samples(image, content)
        if samples is None:
            image.draft("L", None)
            image.load()
        picture = _gray(image) if samples is None else _gray_of(samples, depth)
        turn = _TURNS.get(orientation(image))
        if turn is not None:
            info, picture = picture.info, picture.transpose(turn)
            picture.info = info
        return picture


def _gray(image: Image.Image) -> Image.Image:
    """Turns an image of 8 bits into gray; transparency is laid on black."""
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("L")


def _gray_of(samples: _Samples, depth: int | None) -> Image.Image:
    """Scales samples to 8-bit gray."""
    values = samples.values
    low, high = values.min(initial=0), values.max(initial=0)
    if not np.isfinite([low, high]).all():
        raise UnreadableImageError("a pixel is not a finite number")
    if low < 0:
        raise UnreadableImageError("a pixel is negative, and black is 0; save it as unsigned numbers")
    white, whose = samples.stated, "its file states"
    if white is None and depth is not None:
        white, whose = 2**depth - 1, f"--depth {depth} means"
    if white is None and samples.usual is None:
        if values.dtype.kind == "f" and high <= 1:
            white = 1
        else:
            raise UnreadableImageError(
                "its file does not say which number is white; say how many bits hold it (--depth), "
                "or save it as 16-bit unsigned numbers"
            )
    unstated = white is None
    white = samples.usual if white is None else white
    assert white is not None  # noqa: S101
    if high > white:
        raise UnreadableImageError(f"a pixel is above {white}, which is white as {whose}")
    if values.ndim == 3:
        red, green, blue = (values[..., color].astype(np.uint32) * luma for color, luma in enumerate(_LUMA))
        values = (red + green + blue + np.uint32(0x8000)) >> 16
    table = (white - values.astype(np.float32)) if samples.inverted else values.astype(np.float32)
    table *= 255 / white
    if samples.alpha is not None:
        table *= samples.alpha
    picture = Image.fromarray(np.rint(table, out=table).astype(np.uint8))
    if unstated and samples.usual is not None:
        picture.info[UNSTATED] = int(high)
    return picture


def _samples(image: Image.Image, content: bytes) -> _Samples | None:
    """Reads the samples of an image of more than 8 bits; None for other images, which are not read yet."""
    if image.format == "TIFF":
        return _tiff_samples(image, content)
    if image.format == "PPM" and image.mode == "I":
        return _pgm_samples(image, content)
    if image.format == "PNG":
        return _png_samples(image, content)
    return _Samples(np.asarray(image), None, None) if image.mode in _GRAY else None


def _pgm_samples(image: Any, content: bytes) -> _Samples:
    _, (_, _, width, height), offset, arguments = image.tile[0]
    most = arguments[-1] if isinstance(arguments, tuple) else 65535
    if content[:2] == b"P5":  # Pillow reads them one by one
        if len(content) < offset + 2 * width * height:
            raise UnreadableImageError("image file is truncated")
        values = np.frombuffer(content, ">u2", width * height, offset).reshape(height, width)
    else:
        values = np.rint(np.asarray(image) * (most / 65535)).astype(np.uint16)  # which Pillow spread over 16 bits
    return _Samples(values, None if most == 65535 else most, 65535)


def _png_samples(image: Image.Image, content: bytes) -> _Samples | None:
    if content[24] != 16:  # bits per sample, in the header
        return None
    significant = next((data for kind, data in _png_chunks(content) if kind == b"sBIT"), b"")
    colors = 1 if content[25] in (0, 4) else 3
    alpha, values = None, _wide_values(image, content)
    if values is None:  # with one color that is transparent
        return None
    if values.ndim == 3 and values.shape[2] in (2, 4):
        most = _png_white(values[..., -1], significant[colors:]) or 65535
        alpha = (values[..., -1] / most).astype(np.float32)
        values = values[..., 0] if colors == 1 else values[..., :3]
    return _Samples(values, _png_white(values, significant[:colors]), 65535, alpha=alpha)


def _png_white(values: np.ndarray, significant: bytes) -> int | None:
    """White as the sBIT chunk states it, or None.

    A file that follows the specification has spread its samples over all 16 bits; many leave them as they were.
    """
    bits = max(significant, default=16)
    if not 0 < bits < 16:
        return None
    return 2**bits - 1 if values.max(initial=0) < 2**bits else 65535


def _tiff_samples(image: Any, content: bytes) -> _Samples | None:
    tags = image.tag_v2
    if image.tile and image.tile[0][0] == "libtiff":  # it gives the machine's byte order, which Pillow forgets
        _set_raw_mode(image, re.sub(r"(I;16|I;32|F;32)B?([SF]?)$", r"\1N\2", _raw_mode(image)))
    bits = max(_numbers(tags.get(_BITS, 1)), default=1)
    signed, inverted = max(_numbers(tags.get(_SAMPLE_FORMAT, 1)), default=1) == 2, tags.get(_PHOTOMETRIC, 0) == 0
    if signed and bits == 8 and image.mode == "L":
        values = np.asarray(image).view(np.int8)
        return _Samples(values, 127, 127, inverted)
    if image.mode in _GRAY:
        values = np.asarray(image)
    elif bits == 16 and (wide := _wide_values(image, content)) is not None:
        values, inverted = wide[..., :3], False
        if wide.shape[2] == 4:
            alpha = (wide[..., 3] / 65535).astype(np.float32)
            return _Samples(values, _tiff_white(tags, bits), 65535, alpha=alpha)
    else:
        return None
    usual = {12: 4095, 16: 32767 if signed else 65535}.get(bits)
    return _Samples(values, 4095 if bits == 12 else _tiff_white(tags, bits), usual, inverted)


def _tiff_white(tags: Any, bits: int) -> int | None:
    """White as MaxSampleValue states it, or None.

    It counts where it is the largest number of fewer bits than there are; else it is that image's own maximum.
    """
    for tag in (_MAX_SAMPLE, _SMAX_SAMPLE):
        most = max(_numbers(tags.get(tag, 0)), default=0)
        if most in {2**fewer - 1 for fewer in range(8, bits)}:
            return most
    return None


def _numbers(value: Any) -> list[int]:
    return [number for number in (value if isinstance(value, tuple | list) else (value,)) if isinstance(number, int)]


def _wide_values(image: Any, content: bytes) -> np.ndarray | None:
    """Reads gray or color of 16 bits whole, uint16 [H, W] or [H, W, bands]; None where Pillow's 8 must do."""
    if image.mode in _GRAY:
        return np.asarray(image)
    raw = _raw_mode(image)
    if not _WIDE.fullmatch(raw) or "transparency" in image.info:
        return None
    with Image.open(io.BytesIO(content), formats=FORMATS) as other:
        if raw == "LA;16B":  # four bytes a pixel: the mode that has as many gives them as they are
            _set_raw_mode(other, "RGBA")
            return np.ascontiguousarray(np.asarray(other)).view(">u2").astype(np.uint16)
        # Pillow keeps the upper byte of each sample; read in the other byte order, that is the lower one.
        upper_first = raw[-1] == "B" or (raw[-1] == "N" and sys.byteorder == "big")
        _set_raw_mode(other, raw[:-1] + ("L" if upper_first else "B"))
        return np.asarray(image).astype(np.uint16) << 8 | np.asarray(other)


def _raw_mode(image: Any) -> str:
    """How Pillow thinks that the samples lie in the file; empty where parts of it differ."""
    modes = {tile.args if isinstance(tile.args, str) else str(tile.args[0]) for tile in image.tile}
    return modes.pop() if len(modes) == 1 else ""


def _set_raw_mode(image: Any, raw: str) -> None:
    image.tile = [
        tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:])) for tile in image.tile
    ]


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG, kind and data; the last may be cut short."""
    place = len(_PNG)
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4])
        yield content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        place += length + 12


def _without_metadata(content: bytes) -> bytes:
    """The same image without what its pixels do not need; EXIF stays, which tells how it is turned."""
    if content.startswith(_PNG):
        place, kept = len(_PNG), [_PNG]
        for kind, data in _png_chunks(content):
            if kind[:1].isupper() or kind in (b"tRNS", b"sBIT", b"eXIf"):  # a capital letter: needed by every reader
                kept.append(content[place : place + len(data) + 12])
            place += len(data) + 12
        return b"".join(kept)
    if content[:2] in (b"II", b"MM"):
        return _tiff_without(content)
    place, kept = 2, [content[:2]]  # a JPEG's segments, up to its pixels
    while content[:2] == b"\xff\xd8" and content[place] == 0xFF and content[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4])
        if content[place + 1] not in (0xE0, *range(0xE2, 0xEE), 0xEF, 0xFE):  # application data and comments
            kept.append(content[place:end])
        place = end
    return b"".join([*kept, content[place:]])


def _tiff_without(content: bytes) -> bytes:
    """A TIFF of which each unneeded tag is one byte that nobody knows."""
    order, changed = "<" if content[:2] == b"II" else ">", bytearray(content)
    (place,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, place)
    for start in range(place + 2, min(place + 2 + 12 * count, len(content) - 11), 12):
        if struct.unpack_from(f"{order}H", content, start)[0] not in _TIFF_NEEDED:
            struct.pack_into(f"{order}HHI", changed, start, 65000, 1, 1)
    return bytes(changed)


def _reason(error: Exception, content: bytes) -> str:
    """One sentence on why an image cannot be read."""
    if not isinstance(error, Image.UnidentifiedImageError):
        return (str(error) or type(error).__name__).splitlines()[0]
    if content[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "not an image of a known format"
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if 43 in content[2:4] else 8])
        with io.BytesIO(content) as file:
            file.seek(tags.next)
            tags.load(file)
    except Exception:  # whatever the damage runs into
        return "not a TIFF that can be read"
    kind = {2: "signed ", 3: "floating-point "}.get(max(_numbers(tags.get(_SAMPLE_FORMAT, 1)), default=1), "")
    bits = " + ".join(map(str, _numbers(tags.get(_BITS, 1))))
    return (
        f"a TIFF of {bits} {kind}bits per pixel and PhotometricInterpretation {tags.get(_PHOTOMETRIC, 'absent')} "
        "is not read; save it as gray of 8 or 16 bits"
    )
