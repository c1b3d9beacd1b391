"""Which files are images, and what is said about the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.faults import InputError
from data.listing import LOOP, path_of, text_of
from data.sources import open_source, open_test
from data.splits import split_source

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(pictures: Path, tmp_path: Path) -> Path:
    """A data set of its own: 80 training images and 32 or 28 test images of each class."""
    return Path(shutil.copytree(pictures, tmp_path / "set"))


def counts(source):
    return source.counts()["train"]


def faults_of(location: Path, **options) -> list[str]:
    with pytest.raises(InputError) as caught:
        open_source(location, **options)
    return list(caught.value.faults)


def some_of(folder: Path, count: int) -> list[Path]:
    return sorted(folder.iterdir())[:count]


def test_hidden_and_system_folders_hold_no_images(root: Path):
    normal = root / "train" / "NORMAL"
    picture = some_of(normal, 1)[0]
    before = open_source(root)
    strangers = (
        "train/NORMAL/.ipynb_checkpoints/a-checkpoint.png", "train/NORMAL/@eaDir/a.png/SYNOPHOTO_THUMB_M.png",
        "train/NORMAL/._b.jpg", "train/NORMAL/Thumbs.db", "train/NORMAL/.DS_Store", "train/.ipynb_checkpoints/c.png",
        "test/@eaDir/d.png", "__MACOSX/train/NORMAL/e.png", "test/NORMAL/$RECYCLE.BIN/f.png", "lost+found/g.png",
        "test/NORMAL/System Volume Information/h.png", "test/desktop.ini",
    )  # fmt: skip
    for name in strangers:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, root / name)

    source = open_source(root)

    assert source.digest == before.digest
    assert source.notes == (
        "passed over 2 hidden or system folders (__MACOSX, lost+found) in set, beside train/, test/",
        "passed over 1 hidden or system folder (.ipynb_checkpoints) in train, beside the class folders",
        "passed over 2 hidden or system folders (.ipynb_checkpoints, @eaDir), 1 hidden file (._b.jpg) in train/NORMAL",
        "passed over 1 hidden or system folder (@eaDir) in test, beside the class folders",
        "passed over 2 hidden or system folders ($RECYCLE.BIN, System Volume Information) in test/NORMAL",
    )


def test_the_users_own_path_may_have_a_hidden_part(pictures: Path, tmp_path: Path):
    hidden = tmp_path / ".cache" / "@eaDir" / "set"
    shutil.copytree(pictures, hidden)
    assert counts(open_source(hidden)) == {"NORMAL": 80, "PNEUMONIA": 80}


def test_every_name_of_a_jpeg_is_an_image_and_what_is_none_is_counted(root: Path):
    normal = root / "train" / "NORMAL"
    for path, suffix in zip(some_of(normal, 4), (".jfif", ".jpe", ".JPG", ".JFIF"), strict=True):
        path.rename(path.with_suffix(suffix))
    for path in some_of(normal, 80)[10:20]:
        path.rename(path.with_suffix(".dcm"))
    shutil.copy(some_of(normal, 1)[0], root / "train" / "x.png")
    (root / "train" / "PNEUMONIA" / "deep").mkdir()
    for name in ("a.txt", "deep/b.TXT", "1.2.840.113619", "x.heatmap.png"):
        (root / "train" / "PNEUMONIA" / name).write_text("")

    source = open_source(root)

    assert counts(source) == {"NORMAL": 70, "PNEUMONIA": 80}
    assert source.notes == (
        "passed over 1 .png file in train, beside the class folders",
        "passed over 10 .dcm files in train/NORMAL",
        "passed over 2 .txt files, 1 file without a known suffix (1.2.840.113619), "
        "1 heat map of an earlier prediction (x.heatmap.png) in train/PNEUMONIA",
    )


def test_linked_folders_and_files_are_followed_once(root: Path, tmp_path: Path):
    normal, more = root / "train" / "NORMAL", tmp_path / "more"
    more.mkdir()
    for path in some_of(normal, 20):
        path.rename(more / path.name)
    (normal / "more").symlink_to(more)
    (normal / "more again").symlink_to(more)
    picture = more / "one.jpeg"
    shutil.move(some_of(normal, 1)[0], picture)
    (normal / "linked.jpeg").symlink_to(picture)  # a file of two names is two images, which stay together
    (normal / "loop").symlink_to(root)
    (normal / "loop too").symlink_to(".")
    (normal / "gone").symlink_to(tmp_path / "nowhere")
    (normal / "itself").symlink_to("itself")

    source = open_source(root)

    assert counts(source) == {"NORMAL": 81, "PNEUMONIA": 80}
    assert source.notes[0] == (
        "passed over 2 broken links (gone, itself), 2 linked folders leading back to a folder above it (loop, loop too), "
        "1 linked folder listed already (more again) in train/NORMAL"
    )


def test_links_to_nothing_that_should_be_a_class_or_an_image_are_faults(root: Path, tmp_path: Path):
    (root / "train" / "PNEUMONIA" / "x.png").symlink_to(tmp_path / "nowhere")
    (root / "train" / "NORMAL").rename(tmp_path / "moved")
    (root / "train" / "NORMAL").symlink_to(tmp_path / "nowhere")
    class_fault, image_fault = faults_of(root)[:2]
    assert "train/NORMAL: is a link to nothing" in class_fault
    assert "train/PNEUMONIA/x.png: cannot be read (a link to nothing)" in image_fault


def test_a_class_without_images_says_what_is_there_and_what_is_read(root: Path):
    normal = root / "train" / "NORMAL"
    for path in some_of(normal, 80):
        path.rename(path.with_suffix(".dcm"))
    [fault] = faults_of(root)
    assert fault == (
        f"--data {root}: train/NORMAL/ holds no image (passed over: 80 .dcm files); files that end in .bmp, .gif, .jfif, "
        ".jpe, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp are read, in small or capital letters"
    )


def test_a_class_in_other_letters_a_level_too_many_and_one_too_few_are_told(root: Path, tmp_path: Path):
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / "set").symlink_to(root)
    assert faults_of(outer) == [f"--data {outer}: has no folder train/ and no folder test/; did you mean {outer}/set?"]
    assert f"did you mean {root}?" in faults_of(root / "train")[0]
    assert f"did you mean {root}?" in faults_of(root / "train" / "NORMAL")[0]
    (root / "test" / "NORMAL").rename(root / "test" / "Normal")
    [fault] = faults_of(root)
    assert "NORMAL and Normal differ only in capital letters" in fault
    with pytest.raises(InputError, match="NORMAL and Normal differ only in capital letters"):
        open_test(root / "test", ("NORMAL", "PNEUMONIA"))
    (root / "train").rename(root / "Train")
    assert faults_of(root)[0].endswith("has no folder train/; it has the folders Train, test")


def test_class_folders_that_look_alike_are_told(root: Path):
    (root / "test" / "NORMAL").rename(root / "test" / "NORMAL ")
    assert "NORMAL and NORMAL  ('NORMAL', 'NORMAL ') differ only in spaces" in faults_of(root)[0]
    (root / "test" / "NORMAL ").rename(root / "test" / "NORMAL")
    for split in ("train", "test"):
        shutil.copytree(root / split / "NORMAL", root / split / "Normal")
    source = open_source(root)
    assert source.classes == ("NORMAL", "Normal", "PNEUMONIA")
    assert source.notes[0] == "Normal and NORMAL differ only in capital letters: rename one, if they are one class"


def test_folders_and_images_beside_the_splits_are_said(root: Path):
    shutil.copytree(root / "test", root / "validation")
    shutil.copy(some_of(root / "test" / "NORMAL", 1)[0], root / "x.jpeg")
    assert open_source(root).notes == ("passed over 1 .jpeg file, 1 folder (validation) in set, beside train/, test/",)
    test = open_test(root / "validation", ("NORMAL", "PNEUMONIA"))
    assert test.counts()["test"] == {"NORMAL": 32, "PNEUMONIA": 28}


def test_the_test_images_of_a_folder_are_listed_by_the_same_rule(root: Path):
    (root / "test" / "NORMAL" / ".ipynb_checkpoints").mkdir()
    (root / "test" / "@eaDir").mkdir()
    (root / "test" / "PNEUMONIA" / "a.dcm").write_bytes(b"")
    assert open_test(root / "test", ("NORMAL", "PNEUMONIA")).notes == (
        f"passed over 1 hidden or system folder (@eaDir) in {root}/test, beside the class folders",
        "passed over 1 hidden or system folder (.ipynb_checkpoints) in NORMAL",
        "passed over 1 .dcm file in PNEUMONIA",
    )


def test_several_frames_are_said_and_a_pipe_is_never_opened(root: Path):
    normal = root / "train" / "NORMAL"
    black, white = (Image.new("L", (20, 20), shade) for shade in (0, 255))
    for name in ("z.tif", "z.gif"):
        black.save(normal / name, save_all=True, append_images=[white])
    os.mkfifo(normal / "pipe.png")
    source = open_source(root)
    assert source.notes[:2] == (
        "passed over 1 special file (pipe.png) in train/NORMAL",
        "2 files hold several frames, of which the first is read: z.gif, z.tif",
    )
    row = source.splits["train"].names.index("train/NORMAL/z.tif")
    assert source.decode("train", row, 8).max() == 0


def test_a_png_that_is_a_jpeg_works(root: Path):
    normal = root / "train" / "NORMAL"
    first = some_of(normal, 1)[0]
    before = open_source(root).decode("train", 0, 16)
    first.rename(first.with_suffix(".png"))
    assert np.array_equal(open_source(root).decode("train", 0, 16), before)


def test_a_home_folder_and_a_slash_at_the_end_are_understood(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.chdir("/")
    assert open_source(Path("~/set")).digest == open_source(Path(f"{root}/")).digest
    assert faults_of(Path("~/other")) == [f"--data {root.parent}/other: no such file or folder"]
    assert "File name too long" in faults_of(Path("a" * 300))[0]


def test_a_folder_that_may_not_be_read_is_a_fault(root: Path):
    (root / "train" / "NORMAL").chmod(0)
    child = os.fork()  # root may read everything, so a child becomes somebody else
    if child == 0:
        code = 1
        try:
            os.chdir(root)
            if os.getuid() == 0:
                os.setuid(65534)
            [fault] = faults_of(Path())
            code = 0 if fault == "--data .: train/NORMAL: cannot be read (Permission denied)" else 2
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (root / "train" / "NORMAL").chmod(0o755)
    assert code == 0


def pinned(folder: Path) -> Path:
    """A data set that is always the same, with names that sort otherwise as text than as folders."""
    for split in ("train", "test"):
        for label in ("NORMAL", "PNEUMONIA"):
            for part in ("", "sub", "sub-dir", "é"):
                place = folder / "pinned" / split / label / part
                place.mkdir(parents=True, exist_ok=True)
                for name in ("person1_virus_2.jpeg", "IM-0001-0001.PNG", "Z.tif"):
                    (place / name).write_bytes(f"{split} {label} {part} {name}".encode())
    return folder / "pinned"


def test_the_digests_of_data_sets_without_such_names_are_those_of_earlier_versions(tmp_path: Path):
    source = open_source(pinned(tmp_path))
    assert (source.digest, split_source(source).digest) == ("62cf18d304b8ff0f", "74faeb9c0183bdfa")


def test_names_that_are_not_utf8_are_text(root: Path):
    normal = root / "train" / "NORMAL"
    odd = normal / os.fsdecode(b"caf\xe9")
    some_of(normal, 1)[0].rename(odd.with_suffix(".png"))
    source = open_source(root)
    assert "train/NORMAL/caf\\xe9.png" in source.splits["train"].names
    assert "NORMAL/caf\\xe9.png" in source.splits["train"].patients
    assert source.digest.isalnum()
    assert split_source(source).digest.isalnum()
    some_of(normal, 1)[0].rename(normal / "caf\\xe9.png")
    assert "two files are called train/NORMAL/caf\\xe9.png; rename one" in faults_of(root)[0]


def test_a_class_and_a_folder_that_are_not_utf8_are_text(root: Path):
    for split in ("train", "test"):
        (root / split / "NORMAL").rename(root / split / os.fsdecode(b"normal\xe9"))
    renamed = root.rename(root.parent / os.fsdecode(b"daten\xfc"))
    source = open_source(renamed)
    assert source.classes == ("PNEUMONIA", "normal\\xe9")
    assert source.location == f"{root.parent}/daten\\xfc"
    assert source.decode("train", 0, 8).shape == (8, 8)


def test_text_names_the_same_file_again():
    for name in ("plain.png", "é/肺炎.png"):
        assert path_of(text_of(Path(name))) == Path(name)
    assert text_of(os.fsdecode(b"a\xff")) == r"a\xff"


@pytest.mark.slow
def test_the_digest_is_the_same_in_a_locale_that_knows_no_umlauts(tmp_path: Path):
    root = pinned(tmp_path)
    script = "import sys; from pathlib import Path; from data.sources import open_source; print(open_source(Path(sys.argv[1])).digest)"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, root], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "62cf18d304b8ff0f"


def test_a_class_folder_that_leads_back_is_a_fault(root: Path):
    (root / "train" / "all").symlink_to(root / "train")
    assert f"--data {root}: {root}/train/all: is a {LOOP}; remove it" in faults_of(root)


def test_folders_that_may_not_be_entered_are_no_hint(root: Path, monkeypatch: pytest.MonkeyPatch):
    (root.parent / "closed").mkdir()
    stat = os.stat

    def closed(place, *more, **named):
        if "/closed/" in str(place):
            raise PermissionError(13, "Permission denied", str(place))
        return stat(place, *more, **named)

    monkeypatch.setattr(os, "stat", closed)
    assert "did you mean" in faults_of(root.parent)[0]
