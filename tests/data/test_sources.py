import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data import sources
from data.faults import InputError
from data.sources import download_folder, known_limits, open_source
from tests.conftest import blob


def medmnist(path, classes=2, **changes):
    random = np.random.default_rng(1)
    arrays = {}
    for split, count in (("train", 60), ("val", 20), ("test", 20)):
        labels = np.arange(count) % classes
        arrays[f"{split}_images"] = np.stack([np.asarray(blob(random, label % 2)) for label in labels])
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(path, **{**arrays, **changes})
    return path


@pytest.fixture(params=["folder", "npz", "synthetic"])
def source(request, pictures, tmp_path):
    """The contract of every source."""
    if request.param == "folder":
        return open_source(pictures)
    return open_source(medmnist(tmp_path / "blobs.npz")) if request.param == "npz" else sources.read_synthetic()


def test_every_source_lists_train_and_test_and_decodes_them(source):
    assert {"train", "test"} <= source.splits.keys()
    for split, listing in source.splits.items():
        assert len(listing) == len(listing.labels) == len(set(listing.names)) == len(listing.hashes)
        assert set(listing.labels.tolist()) == set(range(len(source.classes)))
        pixels = source.decode(split, len(listing) - 1, 24)
        assert pixels.shape == (24, 24)
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, source.decode(split, len(listing) - 1, 24))


def test_every_source_is_named_so_that_mlflow_takes_it(source):
    assert source.name in {"blob-pictures", "blobs", "synthetic"}
    assert len(source.digest) == 16


def test_the_synthetic_images_keep_the_digest_of_stores_made_before_they_had_that_name():
    assert sources.read_synthetic().digest == "d37714d98406a86a"


def test_patients_come_from_the_file_names(pictures):
    listing = open_source(pictures).splits["train"]
    assert len(set(listing.patients)) == 40
    assert {"person1", "IM-0000"} <= set(listing.patients)


def test_kermanys_two_numberings_of_normals_are_two_patients():
    import re
    from pathlib import Path

    pattern = re.compile(sources.PATIENT_PATTERN)
    names = ["IM-0115-0001.jpeg", "NORMAL2-IM-0115-0001.jpeg", "person115_virus_219.jpeg", "x.jpeg"]
    found = [sources._patient(Path("NORMAL") / name, pattern) for name in names]
    assert found == ["IM-0115", "NORMAL2-IM-0115", "person115", "NORMAL/x.jpeg"]


def test_the_digest_changes_with_a_single_byte_and_not_with_the_place(pictures, tmp_path):
    copy = tmp_path / "elsewhere" / pictures.name
    shutil.copytree(pictures, copy)
    before = open_source(pictures).digest
    assert open_source(copy).digest == before
    path = next((copy / "train" / "NORMAL").iterdir())
    path.write_bytes(path.read_bytes() + b"\0")
    assert open_source(copy).digest != before


def test_more_than_two_classes_are_welcome(pictures, tmp_path):
    copy = tmp_path / "three"
    shutil.copytree(pictures, copy)
    for split in ("train", "test"):
        shutil.copytree(copy / split / "NORMAL", copy / split / "COVID")
    assert open_source(copy).classes == ("COVID", "NORMAL", "PNEUMONIA")
    assert open_source(medmnist(tmp_path / "five.npz", classes=5)).classes == ("0", "1", "2", "3", "4")


def test_without_data_the_synthetic_images_are_taken_until_kaggles_are_there(pictures):
    assert open_source(None).kind == "synthetic"
    shutil.copytree(pictures, download_folder())
    try:
        assert open_source(None).name == "chest-xray"
    finally:
        shutil.rmtree(download_folder())


def remove(*parts):
    return lambda root: shutil.rmtree(root.joinpath(*parts))


