"""Networks of timm: what is known of them, their weights by name and by order, what is frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from data.faults import InputError
from models import architecture, short_name, weights_of
from models.outline import cost, outline, sketch
from models.weights import fitted

LITE = "timm:tf_efficientnet_lite0"


def build(arch: str, size: int = 64, weights: str | None = None, finetune: str = "all", activation: str = "own"):
    return architecture(arch).build(activation, 0.2, 2, size, weights=weights, finetune=finetune)


@pytest.fixture(scope="module")
def donor() -> nn.Module:
    """As it would be published: colors, a thousand classes."""
    torch.manual_seed(1)
    return timm.create_model("tf_efficientnet_lite0").eval()


def test_what_timm_publishes_of_a_network_is_used():
    row = architecture(LITE)
    assert (row.image_size, row.mean, row.std) == (224, 0.5, 0.5)
    assert row.activations == ("own", "relu", "sigmoid", "gelu", "silu")
    assert {"weights", "finetune", "drop_path"} == set(row.options)
    densenet = architecture("timm:densenet121")
    assert "drop_path" not in densenet.options
    assert densenet.mean == pytest.approx(0.449)  # the mean of ImageNet's three
    assert architecture("timm:swin_tiny_patch4_window7_224").activations == ("own",)


def test_a_name_that_timm_does_not_know_is_answered_with_names_like_it():
    with pytest.raises(InputError, match=r"timm 1\.\S+ has no such network; there are .*resnet50"):
        architecture("timm:resnet5O")


def test_activation_and_dropout_are_those_asked_for():
    kinds = {type(module) for module in build(LITE, activation="gelu").modules()}
    assert any("gelu" in kind.__name__.lower() for kind in kinds)
    assert not any("relu6" in kind.__name__.lower() for kind in kinds)
    assert build(LITE).backbone.drop_rate == 0.2


def test_a_gray_image_gives_what_it_gives_as_red_green_and_blue(donor: nn.Module, tmp_path: Path):
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    path, note = weights_of(LITE, str(tmp_path / "w.safetensors"))
    network, images = build(LITE, weights=str(path)).eval(), torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        ours = network.backbone.forward_features(images)
        theirs = donor.forward_features(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert note == ""
    assert network(images).shape == (2, 2)


def test_weights_of_other_names_are_matched_by_order_and_it_is_said(donor: nn.Module, tmp_path: Path):
    renamed = {f"x{index}": tensor for index, tensor in enumerate(donor.state_dict().values())}
    torch.save(renamed, tmp_path / "w.pth")
    path, note = weights_of(LITE, str(tmp_path / "w.pth"))
    assert note.startswith("w.pth: 296 tensors matched by order")
    stem = build(LITE, weights=str(path)).backbone.conv_stem.weight
    torch.testing.assert_close(stem, donor.conv_stem.weight.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: {"blocks.0": torch.zeros(3)}, "tensors are missing or of another shape, the first is conv_stem"),
        (lambda state: dict(list(state.items())[:-3]), ""),  # another head, or none: it is replaced anyway
        (lambda state: state | {"conv_stem.weight": torch.zeros(1, 2, 3, 4)}, "1 of its 294 tensors are missing"),
    ],
    ids=["another network", "no head", "another stem"],
)
def test_a_file_of_another_network_is_refused(donor: nn.Module, tmp_path: Path, change, said: str):
    save_file(change(donor.state_dict()), tmp_path / "w.safetensors")
    if not said:
        assert weights_of(LITE, str(tmp_path / "w.safetensors"))[1] == ""
        return
    with pytest.raises(InputError, match=said):
        weights_of(LITE, str(tmp_path / "w.safetensors"))


def test_counters_that_older_files_lack_do_not_matter():
    wanted = {"bn.weight": torch.zeros(2), "bn.num_batches_tracked": torch.zeros(())}
    named, note = fitted(Path("w.pth"), {"bn.weight": torch.ones(2)}, wanted, "it")
    assert (list(named), note) == (["bn.weight"], "")


def test_published_weights_offline_say_what_to_fetch_and_where_to_put_it(donor: nn.Module, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(
        InputError, match=r"https://\S+/timm/tf_efficientnet_lite0\.in1k/resolve/main/model\.safe"
    ) as caught:
        weights_of(LITE, "pretrained")
    place = tmp_path / "checkpoints" / "timm-tf_efficientnet_lite0.in1k.safetensors"
    assert f"put it at {place}" in str(caught.value)
    place.parent.mkdir(exist_ok=True)
    place.touch()
    with pytest.raises(InputError, match=r"lite0\.in1k\.safetensors: the file is empty"):
        weights_of(LITE, "pretrained")
    save_file(donor.state_dict(), place)  # once it is there, it is used
    assert weights_of(LITE, "pretrained") == (place, "")


def test_tensors_that_a_network_has_no_use_for_are_said():
    """As where the weights are those of a deeper network of the same family."""
    wanted = {"a.weight": torch.zeros(2), "head.weight": torch.zeros(2, 2)}
    state = {"a.weight": torch.ones(2), "b.weight": torch.ones(2), "head.bias": torch.ones(2)}
    named, note = fitted(Path("w.pth"), state, wanted, "it", head=("head",))
    assert list(named) == ["a.weight"]
    assert note.startswith(
        "w.pth: 1 of 3 tensors are left out, since it has none of their names; the first is b.weight"
    )


def test_distilled_networks_have_two_heads(tmp_path: Path):
    name = "deit_tiny_distilled_patch16_224"
    state = {
        key: tensor
        for key, tensor in timm.create_model(name).state_dict().items()
        if not key.startswith(("head.", "head_dist."))
    }
    save_file(state, tmp_path / "w.safetensors")
    path, note = weights_of(f"timm:{name}", str(tmp_path / "w.safetensors"))
    network = architecture(f"timm:{name}").build("own", 0.0, 2, 224, weights=str(path), finetune="head")
    trained = {key.removeprefix("backbone.") for key, part in network.named_parameters() if part.requires_grad}
    assert trained == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    assert note == ""
    assert not any(part.any() for part in network.parameters() if part.requires_grad)


def test_a_tag_that_a_network_has_not_is_answered_with_its_tags():
    with pytest.raises(InputError, match=r"resnet18 has no weights with the tag 'bogus'; there are a1_in1k, "):
        architecture("timm:resnet18.bogus")
    with pytest.raises(InputError, match=r"no such network; there are .*resnet18"):
        architecture("timm:RESNET18")


def test_stages_that_timm_does_not_name_are_refused():
    with pytest.raises(InputError, match=r"--finetune: timm names no stages of \w+; give --finetune all"):
        architecture("timm:csatv2").build("own", 0.0, 2, 64, weights=None, finetune="head")


@pytest.mark.parametrize(
    ("finetune", "moves", "stays"),
    [
        ("all", "conv_stem.weight", None),
        ("head", "classifier.weight", "conv_head.weight"),
        ("last:1", "conv_head.weight", "blocks.5.0.conv_pw.weight"),
        ("last:2", "blocks.5.0.conv_pw.weight", "blocks.4.0.conv_pw.weight"),
    ],
)
def test_only_what_is_fine_tuned_moves(finetune: str, moves: str, stays: str | None):
    network = build(LITE, finetune=finetune).train()
    assert network.backbone.get_parameter(moves).requires_grad
    if stays is not None:
        assert not network.backbone.get_parameter(stays).requires_grad
        norm = network.backbone.bn1
        before = norm.running_mean.clone()
        network(torch.rand(2, 1, 64, 64))
        assert torch.equal(norm.running_mean, before)  # frozen statistics, too


def test_a_normalisation_before_the_head_is_no_stage_of_its_own():
    network = build("timm:densenet121", finetune="last:1")
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert "backbone.features.denseblock4.denselayer1.conv1.weight" in trained
    assert "backbone.features.denseblock3.denselayer1.conv1.weight" not in trained


def test_costs_and_diagrams_are_known_without_weights():
    network = sketch("timm:densenet121", 64)
    assert cost(network, 64).parameters == 6_949_634
    rows = outline(network, 64)
    assert len(rows) < 20  # a stage is one row
    assert rows[-1].kind == "linear"


def test_names_become_aliases():
    assert short_name("timm:resnet50.a1_in1k") == "timm-resnet50-a1_in1k"
