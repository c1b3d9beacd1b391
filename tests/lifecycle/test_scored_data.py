"""Which images a version is scored on: its own unless others are named, never of another kind."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from data.faults import InputError
from data.recorded import digest_of_images
from data.sources import PATIENT_PATTERN, open_source, read_synthetic
from sweep.lifecycle.scored_data import ScoredData, data_for
from sweep.stores.mlflow_stores import PastRun
from sweep.stores.registry import Version

CLASSES = ["NORMAL", "PNEUMONIA"]
AGAIN = "the test set is used once more: selecting a model by these scores is selecting on test data"


def scored(
    own: Path | str, location: Path | None = None, *, name="films", digest=None, data=None, **tags
) -> ScoredData:
    """Of a version that learned from images at a place.

    Args:
        own: The place.
        location: As --data names it.
        name: Of the data set.
        digest: Of the test images, as the model has it; None for one of an earlier release.
        data: Of the whole data set, as the run has it.
        tags: Of the version, without `sweep.`.
    """
    about = {"classes": CLASSES, "provenance": {} if digest is None else {"test digest": digest}}
    past = PastRun("cnn1-000", {"sweep.data_digest": str(data)}, {}, (), name, str(own))
    version = Version(name, "1", "run", "model", {f"sweep.{key}": value for key, value in tags.items()})
    return data_for(version, about, past, location, PATIENT_PATTERN)


def test_its_own_test_images_are_scored_without_being_named(pictures: Path):
    whole = open_source(pictures)

    found = scored(pictures, digest=digest_of_images(whole.splits["test"]))

    assert found.source.location == str(pictures)
    assert list(found.source.splits) == ["test"]
    assert found.source.splits["test"].names == whole.splits["test"].names
    assert found.notes == (AGAIN,)
    assert found.warnings == ()


def test_a_model_of_the_synthetic_images_is_scored_on_them_and_on_nothing_else(pictures: Path):
    found = scored("built in, version 3", name="synthetic", digest=digest_of_images(read_synthetic().splits["test"]))

    assert (found.source.kind, found.source.name) == ("synthetic", "synthetic")
    assert AGAIN in found.notes
    with pytest.raises(InputError, match="synthetic learned from the built-in synthetic images, and its scores on oth"):
        scored("built in, version 3", pictures, name="synthetic")


def test_a_model_of_films_is_never_scored_on_the_synthetic_images(tmp_path: Path):
    with pytest.raises(
        InputError, match=re.escape(f"the model's images were at {tmp_path}/gone, which is not here; say")
    ):
        scored(tmp_path / "gone")
    with pytest.raises(InputError, match=f"images were at {tmp_path} and are not as they were(?s:.*): has no folder"):
        scored(tmp_path)


def test_other_classes_are_refused(pictures: Path, tmp_path: Path):
    for split in ("train", "test"):
        for old, new in (("NORMAL", "A"), ("PNEUMONIA", "B")):
            shutil.copytree(pictures / split / old, tmp_path / split / new)

    with pytest.raises(InputError, match="its classes are A, B; the model knows NORMAL, PNEUMONIA"):
        scored(pictures, tmp_path)
    with pytest.raises(InputError, match="its classes are A, B now, and the model knows NORMAL, PNEUMONIA; say with"):
        scored(tmp_path)


def test_other_images_than_it_was_tested_on_are_said(pictures: Path):
    (said,) = scored(pictures, digest="0123456789abcdef").notes
    assert said.startswith(f"these are not the images that it was tested on: {pictures} has changed (digest ")
    assert said.endswith(", then 0123456789abcdef)")


def test_a_model_of_an_earlier_release_is_compared_by_the_digest_of_its_data(pictures: Path):
    """It has none of its test images alone."""
    now = open_source(pictures).digest

    assert scored(pictures, data=now).notes == (AGAIN,)
    assert scored(pictures, pictures / "test", data=now).notes == (AGAIN,)
    (said,) = scored(pictures, data="0123456789abcdef").notes
    assert said == f"{pictures} has changed since it was tested there (data digest {now}, then 0123456789abcdef)"
    assert scored(pictures / "gone", pictures, data=now).notes[0].startswith("whether these are the images that it was")


def test_training_images_are_counted_wherever_they_come_from(pictures: Path):
    found = scored(pictures, pictures / "train")
    assert found.warnings == (
        "160 of these 160 images are identical to images of its training data: scores on them are optimistic",
    )


def test_what_its_study_found_is_said_again(pictures: Path):
    shared = "170 of 427 patient names of test are in train, too: they may be other children"
    found = scored(pictures, digest="0", leakage=shared, missed_classes="it recognises 0 of 9")
    assert found.warnings == ("it recognises 0 of 9",)
    assert found.notes[-1] == f"in its study {shared}"
    found = scored(pictures, digest="0", leakage=f"{shared} (used by --allow-leakage)")
    assert found.warnings == (f"in its study {shared} (used by --allow-leakage)",)
