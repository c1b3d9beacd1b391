"""What may happen to a training image, as plain data; `augment.py` does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image. The default leaves it alone.

    Attributes:
        rotation: Degrees, drawn from -rotation to rotation.
        shear: Degrees along x, drawn from -shear to shear.
        zoom: Scale drawn from 1 - zoom to 1 + zoom.
        stretch: Width drawn from 1 - stretch to 1 + stretch, beside the zoom of both sides: films that were made square
            are squeezed, each by another factor.
        shift: Fraction of the width, drawn from -shift to shift, along x.
        drop: Likewise along y.
        brightness: Factor drawn from this range.
        contrast: Factor drawn from this range, of the distance to the image's mean.
        gamma: Exponent drawn from this range.
        horizontal_flip: Mirror half of the images left to right.
        vertical_flip: Mirror half of the images top to bottom.
        fill: What lies outside of an image: `zeros` (black) or `border` (its nearest pixel).
    """

    rotation: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    stretch: float = 0.0
    shift: float = 0.0
    drop: float = 0.0
    brightness: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)
    gamma: tuple[float, float] = (1.0, 1.0)
    horizontal_flip: bool = False
    vertical_flip: bool = False
    fill: str = "zeros"

    @property
    def warps(self) -> bool:
        """Whether pixels move by more than a mirror."""
        return bool(self.rotation or self.shear or self.zoom or self.stretch or self.shift or self.drop)


_POSITION = Augmentation(rotation=15, zoom=0.15, shift=0.1, drop=0.1, horizontal_flip=True, fill="border")
# What validation images go through where a study chooses by how a network stands it (`--metric val/stressed_auroc`).
# Studies remember its name and not its values: whoever wants another one adds one beside it.
STRESS = replace(_POSITION, zoom=0.2, stretch=0.2, brightness=(0.6, 1.4), contrast=(0.6, 1.4), gamma=(0.6, 1.6))
# What a study may ask for instead of the architecture's own, to be proof against films that others made elsewhere:
# the patient stands otherwise (`position`), the film is exposed otherwise (`light`), or both; `wide` is both and more.
# All but `none` turn and mirror, as the report does.
RECIPES: Mapping[str, Augmentation] = {
    "none": Augmentation(),
    "position": _POSITION,
    "light": Augmentation(
        rotation=15, brightness=(0.7, 1.3), contrast=(0.7, 1.3), gamma=(0.7, 1.4), horizontal_flip=True
    ),
    "both": replace(_POSITION, brightness=(0.7, 1.3), contrast=(0.7, 1.3), gamma=(0.7, 1.4)),
    "wide": STRESS,
}
