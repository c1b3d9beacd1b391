"""Images and patients that are on two sides: counted, named, and refused where test images are not new."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import cache
from data.faults import InputError
from data.leakage import lines_of, overlaps_of, refuse, sentences_of
from data.sources import open_source, read_synthetic
from data.splits import split_source
from sweep.plan import leakage_of, make_plan
from sweep.settings import Settings


def folder(root: Path, *, train: int = 12, test: int = 6, name: str = "{split}-{row}.png", own: int = 0) -> Path:
    """Small noise, a PNG each, of two classes."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test), ("val", own)):
        for label in ("NORMAL", "PNEUMONIA"):
            for row in range(count):
                path = root / split / label / name.format(split=split, row=row, label=label[0])
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.integers(0, 256, (24, 24), dtype=np.uint8)).save(path)
    return root


def overlaps(root: Path, pixels=None, **options):
    source = open_source(root)
    split = split_source(source, validation=options.get("validation", "split"))
    return overlaps_of(source, split, pixels)


def test_nothing_is_said_where_nothing_is_shared(tmp_path: Path):
    # The same names on both sides are no patients: each file is one of its own.
    (both,) = overlaps(folder(tmp_path / "data", name="{row}.png"))

    assert (both.first, both.second, both.images, both.of, both.patients) == ("train", "test", 0, 12, 0)
    assert both.sentences() == ()
    refuse([both], "data", allowed=False)


def test_the_built_in_images_are_clean():
    source = read_synthetic()
    assert sentences_of(overlaps_of(source, split_source(source))) == ()


def test_a_copy_under_another_name_is_found_and_refused(tmp_path: Path):
    root = folder(tmp_path / "data")
    for row in range(6):
        shutil.copy(root / "test" / "NORMAL" / f"test-{row}.png", root / "train" / "PNEUMONIA" / f"other-{row}.png")

    (both,) = overlaps(root)

    assert (both.images, both.of) == (6, 12)
    assert both.pairs[0] == ("train/PNEUMONIA/other-0.png", "test/NORMAL/test-0.png")
    assert both.sentences() == ("6 of 12 test images are identical to images of train: test scores are optimistic",)
    with pytest.raises(
        InputError, match=r"6 of 12 test .*other-0.png = test/NORMAL/test-0.png; .*; and 1 more\)"
    ) as no:
        refuse([both], "data", allowed=False)
    assert "--allow-leakage" in str(no.value)
    refuse([both], "data", allowed=True)


def test_equal_pixels_in_other_bytes_are_found_once_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = folder(tmp_path / "data")
    with Image.open(root / "test" / "NORMAL" / "test-3.png") as image:
        image.save(root / "train" / "NORMAL" / "copy.bmp")
    source = open_source(root)
    assert cache.pixel_hashes(source, 16) is None
    cache.build(source, 16)

    (files,), (pixels,) = overlaps(root), overlaps(root, cache.pixel_hashes(source, 16))

    assert files.images == 0
    assert pixels.pairs == (("train/NORMAL/copy.bmp", "test/NORMAL/test-3.png"),)


def test_images_of_an_npz_are_compared_too(tmp_path: Path):
    random = np.random.default_rng(0)
    images = {split: random.integers(0, 256, (20, 8, 8), dtype=np.uint8) for split in ("train", "test")}
    images["test"][:5] = images["train"][5:10]
    labels = {f"{split}_labels": np.arange(20) % 2 for split in images}
    np.savez(tmp_path / "data.npz", **{f"{split}_images": array for split, array in images.items()}, **labels)

    (both,) = overlaps(tmp_path / "data.npz")

    assert (both.images, both.of, both.patients) == (5, 20, 0)
    with pytest.raises(InputError, match="5 of 20 test images are identical to images of train"):
        make_plan(Settings(("cnn1",), data=tmp_path / "data.npz", fix=("batch_size=8",)), fetch=False)


def test_a_patient_on_both_sides_is_counted_and_not_refused(tmp_path: Path):
    root = folder(tmp_path / "data", name="{label}-person{row}_{split}.png")

    (both,) = overlaps(root)

    assert both.images == 0
    assert (both.patients, both.of_patients) == (6, 6)
    assert both.serious
    refuse([both], "data", allowed=False)
    said = "6 of 6 patient names of test are in train, too: if they are the same people, test scores are optimistic"
    assert lines_of([both]) == [f"warning: {said}"]
    plan = make_plan(Settings(("cnn1",), data=root, fix=("batch_size=8",)), fetch=False)
    assert leakage_of(plan) == said


def test_kermanys_numbers_may_be_counted_anew_for_each_kind(tmp_path: Path):
    """As in the real data set, where 170 numbers are on both sides, and none with the same kind of pneumonia."""
    root = folder(tmp_path / "data", name="IM-{split}{row}.png")
    for split, kind in (("train", "virus"), ("test", "bacteria")):
        for row, path in enumerate(sorted((root / split / "PNEUMONIA").iterdir())):
            path.rename(path.with_name(f"person{row}_{kind}_{row}.jpeg"))

    (both,) = overlaps(root)

    assert (both.patients, both.serious) == (6, False)
    assert both.harmless.startswith("none of them with the same kind of pneumonia")
    assert lines_of([both])[0].startswith("note: 6 of 6 patient names of test are in train, too: none of them")
    shutil.copy(
        root / "train" / "PNEUMONIA" / "person0_virus_0.jpeg", root / "test" / "PNEUMONIA" / "person0_virus_9.jpeg"
    )
    assert overlaps(root)[0].serious


def test_a_val_folder_is_compared_where_it_is_used(tmp_path: Path):
    root = folder(tmp_path / "data", own=4)
    for row in range(4):  # all of it are training images
        shutil.copy(root / "train" / "NORMAL" / f"train-{row}.png", root / "val" / "NORMAL" / f"val-{row}.png")

    unused, used = overlaps(root), overlaps(root, validation="val")

    assert sentences_of(unused) == ()
    assert sentences_of(used) == (
        "4 of 8 validation images are identical to images of train: validation scores are optimistic",
    )
    refuse(used, "data", allowed=False)  # the test images are new
    shutil.copy(root / "test" / "NORMAL" / "test-0.png", root / "val" / "NORMAL" / "val-0.png")
    with pytest.raises(InputError, match="1 of 12 test images are identical to images of val"):
        refuse(overlaps(root, validation="val"), "data", allowed=False)


def test_images_that_a_limit_leaves_out_are_not_counted(tmp_path: Path):
    root = folder(tmp_path / "data", train=40)
    source = open_source(root)
    taken = split_source(source, validation="split", limit=40)
    left = sorted(set(range(80)) - {*taken.train.tolist(), *taken.validation.tolist()})
    shutil.copy(root / source.splits["train"].names[left[0]], root / "test" / "NORMAL" / "test-0.png")

    (both,) = overlaps_of(open_source(root), taken)

    assert both.images == 0
