"""The example store: it can be moved, it names no machine, it shows what it is said to show, and browsing leaves it alone."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sweep.results.predictions import read_predictions

EXAMPLE = Path(__file__).parents[1] / "mlruns.example"
ASK = """
import json, sys
from mlflow import MlflowClient
from mlflow.pyfunc import load_model
client = MlflowClient("sqlite:///mlflow.db", "sqlite:///mlflow.db")
runs = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=500)
version = client.get_model_version_by_alias("chest-xray", "cnn1")
path = client.download_artifacts(version.run_id, "predictions/test.csv", sys.argv[1])
model = load_model("models:/chest-xray@cnn1")
answer = model.predict({"image": [sys.argv[2]]}) if len(sys.argv) > 2 else None
print(json.dumps({"runs": len(runs), "path": path, "answer": answer if answer is None else answer.to_dict("records")}))
"""


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """The store somewhere else."""
    shutil.copytree(EXAMPLE, tmp_path / "elsewhere" / "example")
    return tmp_path / "elsewhere" / "example"


@pytest.fixture
def client(moved: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{moved / 'mlflow.db'}")


def test_it_shows_what_it_is_said_to_show(client):
    (experiment,) = (found for found in client.search_experiments() if found.name == "chest-xray")
    runs = client.search_runs([experiment.experiment_id], max_results=500)
    parents = {run.info.run_name: run for run in runs if run.data.tags.get("sweep.kind") == "study"}
    assert set(parents) == {"cnn1", "cnn2", "cnn3", "resnet50"}
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert {run.info.status for run in children} == {"FINISHED", "KILLED", "FAILED"}
    failed = [run for run in children if run.info.status == "FAILED"]
    assert any(run.data.tags["sweep.cause"] == "worker lost" for run in failed)
    assert any("sweep.retry_of" in run.data.tags for run in children)
    model = client.get_registered_model("chest-xray")
    assert set(model.aliases) == {"cnn1", "cnn2", "cnn3", "resnet50", "champion"}
    (comparison,) = (run for run in runs if run.data.tags.get("sweep.kind") == "comparison")
    assert (
        "cannot be told apart" in comparison.data.tags["mlflow.note.content"]
        or "than resnet50" in comparison.data.tags["mlflow.note.content"]
    )


def test_it_works_from_any_folder(moved, tmp_path):
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ASK, tmp_path / "out"], cwd=moved, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["runs"] > 20
    assert len(read_predictions(Path(answer["path"])).labels) == 624


def test_it_is_small_and_names_no_machine():
    files = [path for path in EXAMPLE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    assert len([path for path in files if path.suffix == ".html"]) == 1
    assert not [path for path in files if path.suffix.lower() in (".jpg", ".jpeg", ".safetensors", ".pkl")]
    assert all("figures" in path.parts for path in files if path.suffix == ".png")
    for path in files:
        if path.suffix in (".py", ".png", ".pt2"):
            continue
        content = path.read_bytes()
        assert b"data:image/jpeg" not in content, path
        for place in (b"file:///", b"/tmp/", b"/root/", b"/home/", str(EXAMPLE.parent).encode()):
            assert place not in content or path.suffix == ".html", (path, place)


def test_every_location_is_relative():
    with sqlite3.connect(f"file:{EXAMPLE / 'mlflow.db'}?mode=ro", uri=True) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    assert not (isinstance(value, str) and value.startswith(("/", "file:"))), (table, value)


def test_the_script_packs_what_it_says(tmp_path, monkeypatch):
    """It leaves out what it should, and packs nothing where a path of this machine would be told."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import remake

    source, target = tmp_path / "store", tmp_path / "example"
    target.mkdir()
    artifacts = source / "mlruns" / "1" / "a" / "artifacts"
    for name in ("checkpoint/best.safetensors", "predictions/validation.csv", "figures/roc.png", "leaderboard.json"):
        (artifacts / name).parent.mkdir(parents=True, exist_ok=True)
        (artifacts / name).write_text("x")
    shutil.copy(EXAMPLE / "mlflow.db", source / "mlflow.db")
    with sqlite3.connect(source / "mlflow.db") as database:
        for table, column in remake.LOCATIONS:
            rows = database.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
            for row, location in rows:
                if location and location.startswith("./"):
                    place = f"{source / 'mlruns'}/{location.removeprefix('./mlartifacts/')}"
                    database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (place, row))
    monkeypatch.setattr(remake, "HERE", target)
    remake.pack(source)
    packed = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert packed == [
        "mlartifacts/1/a/artifacts/figures/roc.png",
        "mlartifacts/1/a/artifacts/leaderboard.json",
        "mlflow.db",
    ]

    (artifacts / "leaderboard.json").write_text(f'"{source}"')
    with pytest.raises(SystemExit, match="leaderboard.json holds"):
        remake.pack(source)
    (artifacts / "leaderboard.json").write_text("x")
    (artifacts / "figures" / "person1.jpeg").write_text("x")
    with pytest.raises(SystemExit, match="is a picture"):
        remake.pack(source)
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == packed
