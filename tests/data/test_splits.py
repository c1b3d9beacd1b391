import shutil
from dataclasses import replace

import numpy as np
import pytest

from data.faults import InputError
from data.sources import Listing, open_source, read_synthetic
from data.splits import fold_of, split_source, take_patients, together


@pytest.fixture
def source(pictures):
    return open_source(pictures)


def patients(source, rows):
    return set(source.splits["train"].select(rows).patients)


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_is_on_both_sides_and_the_classes_keep_their_shares(source, seed):
    split = split_source(source, seed=seed)
    assert not patients(source, split.train) & patients(source, split.validation)
    assert sorted([*split.train, *split.validation]) == list(range(160))
    counts = np.bincount(source.splits["train"].labels[split.validation])
    assert counts.tolist() == [12, 12]  # 15 % of 80 each, whole patients of four


def test_the_synthetic_images_too(tmp_path):
    source = read_synthetic()
    split = split_source(source)
    assert not patients(source, split.train) & patients(source, split.validation)
    share = len(split.validation) / len(source.splits["train"])
    assert 0.14 < share < 0.155


def test_the_split_is_the_seeds_and_its_digest_says_so(source):
    first, again, other = split_source(source), split_source(source), split_source(source, seed=1)
    assert np.array_equal(first.train, again.train)
    assert first.digest == again.digest != other.digest


def test_identical_files_stay_on_one_side_whatever_their_names(pictures, tmp_path):
    copy = tmp_path / "copies"
    shutil.copytree(pictures, copy)
    folder = copy / "train" / "NORMAL"
    for number, path in enumerate(sorted(folder.iterdir())[:40]):
        shutil.copy(path, folder / f"IM-{9000 + number}-0001.jpeg")
    source = open_source(copy)
    listing = source.splits["train"]
    for seed in range(5):
        split = split_source(source, seed=seed)
        assert not set(listing.select(split.train).hashes) & set(listing.select(split.validation).hashes)


def test_rows_are_together_through_a_third():
    assert together(["a", "b", "c", "a"], ["1", "2", "2", "3"]) == [0, 1, 1, 0]
    assert together(["a", "b", "a", "c"], ["1", "2", "2", "3"]) == [0, 0, 0, 1]


def test_a_limit_keeps_whole_patients_and_the_shares(source):
    split = split_source(source, limit=80)
    used = [*split.train, *split.validation]
    assert len(used) == 80
    assert np.bincount(source.splits["train"].labels[used]).tolist() == [40, 40]
    assert len(patients(source, used)) == 20


def with_val(pictures, tmp_path, each):
    copy = tmp_path / "with_val"
    shutil.copytree(pictures, copy)
    for name in ("NORMAL", "PNEUMONIA"):
        (copy / "val" / name).mkdir(parents=True)
        for number, path in enumerate(sorted((copy / "test" / name).iterdir()) * 5):
            if number < each:
                shutil.copy(path, copy / "val" / name / f"{number}.jpeg")
    return open_source(copy)


def test_kaggles_sixteen_images_validate_only_when_asked_for_by_name(pictures, tmp_path):
    source = with_val(pictures, tmp_path, 8)
    split = split_source(source)
    assert split.validation_from == "train"
    assert "val/ holds only 16 images" in split.notes[0]
    asked = split_source(source, validation="val")
    assert asked.validation_from == "val"
    assert len(asked.validation) == 16
    assert len(asked.train) == 160


def test_a_large_validation_folder_is_used_unless_told_otherwise(pictures, tmp_path):
    source = with_val(pictures, tmp_path, 60)
    assert split_source(source).validation_from == "val"
    assert split_source(source, validation="split").validation_from == "train"


def test_what_cannot_be_split_says_why(source):
    with pytest.raises(InputError, match="has no val split"):
        split_source(source, validation="val")
    listing = source.splits["train"]
    alone = replace(source, splits={**source.splits, "train": replace(listing, patients=("one",) * len(listing))})
    with pytest.raises(InputError, match="too few patients"):
        split_source(alone)


