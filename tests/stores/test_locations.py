"""Where a store's artifacts are: relative to it in a working directory, and found where the directory is now."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from data.faults import InputError
from sweep.stores.databases import sqlite_url
from sweep.stores.locations import COLUMNS, local_folder, make_relative
from sweep.stores.mlflow_stores import open_client, open_tracking
from tests.helpers.stocked import stocked

RUN, MODEL = "1/0123/artifacts", "1/models/m-4567/artifacts"
ODD = ["my%20study", "a?b#c", "q'\"& =;+", "100%", "رئة 肺", "{x}", "a:b@c", "%2e%2e"]


def store_of(folder: Path, root: Path | None = None) -> Path:
    """A store with one run and one model, as MLflow wrote it when it was in `root`; with their folders."""
    root, path = root or folder, folder / "mlflow.db"
    folder.mkdir(exist_ok=True)
    for place in (RUN, MODEL):
        (folder / "mlruns" / place).mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database:
        for name in {name for name, _ in COLUMNS}:
            columns = ", ".join(column for table, column in COLUMNS if table == name)
            database.execute(f"CREATE TABLE {name} ({columns})")
        database.execute("INSERT INTO experiments VALUES (?)", (f"{root}/mlruns/0",))
        database.execute("INSERT INTO experiments VALUES (?)", (f"{root}/mlruns/1",))
        database.execute("INSERT INTO runs VALUES (?)", (f"{root}/mlruns/{RUN}",))
        database.execute("INSERT INTO logged_models VALUES (?)", (f"{root}/mlruns/{MODEL}",))
        database.execute("INSERT INTO model_versions VALUES ('models:/m-4567', ?)", (f"{root}/mlruns/{MODEL}",))
        database.commit()
    return path


def locations_of(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        return {place for name, column in COLUMNS for (place,) in database.execute(f"SELECT {column} FROM {name}")}


RELATIVE = {"./mlruns/0", "./mlruns/1", f"./mlruns/{RUN}", f"./mlruns/{MODEL}", "models:/m-4567"}


def test_locations_of_the_working_directory_become_relative_once(tmp_path, monkeypatch):
    path = store_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "relative to this directory" in (make_relative(path) or "")
    assert locations_of(path) == RELATIVE
    assert make_relative(path) is None


@pytest.mark.parametrize("name", ["copy", "100%20?#"])
def test_a_copy_finds_its_own_files_while_the_original_is_there(tmp_path, monkeypatch, name):
    original, copy = tmp_path / "original", tmp_path / name
    original.mkdir()
    before = locations_of(store_of(original))
    shutil.copytree(original, copy)
    monkeypatch.chdir(copy)
    said = make_relative(copy / "mlflow.db")
    assert said == f"mlflow.db: the store was moved from {original}; its artifacts are now found in {copy / 'mlruns'}"
    assert locations_of(copy / "mlflow.db") == RELATIVE
    assert locations_of(original / "mlflow.db") == before


def test_file_urls_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = store_of(tmp_path, root=Path("file:///else where".replace(" ", "%20")))
    with closing(sqlite3.connect(path)) as database:
        for name, column in COLUMNS:
            database.execute(f"UPDATE {name} SET {column} = replace({column}, 'file:/else', 'file:///else')")
        database.commit()
    assert "moved from /else where;" in (make_relative(path) or "")
    assert locations_of(path) == RELATIVE


@pytest.mark.parametrize("original", ["there", "gone"])
def test_a_store_without_its_files_is_refused_and_left_as_it_is(tmp_path, monkeypatch, original):
    first, moved = tmp_path / "first", tmp_path / "moved"
    first.mkdir()
    moved.mkdir()
    shutil.copy(store_of(first), moved)
    if original == "gone":
        shutil.rmtree(first)
    before = locations_of(moved / "mlflow.db")
    monkeypatch.chdir(moved)
    with pytest.raises(InputError) as refused:
        make_relative(moved / "mlflow.db")
    assert str(moved / "mlruns") in str(refused.value)
    assert f"seems to have been moved or copied without them (it was in {first})" in str(refused.value)
    assert locations_of(moved / "mlflow.db") == before
    (moved / "mlruns").mkdir()  # as the message says: on without them
    assert make_relative(moved / "mlflow.db")
    shutil.rmtree(moved / "mlruns")
    with pytest.raises(InputError, match="the artifacts of mlflow.db are gone"):
        make_relative(moved / "mlflow.db")


def test_a_store_of_another_directory_is_left_as_it_is(tmp_path, monkeypatch):
    """Somebody may have started a server elsewhere with it; and a study may log from here into a store there."""
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    path = store_of(there)
    monkeypatch.chdir(here)
    assert make_relative(path) is None
    assert f"{there}/mlruns/1" in locations_of(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO runs VALUES (?)", (f"{here}/mlruns/2/89/artifacts",))
        database.commit()
    (here / "mlruns" / "2" / "89" / "artifacts").mkdir(parents=True)
    monkeypatch.chdir(there)
    assert make_relative(path)
    assert locations_of(path) == {*RELATIVE, f"{here}/mlruns/2/89/artifacts"}


def test_a_moved_store_is_not_read_from_elsewhere_before_it_is_mended(tmp_path, monkeypatch):
    path = store_of(tmp_path, root=Path("/was/here"))
    monkeypatch.chdir("/")
    with pytest.raises(InputError, match=f"moved from /was/here; type `sweep doctor` in {tmp_path} first"):
        make_relative(path)


def test_files_of_the_directory_that_was_copied_are_not_used(tmp_path):
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    store_of(original)
    copy.mkdir()
    uri = sqlite_url(copy / "mlflow.db")
    assert local_folder(f"{original}/mlruns/{RUN}", uri) is None
    assert local_folder(f"./mlruns/{RUN}", uri) == copy / "mlruns" / RUN
    assert local_folder("s3://bucket/1", uri) is None
    shutil.copytree(original / "mlruns", copy / "mlruns")
    assert local_folder(f"{original}/mlruns/{RUN}", uri) == copy / "mlruns" / RUN


@pytest.mark.parametrize("name", ODD)
def test_a_directory_of_any_name_has_its_store_and_files_in_itself(tmp_path, monkeypatch, name):
    folder, elsewhere = tmp_path / "in" / name, tmp_path / "elsewhere"
    for made in (folder, elsewhere):
        made.mkdir(parents=True)
    stocked(folder)
    for here, kind in ((folder, "own"), (elsewhere, "other")):  # a study elsewhere may log into the same store
        monkeypatch.chdir(here)
        tracking = open_tracking(sqlite_url(folder / "mlflow.db"), kind)
        run = tracking.start("run", {})
        tracking.log_files(run.run_id, {"a.txt": kind})
        monkeypatch.chdir("/")
        fetched = tracking.fetch(run.run_id, "a.txt", elsewhere)
        assert fetched is not None
        assert fetched.read_text() == kind
        assert len(list(here.glob("mlruns/*/*/artifacts/a.txt"))) == 1
    assert [path.name for path in (tmp_path / "in").iterdir()] == [name]
    assert not list(Path("/").glob("mlruns"))


def test_files_of_a_study_elsewhere_are_in_its_directory_of_any_name(tmp_path, monkeypatch):
    store, work = stocked_in(tmp_path / "store"), tmp_path / "in" / "my%20study"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    tracking = open_tracking(sqlite_url(store / "mlflow.db"), "x")
    tracking.log_files(tracking.start("run", {}).run_id, {"a.txt": "a"})
    assert len(list(work.glob("mlruns/*/*/artifacts/a.txt"))) == 1
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["my%20study"]


def stocked_in(folder: Path) -> Path:
    folder.mkdir()
    return stocked(folder)


def test_what_was_changed_is_said_once(tmp_path, monkeypatch, capsys):
    first, copy = stocked_in(tmp_path / "first"), tmp_path / "copy"
    monkeypatch.chdir(first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweep.stores.mlflow_stores.make_relative", lambda path: None)  # as older versions
        patch.setattr("sweep.stores.locations.make_relative", lambda path: None)
        tracking = open_tracking(sqlite_url(first / "mlflow.db"), "x")
        tracking.log_files(tracking.start("run", {}).run_id, {"a.txt": "a"})
    shutil.copytree(first, copy)
    monkeypatch.chdir(copy)
    for said in (1, 0):
        open_client(sqlite_url(copy / "mlflow.db"))
        assert capsys.readouterr().err.count(f"note: mlflow.db: the store was moved from {first}") == said


def test_a_store_that_studies_elsewhere_log_into_is_no_copy(tmp_path, monkeypatch):
    """Their directory may have a store of its own, from another study."""
    shared, work = tmp_path / "shared", tmp_path / "work"
    for folder in (shared, work):
        folder.mkdir()
    path = store_of(shared, root=work)
    shutil.move(shared / "mlruns", work / "mlruns")
    with closing(sqlite3.connect(store_of(tmp_path / "other", root=work))) as database:
        for name, column in COLUMNS:
            database.execute(f"UPDATE {name} SET {column} = replace(replace({column}, '0123', '89'), '4567', '89')")
        database.commit()
    shutil.move(tmp_path / "other" / "mlflow.db", work / "mlflow.db")
    before = locations_of(path)
    monkeypatch.chdir(shared)
    assert make_relative(path) is None
    assert locations_of(path) == before
    assert local_folder(f"{work}/mlruns/{RUN}", sqlite_url(path)) == work / "mlruns" / RUN


def test_files_are_removed_in_this_directory_alone(tmp_path, monkeypatch):
    folder, other = tmp_path / "my%20study", tmp_path / "my study"
    stocked_in(folder)
    monkeypatch.chdir(folder)
    tracking = open_tracking(sqlite_url(folder / "mlflow.db"), "x")
    run = tracking.start("run", {})
    tracking.log_files(run.run_id, {"checkpoint/a.txt": "a", "b.txt": "b"})
    shutil.copytree(folder, other)
    assert tracking.remove(run.run_id, "checkpoint")
    assert [path.name for path in folder.glob("mlruns/*/*/artifacts/*")] == ["b.txt"]
    assert len(list(other.glob("mlruns/*/*/artifacts/checkpoint/a.txt"))) == 1


def test_a_root_that_may_not_be_entered_is_passed_by(tmp_path, monkeypatch):
    path, stat = store_of(tmp_path, root=Path("/root/somebody")), os.stat

    def closed(place, *more, **named):
        if str(place).startswith("/root/somebody"):
            raise PermissionError(13, "Permission denied", str(place))
        return stat(place, *more, **named)

    monkeypatch.setattr(os, "stat", closed)
    monkeypatch.chdir(tmp_path)
    assert "moved from /root/somebody;" in (make_relative(path) or "")
    assert local_folder(f"/root/somebody/mlruns/{RUN}", sqlite_url(path)) == tmp_path / "mlruns" / RUN


def test_a_place_of_a_server_s_own_is_found(tmp_path):
    assert local_folder("/data/artifacts/1/89", sqlite_url(tmp_path / "mlflow.db")) == Path("/data/artifacts/1/89")


def test_a_store_whose_first_run_logged_nothing_is_opened_again(tmp_path, monkeypatch):
    """A process may die between the two."""
    monkeypatch.chdir(stocked_in(tmp_path / "work"))
    uri = sqlite_url(tmp_path / "work" / "mlflow.db")
    open_tracking(uri, "x").start("run", {})
    assert open_tracking(uri, "x").start("another", {})
