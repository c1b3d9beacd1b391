"""MLflow on a server that is away, goes away and comes back while a study runs."""

from __future__ import annotations

import json
import os

import pytest

from tests.helpers.consistent import consistent
from tests.helpers.servers import wait_for
from tests.helpers.studies import LONG, STUDY, TIMEOUT, cold_sweep, running, sweep, tiny


@pytest.mark.slow
def test_training_goes_on_while_the_tracking_server_is_away(pictures, tmp_path, server):
    work = tmp_path / "work"
    work.mkdir()
    environment = {"MLFLOW_TRACKING_URI": server.uri}
    arguments = ("--arch", "cnn3", "--data", pictures, "--trials", 10, *LONG)
    away = sweep(work, *arguments, environment=environment)
    assert away.returncode == 2
    assert f"--tracking-uri {server.uri}: does not answer" in away.stderr
    assert "Traceback" not in away.stderr

    server.start()
    with running(work, *arguments, environment=environment) as (process, said):
        wait_for(lambda: "complete" in said(), process, said)
        server.kill()
        before = said().count(" complete ")
        wait_for(
            lambda: said().count(" complete ") >= before + 3, process, said
        )  # also some that begin and end meanwhile
        assert "does not answer" in said()
        assert "nothing is lost, the runs are completed once it is back" in said()
        server.start()
        wait_for(lambda: "MLflow answers again" in said(), process, said)
        assert process.wait(TIMEOUT) == 0, said()
    (work / "log").unlink()
    consistent(work, STUDY, 10, uri=server.uri)


@pytest.mark.slow
def test_a_server_that_is_away_at_the_end_is_waited_for(pictures, tmp_path, server):
    work = tmp_path / "work"
    work.mkdir()
    server.start()
    arguments = ("--arch", "cnn3", "--data", pictures, "--trials", 4, *LONG, "--epochs", 6)
    with running(work, *arguments, environment={"MLFLOW_TRACKING_URI": server.uri}) as (process, said):
        wait_for(lambda: "complete" in said(), process, said)
        server.kill()
        wait_for(lambda: "waiting for it, since the study ends there" in said(), process, said)
        server.start()
        assert process.wait(TIMEOUT) == 0, said()
    (work / "log").unlink()
    consistent(work, STUDY, 4, uri=server.uri)


@pytest.mark.slow
def test_with_a_server_stdout_belongs_to_one_object_and_nothing_stays_in_temp(pictures, tmp_path, server):
    """MLflow prints the address of each run that ends, and downloads models to places of its own."""
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    server.start()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server.uri, "TMPDIR": str(temporary)}
    for arguments in (
        tiny(pictures, 2),
        ("predict", "blob-pictures", pictures / "test"),
        ("evaluate", "blob-pictures@cnn3", "--data", pictures),
        ("promote", "blob-pictures/1", "--as", "clinic"),
    ):
        done = cold_sweep(work, *arguments, "--json", env=environment)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["exit_code"] == 0
    left = [path for path in temporary.iterdir() if not path.name.startswith("torchinductor_")]  # torch's, and empty
    assert not left
    server.kill()
    away = cold_sweep(work, "evaluate", "blob-pictures", "--data", pictures, env=environment)
    assert away.returncode == 2
    assert "Traceback" not in away.stderr
