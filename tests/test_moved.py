"""A working directory that was copied or renamed goes on where it is, and leaves the original alone."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.old_store import COMMAND, unpack_old_store
from tests.helpers.served import post, serving

PLAIN = """
import mlflow
client = mlflow.MlflowClient()
for run in client.search_runs(["1"]):
    for entry in client.list_artifacts(run.info.run_id):
        print(run.info.run_name, entry.path)
"""


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.linear_gradient("L").save(path)
    return path


@pytest.mark.slow
def test_a_copy_goes_on_by_itself_and_can_be_renamed(tmp_path, typed, picture, monkeypatch):
    original, copy, renamed = (tmp_path / name for name in ("original", "a copy#1", "renamed & moved"))
    original.mkdir()
    unpack_old_store(original)  # with absolute locations
    shutil.copytree(original, copy)
    for path in (original / "mlruns").rglob("*"):  # whatever is read from there is wrong
        if path.is_file():
            path.write_text("not of the copy")
    before = contents(original)

    code, out, err = typed(copy, "predict", "phantom@cnn1", picture, "--csv")
    assert code == 0, err
    assert f"note: mlflow.db: the store was moved from {original}; its artifacts are now found in {copy}/mlruns" in err
    (answer,) = out.splitlines()[1:]
    code, out, err = typed(copy, "doctor")  # which writes what a kill had left open
    assert code == 0, err
    assert contents(original) == before
    shutil.rmtree(original)

    copy.rename(renamed)
    for arguments in (
        ("doctor",),
        ("evaluate", "phantom@cnn1"),
        ("compare",),
        ("promote", "phantom/1", "--as", "clinic"),
        (*COMMAND, "--trials", 3),
    ):
        code, out, err = typed(renamed, *arguments, "--json")
        assert code == 0, err
        assert "was moved from" not in err
        assert json.loads(out)["exit_code"] == 0
        assert not copy.exists(), arguments
    assert typed(renamed, "predict", "phantom/1", picture, "--csv")[1].splitlines()[1:] == [answer]
    assert len(list(renamed.glob("mlruns/*/models/*"))) == 1  # no second copy

    plain = subprocess.run([sys.executable, "-c", PLAIN], cwd=renamed, capture_output=True, text=True, check=True)
    assert "cnn1-000 checkpoint" in plain.stdout
    monkeypatch.chdir(renamed)
    with serving("models:/phantom@cnn1", tmp_path / "log") as url:
        status, body = post(url, {"dataframe_records": [{"image": _base64(picture)}]})
    assert status == 200, body
    (served,) = json.loads(body)["predictions"]
    assert served["label"] in answer


def test_doctor_says_from_where_a_store_was_moved(tmp_path, typed):
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    unpack_old_store(original)
    shutil.copytree(original, copy)
    before = contents(original)
    code, out, err = typed(copy, "doctor", "--json")
    assert code == 0, err
    moved = f"mlflow.db: the store was moved from {original}; its artifacts are now found in {copy}/mlruns"
    assert json.loads(out)["mended"][0] == moved
    assert json.loads(typed(copy, "doctor", "--json")[1])["mended"] == []
    assert contents(original) == before


@pytest.mark.parametrize("lost", ["all", "the model"])
def test_files_that_are_gone_are_named(tmp_path, typed, picture, lost):
    (tmp_path / "store").mkdir()
    store = unpack_old_store(tmp_path / "store").rename(tmp_path / "moved")
    gone = store / "mlruns" if lost == "all" else next(store.glob("mlruns/*/models/*"))
    shutil.rmtree(gone)
    code, _, err = typed(store, "predict", "phantom@cnn1", picture)
    assert code == 2
    assert str(gone) in err
    assert "the store seems to have been moved" in err


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