def empty(*parts):
    def change(root):
        folder = root.joinpath(*parts)
        shutil.rmtree(folder)
        folder.mkdir()

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("test"), "has no folder test/"),
        (empty("train"), "holds no class folders"),
        (remove("train", "NORMAL"), "only the class PNEUMONIA"),
        (remove("test", "NORMAL"), "classes in test/ are PNEUMONIA, in train/ NORMAL, PNEUMONIA"),
        (empty("test", "PNEUMONIA"), "test/PNEUMONIA/ holds no image"),
        (lambda root: root.rename(root.parent / "synthetic"), "belongs to the built-in synthetic images"),
        (lambda root: root.rename(root.parent / "phantom"), "belongs to the built-in synthetic images"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(pictures, tmp_path, change, said):
    root = tmp_path / "copy"
    shutil.copytree(pictures, root)
    change(root)
    with pytest.raises(InputError, match=said):
        open_source(next(tmp_path.iterdir()))


def test_a_folder_one_too_high_is_told_where_to_look(pictures):
    with pytest.raises(InputError, match="did you mean .*Blob_Pictures"):
        open_source(pictures.parent)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_images": np.zeros((60, 8, 8), np.float32)}, "train_images is float32"),
        ({"test_labels": np.zeros(3, np.uint8)}, "not one integer for each of 20 images"),
        ({"test_labels": np.zeros((20, 1), np.uint8)}, "test_labels must hold every class"),
        ({"test_images": np.array([{}], dtype=object)}, "holds Python objects, and no pickle is loaded"),
        ({"train_labels": np.zeros(60)}, r"train_labels is float64 \[60\], not one integer for each of 60 images"),
        ({"train_labels": np.eye(60, dtype=np.uint8)}, r"train_labels is uint8 \[60, 60\], not one integer"),
        ({"train_labels": np.arange(60) * 10**12}, "train_labels must hold every class from 0 to 59000000000000"),
        ({"train_labels": np.arange(60) % 2 - 1}, "train_labels must hold every class"),
        ({"train_images": np.zeros((60, 0, 8), np.uint8)}, "train_images holds no image"),
        ({"train_images": np.zeros((60, 1, 8, 8), np.uint8)}, r"train_images is uint8 \[60, 1, 8, 8\], not uint8"),
    ],
)
def test_an_npz_that_cannot_be_used_says_why(tmp_path, changes, said):
    with pytest.raises(InputError, match=said) as caught:
        open_source(medmnist(tmp_path / "bad.npz", **changes))
    assert all(fault.startswith(f"--data {tmp_path}/bad.npz: ") for fault in caught.value.faults)


def members(**contents):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)

    return write


def truncated(path):
    medmnist(path)
    path.write_bytes(path.read_bytes()[:4000])


def damaged_in_the_middle(path):
    medmnist(path)
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)


def renamed_npy(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty; give an archive that numpy.savez wrote"),
        (renamed_npy, "is a single array (.npy), whatever its name says; give an archive"),
        (lambda path: path.write_bytes(b"<html>not found</html>"), "not a readable .npz file, which is a zip archive"),
        (lambda path: path.write_bytes(b"PK"), "not a readable .npz file"),
        (truncated, "not a readable .npz file"),
        (damaged_in_the_middle, "not a readable .npz file"),
        (members(), "has no array train_images; it holds none"),
        (members(**{"readme.txt": "words"}), "has no array train_images; it holds readme.txt"),
        (members(**{f"{split}_{part}": "words" for split in ("train", "test") for part in ("images", "labels")}),
         "train_images is no array"),
        (lambda path: path.mkdir(), "it is a folder, and an .npz file was expected by its name"),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_broken_npz_is_a_sentence(tmp_path, write, said):
    path = tmp_path / "bad.npz"
    write(path)
    with pytest.raises(InputError) as caught:
        open_source(path)
    assert all(fault.startswith(f"--data {path}: ") for fault in caught.value.faults)
    assert said in caught.value.faults[0]
    assert "allow_pickle" not in str(caught.value)


def test_what_else_an_npz_holds_is_said(tmp_path):
    path = medmnist(tmp_path / "more.NPZ.npz", masks=np.zeros(3), notes=np.array([{}], dtype=object))
    upper = path.rename(tmp_path / "MORE.NPZ")
    assert "passed over the arrays masks, notes, which" in open_source(upper).notes[1]


def test_a_missing_path_and_a_strange_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        open_source(tmp_path / "nothing")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InputError, match="give a folder with train/ and test/"):
        open_source(tmp_path / "x.txt")
    with pytest.raises(InputError, match="not a regular expression"):
        open_source(tmp_path, patient_pattern="(")


def test_a_failed_download_says_how_to_do_it_by_hand(monkeypatch):
    import kagglehub

    def refuse(*arguments, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(kagglehub, "dataset_download", refuse)
    with pytest.raises(InputError, match=r"no network.*by hand.*kaggle\.com"):
        sources.download()


def test_a_group_in_the_patient_pattern_is_the_patient(pictures):
    listing = open_source(pictures, patient_pattern=r"(?:person|IM-)(\d+)[_-].*").splits["train"]
    assert {"1", "0000"} <= set(listing.patients)
    assert len(set(listing.patients)) == 40


def test_a_broken_link_is_named_and_a_folder_named_like_a_picture_is_none(pictures, tmp_path):
    root = tmp_path / "links"
    shutil.copytree(pictures, root)
    (root / "train" / "NORMAL" / "folder.png").mkdir()
    assert len(open_source(root).splits["train"]) == 160
    (root / "train" / "NORMAL" / "broken.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"broken\.png: cannot be read"):
        open_source(root)


def test_limits_of_the_x_rays_are_known_by_their_names(pictures: Path):
    source = open_source(pictures)
    names = ("a/person1_bacteria_2.jpeg", "a/person2_virus_3.jpeg", "b/NORMAL2-IM-0001-0001.jpeg")
    theirs = replace(source, splits={"train": replace(source.splits["train"], names=names)})

    assert any("one to five years" in sentence for sentence in known_limits(theirs))
    assert not any("one to five years" in sentence for sentence in known_limits(source))
