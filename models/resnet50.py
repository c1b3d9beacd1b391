"""The report's reference network (section 3.4): torchvision's ResNet-50, ImageNet weights, a new head, fine-tuned.

The report gives it pixels from 0 to 1. These weights learned from pixels of mean 0 and deviation 1, so a study that
starts from them scales pixels likewise (`normalisation` is `imagenet`), unless it is told `--fix normalisation=fixed`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50

from models.architecture import PRETRAINED
from models.finetuning import FineTuned, frozen_stages
from models.layers import ACTIVATIONS, Dropout
from models.weights import cache_folder, downloaded, file_of, fitted, read_tensors

HIDDEN = 256


def build(
    activation: str, dropout: float, classes: int, image_size: int, *, weights: str | None, finetune: str
) -> FineTuned:
    """Builds resnet50 with a head of linear 256, activation, dropout, linear.

    Args:
        activation: A key of ACTIVATIONS; that of the head, the backbone keeps its ReLUs.
        dropout: Probability from 0 to 1, in the head.
        classes: Number of logits.
        image_size: Side of the input, in pixels; the network takes any.
        weights: A file of the backbone's weights as `weights_file` gives it, or None for a random start.
        finetune: As `models.architecture.is_stages` takes it; stages are `layer1` to `layer4` and what is before.

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
    stages = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
    frozen = frozen_stages(finetune, stages)
    names = [name for name, _ in backbone.named_parameters() if name.partition(".")[0] in frozen]
    return FineTuned(backbone, names, channels=3)


def weights_file(choice: str) -> tuple[Path | None, str]:
    """Finds the file behind `--weights`; downloads ImageNet's on first use.

    Args:
        choice: `pretrained` or `imagenet`, `none` or a path.

    Returns:
        An existing file, or None for `none`; and a sentence for people, empty where there is nothing to say.

    Raises:
        InputError: The file is missing or is not a ResNet-50's, or ImageNet's cannot be downloaded; says what to
            fetch and where to put it.
    """
    if choice == "none":
        return None, ""
    if choice not in PRETRAINED:
        path = file_of(choice)
        return path, _named(path)[1]
    url = ResNet50_Weights.IMAGENET1K_V2.url
    path = cache_folder() / url.rsplit("/", 1)[1]
    path = downloaded(f"--weights {choice}", url, path, path.stem.rsplit("-", 1)[1])
    _named(path)  # one that was put there by hand may be another one, or damaged
    return path, ""


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Loads a backbone's weights; those of another head are left out.

    Raises:
        InputError: The file cannot be read as tensors, or tensors are missing or of another shape.
    """
    named, _ = _named(path)
    backbone.load_state_dict(
        {name: tensor for name, tensor in named.items() if not name.startswith("fc.")}, strict=False
    )


def _named(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a file under torchvision's names; see `models.weights.fitted`."""
    with torch.device("meta"):
        wanted = resnet50(weights=None).state_dict()
    return fitted(path, read_tensors(path), wanted, "a ResNet-50 of torchvision", head=("fc",))
