"""What somebody may send to a served model: images, values and bodies, most of them wrong."""

from __future__ import annotations

import json
import string
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.helpers.served import picture, text

GOOD = picture(3, 64, 48)
FORMATS = "dataframe_records, dataframe_split, inputs, instances"
NUMBER = 300
# What the server answers, by the name of the request.
SENTENCES = {
    "null": "row 0: the image is not a string",
    "empty": "row 0: the file is empty",
    "words": "row 0: the image is not base64",
    "PDF": "row 0: not an image of a known format",
    "bomb 9000 x 9000": "row 0: 9000 x 9000 pixels, more than the 64,000,000 allowed",
    "70 rows, the last one bad": "row 69: the image is not base64",
    "wrong column": "there is no column image; send base64 images in a column of that name",
    "no images": "there are no rows",
    "threshold 2": "threshold 2.0 is not from 0 to 1",
    "threshold of text": "threshold is not a number from 0 to 1",
    "threshold of an image": "threshold is not a number from 0 to 1",
    "heatmap of text": "heatmap is not true or false",
    "params of a list": 'params are not an object, such as {"threshold": 0.2}',
    "a number beside": "row 1: the image is not base64",
    "lists of unequal length": "inputs is not a table with a column image, one base64 text a row",
    "an image as the key": f"the body is not a JSON object with one of {FORMATS}",
    "an image alone": f"the body is not a JSON object with one of {FORMATS}",
    "cut short": "the body is not JSON: Unterminated string starting at in line 1, column 23",
    "an image and no JSON": "the body is not JSON that can be read",
    "deep": "the body is not JSON that can be read",
    "CSV without its first line": "there is no column image; send base64 images in a column of that name",
    "CSV with an open quote": "the body is not text/csv with a column image",
    "90 MB": f"row 0: {67_500_000 + len(GOOD):,} bytes, more than the 67,108,864 allowed",
}


@dataclass(frozen=True)
class Request:
    """A request.

    Attributes:
        name: What it is.
        body: What is sent, as JSON unless it is bytes.
        statuses: HTTP statuses that are right for it.
        kind: Its content type.
    """

    name: str
    body: Any
    statuses: frozenset[int]
    kind: str = "application/json"


def requests() -> list[Request]:
    """Makes 300 of them, the same each time."""
    random = np.random.default_rng(0)
    made = [
        *spoilt_images(random),
        *sizes_that_a_file_claims(),
        *values_that_are_no_image(),
        *bodies(),
        *other_types(),
        *unusual_but_understood(),
        *large_bodies(random),
        *an_image_in_what_is_wrong(),
    ]
    while len(made) < NUMBER:
        made.append(with_image(f"noise {len(made)}", text(random.bytes(int(random.integers(1, 400)))), 400))
    return made


def with_image(name: str, image: Any, *statuses: int) -> Request:
    return Request(name, {"dataframe_records": [{"image": image}]}, frozenset(statuses))


def with_body(name: str, body: Any, status: int, kind: str = "application/json") -> Request:
    return Request(name, body, frozenset({status}), kind)


def spoilt_images(random: np.random.Generator) -> Iterator[Request]:
    encoded, jpeg = text(GOOD), picture(kind="JPEG", width=120, height=90)
    letters = np.array(list(string.printable))
    for index in range(60):  # base64 with letters exchanged
        spoilt = np.array(list(encoded))
        places = random.integers(0, len(spoilt), int(random.integers(1, 12)))
        spoilt[places] = random.choice(letters, len(places))
        yield with_image(f"spoilt base64 {index}", "".join(spoilt), 200, 400)
    for index in range(40):  # noise that is base64
        yield with_image(f"noise {index}", text(random.bytes(int(random.integers(1, 4000)))), 400)
    for index in range(40):  # a JPEG that ends early
        yield with_image(f"cut JPEG {index}", text(jpeg[: int(random.integers(1, len(jpeg) - 60))]), 400)
    for index in range(40):  # a JPEG with bytes exchanged
        changed = bytearray(jpeg)
        for place in random.integers(0, len(changed), 8):
            changed[place] = random.integers(0, 256)
        yield with_image(f"spoilt JPEG {index}", text(bytes(changed)), 200, 400)
    for index in range(30):  # a PNG that ends early
        yield with_image(f"cut PNG {index}", text(GOOD[: int(random.integers(1, len(GOOD) - 13))]), 400)


