"""What people do with a registered model: label files, score it on test images, give it an alias, read its card."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.pyfunc import load_model
from PIL import Image

from data.decode import decode
from sweep.lifecycle.model_card import DESCRIPTION_LENGTH
from sweep.lifecycle.predict import class_of_folder
from sweep.metrics.predictions import read_predictions
from sweep.stores.registry import find_version
from tests.helpers.served import text
from tests.helpers.studies import scores_of, sweep, tiny

MODEL = "blob-pictures"


@pytest.fixture(scope="module")
def store(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory after a study."""
    folder = tmp_path_factory.mktemp("store")
    done = sweep(folder, *tiny(pictures, 2))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(store: Path, typed):
    """Runs a command in the store's directory and returns exit code, stdout and stderr."""
    return partial(typed, store)


@pytest.fixture
def client(store: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{store}/mlflow.db")


def evaluations(client: MlflowClient) -> list:
    experiment = client.get_experiment_by_name(MODEL).experiment_id
    return client.search_runs([experiment], "tags.`sweep.kind` = 'evaluation'")


# predict -------------------------------------------------------------------------------------------------------------


def test_labels_files_folders_and_globs_once_each(run, pictures: Path):
    folder, one = pictures / "test" / "NORMAL", pictures / "test" / "PNEUMONIA" / "person1_virus_0.jpeg"

    code, out, err = run(
        "predict", f"{MODEL}@cnn3", folder, one, f"{pictures}/test/*/person[13]_*_0.jpeg", one, "--json"
    )

    assert (code, err) == (0, "")
    answers = json.loads(out)["predictions"]
    expected = [*sorted(folder.iterdir()), one, pictures / "test" / "PNEUMONIA" / "person3_virus_0.jpeg"]
    assert [answer["file"] for answer in answers] == list(map(str, expected))
    assert {answer["model_version"] for answer in answers} == {"1"}
    assert all(answer["probability_NORMAL"] + answer["probability_PNEUMONIA"] == pytest.approx(1) for answer in answers)
    assert json.loads(out)["unreadable"] == {}


def test_it_says_what_serving_says(run, client: MlflowClient, pictures: Path):
    files = sorted((pictures / "test").rglob("*.jpeg"))

    _, out, _ = run("predict", MODEL, pictures / "test", "--csv")

    rows = list(csv.DictReader(io.StringIO(out)))
    model = load_model(client.get_model_version_download_uri(MODEL, "1"))
    served = model.predict(pd.DataFrame({"image": [text(path.read_bytes()) for path in files]}))
    assert [row["file"] for row in rows] == list(map(str, files))
    np.testing.assert_allclose([float(row["probability"]) for row in rows], served["probability"], atol=2e-6)
    assert [row["label"] for row in rows] == list(served["label"])


def test_a_table_for_people(run, pictures: Path):
    code, out, err = run("predict", MODEL, pictures / "test" / "NORMAL", "--threshold", "0.9")

    assert (code, err) == (0, "")
    assert f"images in {pictures}/test/NORMAL:" in out.splitlines()
    assert re.search(
        r"32 images, \d+ NORMAL, \d+ PNEUMONIA; blob-pictures version 1 \(cnn3, PNEUMONIA from 0.9 on\)", out
    )
    assert "Not a medical device" in out
    assert "\x1b" not in out


def test_what_cannot_be_read_is_said_at_the_end(run, pictures: Path, tmp_path: Path):
    good = next((pictures / "test" / "NORMAL").iterdir())
    for name, content in {"a.txt": b"words", "b.png": b"", "c.jpeg": good.read_bytes()[:200]}.items():
        (tmp_path / name).write_bytes(content)
    shutil.copy(good, tmp_path / "d.jpeg")

    code, out, _ = run("predict", MODEL, tmp_path / "a.txt", tmp_path)

    assert code == 1
    assert "1 images" in out
    said = [line for line in out.splitlines() if line.startswith("unreadable: ")]
    assert [line.split(": ")[1] for line in said] == [str(tmp_path / name) for name in ("a.txt", "b.png", "c.jpeg")]
    code, out, _ = run("predict", MODEL, tmp_path / "b.png", "--json")
    assert code == 1
    assert json.loads(out) == {
        "exit_code": 1, "predictions": [], "warnings": [],
        "unreadable": {str(tmp_path / "b.png"): "the file is empty"}, "notes": [],
    }  # fmt: skip


def test_what_a_folder_holds_beside_images_is_said(run, pictures: Path, tmp_path: Path):
    folder = tmp_path / "films"
    shutil.copytree(pictures / "test" / "NORMAL", folder)
    (folder / ".ipynb_checkpoints").mkdir()
    for path in sorted(folder.glob("*.jpeg"))[:10]:
        path.rename(path.with_suffix(".dcm"))
    note = f"passed over 10 .dcm files, 1 hidden or system folder (.ipynb_checkpoints) in {folder}"

    code, out, _ = run("predict", MODEL, folder)
    assert (code, f"note: {note}" in out, "22 images" in out) == (0, True, True)
    code, out, err = run("predict", MODEL, folder, "--csv")
    assert (len(out.splitlines()), err) == (23, f"note: {note}\n")
    _, out, _ = run("predict", MODEL, folder, "--json")
    assert json.loads(out)["notes"] == [note]


def test_heatmaps_are_pictures_of_their_files(run, pictures: Path, tmp_path: Path):
    for part in ("one", "two"):  # two files of one name
        (tmp_path / part).mkdir()
        Image.new("L", (900, 300), 120).save(tmp_path / part / "film.png")

    code, out, _ = run("predict", MODEL, tmp_path / "one", tmp_path / "two", "--heatmap", tmp_path / "maps", "--json")

    assert code == 0
    assert [answer["heatmap"] for answer in json.loads(out)["predictions"]] == [
        str(tmp_path / "maps" / name) for name in ("film.heatmap.png", "film-2.heatmap.png")
    ]
    for path in (tmp_path / "maps").iterdir():
        with Image.open(path) as image:
            assert (image.width, image.mode) == (2 * 900 + 3 * 15, "RGB")
            assert image.crop((15, 15, 915, 315)).getcolors() == [(900 * 300, (120, 120, 120))]


def test_the_examples_of_the_readme_get_an_answer_and_a_picture_with_their_true_class(run, tmp_path: Path):
    examples = Path(__file__).parents[2] / "examples"

    code, out, _ = run("predict", MODEL, examples, "--heatmap", tmp_path / "maps", "--json")

    assert code == 0
    answers = json.loads(out)["predictions"]
    assert [Path(answer["file"]).parent.name for answer in answers] == ["NORMAL", "PNEUMONIA"]
    assert class_of_folder(examples / "NORMAL" / "film.png", ["NORMAL", "PNEUMONIA"]) == "NORMAL"
    assert class_of_folder(tmp_path / "film.png", ["NORMAL", "PNEUMONIA"]) is None
    for answer in answers:
        with Image.open(answer["heatmap"]) as image, Image.open(answer["file"]) as film:
            shown = image.crop((8, 8, 8 + 384, 8 + 384)).convert("L")  # twice as large, pixel by pixel
            np.testing.assert_array_equal(np.asarray(shown)[::2, ::2], np.asarray(film))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["predict", MODEL, "nowhere.png", "nothing/*.png"],
            ["nowhere.png: there is no such file", "nothing/*.png: there"],
        ),
        (["predict", MODEL, "{tmp}"], ["the folder holds no image"]),
        (["predict", "unknown", "{picture}"], ["the registered models here are: blob-pictures"]),
        (["predict", MODEL, "{picture}", "--threshold", "1.5"], ["--threshold 1.5: give a number from 0 to 1"]),
        (["predict", MODEL, "{picture}", "--csv", "--json"], ["--csv and --json"]),
        (["predict", MODEL, "{picture}", "--heatmap", "{picture}"], ["is a file; give a folder"]),
        (["predict", MODEL, "{picture}", "--tracking-uri", "sqlite:///none.db"], ["none.db: there is no such file"]),
        (["evaluate", MODEL, "--data", "{tmp}"], ["its class folders are none; the model knows NORMAL, PNEUMONIA"]),
        (["evaluate", MODEL, "--data", "nowhere"], ["--data nowhere: no such file or folder"]),
        (["evaluate", MODEL, "--prevalence", "5"], ["--prevalence 5: give a share", "such as 0.05 for 5 %"]),
        (["evaluate", MODEL, "--prevalence", "nan"], ["--prevalence nan: give a share"]),
        (["promote", MODEL, "--as", "v3"], ["--as v3: "]),
        (["promote", MODEL, "--as", "Best One"], ["--as Best One: "]),
        (["promote", f"{MODEL}/7", "--as", "champion"], ["has no version 7"]),
        (
            ["promote", MODEL, "--as", "resnet50"],
            ["that alias is for networks of resnet50, and blob-pictures is a cnn3"],
        ),
        (["promote", MODEL, "--as", "clinic", "--reason", "x"], ["--reason: only a person's decision has one"]),
        (["promote", MODEL, "--as", "a" * 80], ["--as aaaa"]),
        (["evaluate", MODEL, "--data", "{test}", "--patient-pattern", "("], ["is not a regular expression"]),
        (["predict", MODEL, "x" * 300 + ".png"], ["is too long for a file's name"]),
    ],
)
def test_bad_input_is_named_and_changes_nothing(run, client, store, pictures, tmp_path, arguments, said):
    picture = next((pictures / "test" / "NORMAL").iterdir())
    before = {path: path.stat().st_mtime_ns for path in store.iterdir()}

    code, out, err = run(
        *(argument.format(tmp=tmp_path, picture=picture, test=pictures / "test") for argument in arguments)
    )

    assert code == 2
    assert out == "" or json.loads(out)["exit_code"] == 2
    for sentence in said:
        assert sentence in err
    assert "Traceback" not in err
    assert {path: path.stat().st_mtime_ns for path in store.iterdir()} == before


