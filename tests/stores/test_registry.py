"""The model registry: one version per trial, tried out before it is registered, and checked when it is loaded."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import pickletools
import shutil
import sys
import zipfile
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import load_model
from torch import nn

from data.faults import InputError
from sweep.stores.packaging import Example, export_network
from sweep.stores.registry import Version, find_version, load, register, registered, set_alias, tag_version
from sweep.stores.tracking import Tracking
from tests.helpers.served import (
    NAME,
    SIZE,
    example,
    new_spec,
    new_tags,
    small_network,
)


def models_of(client: MlflowClient, run_id: str) -> list[str]:
    """The logged models that MLflow shows on a run's page."""
    outputs = client.get_run(run_id).outputs
    return [output.model_id for output in outputs.model_outputs] if outputs else []


# Registering ---------------------------------------------------------------------------------------------------------


def test_a_run_becomes_one_version(tracking: Tracking, client: MlflowClient, network: nn.Module, capfd):
    spec = new_spec(tracking, params={"learning_rate": 0.00036471234, "batch_size": 32})
    capfd.readouterr()

    first, second = register(client, spec, network, example(network)), register(client, spec, network, example(network))

    assert capfd.readouterr() == ("", "")
    assert second == first
    held = client.get_model_version(NAME, first.version)
    assert held.run_id == spec.run_id
    assert held.description == spec.description
    about = Path(client.get_model_version_download_uri(NAME, first.version)) / "artifacts" / "model.json"
    digest = hashlib.sha256(about.read_bytes()).hexdigest()
    own = {"sweep.kind": "model", "sweep.model_sha256": digest}
    assert held.tags == {"sweep.metric": "val/auroc", **own}
    (model_id,) = models_of(client, spec.run_id)
    assert held.source == f"models:/{model_id}"
    model = client.get_logged_model(model_id)
    page = {"mlflow.modelVersions": f'[{{"name": "{NAME}", "version": "{first.version}"}}]'}
    assert model.tags == first.tags == {**spec.tags, **own, **page}
    assert model.params == {"learning_rate": "0.0003647", "batch_size": "32"}
    described = client.get_registered_model(NAME).description
    assert described.startswith("Networks that tell NORMAL and PNEUMONIA apart in the images of synthetic.\n\n")


def test_a_version_has_few_tags_and_programs_read_those_of_its_logged_model_too(tracking, client, network):
    few = {
        "sweep.arch": "cnn1",
        "sweep.trial": "3",
        "sweep.data": NAME,
        "sweep.threshold": "0.5",
        "val/auroc": "0.9000",
    }
    more = {"sweep.study_id": "b1", "sweep.split_digest": "c2", "sweep.leakage": ""}
    spec = new_spec(tracking, tags={**new_tags(), **few, **more})

    version = register(client, spec, network, example(network))

    shown = client.get_model_version(NAME, version.version).tags
    assert shown.keys() == {*few, "sweep.kind", "sweep.metric", "sweep.model_sha256"}
    assert (version.tags["sweep.study_id"], version.tags["sweep.split_digest"]) == ("b1", "c2")
    assert find_version(client, f"{NAME}/{version.version}") == version
    written_again = registered(client, NAME, "another run", {"sweep.study_id": "b1", "sweep.trial": "3"})
    assert written_again == version
    assert registered(client, NAME, "another run", {"sweep.study_id": "b2", "sweep.trial": "3"}) is None


def test_tags_of_an_earlier_release_s_version_are_read_changed_and_removed(tracking, client, network):
    version = register(client, new_spec(tracking), network, example(network))
    for key in ("sweep.promotion.cnn1", "sweep.promotion.cnn1.low"):
        client.set_model_version_tag(NAME, version.version, key, "then")
    assert find_version(client, f"{NAME}/{version.version}").tags["sweep.promotion.cnn1.low"] == "then"

    tag_version(client, version, {"sweep.promotion.cnn1": "now", "sweep.promotion.cnn1.low": ""})

    tags = find_version(client, f"{NAME}/{version.version}").tags
    assert tags["sweep.promotion.cnn1"] == "now"
    assert "sweep.promotion.cnn1.low" not in tags


