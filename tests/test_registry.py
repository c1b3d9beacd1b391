"""What leaves the project: one version a run, the seats, and the model that MLflow serves without us."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, load_model
from PIL import Image
from torch import nn

from data.decode import decode
from sweep.stores.registry import ModelSpec, Version, decide, export_network, register, seat
from sweep.stores.tracking import Tracking, open_tracking

SIZE = 16
NAME = "phantom"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    """A real store with MLflow's own defaults, in the working directory; making it takes seconds, so once."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # also where artifacts go
        yield open_tracking(f"sqlite:///{folder}/mlflow.db", NAME)


@pytest.fixture(scope="module")
def client(tracking: Tracking) -> MlflowClient:
    return tracking.client


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    return small_network(2)


@pytest.fixture(scope="module")
def version(tracking: Tracking, network: nn.Module) -> Version:
    return register(tracking.client, new_spec(tracking), network)


@pytest.fixture(scope="module")
def folder(client: MlflowClient, version: Version) -> Path:
    """Where the registered model's files are."""
    return Path(client.get_model_version_download_uri(version.name, version.version))


@pytest.fixture(scope="module")
def model(folder: Path) -> PyFuncModel:
    return load_model(str(folder))


def small_network(classes: int) -> nn.Sequential:
    """Batch normalisation and dropout, so that a model left in training mode is found out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(4 * 14**2, classes),
        )
        network(torch.randn(8, 1, SIZE, SIZE))
    return network


def new_spec(tracking: Tracking, **changes: Any) -> ModelSpec:
    """Of a trial's run that has no version yet."""
    spec = ModelSpec(
        name=NAME,
        run_id=tracking.start("cnn1-000", {}).run_id,
        architecture="cnn1",
        image_size=SIZE,
        mean=0.4,
        std=0.2,
        classes=("NORMAL", "PNEUMONIA"),
        threshold=0.5,
        metrics={"val/auroc": 0.9, "test/auroc": 0.8},
        tags=new_tags(),
        provenance={"study": "cnn1"},
        description="# A model\n",
    )
    return replace(spec, **changes)


def new_tags(split: str = "a", images: int = 100, metric: str = "val/auroc", **scores: float) -> dict[str, str]:
    tags = {"sweep.metric": metric, "sweep.split_digest": split, "sweep.train_images": str(images)}
    return tags | {f"val/{name}": str(score) for name, score in scores.items()}


def picture(seed: int = 0, width: int = 30, height: int = 20, kind: str = "PNG", mode: str = "L") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, kind)
    return content.getvalue()


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def probabilities(network: nn.Module, images: list[bytes]) -> np.ndarray:
    """What the training code computes for image files."""
    pixels = torch.from_numpy(np.stack([decode(image, SIZE) for image in images])).unsqueeze(1).float() / 255
    with torch.inference_mode():
        return torch.softmax(network.eval()((pixels - 0.4) / 0.2), dim=1).numpy()


def models_of(client: MlflowClient, run_id: str) -> list[str]:
    """The logged models that MLflow shows on a run's page."""
    outputs = client.get_run(run_id).outputs
    return [output.model_id for output in outputs.model_outputs] if outputs else []


# Registering ---------------------------------------------------------------------------------------------------------


def test_a_run_becomes_one_version(tracking: Tracking, client: MlflowClient, network: nn.Module, capfd):
    spec = new_spec(tracking)
    capfd.readouterr()

    first, second = register(client, spec, network), register(client, spec, network)

    assert capfd.readouterr() == ("", "")
    assert first.created
    assert second == Version(NAME, first.version, created=False)
    held = client.get_model_version(NAME, first.version)
    assert held.run_id == spec.run_id
    assert held.description == spec.description
    assert held.tags == {**spec.tags, "val/auroc": "0.900000", "test/auroc": "0.800000"}
    (model_id,) = models_of(client, spec.run_id)
    assert held.source == f"models:/{model_id}"


@pytest.mark.parametrize(
    "dies_in", ["log_outputs", "log_model_artifacts", "finalize_logged_model", "create_model_version"]
)
def test_goes_on_where_an_earlier_process_died(
    dies_in: str, tracking: Tracking, client: MlflowClient, network: nn.Module, monkeypatch: pytest.MonkeyPatch
):
    spec = new_spec(tracking)
    with monkeypatch.context() as patch:
        patch.setattr(client, dies_in, lambda *_, **__: sys.exit("killed"))
        with pytest.raises(SystemExit, match="killed"):
            register(client, spec, network)

    version = register(client, spec, network)

    assert version.created
    assert len(client.search_model_versions(f"run_id = '{spec.run_id}'")) == 1
    (logged,) = client.search_logged_models([tracking.experiment_id], f"source_run_id = '{spec.run_id}'")
    assert models_of(client, spec.run_id) == [logged.model_id]
    assert str(logged.status) == "READY"
    assert Path(logged.artifact_location, "MLmodel").is_file()


