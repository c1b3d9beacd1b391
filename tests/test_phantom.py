import re

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data import phantom
from data.sources import PATIENT_PATTERN


@pytest.fixture(scope="module")
def drawn():
    """Every second training film: its label and its pixels."""
    some = phantom.films("train")[::2]
    return np.array([film.label for film in some]), np.stack([phantom.draw(film) for film in some])


@pytest.mark.parametrize("split", phantom.COUNTS)
def test_listing_is_complete_and_the_same_every_time(split):
    films = phantom.films(split)
    assert films == phantom.films(split)
    assert len(films) == phantom.COUNTS[split]
    assert sum(film.label == 0 for film in films) == phantom.NORMALS[split]


def test_names_are_unique_and_name_the_patient_as_the_real_ones_do():
    films = [film for split in phantom.COUNTS for film in phantom.films(split)]
    assert len({film.name for film in films}) == len(films)
    assert [re.search(PATIENT_PATTERN, film.name).group() for film in films] == [film.patient for film in films]


def test_no_patient_is_in_both_splits_or_both_classes():
    groups = [
        {film.patient_seed for film in phantom.films(split) if film.label == label}
        for split in phantom.COUNTS
        for label in range(len(phantom.CLASSES))
    ]
    assert len(set.union(*groups)) == sum(len(group) for group in groups)


def test_patients_of_both_classes_have_several_films():
    for label in range(len(phantom.CLASSES)):
        patients = [film.patient for film in phantom.films("train") if film.label == label]
        assert 1.5 < len(patients) / len(set(patients)) < 3


def test_draw_gives_the_same_gray_square_every_time():
    for finding in ("none", "bacteria", "virus"):
        film = next(film for film in phantom.films("test") if film.finding == finding)
        pixels = phantom.draw(film)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (phantom.SIZE, phantom.SIZE)
        np.random.default_rng().random()  # noqa: NPY002
        np.testing.assert_array_equal(pixels, phantom.draw(film))
