"""Registered models: real SQLite, real MLflow, a real server."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException

from data.decode import decode
from sweep.stores import registry
from sweep.stores.registry import ModelSpec, decide, register, seat
from sweep.stores.tracking import open_tracking

CLASSES = ("NORMAL", "PNEUMONIA")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    before = Path.cwd()
    os.chdir(folder)  # as a user who typed the command here
    yield open_tracking(f"sqlite:///{folder / 'mlflow.db'}", "blobs", folder)
    os.chdir(before)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4 * 14 * 14, 2)]
    return torch.nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)


def spec_of(store, **changes):
    tags = {"sweep.metric": "val/auroc", "sweep.split_digest": "s1", "sweep.train_images": "100"}
    given = {
        "name": "blobs",
        "run_id": store.start("cnn1-000", {}, {}),
        "architecture": "cnn1",
        "image_size": 16,
        "mean": 0.5,
        "std": 0.25,
        "classes": CLASSES,
        "threshold": 0.5,
        "metrics": {"val/auroc": 0.9, "test/auroc": 0.8},
        "tags": tags,
        "provenance": {"study": "blobs/cnn1"},
        "description": "about **it**",
    }
    return ModelSpec(**{**given, **changes})


def encoded(path):
    return base64.b64encode(path.read_bytes()).decode()


@pytest.fixture(scope="module")
def images(pictures):
    return sorted((pictures / "test").rglob("*.jpeg"))[:40]


@pytest.fixture(scope="module")
def registered(store, network):
    spec = spec_of(store)
    version = register(store.client, spec, network)
    seat(store.client, "blobs", "cnn1", version.version)
    return spec, version


@pytest.fixture(scope="module")
def model(store, registered):
    mlflow.set_tracking_uri(store.uri)
    return mlflow.pyfunc.load_model(f"models:/blobs/{registered[1].version}")


def test_registering_a_run_twice_makes_one_version(store, network, registered):
    spec, version = registered
    assert version.created
    again = register(store.client, spec, network)
    assert (again.version, again.created) == (version.version, False)
    assert len(store.client.search_model_versions(f"run_id = '{spec.run_id}'")) == 1
    found = store.client.get_model_version("blobs", version.version)
    assert found.description == "about **it**"
    assert float(found.tags["test/auroc"]) == 0.8


def test_dying_between_logging_and_registering_leaves_one_logged_model(store, network):
    spec = spec_of(store)
    logged = registry._log_model(store.client, spec, network)
    assert register(store.client, spec, network).created
    (version,) = store.client.search_model_versions(f"run_id = '{spec.run_id}'")
    assert version.source == f"models:/{logged}"
    assert len(store.client.search_logged_models([store.experiment_id], f"source_run_id = '{spec.run_id}'")) == 1


def test_dying_while_logging_leaves_nothing_that_is_registered(store, network, monkeypatch):
    spec = spec_of(store)

    def die(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry, "export_network", die)
        with pytest.raises(KeyboardInterrupt):
            registry._log_model(store.client, spec, network)
    version = register(store.client, spec, network)
    mlflow.set_tracking_uri(store.uri)
    assert mlflow.pyfunc.load_model(f"models:/blobs/{version.version}")


def test_the_served_probabilities_are_the_networks(model, network, images):
    answer = model.predict(pd.DataFrame({"image": [encoded(path) for path in images]}))
    pixels = np.stack([decode(path, 16) for path in images]).astype(np.float32)
    with torch.no_grad():
        logits = network((torch.from_numpy(pixels)[:, None] / 255 - 0.5) / 0.25)
    expected = torch.softmax(logits.double(), 1).numpy()
    assert np.allclose(answer[["probability_NORMAL", "probability_PNEUMONIA"]], expected, atol=1e-5)
    assert (answer["label"] == np.where(expected[:, 1] >= 0.5, *CLASSES[::-1])).all()
    assert (answer["threshold"] == 0.5).all()
    assert answer["probability"].tolist() == answer["probability_PNEUMONIA"].tolist()


def test_another_threshold_can_be_asked_for(model, images):
    frame = pd.DataFrame({"image": [encoded(images[0])]})
    assert model.predict(frame, params={"threshold": 0.0})["label"][0] == "PNEUMONIA"
    assert model.predict(frame, params={"threshold": 1.0})["label"][0] == "NORMAL"
    with pytest.raises(MlflowException, match="threshold 1.5 is not from 0 to 1"):
        model.predict(frame, params={"threshold": 1.5})


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("!!!", "row 1: the image is not base64"),
        ("", "row 1: the file is empty"),
        (base64.b64encode(b"no image").decode(), "row 1: not an image of a known format"),
    ],
)
def test_a_bad_row_is_named(model, images, bad, said):
    with pytest.raises(MlflowException, match=said) as caught:
        model.predict(pd.DataFrame({"image": [encoded(images[0]), bad]}))
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_no_rows_is_said(model):
    with pytest.raises(MlflowException, match="there are no rows"):
        model.predict(pd.DataFrame({"image": pd.Series([], dtype=str)}))


def test_three_classes_answer_the_likeliest_and_take_no_threshold(store, images):
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 3))
    spec = spec_of(store, classes=("a", "b", "c"), threshold=None, name="three")
    version = register(store.client, spec, network)
    mlflow.set_tracking_uri(store.uri)
    loaded = mlflow.pyfunc.load_model(f"models:/three/{version.version}")
    frame = pd.DataFrame({"image": [encoded(path) for path in images[:5]]})
    answer = loaded.predict(frame)
    likely = answer[["probability_a", "probability_b", "probability_c"]].to_numpy()
    assert answer["label"].tolist() == [("a", "b", "c")[index] for index in likely.argmax(1)]
    assert answer["probability"].tolist() == likely.max(1).tolist()
    with pytest.raises(MlflowException, match="more than two classes"):
        loaded.predict(frame, params={"threshold": 0.5})


def test_an_export_that_computes_something_else_is_refused(tmp_path, monkeypatch, network):
    wrong = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2))

    class Program:
        def module(self):
            return wrong

    monkeypatch.setattr(torch.export, "load", lambda path: Program())
    with pytest.raises(RuntimeError, match="differs from the trained one"):
        registry.export_network(network, 16, tmp_path / "x.pt2")


def test_the_model_loads_without_this_project_and_without_pickle(store, registered, images, tmp_path):
    script = f"""
