import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet50 as torchvision_resnet50

import models
from data.faults import InputError
from data.recipe import RECIPES
from models import ARCHITECTURES, resnet50
from models.layers import ACTIVATIONS, NORMALISATIONS, Equalise, GlobalAverage, Standardise
from sweep import space


def build(arch, size=32, classes=2, activation="relu", **options):
    given = {"weights": None, "finetune": "all"} | options
    return ARCHITECTURES[arch].build(activation, 0.2, classes, size, **given)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("classes", [2, 5])
def test_every_network_maps_gray_images_to_logits(arch, classes):
    network = build(arch, classes=classes).eval()
    assert network(torch.rand(3, 1, 32, 32)).shape == (3, classes)


@pytest.mark.parametrize("arch", ["cnn1", "cnn2", "cnn3"])
def test_the_smallest_size_works_and_so_does_an_odd_one(arch):
    for size in (ARCHITECTURES[arch].smallest, 37):
        assert build(arch, size=size)(torch.rand(2, 1, size, size)).shape == (2, 2)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_in_every_small_network(activation):
    for arch in ("cnn1", "cnn2", "cnn3"):
        kinds = [type(layer) for layer in build(arch, activation=activation)]
        assert kinds.count(ACTIVATIONS[activation]) >= 3
        assert not set(kinds) & (set(ACTIVATIONS.values()) - {ACTIVATIONS[activation]})


def layers(network):
    return [
        (
            type(layer).__name__,
            *((layer.out_channels, layer.kernel_size[0]) if isinstance(layer, torch.nn.Conv2d) else ()),
        )
        for layer in network
    ]


def test_the_networks_are_those_of_the_issue():
    conv, bn, act, pool = "Conv2d", ("BatchNorm2d",), ("ReLU",), ("MaxPool2d",)
    flat, drop, linear = ("Flatten",), ("Dropout",), ("Linear",)
    assert layers(build("cnn1")) == [
        (conv, 12, 3), bn, act, (conv, 20, 3), bn, pool, act, (conv, 32, 3), bn, act, flat, drop, linear,
    ]  # fmt: skip
    assert layers(build("cnn2")) == [
        (conv, 16, 5), bn, act, (conv, 16, 5), bn, act, pool, (conv, 32, 3), bn, act, (conv, 32, 3), bn, act, pool,
        (conv, 64, 3), bn, act, drop, flat, linear,
    ]  # fmt: skip
    assert layers(build("cnn3")) == [
        (conv, 32, 3), act, pool, (conv, 64, 3), act, pool, (conv, 128, 3), act, pool, flat, linear, act, drop, linear,
    ]  # fmt: skip


AVERAGED = {  # weights without a bias and batch normalisation, or weights with a bias; a number a map goes on
    "cnn1": (12 * 9 + 24) + (20 * 12 * 9 + 40) + (32 * 20 * 9 + 64) + (2 * 32 + 2),
    "cnn2": (16 * 25 + 32) + (16 * 16 * 25 + 32) + (32 * 16 * 9 + 64) + (32 * 32 * 9 + 64) + (64 * 32 * 9 + 128) + 130,
    "cnn3": 320 + (64 * 32 * 9 + 64) + (128 * 64 * 9 + 128) + (128 * 128 + 128) + (2 * 128 + 2),
}


@pytest.mark.parametrize("arch", AVERAGED)
@pytest.mark.parametrize("size", [32, 37])
def test_averaged_maps_make_a_network_whose_size_is_no_matter_of_the_images(arch, size):
    network = build(arch, size=size, pooling="average")
    assert sum(parameter.numel() for parameter in network.parameters()) == AVERAGED[arch]
    assert network(torch.rand(3, 1, size, size)).shape == (3, 2)


def test_a_global_average_is_the_mean_of_each_map():
    maps = torch.rand(3, 5, 7, 4)
    assert torch.allclose(GlobalAverage()(maps), maps.double().mean((2, 3)).float())


@pytest.fixture
def films():
    """Pictures of few grays, so that many pixels are alike."""
    return torch.randint(0, 60, (4, 1, 24, 24), generator=torch.Generator().manual_seed(0)) / 255


@pytest.mark.parametrize(
    "change",
    [lambda x: x**0.4, lambda x: 0.2 + 0.5 * x, lambda x: x.exp() - 3],
    ids=["gamma", "light", "exponential"],
)
def test_equalised_only_which_pixel_is_brighter_matters(films, change):
    layer = Equalise(0.5, 0.5)
    assert torch.equal(layer(change(films)), layer(films))
    assert not torch.equal(layer(1 - films), layer(films))


def test_equalised_a_pixel_is_its_place_in_its_own_images_distribution(films):
    flat = films.double().flatten(1).numpy()
    shares = [[np.mean(image <= pixel) for pixel in image] for image in flat]
    expected = (torch.tensor(shares).view_as(films) - 0.5) / 0.25
    assert torch.allclose(Equalise(0.5, 0.25)(films), expected.float(), atol=1e-6)


def test_standardised_neither_brightness_nor_contrast_matters(films):
    layer, factors = Standardise(0.5, 0.25), torch.tensor([0.3, 0.8, 1.5, 4]).view(4, 1, 1, 1)
    assert torch.allclose(layer(factors * films - 0.1), layer(films), atol=1e-4)
    assert torch.allclose(layer(films).mean((1, 2, 3)), torch.zeros(4), atol=1e-5)  # .5 of a pixel
    assert torch.allclose(layer(films).square().mean((1, 2, 3)), torch.ones(4), atol=1e-4)  # .25


