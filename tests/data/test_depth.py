"""Bit depth, polarity and metadata of image files: pixels mean what the file says."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data.decode import UNSTATED, UnreadableImageError, decode, open_gray
from tests.helpers.raw_images import jpeg_with, packed, pgm, png, tiff

SHAPE = (20, 31)  # odd, so that rows of 12 bits end within a byte
RAMP = np.clip(np.add.outer(np.linspace(0, 0.1, 20), np.linspace(0.05, 0.9, 31)), 0, 1)
V8, V10, V12, V16 = (np.rint(RAMP * (2**bits - 1)).astype(np.uint16) for bits in (8, 10, 12, 16))


def gray(content, depth=None):
    return np.asarray(open_gray(content, depth))


def scaled(values, white):
    return np.rint(values.astype(np.float32) * (255 / white)).astype(np.uint8)


def sample_bytes(values, order, kind="u2"):
    return values.astype(f"{order}{kind}").tobytes()


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def in_strips(values, order, compress=bytes):
    return [compress(sample_bytes(values[top : top + 5], order)) for top in range(0, 20, 5)]


TWELVE = {
    "PGM": pgm(V12, 4095),
    "PGM in digits": pgm(V12, 4095, plain=True),
    "PNG with sBIT": png(V12, chunks=[(b"sBIT", b"\x0c")]),
    "PNG with sBIT, spread": png(np.rint(V12 * (65535 / 4095)).astype(np.uint16), chunks=[(b"sBIT", b"\x0c")]),
    "gray and alpha": png(np.stack([V12, np.full_like(V12, 65535)], -1), 4, [(b"sBIT", b"\x0c\x10")]),
    "gray and alpha of 12": png(np.stack([V12, np.full_like(V12, 4095)], -1), 4, [(b"sBIT", b"\x0c\x0c")]),
    "color PNG": png(np.stack([V12] * 3, -1), 2, [(b"sBIT", b"\x0c\x0c\x0c")]),
    "color TIFF": tiff(
        [sample_bytes(np.stack([V12] * 3, -1), "<")], SHAPE, 16, 2, samples=3, extra=[(281, 3, [4095] * 3)]
    ),
}
for order in "<>":
    for zero, values in (("black", V12), ("white", 4095 - V12)):
        photometric = int(zero == "black")
        name = f"{order} {zero} is zero"
        TWELVE |= {
            f"12-bit TIFF {name}": tiff([packed(values)], SHAPE, 12, photometric, order),
            f"strips {name}": tiff([packed(values[:10]), packed(values[10:])], SHAPE, 12, photometric, order),
            f"deflate {name}": tiff([zlib.compress(packed(values))], SHAPE, 12, photometric, order, compression=8),
            f"MaxSampleValue {name}": tiff(
                [sample_bytes(values, order)], SHAPE, 16, photometric, order, extra=[(281, 3, [4095])]
            ),
            f"SMaxSampleValue {name}": tiff(
                [sample_bytes(values, order)], SHAPE, 16, photometric, order, extra=[(341, 3, [4095])]
            ),
        }
TWELVE["BigTIFF"] = tiff([packed(4095 - V12)], SHAPE, 12, 0, big=True)


@pytest.mark.parametrize("content", TWELVE.values(), ids=TWELVE)
def test_twelve_bits_give_the_same_grays_in_every_file_that_states_them(content):
    assert np.array_equal(gray(content), scaled(V12, 4095))
    assert UNSTATED not in open_gray(content).info
    assert np.array_equal(gray(content, depth=14), scaled(V12, 4095))  # what a file states goes before


@pytest.mark.parametrize(
    ("content", "values", "white"),
    [
        (png(V10, chunks=[(b"sBIT", b"\x0a")]), V10, 1023),
        (pgm(V10 // 2, 1000), V10 // 2, 1000),
        (pgm(V10 // 2, 1000, plain=True), V10 // 2, 1000),
        (pgm(V16, 65535), V16, 65535),
        (png(np.stack([V16] * 3, -1), 2), V16, 65535),
    ],
    ids=["PNG of 10 bits", "PGM of 1000", "PGM of 1000 in digits", "PGM of 65535", "color of 16 bits"],
)
def test_white_is_what_the_file_states(content, values, white):
    assert np.array_equal(gray(content), scaled(values, white))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 4, 8, 16, 32])
def test_where_white_is_zero_the_image_is_inverted_at_every_depth(bits, order):
    values = {1: V8 // 128, 4: V8 // 16, 8: V8, 16: V16, 32: RAMP.astype(np.float32)}[bits]
    most = 1 if bits == 32 else 2**bits - 1
    if bits < 8:
        values = np.pad(values, ((0, 0), (0, 1)))
        width = 8 // bits
        pack = lambda array: sum(array[:, i::width] << (8 - bits * (i + 1)) for i in range(width)).astype("u1")  # noqa: E731
    else:
        pack = {8: lambda a: a.astype("u1"), 16: lambda a: a.astype(f"{order}u2"), 32: lambda a: a.astype(f"{order}f4")}[bits]  # fmt: skip
    for compress, compression in ((bytes, 1), (zlib.compress, 8)):
        white, black = (
            tiff([compress(pack(array).tobytes())], values.shape, bits, photometric, order,
                 compression=compression, format=3 if bits == 32 else 1)
            for photometric, array in ((0, most - values), (1, values))
        )  # fmt: skip
        assert np.array_equal(gray(white), gray(black))
        assert np.array_equal(gray(black), scaled(values, most))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_compressed_strips_and_byte_orders_are_inverted_too(compression):
    content = saved(Image.fromarray(65535 - V16), "TIFF", compression=compression, tiffinfo={262: 0})
    assert np.array_equal(gray(content), scaled(V16, 65535))
    big = tiff(in_strips(65535 - V16, ">", zlib.compress), SHAPE, 16, 0, ">", compression=8)
    assert np.array_equal(gray(big), scaled(V16, 65535))
    assert np.array_equal(gray(tiff(in_strips(V16, ">"), SHAPE, 16, 1, ">")), scaled(V16, 65535))


def test_twelve_bits_that_nothing_states_are_marked_and_read_with_a_given_depth():
    for content in (png(V12), pgm(V12, 65535), tiff([sample_bytes(V12, ">")], SHAPE, 16, 1, ">")):
        assert open_gray(content).info[UNSTATED] == V12.max()
        assert np.array_equal(gray(content, depth=12), scaled(V12, 4095))
        assert UNSTATED not in open_gray(content, 12).info
    # Its own maximum, as TIFF has it, is no depth.
    darker = V12 - V12 // 4
    own = tiff([sample_bytes(darker, "<")], SHAPE, 16, extra=[(281, 3, [int(darker.max())])])
    assert open_gray(own).info[UNSTATED] == darker.max()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
def test_signed_and_floating_point_samples(order, compression):
    compress = zlib.compress if compression == 8 else bytes

    def written(values, kind, bits, format):
        return tiff([compress(sample_bytes(values, order, kind))], SHAPE, bits, 1, order, compression=compression, format=format)  # fmt: skip

    assert np.array_equal(gray(written(V16 // 2, "i2", 16, 2)), scaled(V16 // 2, 32767))
    assert np.array_equal(gray(written(V8 // 2, "i1", 8, 2)), scaled(V8 // 2, 127))
    assert np.array_equal(gray(written(V12, "f4", 32, 3), 12), scaled(V12, 4095))
    assert np.array_equal(gray(written(V12, "i4", 32, 2), 12), scaled(V12, 4095))
    for values, kind, bits, format, why in (
        (V16.astype(int) - 30000, "i2", 16, 2, "a pixel is negative"),
        (V8.astype(int) - 100, "i1", 8, 2, "a pixel is negative"),
        (V12, "f4", 32, 3, "does not say which number is white.*--depth"),
        (V12, "i4", 32, 2, "does not say which number is white.*--depth"),
        (np.full(SHAPE, np.nan), "f4", 32, 3, "not a finite number"),
    ):
        with pytest.raises(UnreadableImageError, match=why):
            open_gray(written(values, kind, bits, format))


@pytest.mark.parametrize(
    ("content", "depth", "why"),
    [
        (png(V16), 12, "a pixel is above 4095, which is white as --depth 12 means"),
        (pgm(V12, 1000), None, "a pixel is above 1000, which is white as its file states"),
        (tiff([bytes(1000)], SHAPE, 10), None, "a TIFF of 10 bits per pixel .* save it as gray of 8 or 16"),
        (tiff([bytes(2000)], SHAPE, 16, format=3), None, "a TIFF of 16 floating-point bits"),
        (pgm(V12, 4095)[:-9], None, "truncated"),
    ],
)
def test_what_contradicts_itself_or_cannot_be_read_is_refused_with_a_sentence(content, depth, why):
    with pytest.raises(UnreadableImageError, match=why):
        open_gray(content, depth)


TEXT = np.random.default_rng(0).integers(32, 127, 2_000_000, dtype=np.uint8).tobytes()
CHUNKS = {
    "a long text": (b"tEXt", b"Comment\0" + TEXT),
    "a long compressed text": (b"zTXt", b"Comment\0\0" + zlib.compress(TEXT)),
    "a long international text": (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(TEXT)),
    "a long color profile": (b"iCCP", b"x\0\0" + zlib.compress(TEXT)),
    "a broken color profile": (b"iCCP", b"x\0\0nonsense"),
    "an empty color profile": (b"iCCP", b""),
    "broken EXIF": (b"eXIf", b"nonsense!"),
    "a short gamma": (b"gAMA", b""),
}


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
def test_no_chunk_beside_the_pixels_costs_a_png(chunk):
    assert np.array_equal(gray(png(V8.astype("u1"), chunks=[chunk])), V8)


def directory(*entries):
    return struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHI4s", *entry) for entry in entries) + bytes(4)


TURN = (274, 3, 1, b"\6\0\0\0")
SEGMENTS = {
    "EXIF that is none": (0xE1, b"Exif\0\0nonsense", 0),
    "EXIF with a bad tag": (0xE1, b"Exif\0\0II*\0\x08\0\0\0" + directory((274, 99, 1, b"\1\0\0\0")), 0),
    # What Pillow cannot write back: an integer where there are to be bytes, a text for a directory.
    "a turn and what cannot be written back": (
        0xE1, b"Exif\0\0II*\0\x08\0\0\0" + directory(TURN, (34853, 2, 2, b"a\0\0\0"), (37121, 3, 2, b"\1\0\2\0")), 1,
    ),
    "a turn and a bad place": (0xE1, b"Exif\0\0II*\0\x08\0\0\0" + directory(TURN, (34665, 4, 1, b"\xff\xff\xff\x7f")), 1),
    "a color profile cut short": (0xE2, b"ICC_PROFILE\0", 0),
    "a directory of several images": (0xE2, b"MPF\0II*\0\x08\0\0\0" + directory((0xB001, 4, 1, b"\2\0\0\0")), 0),
    "Photoshop's, cut short": (0xED, b"Photoshop 3.0\x008BIM\4\4", 0),
}  # fmt: skip


@pytest.mark.parametrize(("marker", "data", "turns"), SEGMENTS.values(), ids=SEGMENTS)
def test_no_segment_beside_the_pixels_costs_a_jpeg_and_its_turn_is_kept(marker, data, turns):
    plain = saved(Image.fromarray(V8.astype("u1")), "JPEG", quality=95)
    assert np.array_equal(gray(jpeg_with(plain, marker, data)), np.rot90(gray(plain), -turns))


def test_bad_tags_cost_no_tiff():
    for entry in ((305, 2, [255] * 3), (282, 3, [0]), (34675, 7, [1]), (34665, 4, [99_999_999]), (700, 1, [0] * 9)):
        content = bytearray(tiff([sample_bytes(65535 - V16, "<")], SHAPE, 16, 0, extra=[entry]))
        place = content.index(struct.pack("<HH", entry[0], entry[1]))
        assert np.array_equal(gray(bytes(content)), scaled(V16, 65535))
        struct.pack_into("<HI", content, place + 2, 12, 2**31)  # of another type, and very many of them
        assert np.array_equal(gray(bytes(content)), scaled(V16, 65535))


def test_files_and_bytes_give_the_same(tmp_path):
    path = tmp_path / "film.tif"
    path.write_bytes(TWELVE["deflate > white is zero"])
    assert np.array_equal(decode(path, 16), decode(path.read_bytes(), 16))
