"""MLflow's own server for a registered model: right answers, one sentence for anything bad, and it lives through all."""

from __future__ import annotations

import json
import shutil
import string
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from torch import nn

from sweep.stores.registry import Version
from sweep.stores.tracking import Tracking
from tests.helpers.served import NAME, picture, post, probabilities, serving, text


def test_mlflow_serves_it(client: MlflowClient, version: Version, network: nn.Module, tmp_path: Path):
    client.set_registered_model_alias(NAME, "served", version.version)
    good = {"dataframe_records": [{"image": text(picture())}]}
    bad = {"dataframe_split": {"columns": ["image"], "data": [[text(picture())], ["rubbish"]]}}

    with serving(f"models:/{NAME}@served", tmp_path / "log") as url:
        images = [picture(0), picture(1)]
        expected = probabilities(network, images)[:, 1]
        for payload in (
            {"dataframe_split": {"columns": ["image"], "data": [[text(image)] for image in images]}},
            {"dataframe_records": [{"image": text(image)} for image in images]},
            {"inputs": {"image": [text(image) for image in images]}},
        ):
            status, body = post(url, payload)
            assert status == 200, body
            answers = json.loads(body)["predictions"]
            assert [answer["probability"] for answer in answers] == pytest.approx(expected, abs=1e-5)
            assert [answer["threshold"] for answer in answers] == [0.5, 0.5]
            assert [answer["model_version"] for answer in answers] == [version.version] * 2

        status, body = post(url, {**good, "params": {"threshold": 1}})
        assert status == 200, body
        (answer,) = json.loads(body)["predictions"]
        assert (answer["label"], answer["threshold"]) == ("NORMAL", 1)

        status, body = post(url, bad)
        assert status == 400
        assert json.loads(body)["message"] == "row 1: the image is not base64"
        assert "Traceback" not in body
        status, body = post(url, {**good, "params": {"threshold": 2}})
        assert status == 400
        assert json.loads(body)["message"] == "threshold 2.0 is not from 0 to 1"

        assert post(url, good)[0] == 200


Case = tuple[str, Any, str, set[int]]  # name, body, content type, statuses that are right for it


def case(name: str, body: Any, statuses: set[int], kind: str = "application/json") -> Case:
    return name, body, kind, statuses


def image_case(name: str, image: Any, statuses: set[int]) -> Case:
    return case(name, {"dataframe_records": [{"image": image}]}, statuses)


def fuzz(good: bytes) -> list[Case]:
    """300 things that somebody may send."""
    random, encoded = np.random.default_rng(0), text(good)
    cases = [*spoilt_images(random, good), *strange_sizes(), *no_images(encoded), *strange_bodies(encoded)]
    cases += [*other_types(good, encoded), *large_bodies(random, good, encoded)]
    while len(cases) < 300:
        cases.append(image_case(f"noise {len(cases)}", text(random.bytes(int(random.integers(1, 400)))), {400}))
    return cases


def spoilt_images(random: np.random.Generator, good: bytes) -> Iterator[Case]:
    encoded, jpeg = text(good), picture(kind="JPEG", width=120, height=90)
    letters = np.array(list(string.printable))
    for index in range(60):  # base64 with letters exchanged
        spoilt = np.array(list(encoded))
        places = random.integers(0, len(spoilt), int(random.integers(1, 12)))
        spoilt[places] = random.choice(letters, len(places))
        yield image_case(f"spoilt base64 {index}", "".join(spoilt), {200, 400})
    for index in range(40):  # noise that is base64
        yield image_case(f"noise {index}", text(random.bytes(int(random.integers(1, 4000)))), {400})
    for index in range(40):  # a JPEG that ends early
        yield image_case(f"cut JPEG {index}", text(jpeg[: int(random.integers(1, len(jpeg) - 60))]), {400})
    for index in range(40):  # a JPEG with bytes exchanged
        exchanged = bytearray(jpeg)
        for place in random.integers(0, len(exchanged), 8):
            exchanged[place] = random.integers(0, 256)
        yield image_case(f"spoilt JPEG {index}", text(bytes(exchanged)), {200, 400})
    for index in range(30):  # a PNG that ends early
        yield image_case(f"cut PNG {index}", text(good[: int(random.integers(1, len(good) - 13))]), {400})


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A file that claims a size, whatever it holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def strange_sizes() -> Iterator[Case]:
    for width, height in ((30_000, 30_000), (2**31 - 1, 1), (1, 2**31 - 1), (65_000, 65_000), (0, 0), (9000, 9000)):
        yield image_case(f"bomb {width} x {height}", text(png(width, height, zlib.compress(bytes(1000)))), {400})
    yield image_case("bomb of text", text(png(8, 8, zlib.compress(bytes(50_000_000)))), {200, 400})
    for width, height in ((1, 1), (20_000, 1), (1, 20_000), (20_000, 50)):
        yield image_case(f"{width} x {height}", text(picture(width=width, height=height)), {200})


