"""The model as MLflow serves it without this project: same answers, one sentence for any bad input, heatmaps."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, load_model
from PIL import Image
from torch import nn

from models import ARCHITECTURES
from models.layers import NORMALISATIONS
from sweep.stores import heat_map
from sweep.stores.registry import Version, register
from sweep.stores.tracking import Tracking
from tests.helpers import fuzz
from tests.helpers.served import (
    NAME,
    SIZE,
    example,
    new_spec,
    picture,
    post,
    probabilities,
    serving,
    small_network,
    text,
)

ROOT = Path(__file__).parents[2]

# The model -----------------------------------------------------------------------------------------------------------


def test_same_probabilities_as_in_training(model: PyFuncModel, network: nn.Module):
    shapes = [(30, 20, "PNG", "L"), (8, 50, "JPEG", "RGB"), (16, 16, "PNG", "RGBA"), (40, 40, "JPEG", "L")]
    images = [picture(seed, *shapes[seed % len(shapes)]) for seed in range(37)]  # more than one batch

    answer = model.predict(pd.DataFrame({"image": [text(image) for image in images]}))

    numbers = ["probability", "probability_NORMAL", "probability_PNEUMONIA", "threshold"]
    assert list(answer) == ["label", *numbers, "model_version"]
    expected = probabilities(network, images)
    np.testing.assert_allclose(answer[["probability_NORMAL", "probability_PNEUMONIA"]], expected, rtol=0, atol=1e-5)
    assert answer["probability"].equals(answer["probability_PNEUMONIA"].rename("probability"))
    assert list(answer["label"]) == ["PNEUMONIA" if value >= 0.5 else "NORMAL" for value in answer["probability"]]
    assert set(answer["threshold"]) == {0.5}


def test_another_threshold(model: PyFuncModel):
    rows = pd.DataFrame({"image": [text(picture())]})
    likely = float(model.predict(rows)["probability"][0])

    for threshold, labels in (
        (0, ["PNEUMONIA"]),
        (likely - 1e-6, ["PNEUMONIA"]),
        (likely, ["PNEUMONIA", "NORMAL"]),  # which of both, the digits that are not shown decide
        (likely + 1e-6, ["NORMAL"]),
    ):
        answer = model.predict(rows, params={"threshold": float(threshold)})
        assert answer["label"][0] in labels
        assert (answer["label"][0] == "PNEUMONIA") == (answer["probability"][0] >= threshold)
        assert answer["threshold"][0] == threshold
    for threshold in (-1.0, 1.5, float("nan")):
        with pytest.raises(MlflowException, match=f"threshold {threshold} is not from 0 to 1"):
            model.predict(rows, params={"threshold": threshold})


def test_three_classes_answer_the_likeliest(tracking: Tracking, client: MlflowClient):
    network, classes = small_network(3), ("BACTERIA", "NORMAL", "VIRUS")
    version = register(
        client, new_spec(tracking, name="three", classes=classes, threshold=None), network, example(network)
    )
    model = load_model(client.get_model_version_download_uri("three", version.version))
    images = [picture(seed) for seed in range(6)]
    rows = pd.DataFrame({"image": [text(image) for image in images]})

    answer = model.predict(rows)

    expected = probabilities(network, images)
    assert list(answer["label"]) == [classes[index] for index in expected.argmax(axis=1)]
    np.testing.assert_allclose(answer["probability"], expected.max(axis=1), rtol=0, atol=1e-5)
    assert set(answer["threshold"]) == {None}
    with pytest.raises(MlflowException, match="more than two classes"):
        model.predict(rows, params={"threshold": 0.5})


@pytest.mark.parametrize("normalisation", list(NORMALISATIONS))
def test_what_a_network_does_to_each_image_is_served_too(normalisation: str, tracking: Tracking, client: MlflowClient):
    torch.manual_seed(0)
    network = ARCHITECTURES["cnn1"].build("relu", 0.2, 2, SIZE, normalisation, "average")
    for _ in range(20):  # so that batch normalisation knows what it is given, and images differ
        network.train()((torch.rand(8, 1, SIZE, SIZE) - 0.4) / 0.2)
    spec = new_spec(tracking, name=f"served-{normalisation}")
    version = register(client, spec, network, example(network))
    model = load_model(client.get_model_version_download_uri(spec.name, version.version))
    images = [picture(seed) for seed in range(9)]

    answer = model.predict(pd.DataFrame({"image": [text(image) for image in images]}), params={"heatmap": True})

    expected = probabilities(network, images)
    np.testing.assert_allclose(answer[["probability_NORMAL", "probability_PNEUMONIA"]], expected, rtol=0, atol=1e-5)
    assert np.ptp(expected[:, 1]) > 1e-3
    assert len({Image.open(io.BytesIO(base64.b64decode(map_))).size for map_ in answer["heatmap"]}) == 1


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("", "the file is empty"),
        ("not base64!", "the image is not base64"),
        ("ünicode", "the image is not base64"),
        (text(b"Hello, world"), "not an image of a known format"),
        (text(picture(kind="JPEG", width=200, height=200)[:-3000]), "truncated"),
        (text(picture()[:40]), ""),
        (12, "the image is not a string"),
        (None, "the image is not a string"),
    ],
)
def test_a_bad_row_is_named(image: Any, reason: str, model: PyFuncModel):
    rows = pd.DataFrame({"image": [text(picture()), image]}, dtype=object)

    with pytest.raises(MlflowException, match=f"^row 1: .*{reason}") as caught:
        model.predict(rows)

    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert "\n" not in caught.value.message


def test_a_bomb_is_refused(model: PyFuncModel):
    content = io.BytesIO()
    Image.new("1", (9000, 9000)).save(content, "PNG")

    with pytest.raises(MlflowException, match=r"row 0: 9000 x 9000 pixels, more than the 64,000,000 allowed"):
        model.predict(pd.DataFrame({"image": [text(content.getvalue())]}))


def test_a_dictionary_of_lists_is_many_rows(model: PyFuncModel):
    assert len(model.predict({"image": [text(picture(0)), text(picture(1))]})) == 2


def test_no_rows(model: PyFuncModel):
    with pytest.raises(MlflowException, match="there are no rows"):
        model.predict(pd.DataFrame({"image": pd.Series([], dtype=str)}))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK", "I;16", "LA"])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (2000, 7), (300, 400)])
def test_any_mode_and_size(mode: str, size: tuple[int, int], model: PyFuncModel, network: nn.Module):
    pixels = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = Image.fromarray(pixels.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    content = io.BytesIO()
    image.save(content, "TIFF" if mode == "CMYK" else "PNG")

    answer = model.predict(pd.DataFrame({"image": [text(content.getvalue())]}))

    expected = probabilities(network, [content.getvalue()])[0, 1]
    assert answer["probability"][0] == pytest.approx(expected, abs=1e-5)
    gray = io.BytesIO()
    Image.fromarray(pixels).save(gray, "PNG")
    if mode not in ("1", "LA"):  # one loses the gray, the other is the same but for its transparency
        assert expected == pytest.approx(probabilities(network, [gray.getvalue()])[0, 1], abs=0.02)


def test_a_camera_that_was_held_otherwise(model: PyFuncModel):
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it right by 90 degrees to see it upright
    turned, plain = io.BytesIO(), io.BytesIO()
    upright.rotate(90, expand=True).save(turned, "PNG", exif=exif)
    upright.save(plain, "PNG")

    answer = model.predict(pd.DataFrame({"image": [text(turned.getvalue()), text(plain.getvalue())]}))

    assert answer["probability"][0] == answer["probability"][1]


def test_a_data_uri_is_an_image_too(model: PyFuncModel):
    rows = pd.DataFrame({"image": [text(picture()), f"data:image/png;base64,{text(picture())}"]})

    assert len(set(model.predict(rows)["probability"])) == 1


# Heatmaps, of which `test_heat_map.py` has the rest ---------------------------------------------------------------------


def test_a_heatmap_is_a_picture_beside_the_image(model: PyFuncModel):
    """The film keeps its own size, and lies pixel by pixel on the left."""
    film = picture(seed=1, width=900, height=700)
    rows = pd.DataFrame({"image": [text(picture(width=90, height=60)), text(film)]})

    answer = model.predict(rows, params={"heatmap": True})

    small, large = (Image.open(io.BytesIO(base64.b64decode(map_))) for map_ in answer["heatmap"])
    assert [small.format, large.format] == ["PNG", "PNG"]
    assert small.width > 2 * 4 * 90  # enlarged four times, so that words fit
    assert large.width == 2 * 900 + 3 * 15
    left = np.asarray(large)[15 : 15 + 700, 15 : 15 + 900]
    np.testing.assert_array_equal(left, np.asarray(Image.open(io.BytesIO(film)).convert("RGB")))
    assert answer.drop(columns="heatmap").equals(model.predict(rows))


def test_the_heat_map_that_is_served_is_that_of_its_own_file(folder: Path, model: PyFuncModel):
    """A copy of today's code, with its hash in `model.json`."""
    hashes = json.loads((folder / "artifacts" / "model.json").read_text())["sha256"]
    content = (folder / "artifacts" / "heat_map.py").read_bytes()
    assert content == Path(heat_map.__file__).read_bytes()
    assert hashes["heat_map.py"] == hashlib.sha256(content).hexdigest()


