"""Copies that were changed are found; other images of the same kind are not."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from data.near_duplicates import SIZE, hashes, near_pairs
from data.sources import open_source
from data.verify import verify

SIDE = 200


@cache
def film(seed: int) -> Image.Image:
    """A body of the same coarse shape for all, with structures of its own at every scale, as radiographs are."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    own = sum(gaussian_filter(random.normal(size=(SIDE, SIDE)), sigma) * sigma * weight for sigma, weight in
              ((20, 60), (8, 45), (3, 25)))  # fmt: skip
    return Image.fromarray(np.clip(150 - 300 * (x**2 + y**2) + own, 0, 255).astype(np.uint8))


def saved(image: Image.Image) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=60)
    return Image.open(content)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


CHANGES = {
    "resaved": saved,
    "resized": lambda image: image.resize((90, 90)),
    "cropped": lambda image: image.crop((4, 4, SIDE - 4, SIDE - 4)),
    "cropped at a corner": lambda image: image.crop((3, 3, SIDE, SIDE)),
    "brighter": lambda image: image.point(lambda value: min(255, int(value * 1.2))),
    "darker": lambda image: image.point(lambda value: value - 30 if value > 30 else 0),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cropped, darker and resaved": lambda image: saved(
        image.crop((4, 4, SIDE - 4, SIDE - 4)).point(lambda v: int(v * 0.8))
    ),
}


@cache
def hashed_films():
    images = [pixels(film(seed)) for seed in range(20)]
    return images, list(map(hashes, images))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_others(change: str):
    others, hashed = hashed_films()
    copy = pixels(CHANGES[change](film(7)))
    names = [str(row) for row in range(21)]

    counts, pairs = near_pairs(
        names, ["train"] * 20 + ["test"], names, [*hashed, hashes(copy)], [*others, copy].__getitem__
    )

    assert counts == {"train and test": 1}
    ((pair,),) = pairs.values()
    assert (pair.first, pair.second) == ("7", "20")
    assert pair.correlation > 0.96


def test_identical_and_flat_images_are_no_near_duplicates():
    images = [pixels(film(0)), pixels(film(0)), np.zeros((SIZE, SIZE), np.uint8), np.full((SIZE, SIZE), 9, np.uint8)]
    hashed = list(map(hashes, images))
    assert hashed[2] is hashed[3] is None
    assert near_pairs("abcd", ["train"] * 4, "xxyz", hashed, images.__getitem__) == ({}, {})
    assert near_pairs("a", ["train"], "x", hashed[:1], images.__getitem__) == ({}, {})


def test_verify_counts_by_splits_and_says_what_is_the_same(tmp_path: Path):
    for row in range(12):
        split, label = ("train", "test")[row % 3 == 0], ("A", "B")[row % 2]
        (tmp_path / split / label).mkdir(parents=True, exist_ok=True)
        film(row).save(tmp_path / split / label / f"{row}.png")
    saved(film(1)).save(tmp_path / "test" / "B" / "resaved.jpeg")  # of train/B/1.png
    film(2).save(tmp_path / "test" / "A" / "other.bmp")  # of train/A/2.png: the same pixels

    found = verify(open_source(tmp_path), lambda done: None)

    assert found.near_counts == {"train and test": 1}
    ((pair,),) = found.near_duplicates.values()
    assert (pair.first, pair.second) == ("train/B/1.png", "test/B/resaved.jpeg")
    assert found.two_splits == [["train/A/2.png", "test/A/other.bmp"]]
    assert found.shared_images == {"train and test": 1}
    assert (found.identical_groups, found.saved_anew) == (0, 1)
    assert found.shared_patients == {"train and test": 0}
    assert found.identical_groups == 0  # of files
