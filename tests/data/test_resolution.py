"""What is said of a data set's size and depth, and what a study keeps of them."""

import re

import numpy as np
import pytest
from PIL import Image

from data import cache
from data.decode import resize
from data.faults import InputError
from data.resolution import largest_sample, native_size, size_in_header, unused_depth
from data.sources import open_source, open_test
from data.verify import verify
from sweep.orchestrator.run_params import fingerprint, fixed_params, settings_of
from sweep.plan import make_plan
from sweep.settings import Settings
from tests.helpers.raw_images import png, tiff


def folder_of(root, write, suffix, train=20, test=2):
    """A data set in folders; `write` makes a file of a label and a row."""
    for split, count in (("train", train), ("test", test)):
        for label, name in enumerate(("NORMAL", "PNEUMONIA")):
            (root / split / name).mkdir(parents=True)
            for row in range(count):
                content = write(label, row + 1000 * (split == "test"))  # no test image is a training image
                (root / split / name / f"{split}{row}{suffix}").write_bytes(content)
    return root


def twelve(label, row, most=4095):
    values = np.random.default_rng(row + 100 * label).integers(0, 3000, (40, 40)).astype(np.uint16)
    values[0, 0] = most
    return png(values)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("depth") / "films", twelve, ".png")


def plan_of(data, *archs, **settings):
    return make_plan(Settings(archs=archs or ("cnn3",), data=data, search=("batch_size=4",), **settings), fetch=False)


NOTE = r"40 training images have 16 bits .* above 4,095, white at 12 bits: .* say --depth 12"


def test_a_depth_that_nothing_states_is_noticed_in_a_cache_and_before_there_is_one(films):
    source = open_source(films)
    before = cache.notes_of(source, 24)
    cache.build(source, 24)
    assert cache.notes_of(source, 24) == before
    assert len(before) == 1
    assert re.search(NOTE, before[0])
    assert verify(source, lambda done: None).notes


def test_a_given_depth_is_used_has_a_cache_of_its_own_and_needs_no_note(films):
    without, source = open_source(films), open_source(films, depth=12)
    folder = cache.build(source, 24)
    assert folder != cache.cache_folder(without, 24)
    assert source.digest == without.digest
    assert cache.notes_of(source, 24) == ()
    assert np.load(folder / "train.npy").max() > 100 > np.load(cache.build(without, 24) / "train.npy").max()
    with pytest.raises(InputError, match="--depth 7: give how many bits"):
        open_source(films, depth=7)
    with pytest.raises(InputError, match="--depth 12: is for image files"):
        open_source(None, depth=12)


def test_a_depth_is_in_the_fingerprint_and_the_params_of_a_run_only_where_it_is_given(films):
    plan, plain = plan_of(films, depth=12), plan_of(films)
    assert fingerprint(plan, plan.studies[0]) == {**fingerprint(plain, plain.studies[0]), "depth": 12}
    params = fixed_params(plan, plan.studies[0])
    assert params["depth"] == 12
    assert "depth" not in fixed_params(plain, plain.studies[0])
    chosen = {"activation": "relu", "optimizer": "adam", "learning_rate": 0.1, "batch_size": 4, "dropout": 0.1}
    assert settings_of({**chosen, **{name: str(value) for name, value in params.items()}}).depth == 12


@pytest.mark.parametrize(
    ("largest", "depth"),
    [
        ([4095, 4000], (12, 2)),
        ([4096, 10], (14, 2)),
        ([1023, None, 1000], (10, 2)),
        ([16383], (14, 1)),
        ([16384], (16, 1)),
        ([None, None], (16, 0)),
        ([], (16, 0)),
    ],
)
def test_the_depth_is_the_least_that_holds_every_pixel(largest, depth):
    assert unused_depth(largest) == depth


def test_one_image_of_all_16_bits_ends_the_search_for_a_lower_depth():
    assert unused_depth(iter([60_000, *([1] * 5)])) == (16, 1)


