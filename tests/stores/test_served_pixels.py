"""A registered model reads an image as it did in training: its depth and its native size travel with it."""

import base64

import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc import load_model
from PIL import Image

from data.decode import open_gray, resize
from data.source import Listing, Source
from sweep.lifecycle.evaluate import evaluate
from sweep.lifecycle.predict import label
from sweep.lifecycle.scored_data import ScoredData
from sweep.stores.mlflow_stores import open_tracking
from sweep.stores.registry import load, register
from tests.helpers.raw_images import packed, pgm, png, tiff
from tests.helpers.served import NAME, SIZE, example, new_spec, picture, probabilities
from tests.helpers.stocked import stocked

NATIVE = (9, 7)  # width and height, below the 16 that the network takes
V12 = np.random.default_rng(5).integers(0, 4096, (60, 80)).astype(np.uint16)
FILMS = {
    "unstated.png": png(V12),
    "stated.png": png(V12, chunks=[(b"sBIT", b"\x0c")]),
    "white-is-zero.tif": tiff([packed(4095 - V12)], (60, 80), 12, 0),
    "film.pgm": pgm(V12, 4095),
    "eight.png": picture(seed=3, width=5, height=6),
}


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    folder = stocked(tmp_path_factory.mktemp("store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where artifacts go
        yield open_tracking(f"sqlite:///{folder}/mlflow.db", NAME)


@pytest.fixture(scope="module")
def version(tracking, network):
    """One whose images had 12 bits and 9 x 7 pixels."""
    plain = example(network)
    pictures = [np.asarray(Image.fromarray(pixels).resize(NATIVE)) for pixels in plain.pixels]
    answers = np.concatenate([expected(network, Image.fromarray(small)) for small in pictures])
    spec = new_spec(tracking, depth=12, native=NATIVE)
    return register(tracking.client, spec, network, type(plain)(pictures, answers))  # which tries it out


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for name, content in FILMS.items():
        (folder / name).write_bytes(content)
    return folder


def expected(network, gray):
    """What training says of a gray image: as a PNG of the size that the network takes."""
    return probabilities(network, [png(resize(gray, SIZE, NATIVE))])


def test_serving_predict_and_evaluate_read_what_training_reads(tracking, client, network, version, films):
    grays = [open_gray(content, 12) for content in FILMS.values()]
    assert len({gray.tobytes() for gray in grays}) == 2  # the four films of 12 bits are one
    truth = np.concatenate([expected(network, gray) for gray in grays])
    columns = ["probability_NORMAL", "probability_PNEUMONIA"]

    served = load_model(client.get_model_version_download_uri(version.name, version.version))
    rows = pd.DataFrame({"image": [base64.b64encode(content).decode() for content in FILMS.values()]})
    assert np.allclose(served.predict(rows)[columns], truth, atol=1e-6)

    classifier = load(client, version)
    labelled = label(classifier, [films / name for name in FILMS], None, None, lambda done: None)
    assert np.allclose(labelled.answers[columns], truth, atol=1e-6)
    assert labelled.notes == ()

    names = tuple(FILMS)
    listing = Listing(names, np.array([0, 1, 0, 1, 1]), names, names)
    source = Source("films", "folder", str(films), ("NORMAL", "PNEUMONIA"), {"test": listing}, lambda _, row: films / names[row], depth=12)  # fmt: skip
    scored = ScoredData(source, "", (), ())
    evaluation = evaluate(version, classifier, scored, tracking, lambda done: None)
    assert np.allclose(evaluation.predictions.probabilities(classifier.about["temperature"]), truth, atol=1e-6)


def test_predict_says_where_16_bits_are_not_used_and_takes_another_depth(client, network, version, films, typed):
    classifier = load(client, version)
    del classifier.about["depth"]
    labelled = label(classifier, [films / "unstated.png"], None, None, lambda done: None)
    assert "1 images have 16 bits per pixel and state no depth" in labelled.notes[0]
    assert "--depth 12" in labelled.notes[0]
    given = label(classifier, [films / "unstated.png"], None, None, lambda done: None, 12)
    assert given.notes == ()
    assert np.allclose(
        given.answers[["probability_NORMAL", "probability_PNEUMONIA"]],
        expected(network, open_gray(FILMS["unstated.png"], 12)),
        atol=1e-6,
    )
    refused = label(classifier, [films / "unstated.png"], None, None, lambda done: None, 11)
    assert "above 2047" in refused.unreadable[films / "unstated.png"]
    code, _, error = typed(films, "predict", version.name, films, "--depth", 99)
    assert (code, "--depth 99: give how many bits" in error) == (2, True)
