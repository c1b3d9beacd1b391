import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from data import synthetic
from data.sources import PATIENT_PATTERN


@pytest.fixture(scope="module")
def drawn():
    """Every third training film: its label and its pixels."""
    some = synthetic.films("train")[::3]
    return np.array([film.label for film in some]), np.stack([synthetic.draw(film) for film in some])


@pytest.mark.parametrize("split", synthetic.COUNTS)
def test_listing_is_complete_and_the_same_every_time(split):
    films = synthetic.films(split)
    assert films == synthetic.films(split)
    assert len(films) == synthetic.COUNTS[split]
    assert sum(film.label == 0 for film in films) == synthetic.NORMALS[split]


def test_names_are_unique_and_name_the_patient_as_the_real_ones_do():
    films = [film for split in synthetic.COUNTS for film in synthetic.films(split)]
    assert len({film.name for film in films}) == len(films)
    assert [re.findall(PATIENT_PATTERN, film.name) for film in films] == [[film.patient] for film in films]


def test_no_patient_is_in_both_splits_or_both_classes():
    groups = [
        {film.patient_seed for film in synthetic.films(split) if film.label == label}
        for split in synthetic.COUNTS
        for label in range(len(synthetic.CLASSES))
    ]
    assert len(set.union(*groups)) == sum(len(group) for group in groups)


def test_patients_of_both_classes_have_several_films():
    for label in range(len(synthetic.CLASSES)):
        patients = [film.patient for film in synthetic.films("train") if film.label == label]
        assert 1.5 < len(patients) / len(set(patients)) < 3


@pytest.mark.parametrize("finding", ["none", "bacteria", "virus"])
def test_draw_gives_the_same_gray_square_every_time(finding):
    film, other = [film for film in synthetic.films("test") if film.finding == finding][:2]
    pixels = synthetic.draw(film)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (synthetic.SIZE, synthetic.SIZE)
    assert np.any(pixels != synthetic.draw(other))
    np.testing.assert_array_equal(pixels, synthetic.draw(film))


def test_pixels_change_only_with_the_version():
    # Two gray levels are allowed for: releases of Pillow and numpy may round differently.
    pixels = synthetic.draw(synthetic.films("train")[-1])
    np.testing.assert_allclose(
        pixels[100, 16::32].astype(int), [144, 113, 159, 210, 120, 168], atol=2, err_msg="raise synthetic.VERSION"
    )


def test_brightness_does_not_give_the_label_away(drawn):
    labels, pixels = drawn
    for measure in (pixels.mean((1, 2)), pixels.std((1, 2)), pixels[:, 48:144, 32:160].mean((1, 2))):
        assert 0.3 < roc_auc_score(labels, measure) < 0.7


def test_pneumonia_is_seen_where_the_lungs_are(drawn):
    labels, pixels = drawn
    # Exposure varies, so the lungs are compared with the belly of the same film.
    lungs = pixels[:, 70:110, 40:150].mean((1, 2)) - pixels[:, 165:175, 60:130].mean((1, 2))
    assert lungs[labels == 1].mean() > lungs[labels == 0].mean() + 5


def test_films_of_a_class_are_not_all_alike(drawn):
    labels, pixels = drawn
    for label in range(len(synthetic.CLASSES)):
        small = pixels[labels == label][:, ::4, ::4].reshape(sum(labels == label), -1).astype(float)
        likeness = np.corrcoef(small)[np.triu_indices(len(small), 1)]
        assert likeness.max() < 0.999
        assert 0.3 < np.median(likeness) < 0.9


def test_the_examples_that_ship_are_what_the_generator_draws(tmp_path):
    """Two patients of neither split, one of each class."""
    folder = Path(__file__).parents[2] / "examples"
    drawn = synthetic.write_examples(tmp_path)

    shipped = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    assert shipped == sorted(path.relative_to(tmp_path) for path in drawn)
    for film, path in zip(synthetic.EXAMPLES, drawn, strict=True):
        with Image.open(folder / path.relative_to(tmp_path)) as image:
            assert (image.mode, image.info) == ("L", {})
            np.testing.assert_array_equal(np.asarray(image), synthetic.draw(film))
        assert path.parent.name == synthetic.CLASSES[film.label]
    patients = {film.patient_seed for split in synthetic.COUNTS for film in synthetic.films(split)}
    assert not patients & {film.patient_seed for film in synthetic.EXAMPLES}


def test_the_lungs_are_darker_than_what_surrounds_them():
    """Their bounding box holds both lungs, left and right of the spine, and leaves out shoulders and belly."""
    for film in synthetic.films("test")[:5]:
        top, bottom, left, right = synthetic.lung_box(film)
        assert 0 <= top < 0.3 < 0.7 < bottom <= 1
        assert 0 <= left < 0.3 < 0.7 < right <= 1
        pixels = synthetic.draw(film).astype(float)
        rows = slice(int((0.75 * top + 0.25 * bottom) * 192), int((top + bottom) / 2 * 192))
        quarters = [int((left + share * (right - left)) * 192) for share in (0.2, 0.35, 0.47, 0.53, 0.65, 0.8)]
        lung, spine, other = (pixels[rows, quarters[start] : quarters[start + 1]].mean() for start in (0, 2, 4))
        assert max(lung, other) < spine
