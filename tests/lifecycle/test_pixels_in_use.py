"""Whole studies of small images and of 12-bit films: what was learned from them holds for what people have."""

import csv
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from sweep.stores.registry import find_version, load
from tests.helpers.raw_images import packed, pgm, png, tiff
from tests.helpers.studies import client_of, runs_of, sweep

TRAINED = (
    "--arch",
    "cnn3",
    "--trials",
    1,
    "--epochs",
    3,
    "--fix",
    "activation=gelu",
    "--workers",
    1,
    "--pruner",
    "none",
)
FIXED = ("--fix", "batch_size=16", "--fix", "learning_rate=0.003", "--fix", "optimizer=adam", "--fix", "dropout=0.1")


# Twenty over the width of a film: 48 pixels show them, 28 do not.
STRIPES = 0.6 + 0.4 * np.sin(2 * np.pi * 20 * np.arange(400) / 400)


def film(random, label, size):
    """A soft blob, larger where the label is 1, with noise of single pixels: float [size, size], 0 to 255."""
    y, x = np.mgrid[0:size, 0:size] / size - random.uniform(0.35, 0.65, size=2)[:, None, None]
    blob = 110 * np.exp(-(x**2 + y**2) / (2 * (0.12 + 0.1 * label) ** 2))
    return np.clip(70 + blob + random.normal(0, 20, (size, size)), 0, 255)


def answers_of(typed, folder, model, images, *more):
    code, out, error = typed(folder, "predict", model, images, "--csv", *more)
    assert code == 0, error
    return {row["file"].rpartition("/")[2]: row for row in csv.DictReader(io.StringIO(out))}, error


@pytest.mark.slow
def test_a_model_of_small_images_answers_the_same_for_a_film_and_its_small_form(tmp_path, typed):
    random, arrays = np.random.default_rng(0), {}
    for kind in ("films", "small"):
        for name in "01":
            (tmp_path / kind / name).mkdir(parents=True)
    for split, count in (("train", 120), ("test", 20)):
        labels = np.arange(count) % 2
        films = [Image.fromarray((film(random, label, 400) * STRIPES).astype(np.uint8)) for label in labels]
        smalls = [large.resize((28, 28), Image.Resampling.BICUBIC) for large in films]
        arrays |= {f"{split}_images": np.stack([np.asarray(small) for small in smalls]), f"{split}_labels": labels}
    np.savez(tmp_path / "small-films.npz", **arrays)
    for row, (label, large, small) in enumerate(zip(labels, films, smalls, strict=True)):
        large.save(tmp_path / "films" / str(label) / f"{row}.png")
        small.save(tmp_path / "small" / str(label) / f"{row}.png")

    done = sweep(
        tmp_path, *TRAINED, *FIXED, "--data", tmp_path / "small-films.npz", "--image-size", 48, blank_figures=True
    )
    assert done.returncode == 0, done.stderr
    assert "28 x 28 pixels at most and are trained at 48 x 48 (cnn3: 2 times the work)" in done.stdout + done.stderr

    large, _ = answers_of(typed, tmp_path, "small-films@cnn3", tmp_path / "films")
    small, _ = answers_of(typed, tmp_path, "small-films@cnn3", tmp_path / "small")
    assert len(large) == 20
    differences = [abs(float(large[name]["probability"]) - float(small[name]["probability"])) for name in large]
    assert max(differences) < 0.05
    assert [row["label"] for row in large.values()] == [row["label"] for row in small.values()]

    client = client_of(tmp_path)
    classifier = load(client, find_version(client, "small-films@cnn3"))
    del classifier.about["native"]  # the films as they are, in more detail than it ever saw
    pixels = [classifier.prepare(classifier.read(path)) for path in sorted((tmp_path / "films").glob("*/*.png"))]
    names = [path.name for path in sorted((tmp_path / "films").glob("*/*.png"))]
    otherwise = classifier.classify(np.stack(pixels))["probability"]
    assert max(abs(otherwise - [float(small[name]["probability"]) for name in names])) > 5 * max(differences)

    scores = {}
    for kind in ("films", "small"):
        code, out, error = typed(tmp_path, "evaluate", "small-films@cnn3", "--data", tmp_path / kind, "--json")
        assert code == 0, error
        scores[kind] = {row["score"]: row["value"] for row in json.loads(out)["scores"]}
    assert scores["films"]["accuracy"] == scores["small"]["accuracy"] >= 0.9


@pytest.mark.slow
def test_a_depth_goes_with_the_model_to_predict_evaluate_and_replay(tmp_path, typed):
    random = np.random.default_rng(0)
    data = tmp_path / "twelve-bits"
    for split, count in (("train", 80), ("test", 20)):
        for row in range(count):
            folder = data / split / ("PNEUMONIA" if row % 2 else "NORMAL")
            folder.mkdir(parents=True, exist_ok=True)
            values = np.rint(film(random, row % 2, 40) * (4095 / 255)).astype(np.uint16)
            (folder / f"IM-{row:04d}.png").write_bytes(png(values))
    stated = tmp_path / "stated"  # the last film, in other files
    stated.mkdir()
    (stated / "a.png").write_bytes(png(values))
    (stated / "b.pgm").write_bytes(pgm(values, 4095))
    (stated / "c.tif").write_bytes(tiff([packed(4095 - values)], (40, 40), 12, 0))

    small = (*TRAINED, *FIXED, "--data", data, "--image-size", 24)
    code, out, error = typed(tmp_path, *small, "--dry-run")
    assert code == 0, error
    assert re.search(r"say\s+--depth\s+12", out)
    done = sweep(tmp_path, *small, "--depth", 12, blank_figures=True)
    assert done.returncode == 0, done.stderr
    assert "have 16 bits per pixel" not in done.stdout + done.stderr

    answers, error = answers_of(typed, tmp_path, "twelve-bits@cnn3", stated)
    assert len({row["probability"] for row in answers.values()}) == 1
    assert "note:" not in error
    code, out, error = typed(tmp_path, "evaluate", "twelve-bits@cnn3", "--data", data, "--json")
    assert code == 0, error
    _, children = runs_of(tmp_path, "twelve-bits")
    (run,) = children.values()
    assert run.data.params["depth"] == "12"
    accuracy = {row["score"]: row["served"] for row in json.loads(out)["scores"]}["accuracy"]
    assert accuracy == pytest.approx(run.data.metrics["served_test_accuracy"])
    code, out, error = typed(tmp_path, "replay", run.info.run_id)
    assert code == 0, error

    code, _, error = typed(tmp_path, *small)  # other pixels are another study
    assert code == 2
    assert "depth 12" in error