def test_changes_nothing_outside_the_store(tracking: Tracking, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///another.db")
    network = small_network(2).to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    register(tracking.client, new_spec(tracking), network)

    assert mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///another.db"
    assert network.training
    assert network.get_parameter("0.weight").is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_name_that_mlflow_refuses_is_said(tracking: Tracking, network: nn.Module):
    with pytest.raises(MlflowException, match="name"):
        register(tracking.client, new_spec(tracking, name="a/b"), network)


def test_an_export_that_differs_is_refused(tmp_path: Path):
    class Noisy(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :2] + torch.rand(2)

    with pytest.raises(RuntimeError, match="differ"):
        export_network(Noisy(), SIZE, tmp_path / "network.pt2")


# Seats ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holder", "candidate", "moves", "reason"),
    [
        (None, new_tags(auroc=0.1), True, "nobody held it"),
        (new_tags(auroc=0.8), new_tags(auroc=0.9), True, "val/auroc 0.9000 against 0.8000"),
        (new_tags(auroc=0.9), new_tags(auroc=0.8), False, "val/auroc 0.8000 against 0.9000"),
        (new_tags(auroc=0.9), new_tags(auroc=0.9), False, "val/auroc 0.9000 against 0.9000"),
        (new_tags(metric="val/loss", loss=0.4), new_tags(metric="val/loss", loss=0.3), True, "val/loss"),
        (new_tags(metric="val/loss", loss=0.3), new_tags(metric="val/loss", loss=0.4), False, "val/loss"),
        # More training images say nothing where the scores compare.
        (new_tags(images=10, auroc=0.9), new_tags(images=1000, auroc=0.8), False, "val/auroc"),
        # Other validation images: only the number of training images counts, whatever the scores.
        (new_tags("a", 100, auroc=0.9), new_tags("b", 5000, auroc=0.8), True, "5,000 images against 100"),
        (new_tags("a", 5000, auroc=0.8), new_tags("b", 100, auroc=1.0), False, "100 images against 5,000"),
        (new_tags("a", 100, auroc=0.8), new_tags("b", 100, auroc=0.9), False, "100 images against 100"),
        # A version that somebody registered by hand.
        ({}, new_tags(auroc=0.8), True, "100 images against 0"),
    ],
)
def test_who_takes_a_seat(holder: dict[str, str] | None, candidate: dict[str, str], moves: bool, reason: str):
    decision = decide(holder, candidate)

    assert decision.moves is moves
    assert reason in decision.reason


def test_seats_in_the_registry(client: MlflowClient):
    name = "seats"
    client.create_registered_model(name)
    scores = {"1": 0.8, "2": 0.9, "3": 0.7}
    for score in scores.values():
        client.create_model_version(name, "somewhere", tags=new_tags(auroc=score))

    moves = [seat(client, name, "champion", version).moves for version in ("1", "1", "2", "3", "2", "1")]

    assert moves == [True, False, True, False, False, False]
    assert str(client.get_model_version_by_alias(name, "champion").version) == "2"
    assert seat(client, name, "cnn1", "3").reason == "version 3 takes it: nobody held it"
    assert seat(client, name, "champion", "3").reason.startswith("version 2 keeps it: val/auroc 0.7000 against 0.9000")


# The model -----------------------------------------------------------------------------------------------------------


def test_same_probabilities_as_in_training(model: PyFuncModel, network: nn.Module):
    shapes = [(30, 20, "PNG", "L"), (8, 50, "JPEG", "RGB"), (16, 16, "PNG", "RGBA"), (40, 40, "JPEG", "L")]
    images = [picture(seed, *shapes[seed % len(shapes)]) for seed in range(37)]  # more than one batch

    answer = model.predict(pd.DataFrame({"image": [text(image) for image in images]}))

    assert list(answer) == ["label", "probability", "probability_NORMAL", "probability_PNEUMONIA", "threshold"]
    expected = probabilities(network, images)
    np.testing.assert_allclose(answer[["probability_NORMAL", "probability_PNEUMONIA"]], expected, rtol=0, atol=1e-5)
    assert answer["probability"].equals(answer["probability_PNEUMONIA"].rename("probability"))
    assert list(answer["label"]) == ["PNEUMONIA" if value >= 0.5 else "NORMAL" for value in answer["probability"]]
    assert set(answer["threshold"]) == {0.5}


