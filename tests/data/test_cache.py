import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets, transforms

from data import cache
from data.faults import InputError
from data.sources import open_source
from data.splits import split_source


def test_the_cache_holds_what_image_folder_would_give(pictures):
    source = open_source(pictures)
    folder = cache.build(source, 32)
    usual = datasets.ImageFolder(
        str(pictures / "train"), transforms.Compose([transforms.Grayscale(), transforms.Resize((32, 32))])
    )
    images = cache.images_of(source, split_source(source), 32)
    names = [str(pictures / name) for name in source.splits["train"].names]
    pixels = np.load(folder / "train.npy", mmap_mode="r")
    for (path, label), (image, _) in zip(usual.samples, usual, strict=True):
        row = names.index(path)
        assert np.array_equal(pixels[row], np.asarray(image))
        assert source.splits["train"].labels[row] == label
    assert len(images["test"]) == 60
    assert images["train"].pixels().shape == (160, 32, 32)


def test_a_second_build_decodes_nothing(pictures):
    source = open_source(pictures)
    cache.build(source, 16)
    done = []
    cache.build(source, 16, done.append)
    assert done == []


def test_unreadable_images_are_all_named_and_nothing_is_left(pictures, tmp_path):
    copy = tmp_path / "damaged"
    shutil.copytree(pictures, copy)
    damaged = sorted((copy / "train" / "NORMAL").iterdir())[:12]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:100])
    source = open_source(copy)
    with pytest.raises(InputError) as caught:
        cache.build(source, 32)
    assert str(damaged[0]) in caught.value.faults[0]
    assert caught.value.faults[-1] == "... and 2 more unreadable images"
    assert len(caught.value.faults) == 11
    assert not cache.cache_folder(source, 32).exists()
    assert not list(cache.cache_folder(source, 32).parent.glob(".damaged*"))


def test_two_builders_at_once_do_no_harm(pictures):
    source = open_source(pictures)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: cache.build(source, 20), range(4)))
    assert len(folders) == 1
    assert np.load(folders.pop() / "test.npy").shape == (60, 20, 20)


def test_a_full_disk_is_said_before_anything_is_decoded(pictures, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(InputError, match="the image cache needs .* bytes, 10 are free"):
        cache.build(open_source(pictures), 28)


def test_a_cache_folder_that_cannot_be_written_is_named(pictures, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(InputError, match="/proc/nowhere.*cannot be written"):
        cache.build(open_source(pictures), 28)


def test_a_changed_picture_gets_another_cache(pictures, tmp_path):
    copy = tmp_path / pictures.name
    shutil.copytree(pictures, copy)
    Image.new("L", (40, 40), 3).save(next((copy / "train" / "NORMAL").iterdir()))
    assert cache.cache_folder(open_source(copy), 32) != cache.cache_folder(open_source(pictures), 32)


@pytest.mark.slow
def test_the_real_x_rays_equal_image_folders(xrays):
    source = open_source(xrays)
    folder = cache.build(source, 160)
    usual = datasets.ImageFolder(
        str(xrays / "test"), transforms.Compose([transforms.Grayscale(), transforms.Resize((160, 160))])
    )
    pixels = np.load(folder / "test.npy", mmap_mode="r")
    for row, (image, _) in enumerate(usual):
        assert np.array_equal(pixels[row], np.asarray(image))