# evaluate ------------------------------------------------------------------------------------------------------------


def test_an_evaluation_says_what_the_study_had_said(run, client: MlflowClient, pictures: Path):
    code, out, err = run("evaluate", f"{MODEL}@cnn3", "--data", pictures, "--prevalence", "0.05", "--json")

    assert code == 0, err
    answer = json.loads(out)
    assert "PPV at 5 % prevalence" in err
    clinical = {row["score"]: row for row in answer["clinical"]["scores"]}
    assert answer["clinical"]["prevalence"] == pytest.approx(28 / 60)
    version = client.get_model_version(MODEL, "1")
    registered = scores_of(client, version)
    scores = {row["score"]: row for row in answer["scores"]}
    assert {"f1", "f1_macro", "f1_weighted", "specificity", "ece", "average_precision", "brier"} <= scores.keys()
    for name, row in scores.items():
        assert row["value"] == pytest.approx(registered[f"test/{name}"], abs=2e-6), name
        assert row["low"] - 1e-9 <= row["value"] <= row["high"] + 1e-9
    assert scores["accuracy"]["always_PNEUMONIA"] == pytest.approx(28 / 60)

    recall = next(row for row in answer["scores"] if row["score"] == "recall")
    for end, published in (("value", "served"), ("low", "served_low"), ("high", "served_high")):
        assert clinical["sensitivity"][end] == pytest.approx(recall[published])

    run_ = client.get_run(answer["run_id"])
    assert run_.data.metrics["test_clinical/sensitivity"] == clinical["sensitivity"]["value"]
    assert "PPV at 5 % prevalence" in run_.data.tags["mlflow.note.content"]
    model_id = version.source.removeprefix("models:/")
    assert run_.data.tags["sweep.model_version"] == "1"
    assert run_.data.params["model"] == f"models:/{MODEL}/1"
    assert [entry.model_id for entry in run_.inputs.model_inputs] == [model_id]
    assert run_.data.metrics["test/auroc"] == pytest.approx(scores["auroc"]["value"])
    assert run_.data.metrics["test_low/auroc"] == pytest.approx(scores["auroc"]["low"])
    assert run_.info.status == "FINISHED"
    figures = {entry.path for entry in client.list_artifacts(answer["run_id"], "figures")}
    names = ("confusion_matrix", "roc", "calibration", "scores")
    assert figures == {f"figures/test_{name}.png" for name in names}
    logged = client.get_logged_model(model_id)
    assert answer["run_id"] in {metric.run_id for metric in logged.metrics}


