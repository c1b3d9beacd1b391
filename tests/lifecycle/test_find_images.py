"""Which files `predict` labels: the rule of data sets, for folders and globs; files that were typed, whatever they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data.faults import InputError
from sweep.lifecycle.predict import find_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = (
        *("a.png", "b.JFIF", "sub/c.jpe", "sub/deeper/d.tif", "e.dcm", "f.heatmap.png", "Thumbs.db"),
        *(".hidden.png", "._a.png", ".ipynb_checkpoints/a.png", "@eaDir/a.png/S.png", "sub/__MACOSX/c.png"),
    )
    for name in names:
        (tmp_path / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "films" / name).write_bytes(b"")
    (tmp_path / "films" / "sub" / "loop").symlink_to("..")
    return tmp_path / "films"


def names(folder: Path, *patterns: object) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(list(map(str, patterns)))]


def test_a_folder_and_a_glob_are_listed_as_data_sets_are(folder: Path):
    every = ["a.png", "b.JFIF", "sub/c.jpe", "sub/deeper/d.tif"]
    assert names(folder, folder) == names(folder, f"{folder}/**") == every
    assert names(folder, f"{folder}/*") == every[:2]
    assert names(folder, f"{folder}/**/*.jp[eg]", f"{folder}/s?b/*") == ["sub/c.jpe"]
    assert find_images([str(folder)]).notes == (
        "passed over 3 hidden or system folders (.ipynb_checkpoints, @eaDir, __MACOSX), "
        "2 hidden files (._a.png, .hidden.png), 1 .dcm file, 1 heat map of an earlier prediction (f.heatmap.png), "
        f"1 linked folder leading back to a folder above it (loop) in {folder}",
    )


def test_a_glob_without_a_folder_is_of_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    assert [str(path) for path in find_images(["*.png"])] == ["a.png"]
    assert len(find_images(["."])) == 4


def test_a_typed_file_is_an_image_whatever_it_is_called(folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert names(folder, folder / ".hidden.png", folder / "e.dcm") == [".hidden.png", "e.dcm"]
    assert names(folder, folder / ".ipynb_checkpoints") == [".ipynb_checkpoints/a.png"]
    monkeypatch.setenv("HOME", str(folder.parent))
    assert names(folder, "~/films/a.png") == ["a.png"]


def test_what_a_shells_star_finds_of_a_system_is_passed_over(folder: Path):
    found = find_images([str(path) for path in (folder / "@eaDir", folder / "Thumbs.db", folder / "a.png")])
    assert found.paths == (folder / "a.png",)
    assert found.notes[0] == f"passed over {folder}/@eaDir, which a system keeps for itself"
    with pytest.raises(InputError, match="which a system keeps for itself"):
        find_images([str(folder / "@eaDir")])


def test_nothing_to_label_says_what_is_there_and_what_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # where the last pattern is looked for
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "x.dcm").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        find_images([str(tmp_path / "scans"), f"{tmp_path}/scans/*.dcm", f"{tmp_path}/nothing", "b" * 300])
    first, second, third, fourth = caught.value.faults
    assert "scans: the folder holds no image (passed over: 1 .dcm file); files that end in .bmp" in first
    assert "*.dcm: matches no image (passed over: 1 .dcm file)" in second
    assert third == f"{tmp_path}/nothing: there is no such file"
    assert fourth == f"{'b' * 80}...: is too long for a file's name"


def test_a_name_that_is_no_text_is_found_and_a_link_to_nothing_is_kept_for_the_unreadable(tmp_path: Path):
    odd, link = tmp_path / os.fsdecode(b"caf\xe9.png"), tmp_path / "gone.png"
    odd.write_bytes(b"")
    link.symlink_to("nowhere")
    assert set(find_images([str(tmp_path)])) == {odd, link}


def test_a_folder_that_cannot_be_read_is_a_fault_only_where_a_glob_leads_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (folder.parent / "private").mkdir()
    scandir = os.scandir

    def closed(place):
        if str(place).endswith("private"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", closed)
    assert [path.name for path in find_images([f"{folder.parent}/film*/*.png"])] == ["a.png"]
    with pytest.raises(InputError, match=r"private: cannot be read \(Permission denied\)"):
        find_images([f"{folder.parent}/*/*.png"])