def test_a_version_whose_logged_model_was_deleted_keeps_its_own_tags(tracking, client, network):
    version = register(client, new_spec(tracking), network, example(network))
    client.delete_logged_model(version.model_id)

    tag_version(client, version, {"sweep.promotion.cnn1": "now", "sweep.promotion.cnn1.low": ""})

    tags = find_version(client, f"{NAME}/{version.version}").tags
    assert (tags["sweep.metric"], tags["sweep.promotion.cnn1"]) == ("val/auroc", "now")


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
            register(client, spec, network, example(network))

    version = register(client, spec, network, example(network))

    assert version.run_id == spec.run_id
    assert len(client.search_model_versions(f"run_id = '{spec.run_id}'")) == 1
    (logged,) = client.search_logged_models([tracking.experiment_id], f"source_run_id = '{spec.run_id}'")
    assert models_of(client, spec.run_id) == [logged.model_id]
    assert str(logged.status) == "READY"
    assert Path(logged.artifact_location, "MLmodel").is_file()


def test_changes_nothing_outside_the_store(tracking: Tracking, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///another.db")
    network = small_network(2)
    asked = example(network)
    network = network.train().to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    register(tracking.client, new_spec(tracking), network, asked)

    assert mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///another.db"
    assert network.training
    assert network.get_parameter("0.weight").is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_name_that_mlflow_refuses_is_an_error(tracking: Tracking, network: nn.Module):
    with pytest.raises(MlflowException, match="name"):
        register(tracking.client, new_spec(tracking, name="a/b"), network, example(network))


def test_an_export_names_no_folder_of_this_machine(network: nn.Module, tmp_path: Path):
    export_network(network, SIZE, tmp_path / "network.pt2")
    with zipfile.ZipFile(tmp_path / "network.pt2") as parts:
        content = b"".join(parts.read(name) for name in parts.namelist())
    assert folders_named(content) == []


def test_a_registered_model_names_no_folder_of_this_machine(
    tracking: Tracking, client: MlflowClient, network: nn.Module
):
    version = register(client, new_spec(tracking), network, example(network))

    folder = Path(client.get_model_version_download_uri(NAME, version.version))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"MLmodel", "model.json", "network.pt2"} <= {path.name for path in files}
    assert {path.name: folders for path in files if (folders := folders_named(path.read_bytes()))} == {}
    assert len(load_model(f"models:/{NAME}/{version.version}").input_example) == 1  # it loads without its old place


def folders_named(content: bytes) -> list[Path]:
    places = (Path(__file__).parents[2], Path(sys.prefix), Path.home())
    return [folder for folder in places if str(folder).encode() in content]


def test_an_export_that_differs_is_refused(tmp_path: Path):
    class Noisy(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :2] + torch.rand(2)

    with pytest.raises(RuntimeError, match="differ"):
        export_network(Noisy(), SIZE, tmp_path / "network.pt2")


def test_a_model_that_answers_otherwise_never_becomes_a_version(tracking: Tracking, network: nn.Module):
    spec, asked = new_spec(tracking), example(network)

    with pytest.raises(RuntimeError, match="differs from the trained one"):
        register(tracking.client, spec, network, Example(asked.pixels, 1 - asked.probabilities))

    assert not tracking.client.search_model_versions(f"run_id = '{spec.run_id}'")


def test_a_model_that_others_logged_to_the_run_is_not_touched(tracking: Tracking, network: nn.Module, tmp_path: Path):
    class Theirs(mlflow.pyfunc.PythonModel):
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

        def predict(self, context, model_input):
            return model_input

    spec, client = new_spec(tracking), tracking.client
    theirs = client.create_logged_model(tracking.experiment_id, "cnn1", spec.run_id)
    mlflow.pyfunc.save_model(tmp_path / "m", python_model=Theirs(), pip_requirements=[])
    client.log_model_artifacts(theirs.model_id, str(tmp_path / "m"))
    client.finalize_logged_model(theirs.model_id, "READY")
    (tmp_path / "ran").unlink(missing_ok=True)

    version = register(client, spec, network, example(network))

    assert version.model_id != theirs.model_id
    assert not (tmp_path / "ran").exists()


def test_nothing_that_was_not_registered_lies_in_its_folder(folder: Path):
    assert not [path for path in folder.rglob("*") if path.suffix == ".pyc"]
    assert (folder / "model_card.md").read_text() == "# A model\n"
    assert (folder / "figures" / "roc.png").is_file()


# No pickle -----------------------------------------------------------------------------------------------------------


