"""Fine-tuning: which parts of a network stay as they were trained elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import nn


def frozen_stages(choice: str, stages: Sequence[Collection[str]]) -> set[str]:
    """The parts that a choice of `--finetune` leaves as they are.

    Args:
        choice: As `models.architecture.is_stages` takes it.
        stages: Names of the parts of each stage, in the order in which they run, without the head.

    >>> sorted(frozen_stages("last:1", [["conv1", "bn1"], ["layer1"], ["layer2"]]))
    ['bn1', 'conv1', 'layer1']
    """
    if choice == "all":
        return set()
    kept = {"head": 0, "layer4": 1}.get(choice)
    count = int(choice.removeprefix("last:")) if kept is None else kept
    return {name for stage in stages[: max(0, len(stages) - count)] for name in stage}


class FineTuned(nn.Module):
    """A network of which some parameters are not trained.

    What is not trained keeps its statistics too: a frozen batch normalisation that went on averaging would change the
    features that the head was trained on.
    """

    def __init__(self, backbone: nn.Module, frozen: Collection[str] = (), channels: int = 1) -> None:
        """Freezes parameters.

        Args:
            backbone: The network.
            frozen: Names of its parameters that are not trained.
            channels: How many it reads; the gray one serves as each of them.
        """
        super().__init__()
        self.backbone, self.channels = backbone, channels
        for name in frozen:
            backbone.get_parameter(name).requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps float [N, 1, H, W] to logits [N, classes]."""
        return self.backbone(images.expand(-1, self.channels, -1, -1))

    def train(self, mode: bool = True) -> FineTuned:
        """Switches to training, all but what is frozen."""
        super().train(mode)
        for module in self.backbone.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self