def test_no_class_exceeds_its_share():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 500)
    listing = Listing(
        tuple(map(str, range(500))), labels, tuple(map(str, random.integers(0, 90, 500))), tuple(map(str, range(500)))
    )
    taken = take_patients(listing, 0.2, 0)
    for label in range(3):
        assert (taken & (labels == label)).sum() <= round(0.2 * (labels == label).sum())


@pytest.mark.slow
def test_the_real_x_rays_split_by_patient(xrays):
    source = open_source(xrays)
    split = split_source(source)
    assert len(source.splits["train"]) == 5216
    assert (len(split.train), len(split.validation)) == (4434, 782)
    assert not patients(source, split.train) & patients(source, split.validation)


def test_sixteen_is_what_the_report_had(source):
    split = split_source(source, validation="sixteen")
    counts = np.bincount(source.splits["train"].labels[split.validation])
    assert counts.tolist() == [8, 8]
    assert sorted([*split.train, *split.validation]) == list(range(160))
    assert patients(source, split.train) & patients(source, split.validation)  # that is what is wrong with it
    assert "patients are in train" in split.notes[0]
    assert split.digest == split_source(source, validation="sixteen").digest


def test_sixteen_takes_the_data_sets_own_where_there_is_one(source):
    own = replace(source, splits={**source.splits, "val": source.splits["test"].select(np.arange(6))})
    split = split_source(own, validation="sixteen")
    assert split.validation_from == "val"
    assert len(split.validation) == 6
    assert len(split.train) == 160


# Folds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [2, 5])
def test_every_patient_is_in_one_fold_and_the_classes_keep_their_shares(source, folds):
    splits = [split_source(source, validation=f"{fold}/{folds}") for fold in range(1, folds + 1)]
    assert sorted(np.concatenate([split.validation for split in splits])) == list(range(160))
    for split in splits:
        assert not patients(source, split.train) & patients(source, split.validation)
        assert sorted([*split.train, *split.validation]) == list(range(160))
        counts = np.bincount(source.splits["train"].labels[split.validation])
        assert np.abs(counts - 80 / folds).max() <= 4  # one patient
    assert len({split.digest for split in splits}) == folds


def test_folds_are_the_seeds(source):
    first, again, other = (split_source(source, validation="2/5", seed=seed) for seed in (0, 0, 1))
    assert first.digest == again.digest != other.digest


def test_copies_are_in_one_fold_and_a_limit_holds(pictures, tmp_path):
    copy = tmp_path / "copies"
    shutil.copytree(pictures, copy)
    folder = copy / "train" / "NORMAL"
    for number, path in enumerate(sorted(folder.iterdir())[:40]):
        shutil.copy(path, folder / f"IM-{9000 + number}-0001.jpeg")
    source = open_source(copy)
    listing = source.splits["train"]
    whole, splits = (
        split_source(source, limit=150),
        [split_source(source, validation=f"{fold}/3", limit=150) for fold in (1, 2, 3)],
    )
    used = np.concatenate([split.validation for split in splits])
    assert sorted(used) == sorted([*whole.train, *whole.validation])
    hashes = listing.select(used).hashes
    assert len(set(hashes)) < len(hashes), "no copy is among them"
    for split in splits:
        assert not set(listing.select(split.train).hashes) & set(listing.select(split.validation).hashes)


def test_more_folds_than_patients_of_a_class_are_refused_and_each_class_is_named(source):
    with pytest.raises(InputError) as caught:
        split_source(source, validation="1/21")
    assert list(caught.value.faults) == [
        "--validation 1/21: class NORMAL has only 20 patients",
        "--validation 1/21: class PNEUMONIA has only 20 patients",
    ]


@pytest.mark.parametrize("written", ["0/5", "6/5", "1/1", "2/5/7", "a/5", "-1/5", "01/5", "2/", "val", ""])
def test_what_is_no_fold_is_none(written):
    assert fold_of(written) is None


def test_a_validation_that_does_not_exist_is_not_taken_for_another(source):
    assert fold_of("2/5") == (2, 5)
    with pytest.raises(ValueError, match="there is no validation '6/5'"):
        split_source(source, validation="6/5")