@pytest.mark.slow
def test_classes_may_be_called_anything(run, store: Path, pictures: Path, tmp_path: Path):
    """Whatever a folder's name may hold goes through training, registry, terminal and MLflow's rules for names."""
    data = tmp_path / "odd names"
    for split in ("train", "test"):
        for old, new in (("NORMAL", "A (healthy)"), ("PNEUMONIA", "B, [bold]ill | x")):
            shutil.copytree(pictures / split / old, data / split / new)
    work = tmp_path / "work"
    work.mkdir()
    done = sweep(work, *tiny(data, 1))
    assert done.returncode == 0, done.stderr
    assert "all B, [bold]ill | x" in done.stdout
    done = sweep(work, "evaluate", "odd-names", "--data", data)
    assert done.returncode == 0, done.stderr
    done = sweep(work, "predict", "odd-names@cnn3", data / "test" / "A (healthy)", "--csv")
    assert done.returncode == 0, done.stderr
    assert "probability_B, [bold]ill | x" in done.stdout.splitlines()[0]


def test_heatmaps_among_the_images_change_none_of_them(run, tmp_path: Path):
    for name in ("film.png", "film.jpeg", "film.heatmap.jpeg"):
        Image.new("L", (40, 30), 120).save(tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    first, second = (run("predict", MODEL, tmp_path, "--heatmap", tmp_path, "--json") for _ in range(2))

    before_that, after = (json.loads(out) for _, out, _ in (first, second))
    assert before_that["predictions"] == after["predictions"]
    assert len(after["predictions"]) == 3
    assert after["notes"][0].startswith("passed over 3 heat maps of an earlier prediction")
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(tmp_path.iterdir())) == 6