import base64, pathlib, sys
sys.path = [entry for entry in sys.path if not (pathlib.Path(entry) / "sweep").is_dir()]
import mlflow
mlflow.set_tracking_uri({store.uri!r})
model = mlflow.pyfunc.load_model("models:/blobs@cnn1")
print(model.predict({{"image": [{encoded(images[0])!r}]}})["label"][0])
assert not {{"sweep", "models", "data"}} & sys.modules.keys(), "the project was imported"
"""
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in CLASSES
    folder = Path(mlflow.artifacts.download_artifacts("models:/blobs@cnn1", dst_path=str(tmp_path)))
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"network.pt2", "model.json", "decode.py", "serving_model.py"} <= files
    assert not {name for name in files if name.endswith((".pkl", ".pickle", ".pth", ".bin"))}
    requirements = (folder / "requirements.txt").read_text().split()
    assert sorted(line.split("==")[0] for line in requirements) == ["mlflow", "numpy", "pandas", "pillow", "torch"]


BASE = {"sweep.metric": "val/auroc", "sweep.split_digest": "s1", "sweep.train_images": "100", "val/auroc": "0.9"}


@pytest.mark.parametrize(
    ("holder", "candidate", "moves"),
    [
        (None, BASE, True),
        (BASE, {**BASE, "val/auroc": "0.91"}, True),
        (BASE, {**BASE, "val/auroc": "0.9"}, False),
        (BASE, {**BASE, "val/auroc": "0.89"}, False),
        (BASE, {**BASE, "val/auroc": "0.99", "sweep.split_digest": "s2"}, False),
        (BASE, {**BASE, "val/auroc": "0.5", "sweep.split_digest": "s2", "sweep.train_images": "101"}, True),
        (BASE, {**BASE, "val/auroc": "0.99", "sweep.split_digest": "s2", "sweep.train_images": "99"}, False),
        ({**BASE, "val/loss": "0.3"}, {**BASE, "sweep.metric": "val/loss", "val/loss": "0.2"}, True),
        ({**BASE, "val/loss": "0.3"}, {**BASE, "sweep.metric": "val/loss", "val/loss": "0.4"}, False),
        ({}, BASE, True),
    ],
)
def test_a_seat_goes_to_the_better_one(holder, candidate, moves):
    assert decide(holder, candidate).moves is moves


def test_seats_move_in_the_registry(store, network):
    versions = []
    for score in (0.90, 0.95, 0.92):
        spec = spec_of(store, name="seats", metrics={"val/auroc": score})
        version = register(store.client, spec, network).version
        versions.append((version, seat(store.client, "seats", "champion", version)))
    assert [decision.moves for _, decision in versions] == [True, True, False]
    assert store.client.get_model_version_by_alias("seats", "champion").version == int(versions[1][0])
    assert "0.9200 against 0.9500" in versions[2][1].reason
    assert not seat(store.client, "seats", "champion", versions[1][0]).moves


def post(port, payload):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(payload).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_mlflow_serves_it(store, registered, images):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "models",
        "serve",
        "-m",
        "models:/blobs@cnn1",
        "--env-manager",
        "local",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store.uri,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, server.stderr.read()
                assert time.monotonic() < deadline, "the server did not come up"
                time.sleep(0.3)
        one = encoded(images[0])
        forms = [
            {"dataframe_split": {"columns": ["image"], "data": [[one], [one]]}},
            {"dataframe_records": [{"image": one}, {"image": one}]},
            {"inputs": {"image": [one, one]}},
        ]
        answers = [post(port, form) for form in forms]
        assert {status for status, _ in answers} == {200}
        assert all(answer == answers[0][1] for _, answer in answers)
        assert [row["label"] in CLASSES for row in answers[0][1]["predictions"]] == [True, True]
        status, answer = post(port, {"inputs": {"image": [one, "rubbish!"]}})
        assert status == 400
        assert "row 1: the image is not base64" in answer["message"]
        assert "Traceback" not in json.dumps(answer)
        assert post(port, forms[0])[0] == 200
        status, answer = post(port, {**forms[0], "params": {"threshold": 0.0}})
        assert {row["label"] for row in answer["predictions"]} == {"PNEUMONIA"}
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)
        server.stderr.close()
