"""Networks: what each architecture is, what it reads and how its images are prepared (report sections 2.1 and 3).

The table here imports no torch, so that a command line can ask it for names and sizes at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from data.recipe import RECIPES, Augmentation

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    Attributes:
        name: Its name, and that of the module in `models` whose `build` makes it.
        section: Where the report describes it.
        image_size: Side of its input, in pixels, where the user asks for no other.
        smallest: Smallest side that its poolings leave something of.
        mean: Subtracted from pixels that go from 0 to 1.
        std: Divides what is left.
        augmentation: What happens to its training images.
        options: Further arguments of `build`, which only this architecture has; `drop_path` is the hyperparameter.
        flattens: Whether it turns its feature maps into a vector by flattening, unless `pooling` says otherwise.
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
            activation: A key of `models.layers.ACTIVATIONS`.
            dropout: Probability from 0 to 1.
            classes: Number of logits.
            image_size: Side of the input, in pixels.
            normalisation: `fixed` leaves images as `mean` and `std` make them; a key of
                `models.layers.NORMALISATIONS` puts that before the network.
            pooling: As `models.layers.gathered` takes it; makes no difference to one that averages anyway.
            options: Further arguments; those that the architecture has are used.
        """
        module = import_module(f"models.{self.name}")
        known = {name: options[name] for name in self.options if name in options}
        known |= {"pooling": pooling} if self.flattens else {}
        network = module.build(activation, dropout, classes, image_size, **known)
        if normalisation == "fixed":
            return network
        from torch import nn

        from models.layers import NORMALISATIONS

        first = NORMALISATIONS[normalisation](self.mean, self.std)
        return nn.Sequential(first, *(network if isinstance(network, nn.Sequential) else (network,)))

    def recipe(self, augmentation: str) -> Augmentation:
        """What happens to its training images: its `own`, or a key of `data.recipe.RECIPES`."""
        return self.augmentation if augmentation == "own" else RECIPES[augmentation]


_FLIP_AND_ROTATE = Augmentation(rotation=15, horizontal_flip=True)

ARCHITECTURES: dict[str, Architecture] = {
    row.name: row
    for row in (
        Architecture("cnn1", "3.1", 160, 2, 0.0, 1.0, _FLIP_AND_ROTATE),
        Architecture("cnn2", "3.2", 160, 4, 0.0, 1.0, _FLIP_AND_ROTATE),
        Architecture("cnn3", "3.3", 150, 8, 0.5, 0.5, Augmentation(horizontal_flip=True)),
        Architecture(
            "resnet50",
            "3.4",
            224,
            33,  # at 32 a last batch of one image leaves batch normalisation a single value
            0.0,
            1.0,
            Augmentation(
                rotation=20,
                shear=10,
                zoom=0.3,
                shift=0.2,
                brightness=(0.5, 2.0),
                horizontal_flip=True,
                vertical_flip=True,
                fill="border",
            ),
            options=("weights", "finetune"),
            flattens=False,
        ),
    )
}