def test_a_name_that_is_no_text_is_shown_with_its_bytes(run, tmp_path: Path):
    import os

    Image.new("L", (40, 30), 120).save(tmp_path / os.fsdecode(b"x\xff.png"))

    code, out, _ = run("predict", MODEL, tmp_path, "--csv")

    assert code == 0
    assert f"{tmp_path}/x\\xff.png" in out


def test_files_that_are_gone_are_said(run, store: Path):
    (store / "mlruns").rename(store / "elsewhere")
    try:
        code, _, err = run("predict", MODEL, __file__)
    finally:
        (store / "elsewhere").rename(store / "mlruns")
    assert code == 2
    assert f"{store / 'mlruns'}: the artifacts of mlflow.db are gone" in err
    assert "Traceback" not in err


def test_a_folder_of_classes_is_enough(run, client: MlflowClient, pictures: Path, tmp_path: Path):
    shutil.copytree(pictures / "test", tmp_path / "Elsewhere")
    (tmp_path / "Elsewhere" / "NORMAL" / "a.dcm").write_bytes(b"")

    code, out, err = run("evaluate", MODEL, "--data", tmp_path / "Elsewhere")

    assert code == 0, err
    assert "the test set is used once more" in out  # the same images, whatever their folder is called
    assert "note: passed over 1 .dcm file in NORMAL" in out
    assert "blob-pictures version 1 on 60 images" in out
    assert "test images: 32 NORMAL, 28 PNEUMONIA; digest " in out
    assert re.search(r"AUROC +\d\.\d{3} \(\d\.\d{3}-\d\.\d{3}\)", out)
    assert "all PNEUMONIA" in out


def test_unreadable_test_images_end_it_and_nothing_is_logged(run, client: MlflowClient, pictures: Path, tmp_path: Path):
    shutil.copytree(pictures / "test", tmp_path / "test")
    for name in ("a.png", "b.png"):
        (tmp_path / "test" / "NORMAL" / name).write_bytes(b"no image")
    before = len(evaluations(client))

    code, _, err = run("evaluate", MODEL, "--data", tmp_path)

    assert code == 2
    assert err.count("not an image of a known format") == 2
    assert len(evaluations(client)) == before


def test_every_test_image_has_the_logits_of_training(
    client: MlflowClient, store: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The registered model on the files themselves, against what the study computed from its cache."""
    monkeypatch.chdir(store)  # MLflow itself takes locations from where it is
    version = client.get_model_version(MODEL, "1")
    path = client.download_artifacts(version.run_id, "predictions/test.csv", str(tmp_path))
    known = read_predictions(Path(path))
    classifier = load_model(client.get_model_version_download_uri(MODEL, "1")).unwrap_python_model()

    logits = classifier.logits(np.stack([decode(pictures / name, 24) for name in known.images]))

    assert len(logits) == 60
    np.testing.assert_allclose(logits, known.logits, atol=1e-5)


# promote and the card ------------------------------------------------------------------------------------------------


def test_promoting_answers_with_its_exit_code(run, client: MlflowClient):
    code, out, _ = run("promote", f"{MODEL}/1", "--as", "clinic")
    assert (code, out.strip()) == (0, "blob-pictures@clinic: version 1 takes it: nobody held it")
    code, out, _ = run("promote", f"{MODEL}@clinic", "--as", "clinic", "--json")
    assert code == 0
    assert json.loads(out)["moves"] is False
    assert str(client.get_model_version_by_alias(MODEL, "clinic").version) == "1"


def test_the_card_is_in_the_registry_and_in_the_model(client: MlflowClient, store: Path):
    version = client.get_model_version(MODEL, "1")
    folder = store / client.get_model_version_download_uri(MODEL, "1")

    card = (folder / "model_card.md").read_text()

    assert len(version.description) <= DESCRIPTION_LENGTH
    for said in (
        "Not a medical device",
        "## Scores",
        "## Calibration",
        "## Limits",
        "all PNEUMONIA",
        "chosen by val/auroc",
    ):
        assert said in version.description
    for heading in ("Data", "Configuration", "Training", "Scores", "Calibration", "Limits", "Provenance", "Figures"):
        assert f"## {heading}\n" in card
    for picture in re.findall(r"\]\((.+?\.png)\)", card):
        with Image.open(folder / picture) as image:
            assert image.size[0] > 300
    assert "Guangzhou" not in card  # these are no X-rays
    assert f"{scores_of(client, version)['test/auroc']:.3f}" in card
    about = json.loads((folder / "artifacts" / "model.json").read_text())
    assert about["temperature"] == pytest.approx(float(find_version(client, MODEL).tags["sweep.temperature"]), abs=1e-4)
    assert {"data digest", "split digest", "study", "trial", "seed", "version.torch"} <= about["provenance"].keys()
