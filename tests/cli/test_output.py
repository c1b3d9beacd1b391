"""Standard output that is closed, full, or lacks letters ends no command with a traceback."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.cli.output import Outlet

ROOT = Path(__file__).parents[2]


def test_what_cannot_be_written_is_dropped_and_the_first_reason_is_kept():
    outlet = Outlet(os.open("/dev/full", os.O_WRONLY), "w")
    with io.TextIOWrapper(io.BufferedWriter(outlet), "ascii", "backslashreplace") as text:
        for _ in range(3):
            text.write("肺炎\n" * 10_000)
    assert outlet.failure is not None
    assert outlet.failure.errno == errno.ENOSPC


def test_a_reader_that_had_enough_is_no_error():
    read, write = os.pipe()
    os.close(read)
    outlet = Outlet(write, "w")
    assert outlet.write(b"more") == 4
    outlet.close()
    assert outlet.failure is not None
    assert outlet.failure.errno == errno.EPIPE


@pytest.fixture
def chinese(pictures: Path, tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for folder, name in (("NORMAL", "正常"), ("PNEUMONIA", "肺炎")):
            (tmp_path / "set" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / split / name).symlink_to(pictures / split / folder)
    return tmp_path / "set"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirected", "environment", "code", "said"),
    [
        ("| head -n 1", {}, 0, "set: folder"),
        ("--json | head -n 1", {}, 0, "{"),
        (">&- 2>&- <&-", {}, 0, ""),
        ("> /dev/full", {}, 1, "error: stdout cannot be written (No space left on device)"),
        ("", {"PYTHONIOENCODING": "cp1252"}, 0, r"\u80ba\u708e"),
        ("", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}, 0, r"\u80ba\u708e"),
    ],
)
def test_data_info_ends_well(chinese: Path, redirected: str, environment: dict[str, str], code: int, said: str):
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$PYTHON" -m sweep data info --data "$DATA" {redirected}'],
        capture_output=True, cwd=chinese.parent,
        env={**os.environ, "PYTHON": sys.executable, "DATA": str(chinese), "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    text = (done.stdout + done.stderr).decode()
    assert done.returncode == code
    assert said in text
    assert "Traceback" not in text
    assert "Error" not in text
