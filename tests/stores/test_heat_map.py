"""Heat maps: contributions of places to an answer, without the frame that padding draws, and a picture of them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from models import ARCHITECTURES
from sweep.stores.heat_map import LEAST_WIDTH, MOST_PIXELS, PLACES, NoHeatMapError, heat_maps, picture

ABOUT: dict[str, Any] = {"mean": 0.0, "std": 1.0, "classes": ["NORMAL", "PNEUMONIA"], "positive": "PNEUMONIA"}
ANSWER = {"label": "PNEUMONIA", "probability": 0.8449, "threshold": 0.5}
SIZE = 64


def exported(network: nn.Module, size: int = SIZE) -> Any:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        example = torch.rand(2, 1, size, size)
        dynamic = ({0: torch.export.Dim.DYNAMIC},)
        return torch.export.export(network.eval(), (example,), dynamic_shapes=dynamic).module()


def films(count: int = 2, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)


def built(arch: str, normalisation: str = "fixed", pooling: str = "own") -> nn.Module:
    options = {"weights": None, "finetune": "all"} if arch == "resnet50" else {}
    torch.manual_seed(0)
    return ARCHITECTURES[arch].build("relu", 0.2, 2, SIZE, normalisation, pooling, **options).eval()


def maps_and_logits(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The last feature maps, found by hooks in the network itself, which the exported program has none of."""
    maps: list[torch.Tensor] = []
    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(lambda _, __, out: maps.append(out)) for module in leaves]
    logits = network(images)
    for hook in hooks:
        hook.remove()
    return [out for out in maps if out.dim() == 4 and out.shape[-1] > 1][-1], logits


@pytest.mark.parametrize(
    ("arch", "normalisation", "pooling"),
    [
        *((arch, "fixed", "own") for arch in ARCHITECTURES),
        ("cnn1", "fixed", "average"),
        ("cnn2", "image", "average"),
        ("cnn3", "histogram", "average"),
    ],
)
def test_heat_is_gradient_times_maps_less_those_of_a_blank_film(arch: str, normalisation: str, pooling: str):
    network, pixels = built(arch, normalisation, pooling), films()
    images = torch.from_numpy(pixels).unsqueeze(1).float() / 255
    blank = images.mean((1, 2, 3), keepdim=True).expand_as(images).contiguous()
    maps, logits = maps_and_logits(network, images)
    blank_maps, blank_logits = maps_and_logits(network, blank)
    (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), maps)
    contributions = (gradient * (maps - blank_maps)).sum(1, keepdim=True).detach()
    expected = torch.relu(functional.adaptive_avg_pool2d(contributions, min(PLACES, maps.shape[-1])))[:, 0]
    expected = (expected / expected.amax((1, 2), keepdim=True).clamp_min(1e-12)).numpy()

    (heat,) = heat_maps(exported(network), ABOUT, pixels)

    np.testing.assert_allclose(heat, expected, atol=1e-4)
    if arch in ("cnn1", "cnn2"):  # what follows their maps is linear: contributions add up to the change of the answer
        change = (logits[:, 1] - logits[:, 0]) - (blank_logits[:, 1] - blank_logits[:, 0])
        np.testing.assert_allclose(contributions.sum((1, 2, 3)), change.detach(), rtol=1e-3, atol=1e-4)


