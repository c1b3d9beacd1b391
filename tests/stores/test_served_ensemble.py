"""Several networks as one registered model: one answer, their disagreement, one heat map."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import load_model
from torch import nn

from data.decode import decode
from data.faults import InputError
from sweep.stores import heat_map, registry
from sweep.stores.mlflow_stores import open_tracking
from sweep.stores.packaging import Example
from sweep.stores.tracking import Tracking
from tests.helpers.served import SIZE, TEMPERATURE, new_spec, picture, post, serving, small_network, text
from tests.helpers.stocked import stocked

NAME = "several"
IMAGES = [picture(seed) for seed in range(5)]


def several(classes: int = 2) -> nn.ModuleList:
    """Networks that differ in their weights alone."""
    networks = [small_network(classes) for _ in range(3)]
    with torch.no_grad():
        for factor, network in zip((1.0, -2.0, 3.0), networks, strict=True):
            network[-1].weight *= factor
    return nn.ModuleList(networks).eval()


def answers(networks: nn.ModuleList, images: list[np.ndarray], *, flip: bool) -> np.ndarray:
    """Probabilities of each member, [members, N, classes], computed without the served code."""
    pixels = (torch.from_numpy(np.stack(images)).unsqueeze(1).float() / 255 - 0.4) / 0.2
    with torch.inference_mode():
        each = [
            np.mean(
                [torch.softmax(net(view).double(), 1).numpy() for view in ([pixels, pixels.flip(3)][: 1 + flip])], 0
            )
            for net in networks
        ]
    return np.stack(each)


def served(members: np.ndarray) -> np.ndarray:
    """What an ensemble answers, from the probabilities of its members."""
    powers = members.mean(axis=0) ** (1 / TEMPERATURE)
    return powers / powers.sum(axis=1, keepdims=True)


def registered(tracking: Tracking, networks: nn.ModuleList, name: str, *, flip: bool, **changes) -> registry.Version:
    pixels = np.random.default_rng(1).integers(0, 256, (6, SIZE, SIZE), dtype=np.uint8)
    example = Example(pixels, served(answers(networks, list(pixels), flip=flip)))
    members = [{"name": f"cnn1-00{number}", "run": str(number), "seed": number} for number in range(len(networks))]
    spec = new_spec(tracking, name=name, architecture="cnn1-ensemble", members=members, flip=flip, **changes)
    return registry.register(tracking.client, spec, networks, example)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    folder = stocked(tmp_path_factory.mktemp("store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where artifacts go
        yield open_tracking(f"sqlite:///{folder}/mlflow.db", NAME)


@pytest.fixture(scope="module")
def networks() -> nn.ModuleList:
    return several()


@pytest.fixture(scope="module")
def flipping(tracking: Tracking, networks: nn.ModuleList) -> registry.Version:
    return registered(tracking, networks, NAME, flip=True)


def test_it_answers_the_mean_of_its_members_and_how_far_they_are_apart(
    flipping: registry.Version, networks: nn.ModuleList, client: MlflowClient
):
    model = load_model(client.get_model_version_download_uri(NAME, flipping.version))
    frame = pd.DataFrame({"image": [text(image) for image in IMAGES]}, index=[7, 5, 3, 1, 9])

    answer = model.predict(frame, params={"heatmap": True})

    members = answers(networks, [decode(image, SIZE) for image in IMAGES], flip=True)
    np.testing.assert_allclose(answer[["probability_NORMAL", "probability_PNEUMONIA"]], served(members), atol=1e-5)
    np.testing.assert_allclose(answer["disagreement"], members[:, :, 1].std(axis=0), atol=1e-5)
    assert answer["disagreement"].max() > 0.01
    assert list(answer)[-3:] == ["model_version", "disagreement", "heatmap"]
    assert list(answer.index) == list(frame.index)


def test_loaded_here_it_has_the_logits_and_the_heat_map_of_its_members(
    flipping: registry.Version, networks: nn.ModuleList, client: MlflowClient
):
    classifier = registry.load(client, flipping)
    pixels = np.stack([decode(image, SIZE) for image in IMAGES])

    members = answers(networks, list(pixels), flip=True)
    np.testing.assert_allclose(np.exp(classifier.logits(pixels)), members.mean(axis=0), atol=1e-6)
    one = [heat_map.heat_maps(member, classifier.about, pixels, (None, 0)) for member in classifier.network]
    one += [
        heat_map.heat_maps(member, classifier.about, pixels[:, :, ::-1].copy(), (None, 0))[..., ::-1]
        for member in classifier.network
    ]
    mean = np.mean(one, axis=0)
    expected = mean / np.maximum(mean.max(axis=(-2, -1), keepdims=True), 1e-12)
    maps = heat_map.heat_maps(classifier.network, classifier.about, pixels, (None, 0))
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    names = [member["artifact"] for member in classifier.about["members"]]
    assert names == ["network-1", "network-2", "network-3"]
    assert [member["name"] for member in classifier.about["members"]] == ["cnn1-000", "cnn1-001", "cnn1-002"]


def test_a_member_that_was_changed_is_not_run(flipping: registry.Version, client: MlflowClient):
    folder = Path(client.get_model_version_download_uri(NAME, flipping.version)).absolute()
    member = folder / "artifacts" / "network-2.pt2"
    kept = member.read_bytes()
    try:
        member.write_bytes((folder / "artifacts" / "network-1.pt2").read_bytes())
        with pytest.raises(InputError, match=r"network-2\.pt2 is not the file that was registered"):
            registry.load(client, flipping)
        with pytest.raises(MlflowException, match="is not the file that was registered"):
            load_model(str(folder))
    finally:
        member.write_bytes(kept)
    hashes = json.loads((folder / "artifacts" / "model.json").read_text())["sha256"]
    assert {"network-1.pt2", "network-2.pt2", "network-3.pt2"} <= hashes.keys()


def test_with_three_classes_all_members_are_asked_about_the_label_of_the_ensemble(
    tracking: Tracking, client: MlflowClient
):
    networks, classes = several(3), ("BACTERIA", "NORMAL", "VIRUS")
    version = registered(tracking, networks, "several-three", flip=False, classes=classes, threshold=None)
    classifier = registry.load(client, version)
    pixels = np.stack([decode(image, SIZE) for image in IMAGES])

    answer = classifier.classify(pixels)

    members = answers(networks, list(pixels), flip=False)
    label = members.mean(axis=0).argmax(axis=1)
    assert list(answer["label"]) == [classes[index] for index in label]
    np.testing.assert_allclose(answer["disagreement"], members[:, range(5), label].std(axis=0), atol=1e-5)
    assert heat_map.heat_maps(classifier.network, classifier.about, pixels).shape[:2] == (1, 5)


@pytest.mark.slow
def test_mlflow_serves_it(flipping: registry.Version, networks: nn.ModuleList, client: MlflowClient, tmp_path):
    client.set_registered_model_alias(NAME, "cnn1-ensemble", flipping.version)
    with serving(f"models:/{NAME}@cnn1-ensemble", tmp_path / "log") as url:
        status, body = post(url, {"inputs": {"image": [text(image) for image in IMAGES]}})
    assert status == 200, body
    rows = json.loads(body)["predictions"]
    members = answers(networks, [decode(image, SIZE) for image in IMAGES], flip=True)
    assert [row["probability"] for row in rows] == pytest.approx(served(members)[:, 1], abs=1e-5)
    assert [row["disagreement"] for row in rows] == pytest.approx(members[:, :, 1].std(axis=0), abs=1e-5)
    assert {row["model_version"] for row in rows} == {flipping.version}