@pytest.mark.parametrize("gray", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("layer", "pixel"), [(Standardise, 0.5), (Equalise, 1.0)])
def test_an_image_of_one_gray_stays_one(layer, pixel, gray):
    got = layer(0.4, 0.2)(torch.full((2, 1, 24, 24), gray))
    assert torch.allclose(got, torch.full_like(got, (pixel - 0.4) / 0.2), atol=1e-3)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("normalisation", "change"), [("image", lambda x: 0.1 + 0.6 * x), ("histogram", torch.sqrt)])
def test_what_a_network_normalises_is_what_its_architecture_prepares(arch, normalisation, change, films):
    architecture, films = ARCHITECTURES[arch], torch.cat([films, films.flip(2)], 3).repeat(1, 1, 2, 1)
    torch.manual_seed(0)
    network = build(arch, size=48, normalisation=normalisation).eval()
    prepared, changed = ((images - architecture.mean) / architecture.std for images in (films, change(films)))
    assert torch.allclose(network(prepared), network(changed), atol=1e-4)
    first, *_ = network
    assert isinstance(first, NORMALISATIONS[normalisation])
    pixels = first(prepared) * architecture.std + architecture.mean
    assert torch.allclose(pixels, NORMALISATIONS[normalisation](0.0, 1.0)(films), atol=1e-4)


def test_a_recipe_is_the_architectures_own_or_a_named_one():
    for architecture in ARCHITECTURES.values():
        assert architecture.recipe("own") == architecture.augmentation
        assert {name: architecture.recipe(name) for name in RECIPES} == RECIPES


def test_the_table_is_section_2_1_of_the_report():
    assert {name: row.image_size for name, row in ARCHITECTURES.items()} == {
        "cnn1": 160, "cnn2": 160, "cnn3": 150, "resnet50": 224,
    }  # fmt: skip
    assert (ARCHITECTURES["cnn3"].mean, ARCHITECTURES["cnn3"].std) == (0.5, 0.5)
    for name in ("cnn1", "cnn2"):
        assert ARCHITECTURES[name].augmentation.rotation == 15
        assert ARCHITECTURES[name].augmentation.horizontal_flip
    assert ARCHITECTURES["cnn3"].augmentation.rotation == 0
    big = ARCHITECTURES["resnet50"].augmentation
    assert (big.rotation, big.shear, big.zoom, big.shift, big.brightness) == (20, 10, 0.3, 0.2, (0.5, 2.0))
    assert (big.horizontal_flip, big.vertical_flip, big.fill) == (True, True, "border")


def test_the_table_can_be_read_without_torch():
    for path in (Path(models.__file__), Path(models.__file__).parents[1] / "data" / "recipe.py"):
        tree = ast.parse(path.read_text())
        imported = {getattr(node, "module", None) or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        assert not {name for name in imported if name.startswith("torch")}


def test_the_space_offers_what_the_networks_have():
    assert set(space.ACTIVATIONS) == set(ACTIVATIONS)
    assert space._WORDS["normalisation"] == ("fixed", *NORMALISATIONS)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_resnet50_starts_from_a_file_of_weights_with_any_head(tmp_path, suffix):
    donor = torchvision_resnet50(weights=None, num_classes=7)
    path = tmp_path / f"weights.{suffix}"
    state = {name: tensor.contiguous() for name, tensor in donor.state_dict().items()}
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    assert resnet50.weights_file(str(path)) == (path, "")
    network = build("resnet50", weights=str(path))
    assert torch.equal(network.backbone.layer3[0].conv1.weight, donor.layer3[0].conv1.weight)
    assert network.backbone.fc[0].out_features == 256


def test_weights_that_are_not_a_resnet50s_are_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not the weights of a ResNet-50 of torchvision"):
        resnet50.weights_file(str(tmp_path / "other.safetensors"))
    (tmp_path / "rubbish.pth").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="cannot be read as tensors"):
        resnet50.weights_file(str(tmp_path / "rubbish.pth"))
    with pytest.raises(InputError, match="no such file"):
        resnet50.weights_file(str(tmp_path / "nothing.pth"))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "it ran",))

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="holds more than tensors, or is damaged"):
        resnet50.weights_file(str(tmp_path / "evil.pth"))
    assert not (tmp_path / "it ran").exists()


def test_imagenets_weights_offline_say_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(InputError, match=r"https://download\.pytorch\.org/models/resnet50-11ad3fa6\.pth") as caught:
        resnet50.weights_file("imagenet")
    assert str(tmp_path / "checkpoints" / "resnet50-11ad3fa6.pth") in str(caught.value)
    assert resnet50.weights_file("none") == (None, "")


@pytest.mark.parametrize(("finetune", "trained"), [("all", "conv1"), ("layer4", "layer4"), ("head", "fc")])
def test_only_what_is_finetuned_moves(finetune, trained):
    network = build("resnet50", finetune=finetune).train()
    before = {name: tensor.clone() for name, tensor in network.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    network(torch.rand(4, 1, 32, 32)).square().sum().backward()
    optimizer.step()
    after = network.backbone.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    order = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert moved == set(order[order.index(trained) :])
