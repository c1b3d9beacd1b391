"""Fine-tuning: which parts of a network stay as they were trained elsewhere."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn


class FineTuned(nn.Module):
    """A network of which some parameters are not trained.

    What is not trained keeps its statistics too: a frozen batch normalisation that went on averaging would change the
    features that the head was trained on.
    """

    def __init__(self, backbone: nn.Module, frozen: Collection[str]) -> None:
        """Args: the network, and the names of its parameters that stay as they are."""
        super().__init__()
        self.backbone = backbone
        for name in frozen:
            backbone.get_parameter(name).requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps float [N, 1, H, W] to logits [N, classes]."""
        return self.backbone(images)

    def train(self, mode: bool = True) -> FineTuned:
        """Switches to training, all but what is frozen."""
        super().train(mode)
        for module in self.backbone.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self
