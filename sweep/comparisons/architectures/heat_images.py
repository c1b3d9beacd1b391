"""Compute the heat maps of some test images, and check them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data import synthetic
from data.cache import Images
from data.sources import Source
from sweep.metrics.heat import Box, HeatCheck, heat_check
from sweep.stores.heat_map import heat_maps

IMAGES, BATCH = 64, 16
HEADS = (None, 0, 1, 2, 3, 4)  # the network itself, and seeds of five other last layers
# Where the lungs are on most of Kermany's films, which show little beside the chest. It is the same for every film.
CENTRE: Box = (0.08, 0.84, 0.08, 0.92)
CENTRE_NAME = (
    "a fixed central part of each film (8 to 84 % of its height, 8 to 92 % of its width), since its lungs are not "
    "outlined"
)
LUNGS_NAME = "the bounding box of both lungs, as the generator of the synthetic films drew them"


def check_heat(classifier: Any, source: Source, images: Images) -> HeatCheck:
    """Checks the heat maps of a model on test images, evenly spaced in their list, so of each class as it occurs.

    Args:
        classifier: As `registry.load` returns it.
        source: The data set.
        images: All of its test images, in the size of the network's input.
    """
    rows = np.unique(np.linspace(0, len(images) - 1, min(IMAGES, len(images))).round().astype(int))
    pixels = images.pixels()
    heats = [
        heat_maps(classifier.network, classifier.about, pixels[images.rows[rows[start : start + BATCH]]], HEADS)
        for start in range(0, len(rows), BATCH)
    ]
    boxes, area = _areas(source, [images.names[row] for row in rows])
    return heat_check(np.concatenate(heats, axis=1), boxes, [images.patients[row] for row in rows], area)


def _areas(source: Source, names: Sequence[str]) -> tuple[np.ndarray, str]:
    """The area of each film where heat is expected, float [N, 4], and what it is."""
    if source.kind == "synthetic":
        films = {f"test/{film.name}": film for film in synthetic.films("test")}
        return np.array([synthetic.lung_box(films[name]) for name in names]), LUNGS_NAME
    return np.tile(CENTRE, (len(names), 1)), CENTRE_NAME