def test_the_heat_is_where_the_evidence_is():
    """A network that counts bright pixels in its feature maps finds them where they are, and nowhere else."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    _set(network, [[[[1.0]]]], [0.0], [[-1.0], [1.0]], [0.0, 0.0])
    pixels = np.zeros((1, 16, 16), dtype=np.uint8)
    pixels[0, :8, :8] = 200

    ((heat,),) = heat_maps(exported(network, 16), ABOUT, pixels)

    assert heat[:8, :8].min() == 1
    assert heat[8:].max() == heat[:, 8:].max() == 0


def test_the_frame_that_padding_draws_has_no_heat():
    """A filter of vertical edges answers to the zeros left of each film: plain Grad-CAM has its maximum there."""
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))
    last = torch.full((16, 16), 0.1)
    last[5:11, 5:11] = 1.0
    _set(network, [[[[-1.0, 0.0, 1.0]] * 3]], [0.0], torch.stack([-last.flatten(), last.flatten()]), [0.0, 0.0])
    pixels = np.full((1, 16, 16), 100, dtype=np.uint8)
    pixels[0, :, 8:] = 180  # an edge in the middle
    image = torch.from_numpy(pixels).unsqueeze(1).float() / 255
    maps, logits = maps_and_logits(network, image)
    (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), maps)
    grad_cam = torch.relu(gradient.mean((2, 3), keepdim=True) * maps)[0, 0].detach()

    ((heat,),) = heat_maps(exported(network, 16), ABOUT, pixels)

    assert grad_cam[1:-1, 0].min() > grad_cam[1:-1, 7:9].max() > 0  # the stripe
    assert heat[:, 0].max() == 0
    assert heat[6:10, 7:9].min() == pytest.approx(1)


@pytest.mark.parametrize("arch", ["cnn1", "cnn2", "cnn3"])
def test_a_blank_film_has_no_heat_at_all(arch: str):
    for gray in (0, 128):
        assert heat_maps(exported(built(arch)), ABOUT, np.full((1, SIZE, SIZE), gray, dtype=np.uint8)).max() == 0


def test_another_head_is_drawn_from_its_seed():
    network, pixels = exported(built("cnn3")), films(3)

    own, first, second, again = heat_maps(network, ABOUT, pixels, (None, 0, 1, 0))

    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 0.1
    assert np.abs(first - own).max() > 0.1
    np.testing.assert_array_equal(heat_maps(network, ABOUT, pixels)[0], own)


def test_with_three_classes_the_label_is_explained():
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 3))
    _set(network, [[[[1.0]]], [[[-1.0]]], [[[0.0]]]], [0.0, 0.0, 0.0], np.eye(3), [0.0, 2.0, 0.0])
    pixels = np.zeros((1, 16, 16), dtype=np.uint8)
    pixels[0, :8] = 250  # the second class is the likeliest, and dark places speak for it

    ((heat,),) = heat_maps(exported(network, 16), {**ABOUT, "classes": ["A", "B", "C"], "positive": None}, pixels)

    assert heat[:8].max() == 0
    assert heat[8:].min() == 1


def test_a_picture_has_the_film_in_its_own_size_beside_the_map():
    film = Image.fromarray(np.random.default_rng(0).integers(60, 90, (500, 600), dtype=np.uint8))
    heat = np.zeros((16, 16), dtype=np.float32)
    heat[4:6, 4:6] = 1

    drawn = np.asarray(picture(film, heat, ABOUT, ANSWER, "NORMAL"))

    gray, gap = np.asarray(film), 10
    left, right = (drawn[gap : gap + 500, start : start + 600].astype(int) for start in (gap, 2 * gap + 600))
    assert drawn.shape[1] == 3 * gap + 2 * 600
    np.testing.assert_array_equal(left, np.stack([gray] * 3, axis=-1))
    np.testing.assert_array_equal(right[300:], left[300:])  # no heat, no colour
    assert (right[135:175, 160:215, 0] - left[135:175, 160:215, 0]).min() > 60
    below = drawn[gap + 500 :].astype(int)
    assert (np.ptp(below, axis=2).max(axis=0)[-600:-100] > 5).mean() > 0.8  # the legend has colours, words have none
    assert np.ptp(below[:, :600], axis=2).max() <= 5


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((28, 28), (13 * 28, 13 * 28)),
        ((LEAST_WIDTH, 40), (LEAST_WIDTH, 40)),
        ((6000, 30), (MOST_PIXELS, 20)),
        ((1, 1), (LEAST_WIDTH, LEAST_WIDTH)),
        ((7, 2000), (14, 4000)),
    ],
)
def test_films_too_small_or_too_large_for_a_picture(size: tuple[int, int], shown: tuple[int, int]):
    heat = np.ones((4, 4), dtype=np.float32)
    drawn = picture(Image.new("L", size, 90), heat, ABOUT, ANSWER)

    gap = max(8, shown[0] // 60)
    assert drawn.width == 2 * shown[0] + 3 * gap
    assert drawn.height > shown[1] + 2 * gap


@pytest.mark.parametrize("name", ["\u80ba\u708e", "x" * 300, "A (healthy) & <b>", ""])
def test_any_class_name_can_be_written(name: str):
    about = {**ABOUT, "positive": None}
    answer = {"label": name, "probability": 1.0, "threshold": None}

    drawn = picture(Image.new("L", (400, 300), 90), np.zeros((4, 4), dtype=np.float32), about, answer, name)

    assert drawn.width == 800 + 3 * 8


def _set(network: nn.Module, *values: Any) -> None:
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), values, strict=True):
            parameter.copy_(torch.as_tensor(value))


class Attention(nn.Module):
    """A small transformer whose attention is written by hand, as in many lessons."""

    def __init__(self, normalised: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 8, 8)
        self.norm = nn.LayerNorm(8) if normalised else nn.Identity()
        self.keys, self.last = nn.Linear(8, 24), nn.Linear(8, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        query, key, value = self.keys(self.norm(tokens)).chunk(3, dim=-1)
        tokens = tokens + (query @ key.transpose(1, 2)).softmax(-1) @ value
        return self.last(tokens.mean(1))


class TwoPaths(nn.Module):
    """Its answer comes from the last maps and, around them, from earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 4, 3, 4), nn.Conv2d(4, 4, 3, 2), nn.Linear(8, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        early = self.first(images).relu()
        late = self.second(early).relu()
        return self.last(torch.cat([early.mean((2, 3)), late.mean((2, 3))], 1))


@pytest.mark.parametrize("network", [Attention(), TwoPaths()], ids=["attention", "two paths"])
def test_networks_of_other_forms_have_heat_maps_too(network: nn.Module):
    heat = heat_maps(exported(network), ABOUT, films(3))
    assert heat.shape[:2] == (1, 3)
    assert heat.shape[2] == heat.shape[3] == (8 if isinstance(network, Attention) else 7)
    assert np.isfinite(heat).all()
    assert heat.any()


@pytest.mark.parametrize(
    ("network", "heads", "said"),
    [
        (Attention(normalised=False), (None,), "its attention has no layer norm before it"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            (None, 1),
            "its last layer is no plain linear layer",
        ),
    ],
    ids=["no norm", "no linear layer"],
)
def test_a_network_of_which_none_can_be_made_says_that_it_has_no_heat_map(network: nn.Module, heads: tuple, said: str):
    with pytest.raises(NoHeatMapError, match=said):
        heat_maps(exported(network), ABOUT, films(), heads)
