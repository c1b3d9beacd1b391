"""What is refused before anything is written: another registry, and no room for temporary files."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from data.faults import InputError
from sweep.system.environment import check_environment, faults_of_environment

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("registry", "tracking", "accepted"),
    [
        ("sqlite:///other.db", None, False),
        ("sqlite:///other.db", "http://127.0.0.1:5000", False),
        ("http://127.0.0.1:5001", "http://127.0.0.1:5000", False),
        ("databricks-uc", None, False),
        ("sqlite:///mlflow.db", None, True),
        ("sqlite:///{here}/mlflow.db", None, True),
        ("http://ann:secret@127.0.0.1:5000/", "http://127.0.0.1:5000", True),
        ("", None, True),
    ],
)
def test_the_registry_is_the_store_of_the_runs(tmp_path, monkeypatch, registry, tracking, accepted):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", registry.format(here=tmp_path))
    faults = faults_of_environment(tracking)
    assert (not faults) == accepted
    assert all(fault.startswith("MLFLOW_REGISTRY_URI ") and "secret" not in fault for fault in faults)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--arch", "cnn1", "--trials", 1),
        ("--arch", "cnn1", "--dry-run"),
        ("predict", "x@cnn1", "picture.png"),
        ("evaluate", "x@cnn1"),
        ("promote", "x/1", "--as", "clinic"),
        ("replay", "0" * 32),
        ("compare",),
    ],
)
def test_every_command_refuses_another_registry_and_writes_nothing(tmp_path, monkeypatch, typed, arguments):
    (tmp_path / "picture.png").touch()
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "sqlite:///other.db")
    code, _, err = typed(tmp_path, *arguments)
    assert code == 2
    assert "error: MLFLOW_REGISTRY_URI sqlite:///other.db: runs and registered models are in one store" in err
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_a_folder_for_temporary_files_is_there_and_has_room(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    check_environment(None)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=f"TMPDIR {tmp_path}: about 1,000,000,000,000 MB are needed and"):
        check_environment(None, 10**18)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    with pytest.raises(InputError, match="/none: there is no such folder; name a folder with room in TMPDIR"):
        check_environment(None)
    monkeypatch.setenv("TMPDIR", "/proc")
    with pytest.raises(InputError, match="TMPDIR /proc: cannot be written"):
        check_environment(None)
    monkeypatch.delenv("TMPDIR")
    check_environment(None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("arguments", [("--arch", "cnn1", "--trials", 1), ("predict", "x@cnn1", ".")])
def test_a_full_disk_for_temporary_files_is_named(tmp_path, monkeypatch, typed, pictures, arguments):
    tiny, work = tmp_path / "tiny", tmp_path / "work"
    tiny.mkdir()
    work.mkdir()
    picture = next(pictures.rglob("*.jpeg"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", tiny], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        monkeypatch.setenv("TMPDIR", str(tiny))
        code, _, err = typed(work, *[picture if argument == "." else argument for argument in arguments])
    finally:
        subprocess.run(["umount", tiny], check=True)
    assert code == 2
    assert f"error: TMPDIR {tiny}: about 32 MB are needed and 0.2 MB are free; name a folder with room" in err
    assert not list(work.iterdir())


def test_modules_of_the_working_directory_are_not_taken_for_ours(tmp_path):
    for name in ("models", "torch", "typer", "signal"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the working directory')")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "__init__.py").touch()
    for path in (str(ROOT), f".{os.pathsep}{ROOT}"):
        done = subprocess.run(
            [sys.executable, "-m", "sweep", "--arch", "cnn1", "--trials", "0", "--dry-run"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (2, "error: --trials 0: give 1 or more\n")


def test_the_command_works_beside_a_sweep_py(tmp_path):
    """`python -m sweep` would run that one; the command's own module is found where it was installed."""
    (tmp_path / "sweep.py").write_text("raise SystemExit('sweep.py of the working directory')")
    command = Path(tempfile.mkdtemp(dir=tmp_path)) / "sweep"
    command.write_text("import sys\nfrom sweep.__main__ import main\nsys.exit(main())\n")  # as installers write it
    done = subprocess.run(
        [sys.executable, command, "--version-that-is-none"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "there is no such option" in done.stderr