def sizes_that_a_file_claims() -> Iterator[Request]:
    for width, height in ((30_000, 30_000), (2**31 - 1, 1), (1, 2**31 - 1), (65_000, 65_000), (0, 0), (9000, 9000)):
        yield with_image(f"bomb {width} x {height}", text(png(width, height, zlib.compress(bytes(1000)))), 400)
    yield with_image("bomb of text", text(png(8, 8, zlib.compress(bytes(50_000_000)))), 200, 400)
    for width, height in ((1, 1), (20_000, 1), (1, 20_000), (20_000, 50)):
        yield with_image(f"{width} x {height}", text(picture(width=width, height=height)), 200)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A file that claims a size, whatever it holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def values_that_are_no_image() -> Iterator[Request]:
    encoded = text(GOOD)
    for name, image in {
        "null": None, "number": 5, "true": True, "list": [1, 2], "dictionary": {"b64": encoded}, "empty": "",
        "spaces": "   ", "words": "hello", "path": "/etc/passwd", "address": "http://127.0.0.1/x.png", "letter": "\ud800",
        "padding": "====", "nothing in a list": [], "HTML": "<html>", "JSON": "{}", "nested": [[encoded]],
        "SVG": text(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "PDF": text(b"%PDF-1.4"), "EPS": text(b"%!PS-Adobe-3.0 EPSF"),
        "pickle": text(b"\x80\x04\x95"), "zip": text(b"PK\x03\x04"), "half a data uri": "data:image/png;base64",
    }.items():  # fmt: skip
        yield with_image(name, image, 400)
    yield with_image("NaN", float("nan"), 400)
    yield with_image("infinite", float("inf"), 400)
    yield with_body("NaN in inputs", {"inputs": {"image": [float("nan")]}}, 400)


def bodies() -> Iterator[Request]:
    encoded = text(GOOD)
    for name, body in {
        "no rows": {"dataframe_records": []}, "no images": {"inputs": {"image": []}}, "nothing": {}, "a number": 5,
        "a list": [], "a text": "x", "null body": None, "inputs null": {"inputs": None}, "inputs number": {"inputs": 5},
        "wrong column": {"dataframe_records": [{"picture": encoded}]}, "wrong key": {"images": [encoded]},
        "a tensor": {"inputs": [[0.1, 0.2], [0.3, 0.4]]}, "split of nothing": {"dataframe_split": {}},
        "split of a number": {"dataframe_split": 5}, "ragged": {"dataframe_split": {"columns": ["image"], "data": [[1, 2]]}},
        "two keys": {"inputs": {"image": [encoded]}, "dataframe_records": []},
        "split without rows": {"dataframe_split": {"columns": ["image"], "data": []}},
        "threshold of text": {"inputs": {"image": [encoded]}, "params": {"threshold": "high"}},
        "threshold 2": {"inputs": {"image": [encoded]}, "params": {"threshold": 2}},
        "threshold NaN": {"inputs": {"image": [encoded]}, "params": {"threshold": float("nan")}},
        "threshold of a list": {"inputs": {"image": [encoded]}, "params": {"threshold": [0.5]}},
        "params of a list": {"inputs": {"image": [encoded]}, "params": [1]},
        "heatmap of text": {"inputs": {"image": [encoded]}, "params": {"heatmap": "please"}},
        "a chat": {"messages": [{"role": "user", "content": "hello"}]},
    }.items():  # fmt: skip
        yield with_body(name, body, 400)
    for name, body in {
        "half a brace": b"{",
        "no body": b"",
        "no text": b"\xff\xfe\x00",
        "comma": b'{"inputs": ,}',
    }.items():
        yield with_body(name, body, 400)


def other_types() -> Iterator[Request]:
    encoded = text(GOOD)
    yield with_body("another type", b"hello", 415, "text/plain")
    yield with_body("an image as it is", GOOD, 415, "image/png")
    yield with_body("CSV of nothing", b"", 400, "text/csv")
    yield with_body("CSV of another column", b"a,b\n1,2\n", 400, "text/csv")
    yield with_body("CSV", f"image\n{encoded}\n".encode(), 200, "text/csv")


def unusual_but_understood() -> Iterator[Request]:
    encoded = text(GOOD)
    yield with_body("a column more", {"dataframe_records": [{"image": encoded, "patient": 4}]}, 200)
    yield with_body("a param more", {"inputs": {"image": [encoded]}, "params": {"temperature": 1}}, 200)
    yield with_body("one image, no list", {"inputs": {"image": encoded}}, 200)
    yield with_body("instances", {"instances": [{"image": encoded}]}, 200)
    yield with_body("heatmap", {"inputs": {"image": [encoded]}, "params": {"heatmap": True}}, 200)


def an_image_in_what_is_wrong() -> Iterator[Request]:
    """A good image in a request that MLflow refuses, most of them before it asks the model."""
    encoded, one = text(GOOD), {"inputs": {"image": [text(GOOD)]}}
    whole = json.dumps(one).encode()
    for name, body in {
        "threshold of an image": {**one, "params": {"threshold": encoded}},
        "threshold of a dictionary": {**one, "params": {"threshold": {"a": encoded}}},
        "params of an image": {**one, "params": encoded},
        "a number beside": {"inputs": {"image": [encoded, 5]}},
        "null beside": {"dataframe_records": [{"image": encoded}, {"image": None}]},
        "a list beside": {"inputs": {"image": [encoded, [encoded, encoded]]}},
        "lists of unequal length": {"inputs": [[encoded], [encoded, encoded]]},
        "columns of unequal length": {"inputs": {"image": [encoded, encoded], "patient": [1]}},
        "two columns of a name": {"dataframe_split": {"columns": ["image", "image"], "data": [[encoded, encoded]]}},
        "an image as a column": {"inputs": {encoded: [encoded]}},
        "an image as the key": {encoded: [encoded]},
        "an image alone": encoded,
        "images alone": [encoded, encoded],
        "records of images": {"dataframe_records": [encoded, 5]},
        "records of no list": {"dataframe_records": {"image": encoded}},
        "instances of all kinds": {"instances": [{"image": encoded}, 7]},
        "split that is wider": {"dataframe_split": {"columns": ["image"], "data": [[encoded, encoded]]}},
        "split with an image as key": {"dataframe_split": {encoded: ["image"], "data": [encoded]}},
        "a prompt": {"prompt": encoded},
        "cut short": whole[:-4],
        "more than JSON": whole + b"}",
        "Python's quotes": str(one).encode(),
        "an image and no JSON": GOOD,
        "not UTF-8": whole[:-4] + b'\xff"]}}',
        "a number of 5000 digits": whole[:-3] + b", " + b"9" * 5000 + b"]}}",
        "deep": b'{"inputs": ' + b"[" * 100_000 + b'"' + encoded.encode() + b'"' + b"]" * 100_000 + b"}",
    }.items():
        yield with_body(name, body, 400)
    yield with_body("an image as a param's name", {**one, "params": {encoded: 1}}, 200)
    for name, rows in {
        "without its first line": f"{encoded}\n{encoded}\n",
        "of another width": f"image\n{encoded}\n{encoded},{encoded},{encoded}\n",
        "with an open quote": f'image\n"{encoded}\n',
        "of JSON": whole.decode(),
    }.items():
        yield with_body(f"CSV {name}", rows.encode(), 400, "text/csv")
    yield with_body("CSV of bytes", GOOD, 400, "text/csv")
    yield with_body("no Parquet", encoded.encode(), 400, "application/vnd.apache.parquet")
    yield with_body("a form", f"image={encoded}".encode(), 415, "application/x-www-form-urlencoded")


def parts_of_the_image() -> list[str]:
    """What an answer or a log must not hold: any 60 letters of the good image hold one of these."""
    encoded, shown = text(GOOD), repr(GOOD)
    return [whole[at : at + 40] for whole in (encoded, shown) for at in range(0, len(whole) - 40, 20)]


def large_bodies(random: np.random.Generator) -> Iterator[Request]:
    encoded = text(GOOD)
    yield with_body("70 rows, the last one bad", {"inputs": {"image": [encoded] * 69 + ["rubbish"]}}, 400)
    yield with_body("50 MB of noise", {"inputs": {"image": [text(random.bytes(37_500_000))]}}, 400)
    yield with_body("50 MB after an image", {"inputs": {"image": [text(GOOD + bytes(37_500_000))]}}, 200)
    yield with_body("90 MB", {"inputs": {"image": [text(GOOD + bytes(67_500_000))]}}, 400)