def test_another_threshold(model: PyFuncModel):
    rows = pd.DataFrame({"image": [text(picture())]})
    likely = float(model.predict(rows)["probability"][0])

    for threshold, label in ((0, "PNEUMONIA"), (likely, "PNEUMONIA"), (np.nextafter(likely, 1), "NORMAL")):
        answer = model.predict(rows, params={"threshold": float(threshold)})
        assert answer["label"][0] == label
        assert answer["threshold"][0] == threshold
    for threshold in (-1.0, 1.5, float("nan")):
        with pytest.raises(MlflowException, match=f"threshold {threshold} is not from 0 to 1"):
            model.predict(rows, params={"threshold": threshold})


def test_three_classes_answer_the_likeliest(tracking: Tracking, client: MlflowClient):
    network, classes = small_network(3), ("BACTERIA", "NORMAL", "VIRUS")
    version = register(client, new_spec(tracking, name="three", classes=classes, threshold=None), network)
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


# Without us ----------------------------------------------------------------------------------------------------------


def test_holds_no_pickle(folder: Path):
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(folder / "artifacts" / "network.pt2") as archive:
        files |= {name: archive.read(name) for name in archive.namelist()}

    assert {"serving_model.py", "artifacts/network.pt2", "artifacts/model.json", "artifacts/decode.py"} <= set(files)
    assert not [name for name in files if name.endswith((".pkl", ".pickle"))]
    # Pickles of protocol 2 and later begin so, and the archives of `torch.save`, which hold one.
    assert not [name for name, content in files.items() if content[:1] == b"\x80"]
    assert [name for name, content in files.items() if content[:2] == b"PK"] == ["artifacts/network.pt2"]
    names = [line.split("==")[0] for line in files["requirements.txt"].decode().splitlines()]
    assert names == ["mlflow", "numpy", "pandas", "pillow", "torch"]
    assert b"+" not in files["requirements.txt"]


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

        status, body = post(url, {**good, "params": {"threshold": 1}})
        assert status == 200, body
        (answer,) = json.loads(body)["predictions"]
        assert (answer["label"], answer["threshold"]) == ("NORMAL", 1)

        status, body = post(url, bad)
        assert status == 400
        assert json.loads(body)["message"].endswith("row 1: the image is not base64")
        assert "Traceback" not in body
        status, body = post(url, {**good, "params": {"threshold": 2}})
        assert status == 400
        assert json.loads(body)["message"].endswith("threshold 2.0 is not from 0 to 1")

        assert post(url, good)[0] == 200


@contextlib.contextmanager
def serving(model: str, log: Path) -> Iterator[str]:
    """Runs `mlflow models serve` in the working directory; gives the address that takes images."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        model,
        "--env-manager",
        "local",
        "-p",
        str(port),
    ]
    # MLflow starts `uvicorn` by its name.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ) as server,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}/ping", server, log)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)  # a group of its own, since the command only starts the server


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.25)
        else:
            return
    pytest.fail(f"the server did not start in a minute: {log.read_text()}")


def post(url: str, payload: dict[str, Any]) -> tuple[int, str]:
    request = urllib.request.Request(url, json.dumps(payload).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_doctored_network_is_refused_before_it_is_read(tmp_path):
    import zipfile

    from sweep.stores.serving_model import _refuse_pickles

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2))
    export_network(network, 16, tmp_path / "network.pt2")
    _refuse_pickles(tmp_path / "network.pt2")
    with zipfile.ZipFile(tmp_path / "network.pt2") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = next(name for name in content if name.endswith("weights_config.json"))
    assert b"use_pickle" in content[config]
    doctored = {
        "asks": {**content, config: content[config].replace(b"false", b"true")},
        "holds": {**content, "network/data/sample_inputs/model.pt": b"anything"},
    }
    for name, entries in doctored.items():
        with zipfile.ZipFile(tmp_path / f"{name}.pt2", "w") as archive:
            for entry, data in entries.items():
                archive.writestr(entry, data)
        with pytest.raises(MlflowException, match=f"{name}.pt2 {name} .*pickle"):
            _refuse_pickles(tmp_path / f"{name}.pt2")
