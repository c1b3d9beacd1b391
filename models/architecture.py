"""What an architecture is: its network, what it reads and how its images are prepared. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from data.recipe import RECIPES, Augmentation

if TYPE_CHECKING:
    from torch import nn

TIMM = "timm:"  # how the names of timm's networks begin
PRETRAINED = ("pretrained", "imagenet")  # of `--weights`; the second is the older name of the first
STAGES = "all, head and last:N (the last N stages and the head)"  # of `--finetune`
ACTIVATIONS = ("relu", "sigmoid", "gelu", "silu")  # the keys of `models.layers.ACTIVATIONS`, which imports torch


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    Attributes:
        name: Its name, as `--arch` takes it.
        section: Where the report describes it.
        image_size: Side of its input, in pixels, where the user asks for no other.
        smallest: Smallest side that its poolings leave something of.
        mean: Subtracted from pixels that go from 0 to 1.
        std: Divides what is left.
        augmentation: What happens to its training images.
        options: Further arguments of `build`, which only this architecture has.
        flattens: Whether it turns its feature maps into a vector by flattening, unless `pooling` says otherwise.
        activations: Those that it takes, its usual one first; `own` leaves those that it has.
        drops: Whether it has a dropout.
        make: Builds its network; None takes `build` of the module in `models` with its name.
        digest: How the SHA-256 of the file begins that its network comes from; None for the project's own and timm's.
    """

    name: str
    section: str
    image_size: int
    smallest: int
    mean: float
    std: float
    augmentation: Augmentation
    options: tuple[str, ...] = field(default=())
    flattens: bool = True
    activations: tuple[str, ...] = ACTIVATIONS
    drops: bool = True
    make: Callable[..., nn.Module] | None = None
    digest: str | None = None

    def build(
        self,
        activation: str,
        dropout: float,
        classes: int,
        image_size: int,
        normalisation: str = "fixed",
        pooling: str = "own",
        **options: Any,
    ) -> nn.Module:
        """Builds a freshly initialised network; see the architecture's own module.

        Args:
            activation: One of its activations.
            dropout: Probability from 0 to 1.
            classes: Number of logits.
            image_size: Side of the input, in pixels.
            normalisation: `fixed` leaves images as `mean` and `std` make them; a key of
                `models.layers.NORMALISATIONS` puts that before the network.
            pooling: As `models.layers.gathered` takes it; makes no difference to one that averages anyway.
            options: Further arguments; those that the architecture has are used.
        """
        make = self.make or import_module(f"models.{self.name}").build
        known = {name: options[name] for name in self.options if name in options} | (
            {"pooling": pooling} if self.flattens else {}
        )
        network = make(activation, dropout, classes, image_size, **known)
        if normalisation == "fixed":
            return network
        from torch import nn

        from models.layers import NORMALISATIONS

        first = NORMALISATIONS[normalisation](self.mean, self.std)
        # One more layer of a plain sequence; a subclass may have parameters and a forward of its own.
        return nn.Sequential(first, *(network if type(network) is nn.Sequential else (network,)))

    def recipe(self, augmentation: str) -> Augmentation:
        """What happens to its training images: its `own`, or a key of `data.recipe.RECIPES`."""
        return self.augmentation if augmentation == "own" else RECIPES[augmentation]


def is_stages(text: str) -> bool:
    """Whether a text is a choice of `--finetune`; `layer4` is resnet50's older name of `last:1`.

    >>> [is_stages(text) for text in ("all", "head", "last:2", "last:0", "layer4", "some")]
    [True, True, True, False, True, False]
    """
    return text in ("all", "head", "layer4") or re.fullmatch(r"last:[1-9]\d*", text) is not None
