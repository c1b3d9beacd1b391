"""What may happen to a training image, as plain data; `augment.py` does it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image. The default leaves it alone.

    Attributes:
        rotation: Degrees, drawn from -rotation to rotation.
        shear: Degrees along x, drawn from -shear to shear.
        zoom: Scale drawn from 1 - zoom to 1 + zoom.
        shift: Fraction of the width, drawn from -shift to shift, along x.
        brightness: Factor drawn from this range.
        horizontal_flip: Mirror half of the images left to right.
        vertical_flip: Mirror half of the images top to bottom.
        fill: What lies outside of an image: `zeros` (black) or `border` (its nearest pixel).
    """

    rotation: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    brightness: tuple[float, float] = (1.0, 1.0)
    horizontal_flip: bool = False
    vertical_flip: bool = False
    fill: str = "zeros"

    @property
    def warps(self) -> bool:
        """Whether pixels move by more than a mirror."""
        return bool(self.rotation or self.shear or self.zoom or self.shift)
