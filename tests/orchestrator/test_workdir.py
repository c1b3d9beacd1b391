"""The working directory: what it is checked for."""

from pathlib import Path

import pytest

from data.faults import InputError
from sweep.orchestrator.workdir import check_folder


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    check_folder(tmp_path, 1000)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="/proc: the working directory cannot be written"):
        check_folder(Path("/proc"), 1000)
    with pytest.raises(InputError, match="needs about 1,000,000,000,000 MB here"):
        check_folder(tmp_path, 10**18)
