"""Image files written by hand, sample by sample: what no library writes, and what cameras and archives do."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

SIZES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B"}  # TIFF's types


def packed(values: np.ndarray) -> bytes:
    """Samples of 12 bits, two in three bytes, each row beginning with a byte of its own."""
    rows = []
    for row in values.tolist():
        bits = "".join(f"{value:012b}" for value in row)
        bits += "0" * (-len(bits) % 8)
        rows.append(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    return b"".join(rows)


def tiff(
    strips: Sequence[bytes], shape: tuple[int, int], bits: int, photometric: int = 1, order: str = "<", **tags: object
) -> bytes:
    """A TIFF.

    Args:
        strips: Its rows, in parts of the same height.
        shape: Height and width.
        bits: Per sample.
        photometric: 0 where white is zero, 1 where black is.
        order: `<` or `>`.
        tags: `compression`, `format` (of samples), `samples` (per pixel), `big` (BigTIFF), `extra`: (tag, type,
            values) of others.
    """
    height, width = shape
    samples, big = int(tags.get("samples", 1)), bool(tags.get("big"))
    fields = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * samples), 259: (3, [tags.get("compression", 1)]),
        262: (3, [photometric]), 277: (3, [samples]), 278: (4, [-(-height // len(strips))]),
        279: (4, [len(strip) for strip in strips]), 339: (3, [tags.get("format", 1)] * samples),
        **{tag: (kind, values) for tag, kind, values in tags.get("extra", ())},
    }  # fmt: skip
    start = b"II" if order == "<" else b"MM"
    head = start + (struct.pack(f"{order}HHHQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HI", 42, 8))
    number, long, slot = ("Q", "Q", 8) if big else ("H", "I", 4)
    place = len(head) + struct.calcsize(number) + (len(fields) + 1) * (12 + 2 * (slot - 4)) + slot
    offsets, body = [], b""
    for strip in strips:
        offsets.append(place + len(body))
        body += strip
    fields[273] = (4, offsets)
    entries = b""
    for tag, (kind, values) in sorted(fields.items()):
        content = struct.pack(f"{order}{len(values)}{SIZES[kind]}", *values)
        if len(content) > slot:
            content, body = struct.pack(f"{order}{long}", place + len(body)), body + content
        entries += struct.pack(f"{order}HH{long}", tag, kind, len(values)) + content.ljust(slot, b"\0")
    return head + struct.pack(f"{order}{number}", len(fields)) + entries + bytes(slot) + body


def png(values: np.ndarray, color: int = 0, chunks: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A PNG of uint8 or uint16 samples, [H, W] or [H, W, bands], with further chunks before its pixels."""
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8 * values.itemsize, color, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(f">u{values.itemsize}").tobytes() for row in values)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def pgm(values: np.ndarray, most: int, *, plain: bool = False) -> bytes:
    """A PGM of 16 bits, binary or written in digits."""
    height, width = values.shape
    header = f"{'P2' if plain else 'P5'}\n{width} {height}\n{most}\n".encode()
    if plain:
        return header + "\n".join(" ".join(map(str, row)) for row in values.tolist()).encode()
    return header + values.astype(">u2").tobytes()


def jpeg_with(content: bytes, marker: int, data: bytes) -> bytes:
    """A JPEG with a further segment at its beginning."""
    return content[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + content[2:]