def no_images(encoded: str) -> Iterator[Case]:
    for name, image in {
        "null": None, "number": 5, "true": True, "list": [1, 2], "dictionary": {"b64": encoded}, "empty": "",
        "spaces": "   ", "words": "hello", "path": "/etc/passwd", "address": "http://127.0.0.1/x.png", "letter": "\ud800",
        "padding": "====", "nothing in a list": [], "HTML": "<html>", "JSON": "{}", "nested": [[encoded]],
        "SVG": text(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "PDF": text(b"%PDF-1.4"), "EPS": text(b"%!PS-Adobe-3.0 EPSF"),
        "pickle": text(b"\x80\x04\x95"), "zip": text(b"PK\x03\x04"), "half a data uri": "data:image/png;base64",
    }.items():  # fmt: skip
        yield image_case(name, image, {400})
    yield image_case("NaN", float("nan"), {400})
    yield image_case("infinite", float("inf"), {400})
    yield case("NaN in inputs", {"inputs": {"image": [float("nan")]}}, {400})


def strange_bodies(encoded: str) -> Iterator[Case]:
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
        yield case(name, body, {400})
    for name, body in {
        "half a brace": b"{",
        "no body": b"",
        "no text": b"\xff\xfe\x00",
        "comma": b'{"inputs": ,}',
    }.items():
        yield case(name, body, {400})


def other_types(good: bytes, encoded: str) -> Iterator[Case]:
    yield case("another type", b"hello", {415}, "text/plain")
    yield case("an image as it is", good, {415}, "image/png")
    yield case("CSV of nothing", b"", {400}, "text/csv")
    yield case("CSV of another column", b"a,b\n1,2\n", {400}, "text/csv")
    yield case("CSV", f"image\n{encoded}\n".encode(), {200}, "text/csv")
    yield case("a column more", {"dataframe_records": [{"image": encoded, "patient": 4}]}, {200})
    yield case("a param more", {"inputs": {"image": [encoded]}, "params": {"temperature": 1}}, {200})
    yield case("one image, no list", {"inputs": {"image": encoded}}, {200})
    yield case("instances", {"instances": [{"image": encoded}]}, {200})
    yield case("heatmap", {"inputs": {"image": [encoded]}, "params": {"heatmap": True}}, {200})


def large_bodies(random: np.random.Generator, good: bytes, encoded: str) -> Iterator[Case]:
    yield case("70 rows, the last one bad", {"inputs": {"image": [encoded] * 69 + ["rubbish"]}}, {400})
    yield case("50 MB of noise", {"inputs": {"image": [text(random.bytes(37_500_000))]}}, {400})
    yield case("50 MB after an image", {"inputs": {"image": [text(good + bytes(37_500_000))]}}, {200})
    yield case("90 MB", {"inputs": {"image": [text(good + bytes(67_500_000))]}}, {400})


def test_the_server_lives_through_anything(client: MlflowClient, version: Version, network: nn.Module, tmp_path: Path):
    client.set_registered_model_alias(NAME, "fuzzed", version.version)
    good = picture(3, 64, 48)
    with serving(f"models:/{NAME}@fuzzed", tmp_path / "log") as url:
        wrong = []
        for name, body, kind, statuses in fuzz(good):
            status, answer = post(url, body, kind)
            message = json.loads(answer)["message"] if status == 400 else ""
            if status not in statuses or "Traceback" in message or 'File "' in message:
                wrong.append((name, status, answer[:300]))
            elif name in SENTENCES:
                assert message == SENTENCES[name]
        assert not wrong
        status, answer = post(url, {"inputs": {"image": [text(good)]}})
    assert status == 200
    expected = probabilities(network, [good])[0, 1]
    assert json.loads(answer)["predictions"][0]["probability"] == pytest.approx(expected, abs=1e-5)


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
    "90 MB": f"row 0: {67_500_000 + len(picture(3, 64, 48)):,} bytes, more than the 67,108,864 allowed",
}


@pytest.mark.slow
def test_serves_from_an_environment_of_its_requirements_alone(
    folder: Path, network: nn.Module, client: MlflowClient, version: Version, tracking: Tracking, tmp_path: Path
):
    """A virtual environment with what its requirements.txt says and nothing else: it needs a network, or uv's cache."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv, which installs the environment, is not on the path")
    clean = tmp_path / "clean"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, clean], check=True)
    python = clean / "bin" / "python"
    install = [uv, "pip", "install", "--quiet", "--python", python, "-r", folder / "requirements.txt"]
    subprocess.run(install, check=True, timeout=1200)
    found = subprocess.run([python, "-c", "import sweep"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "No module named 'sweep'" in found.stderr

    client.set_registered_model_alias(NAME, "clean", version.version)
    with serving(f"models:/{NAME}@clean", tmp_path / "log", python) as url:
        status, answer = post(url, {"inputs": {"image": [text(picture())]}, "params": {"heatmap": True}})
    assert status == 200, answer
    (said,) = json.loads(answer)["predictions"]
    assert said["probability"] == pytest.approx(probabilities(network, [picture()])[0, 1], abs=1e-5)
    assert said["model_version"] == version.version
    assert said["heatmap"]