def test_images_of_8_bits_are_not_decoded_to_look_for_a_depth(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("data.resolution.open_gray", lambda *arguments: pytest.fail("decoded"))
    assert largest_sample(next((pictures / "train" / "NORMAL").iterdir()), None) is None
    assert cache.notes_of(open_source(pictures), 27) == ()


def test_a_study_of_files_that_are_read_otherwise_now_is_not_one_of_the_version_before(films, pictures, tmp_path):
    def inverted(label, row):
        return tiff([np.random.default_rng(2 * row + label).bytes(3200)], (40, 40), 16, 0)

    other = folder_of(tmp_path / "inverted", inverted, ".tif")
    for data, entries in ((films, 0), (pictures, 0), (other, 1)):
        plan = plan_of(data)
        assert len([key for key in fingerprint(plan, plan.studies[0]) if "8 bits" in key]) == entries


# Size -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small.npz"
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("test", 4)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None]
    np.savez(path, **arrays)
    return path


def test_small_images_are_said_with_what_they_cost(small, pictures):
    (note,) = (note for note in plan_of(small, "cnn1", "cnn3", "resnet50").source.notes if "--image-size" in note)
    assert note == (
        "the training images have 28 x 28 pixels at most and are trained at 160 x 160 (cnn1: 32 times the work) and "
        "150 x 150 (cnn3: 28 times the work) and 224 x 224 (resnet50: 64 times the work): --image-size 28 trains them "
        "as they are; resnet50 takes 33 or more"
    )
    (note,) = (note for note in plan_of(small, "resnet50").source.notes if "--image-size" in note)
    assert "--image-size 33" in note
    for data, size in ((small, 28), (small, 32), (pictures, 48)):
        assert not [note for note in plan_of(data, image_size=size).source.notes if "--image-size" in note]
    assert [note for note in plan_of(pictures, "cnn1").source.notes if "40 x 40" in note and "16 times" in note]


def test_the_native_size_is_that_of_the_largest_training_image_as_it_is_decoded(tmp_path):
    def write(label, row):
        image = Image.new("L", (30, 20) if row else (20, 30))
        exif = Image.Exif()
        exif[0x0112] = 6 if row == 3 else 1
        image.save(tmp_path / "one.jpeg", exif=exif)
        return (tmp_path / "one.jpeg").read_bytes()

    source = open_source(folder_of(tmp_path / "turned", write, ".jpeg"))
    assert source.largest == (30, 30)
    assert size_in_header(tmp_path / "turned" / "train" / "NORMAL" / "train3.jpeg") == (20, 30)
    assert source.picture("train", 0).size == (20, 30)
    assert native_size(source.largest, 31) == (30, 30)
    assert native_size(source.largest, 30) is None
    assert open_test(tmp_path / "turned" / "test", ("NORMAL", "PNEUMONIA")).largest is None


def test_a_larger_image_is_brought_down_to_the_native_size_first():
    film = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 200), dtype=np.uint8))
    small = film.resize((28, 28), Image.Resampling.BILINEAR)
    assert np.array_equal(resize(film, 64, (28, 28)), resize(small, 64))
    assert np.array_equal(resize(small, 64, (28, 28)), resize(small, 64))  # as it was trained
    assert np.array_equal(resize(film, 64, (400, 28)), resize(film.resize((200, 28), Image.Resampling.BILINEAR), 64))
    assert np.array_equal(resize(film, 64, (100, 100)), resize(film, 64))  # the network takes no more detail than that


def test_test_images_that_are_larger_than_those_of_the_training_are_brought_down_too(tmp_path):
    def write(label, row):
        values = np.random.default_rng(row).integers(0, 256, (28, 28), dtype=np.uint8)
        return png(values)

    root = folder_of(tmp_path / "mixed", write, ".png")
    large = Image.fromarray(np.random.default_rng(9).integers(0, 256, (200, 200), dtype=np.uint8))
    large.save(root / "test" / "NORMAL" / "test0.png")
    source = open_source(root)
    pixels = np.load(cache.build(source, 64) / "test.npy")
    assert np.array_equal(pixels[0], resize(large.resize((28, 28), Image.Resampling.BILINEAR), 64))
    assert np.array_equal(pixels[1], source.decode("test", 1, 64))
