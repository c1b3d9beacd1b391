"""The main job in a team's stores: PostgreSQL for Optuna, a server with users on PostgreSQL for MLflow. And no secrets."""

from __future__ import annotations

from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from sweep.system.redaction import shown
from tests.helpers.consistent import consistent
from tests.helpers.servers import ADMIN, PASSWORD, wait_for
from tests.helpers.studies import LONG, STUDY, TIMEOUT, running, tiny, warm_sweeps
from tests.orchestrator.test_kills import killed

TRAINING = ("trial noted", "epoch received", "files on disk", "before telling", "after telling", "run ended")
CONCLUDING = ("test opened", "model filled", "version made", "decision logged", "concluded")


@pytest.mark.slow
def test_a_killed_study_goes_on_in_a_teams_stores_and_leaves_no_password(
    pictures, postgres, team, tmp_path, monkeypatch
):
    storage, work, elsewhere = postgres.database(), tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    elsewhere.mkdir()
    # A URL's own name and password win over those of the environment.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team.uri.replace("://", f"://{ADMIN}:{quote(PASSWORD, safe='')}@"))
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    monkeypatch.setenv("OPTUNA_STORAGE", storage)
    said, trials = "", len(TRAINING)
    with warm_sweeps() as sweep:
        for wanted, place in enumerate(TRAINING, 1):
            said += killed(sweep(work, *tiny(pictures, wanted), fault=f"{place}:1:SIGKILL"), work, place, "SIGKILL")
        for place in CONCLUDING:
            said += killed(sweep(work, *tiny(pictures, trials), fault=f"{place}:1:SIGKILL"), work, place, "SIGKILL")
        for folder, *arguments in (
            (work, *tiny(pictures, trials)),
            (work, "doctor", "--json"),
            (elsewhere, "compare"),
        ):
            done = sweep(folder, *arguments)
            assert done.returncode == 0, said + done.stderr
            said += done.stdout + done.stderr
    assert '"mended": []' in said
    assert f"optuna-dashboard {shown(storage)}" in said
    assert f"  {team.uri}/#/experiments/" in said

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    consistent(work, STUDY, trials, uri=team.uri, storage=storage)

    files = [path for folder in (tmp_path, team.folder / "files") for path in folder.rglob("*") if path.is_file()]
    assert {"report.html", "blob-pictures-comparison.html"} <= {path.name for path in files}
    left = [said.encode(), everything(storage), everything(team.store), *(path.read_bytes() for path in files)]
    for secret in (postgres.password, PASSWORD, quote(PASSWORD, safe="")):
        assert not [content[:200] for content in left if secret.encode() in content]


@pytest.mark.slow
def test_a_database_that_goes_away_ends_the_study_with_a_sentence(pictures, postgres, tmp_path):
    storage, work = postgres.database(), tmp_path / "work"
    name = storage.rpartition("/")[2]
    work.mkdir()
    arguments = ("--arch", "cnn3", "--data", pictures, "--trials", 4, *LONG)
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as server:
        with running(work, *arguments, environment={"OPTUNA_STORAGE": storage}) as (process, said):
            wait_for(lambda: " complete " in said(), process, said)
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            assert process.wait(60) == 1, said()
        assert f"study {STUDY}: {shown(storage)} does not answer (" in said()
        assert "once it does, the same command goes on" in said()
        assert "Traceback" not in said()
        assert postgres.password not in said()
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    with running(work, *arguments, environment={"OPTUNA_STORAGE": storage}) as (process, said):
        assert process.wait(TIMEOUT) == 0, said()
    (work / "log").unlink()
    consistent(work, STUDY, 4, storage=storage)


def everything(url: str) -> bytes:
    """All rows of all tables of a PostgreSQL database."""
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        rows = [
            row
            for (table,) in tables
            for row in connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table)))
        ]
    assert len(rows) > len(tables)
    return repr(rows).encode()
