"""Image classifiers of timm, by `timm:NAME` (Wightman 2019, https://github.com/huggingface/pytorch-image-models).

Networks read gray images: timm adds up the weights of the first layer over red, green and blue, which is what a gray
image in all three would give.
"""

from __future__ import annotations

import difflib
from functools import cache, partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import nn

from data.faults import InputError
from data.recipe import RECIPES
from models.architecture import PRETRAINED, TIMM, Architecture
from models.finetuning import FineTuned, frozen_stages
from models.layers import ACTIVATIONS
from models.weights import cache_folder, downloaded, file_of, fitted, read_tensors

SMALLEST, STEPS = 32, (32, 48, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)


@cache
def architecture_of(name: str) -> Architecture:
    """Describes a network of timm.

    Args:
        name: As timm has it, with a tag of its weights or without: `resnet50`, `resnet50.a1_in1k`.

    Raises:
        InputError: timm has no such network; names like ones.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.lower(), timm.list_models(), 4, 0.5)
        like = f"; there are {', '.join(near)}" if near else ""
        raise InputError(f"--arch {TIMM}{name}: timm {timm.__version__} has no such network{like}")
    if "." in name:
        bare, _, tag = name.partition(".")
        tags = [known.partition(".")[2] for known in timm.list_pretrained(bare)]
        if tag not in tags:
            there = f"there are {', '.join(tags)}" if tags else "it has none"
            raise InputError(f"--arch {TIMM}{name}: {bare} has no weights with the tag '{tag}'; {there}")
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if config is None:  # of a network that nobody published weights of
        size, mean, std = 224, 0.449, 0.226
    else:
        size, mean, std = config.input_size[-1], sum(config.mean) / 3, sum(config.std) / 3
    changes_activation, drops_paths = (
        _takes(name, **option) for option in ({"act_layer": nn.ReLU}, {"drop_path_rate": 0.1})
    )
    return Architecture(
        f"{TIMM}{name}",
        "",
        size,
        SMALLEST,
        round(mean, 6),
        round(std, 6),
        RECIPES["both"],
        options=("weights", "finetune", *(("drop_path",) if drops_paths else ())),
        flattens=False,
        activations=("own", *(ACTIVATIONS if changes_activation else ())),
        drops=_takes(name, drop_rate=0.1),
        make=partial(build, name),
    )


def build(
    name: str,
    activation: str,
    dropout: float,
    classes: int,
    image_size: int,
    *,
    weights: str | None,
    finetune: str,
    drop_path: float = 0.0,
) -> FineTuned:
    """Builds a network of timm for gray images.

    Args:
        name: As timm has it.
        activation: `own`, or a key of ACTIVATIONS for the whole network, where it can be changed.
        dropout: Probability from 0 to 1, before the last layer, where the network has it.
        classes: Number of logits.
        image_size: Side of the input, in pixels.
        weights: A file as `weights_file` gives it, or None for a random start.
        finetune: As `models.architecture.is_stages` takes it; stages are timm's groups of layers.
        drop_path: The largest probability of stochastic depth, where the network has it.

    Raises:
        InputError: The weights are not this network's, or it cannot be built with these options.
    """
    options: dict[str, Any] = {"num_classes": classes, "in_chans": 1}
    if activation != "own":
        options["act_layer"] = ACTIVATIONS[activation]
    if dropout:
        options["drop_rate"] = dropout
    if drop_path:
        options["drop_path_rate"] = drop_path
    if weights is not None:
        named, _ = _named(name, Path(weights))
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": named}}
    network = _create(name, image_size, **options)
    if weights is not None:
        # timm's own start gives logits of several, and the first steps would unlearn what the weights know.
        for parameter in _head(network):
            nn.init.zeros_(parameter)
    return FineTuned(network, () if finetune == "all" else frozen_stages(finetune, _stages(network)))


def weights_file(name: str, choice: str) -> tuple[Path | None, str]:
    """Finds the file behind `--weights`; downloads the published weights on first use.

    Args:
        name: As timm has it.
        choice: `pretrained`, `none` or a path.

    Returns:
        An existing file, or None for `none`; and a sentence for people, empty where there is nothing to say.

    Raises:
        InputError: The file is missing or not this network's, or the published weights cannot be downloaded.
    """
    if choice == "none":
        return None, ""
    if choice not in PRETRAINED:
        path = file_of(choice)
        return path, _named(name, path)[1]
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if config is None or not (config.hf_hub_id or config.url):
        raise InputError(
            f"--weights pretrained: nobody published weights of {name} for timm; give --weights none or FILE"
        )
    if config.hf_hub_id:
        url = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
        path = cache_folder() / f"timm-{config.hf_hub_id.rsplit('/', 1)[-1]}.safetensors"
    else:
        url, path = config.url, cache_folder() / str(config.url).rsplit("/", 1)[-1]
    path = downloaded("--weights pretrained", str(url), path)
    _named(name, path)  # one that was put there by hand may be another one, or damaged
    return path, ""


def sizes_near(name: str, image_size: int) -> list[int]:
    """Sizes that a network takes, of the usual ones the nearest below and above."""
    good = [size for size in STEPS if size != image_size and _runs(name, size)]
    below, above = [size for size in good if size < image_size][-1:], [size for size in good if size > image_size][:1]
    return below + above


def _runs(name: str, image_size: int) -> bool:
    try:
        with torch.device("meta"):
            _create(name, image_size, in_chans=1).eval()(torch.empty(1, 1, image_size, image_size))
    except Exception:
        return False
    return True


def _takes(name: str, **option: Any) -> bool:
    """Whether a network can be built with an option."""
    try:
        with torch.device("meta"):
            timm.create_model(name, **option)
    except TypeError:
        return False
    return True


def _head(network: nn.Module) -> list[nn.Parameter]:
    """The parameters of its last layer; distilled networks have two of these."""
    found = network.get_classifier()  # pyright: ignore[reportCallIssue]
    layers = found if isinstance(found, tuple | list) else (found,)
    return [parameter for layer in layers for parameter in layer.parameters()]


def _stages(network: nn.Module) -> list[list[str]]:
    """Names of the parameters of each stage, as timm groups them, without the head.

    Raises:
        InputError: timm does not say how they are grouped.
    """
    if not hasattr(network, "group_matcher"):
        raise InputError(f"--finetune: timm names no stages of {type(network).__name__}; give --finetune all")
    head = set(map(id, _head(network)))
    names = {name: id(parameter) in head for name, parameter in network.named_parameters()}
    groups = group_parameters(network, network.group_matcher(coarse=True))  # pyright: ignore[reportCallIssue]
    *stages, last = [[name for name in group if not names.get(name, True)] for group in groups.values()]
    stages[-1] += last  # a normalisation before the head is no stage of its own
    return stages


def _create(name: str, image_size: int, **options: Any) -> nn.Module:
    """Builds a network; those that have positions of their own are told the size."""
    try:
        return timm.create_model(name, img_size=image_size, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
    return timm.create_model(name, **options)


@cache
def _named(name: str, path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a file under timm's names; see `models.weights.fitted`."""
    with torch.device("meta"):
        whole = timm.create_model(name)  # as it was published: three channels and its own classes
    config: Any = whole.pretrained_cfg
    head = config.get("classifier") or ()
    heads = (head,) if isinstance(head, str) else tuple(head)
    return fitted(path, read_tensors(path), whole.state_dict(), f"{TIMM}{name}", head=heads)