def is_pickle(content: bytes) -> bool:
    """Whether opcodes of a pickle of any protocol can be read from the first byte to a STOP."""
    try:
        return any(opcode.name == "STOP" and position > 0 for opcode, _, position in pickletools.genops(content))
    except ValueError:
        return False


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_recognised(protocol: int):
    for value in ([1, "two"], {"a": 1.5}, Path("x"), np.arange(3)):
        assert is_pickle(pickle.dumps(value, protocol))
    content = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, content)
    with zipfile.ZipFile(content) as archive:
        assert any(is_pickle(archive.read(name)) for name in archive.namelist())


def test_holds_no_pickle(folder: Path):
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(folder / "artifacts" / "network.pt2") as archive:
        files |= {name: archive.read(name) for name in archive.namelist()}

    parts = {"network.pt2", "model.json", "decode.py", "heat_map.py"}
    assert {"serving_model.py", *(f"artifacts/{name}" for name in parts)} <= set(files)
    assert not [name for name in files if name.endswith((".pkl", ".pickle"))]
    assert not [name for name, content in files.items() if is_pickle(content) or content[:1] == b"\x80"]
    # An archive of `torch.save` holds one; the only archive here was opened above.
    assert [name for name, content in files.items() if content[:2] == b"PK"] == ["artifacts/network.pt2"]
    names = [line.split("==")[0] for line in files["requirements.txt"].decode().splitlines()]
    assert names == ["mlflow", "numpy", "pandas", "pillow", "torch"]
    assert b"+" not in files["requirements.txt"]


def test_a_doctored_network_is_refused_before_it_is_read(tmp_path):
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


# Finding and loading -------------------------------------------------------------------------------------------------


def test_people_name_a_version_as_mlflow_does(client: MlflowClient, version: Version):
    set_alias(client, NAME, "champion", version.version)
    set_alias(client, NAME, "cnn1", version.version)
    names = (NAME, f"{NAME}@cnn1", f"{NAME}/{version.version}", f"models:/{NAME}@champion")

    assert {find_version(client, name).version for name in names} == {version.version}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("unknown", "model unknown: there is no such one; the registered models here are: .*synthetic"),
        ("synthetic@nobody", "synthetic has no alias nobody; there are: .*synthetic@champion"),
        ("synthetic/999", "synthetic has no version 999"),
        ("synthetic/x", "synthetic/x: there is no such one"),
        ("synthetic/", "synthetic/: there is no such one"),
        ("", "there is no such one"),
    ],
)
def test_a_version_that_is_not_there_is_named(name: str, sentence: str, client: MlflowClient, version: Version):
    set_alias(client, NAME, "champion", version.version)
    with pytest.raises(InputError, match=sentence):
        find_version(client, name)


def test_a_model_of_others_is_not_loaded(client: MlflowClient):
    client.create_registered_model("theirs")
    client.create_model_version("theirs", "somewhere")

    with pytest.raises(InputError, match="was not registered by sweep"):
        find_version(client, "theirs/1")


def test_loaded_without_mlflow_it_answers_the_same(client: MlflowClient, version: Version, network: nn.Module):
    classifier = load(client, version)
    asked = example(network)

    answer = classifier.classify(asked.pixels)

    np.testing.assert_allclose(answer[["probability_NORMAL", "probability_PNEUMONIA"]], asked.probabilities, atol=1e-5)
    assert set(answer["model_version"]) == {version.version}


@pytest.mark.parametrize(
    "name",
    [
        *("artifacts/network.pt2", "artifacts/decode.py", "artifacts/heat_map.py", "artifacts/model.json"),
        "serving_model.py",
    ],
)
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_what_was_not_registered_is_not_run(
    name: str, how: str, client: MlflowClient, version: Version, folder: Path, tmp_path: Path
):
    path, mark = folder / name, tmp_path / "ran"
    content = path.read_bytes()
    try:
        if how == "changed":
            code = f"\nimport pathlib; pathlib.Path({str(mark)!r}).touch()\n"
            path.write_bytes(content + (code.encode() if name.endswith(".py") else b" "))
        else:
            path.unlink()
        with pytest.raises(InputError, match=f"{path.name} is (missing|not the file that was registered)"):
            load(client, version)
    finally:
        path.write_bytes(content)
    assert not mark.exists()
    assert load(client, version).version == version.version


def test_mlflow_itself_refuses_a_changed_network(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "model")
    with (tmp_path / "model" / "artifacts" / "network.pt2").open("ab") as network:
        network.write(b" ")

    with pytest.raises(MlflowException, match=r"network.pt2 is not the file that was registered"):
        load_model(str(tmp_path / "model"))
