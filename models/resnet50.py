"""The report's reference network (section 3.4): torchvision's ResNet-50, ImageNet weights, a new head, fine-tuned."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50

from data.faults import InputError
from models.layers import ACTIVATIONS, Dropout

HIDDEN = 256


class ResNet50(nn.Module):
    """ResNet-50 for gray images.

    Stages that are not fine-tuned keep their ImageNet statistics too: a frozen batch normalisation that went on
    averaging would change the features that the head was trained on.
    """

    def __init__(self, backbone: nn.Module, frozen: tuple[str, ...]) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen = frozen
        for name in frozen:
            backbone.get_submodule(name).requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps float [N, 1, H, W] to logits [N, classes]; the gray channel serves as red, green and blue."""
        return self.backbone(images.expand(-1, 3, -1, -1))

    def train(self, mode: bool = True) -> ResNet50:
        """Switches to training, all but the frozen stages."""
        super().train(mode)
        for name in self.frozen:
            self.backbone.get_submodule(name).eval()
        return self


def build(
    activation: str, dropout: float, classes: int, image_size: int, *, weights: str | None, finetune: str
) -> ResNet50:
    """Builds resnet50 with a head of linear 256, activation, dropout, linear.

    Args:
        activation: A key of ACTIVATIONS; that of the head, the backbone keeps its ReLUs.
        dropout: Probability from 0 to 1, in the head.
        classes: Number of logits.
        image_size: Side of the input, in pixels; the network takes any.
        weights: A file of the backbone's weights as `weights_file` gives it, or None for a random start.
        finetune: `all` trains everything, `layer4` the last stage and the head, `head` the head alone.

    Returns:
        A network from float [N, 1, image_size, image_size] to logits [N, classes].

    Raises:
        InputError: The weights are not a ResNet-50's.
    """
    backbone = resnet50(weights=None)
    if weights is not None:
        load_backbone(backbone, Path(weights))
    head = nn.Sequential(
        nn.Linear(backbone.fc.in_features, HIDDEN),
        ACTIVATIONS[activation](),
        Dropout(dropout),
        nn.Linear(HIDDEN, classes),
    )
    backbone.add_module("fc", head)
    stages = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    return ResNet50(backbone, {"all": (), "layer4": stages[:-1], "head": stages}[finetune])


def weights_file(choice: str) -> Path | None:
    """Finds the file behind `--weights`; downloads ImageNet's on first use.

    Args:
        choice: `imagenet`, `none` or a path.

    Returns:
        An existing file, or None for `none`.

    Raises:
        InputError: The file is missing or is not a ResNet-50's, or ImageNet's cannot be downloaded; says what to
            fetch and where to put it.
    """
    if choice == "none":
        return None
    if choice != "imagenet":
        path = Path(choice)
        if not path.is_file():
            raise InputError(f"--weights {choice}: no such file; give imagenet, none or a .safetensors or .pth file")
        load_backbone(resnet50(weights=None), path)
        return path.resolve()
    url = ResNet50_Weights.IMAGENET1K_V2.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[1], progress=False)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise InputError(
                f"--weights imagenet: {url} cannot be downloaded ({error}). Fetch it where there is a network and "
                f"put it at {path}, or give --weights FILE; --weights none starts from random weights"
            ) from error
    return path


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Loads a backbone's weights; those of another head are left out.

    Raises:
        InputError: The file cannot be read as tensors, or tensors are missing or of another shape.
    """
    try:
        # torchvision publishes .pth files alone. weights_only reads tensors and nothing that could run.
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # both readers raise whatever the damage runs into
        raise InputError(f"--weights {path}: cannot be read as tensors ({error})") from error
    wanted = {name: tensor for name, tensor in backbone.state_dict().items() if not name.startswith("fc.")}
    if not isinstance(state, dict):
        raise InputError(f"--weights {path}: holds a {type(state).__name__}, not a dictionary of tensors")
    missing = [
        name
        for name, tensor in wanted.items()
        # torchvision's older files lack the counters of batch normalisation
        if not name.endswith("num_batches_tracked")
        and (not isinstance(state.get(name), torch.Tensor) or state[name].shape != tensor.shape)
    ]
    if missing:
        raise InputError(
            f"--weights {path}: not a ResNet-50 of torchvision: {len(missing)} of its {len(wanted)} tensors are "
            f"missing or of another shape, the first is {missing[0]}"
        )
    backbone.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)