# Without this project -------------------------------------------------------------------------------------------------


def test_loads_where_this_project_is_not(folder: Path, tmp_path: Path, network: nn.Module):
    code = """
import pathlib, sys
sys.path = [entry for entry in sys.path if not (pathlib.Path(entry) / "sweep").is_dir()]
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict(pandas.DataFrame({"image": [sys.argv[2]]})).to_json(orient="records"))
assert not {"sweep", "data", "models"} & set(sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"

    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), text(picture())],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    assert answer["probability"] == pytest.approx(probabilities(network, [picture()])[0, 1], abs=1e-5)


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

        answers = _asked_as_in("README.md", url), _asked_as_in("docs/models.md", url)
        film = (ROOT / "examples" / "PNEUMONIA" / "person9003_bacteria_0001.png").read_bytes()
        for answer in answers:
            (row,) = json.loads(answer)["predictions"]
            assert row["probability"] == pytest.approx(probabilities(network, [film])[0, 1], abs=1e-5)


def _asked_as_in(page: str, url: str) -> str:
    """What the command of a page prints, typed in a clone's folder with the address of this server."""
    if shutil.which("curl") is None:
        pytest.skip("curl, which the pages use, is not on the path")
    command = re.search(r"    printf .*\n +curl .*", (ROOT / page).read_text())
    assert command
    typed = command[0].replace("http://127.0.0.1:5001/invocations", url)
    done = subprocess.run(["bash", "-c", typed], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_the_server_lives_through_anything(client: MlflowClient, version: Version, network: nn.Module, tmp_path: Path):
    client.set_registered_model_alias(NAME, "fuzzed", version.version)
    with serving(f"models:/{NAME}@fuzzed", tmp_path / "log") as url:
        wrong, parts = [], fuzz.parts_of_the_image()
        for request in fuzz.requests():
            status, answer = post(url, request.body, request.kind)
            message = json.loads(answer)["message"] if status == 400 else ""
            if status not in request.statuses or "Traceback" in message or 'File "' in message:
                wrong.append((request.name, status, answer[:300]))
            elif status != 200 and any(part in answer for part in parts):
                wrong.append((request.name, "the answer holds the image"))
            elif request.name in fuzz.SENTENCES:
                assert message == fuzz.SENTENCES[request.name]
        assert not wrong
        status, answer = post(url, {"inputs": {"image": [text(fuzz.GOOD)]}})
    assert status == 200
    log = (tmp_path / "log").read_text()
    assert not [part for part in parts if part in log]
    expected = probabilities(network, [fuzz.GOOD])[0, 1]
    assert json.loads(answer)["predictions"][0]["probability"] == pytest.approx(expected, abs=1e-5)


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
    imported = subprocess.run([python, "-c", "import sweep"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "No module named 'sweep'" in imported.stderr

    client.set_registered_model_alias(NAME, "clean", version.version)
    with serving(f"models:/{NAME}@clean", tmp_path / "log", python) as url:
        status, answer = post(url, {"inputs": {"image": [text(picture())]}, "params": {"heatmap": True}})
    assert status == 200, answer
    (prediction,) = json.loads(answer)["predictions"]
    assert prediction["probability"] == pytest.approx(probabilities(network, [picture()])[0, 1], abs=1e-5)
    assert prediction["model_version"] == version.version
    assert prediction["heatmap"]
