"""`mlruns.example/`, a store that opens in any clone: how it is packed, and what the committed one shows."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sweep.stores.mlflow_stores import open_client
from sweep.stores.registry import Version, find_version, load
from sweep.stores.tracking import Tracking
from tests.helpers.browser import EXAMPLE

LIMIT = 8_000_000
ABSOLUTE = re.compile(rb"/(?:home|root|tmp|work|Users|mnt|private)/[\w.-]")
# MLflow itself, as somebody meets it who has just cloned the repository: its default store, a process of its own.
LOOK = """
import json
from pathlib import Path
import mlflow, pandas

client = mlflow.MlflowClient()

def files(run_id, path=None):
    entries = client.list_artifacts(run_id, path)
    inside = [file for entry in entries if entry.is_dir for file in files(run_id, entry.path)]
    return inside + [entry.path for entry in entries if not entry.is_dir]

(model,) = client.search_registered_models()
runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()], max_results=1000)
predictions = {}
for alias, version in model.aliases.items():
    loaded = Path(client.get_model_version_download_uri(model.name, version), "artifacts", "network.pt2").is_file()
    if loaded:
        served = mlflow.pyfunc.load_model(f"models:/{model.name}@{alias}")
        predictions[alias] = served.predict(served.input_example)["probability"].tolist()
studies = [run.info.run_id for run in runs if run.data.tags.get("sweep.kind") == "study"]
print(json.dumps({
    "leaderboards": [json.loads(Path(client.download_artifacts(run, "leaderboard.json")).read_text()) for run in studies],
    "aliases": model.aliases,
    "predictions": predictions,
    "runs": {
        run.info.run_id: {
            "name": run.info.run_name,
            "status": run.info.status,
            "tags": run.data.tags,
            "params": run.data.params,
            "sources": [json.loads(entry.dataset.source) for entry in run.inputs.dataset_inputs],
            "files": files(run.info.run_id),
        }
        for run in runs
    },
}))
"""


def look(folder: Path) -> dict:
    """What MLflow says of the store in a folder."""
    done = subprocess.run([sys.executable, "-c", LOOK], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def kind(seen: dict, kind: str) -> list[dict]:
    return [run for run in seen["runs"].values() if run["tags"].get("sweep.kind") == kind]


def absolute_paths(files: list[Path]) -> list[tuple[str, bytes]]:
    contents = [(path.name, path.read_bytes().replace(rb"\/", b"/")) for path in files if path.is_file()]
    return [(name, found[0]) for name, content in contents if (found := ABSOLUTE.search(content))]


@pytest.mark.slow  # a study of its own, shared with test_browser.py
def test_a_packed_store_opens_wherever_it_is(packed: Path, pictures: Path, tmp_path: Path, monkeypatch):
    folder = tmp_path / "somewhere"
    shutil.copytree(packed, folder)
    assert absolute_paths([path for path in folder.rglob("*") if path.name != "remake.py"]) == []

    seen = look(folder)

    runs = list(seen["runs"].values())
    assert sorted(run["name"] for run in runs) == ["cnn1", "cnn1-000", "cnn1-001", "compare"]
    (study,) = kind(seen, "study")
    trials = [run for run in runs if "mlflow.parentRunId" in run["tags"]]
    assert {seen["runs"][run["tags"]["mlflow.parentRunId"]]["name"] for run in trials} == {study["name"]}
    (leaderboard,) = seen["leaderboards"]
    assert {row[0] for row in leaderboard["data"]} == {run["name"] for run in trials}
    assert all("figures/learning_curves.png" in run["files"] for run in trials)
    # Of the one that was chosen alone.
    assert [run["name"] for run in trials if "predictions/test.csv" in run["files"]] == [study["tags"]["sweep.best"]]
    assert not any("checkpoint" in path for run in runs for path in run["files"])
    # Paths give way to their last name.
    (comparison,) = kind(seen, "comparison")
    assert comparison["params"] == {"data": pictures.name, "list": '["train", "b"]'}
    assert "mlflow.user" not in comparison["tags"]
    assert all(source == {"uri": pictures.name} for run in runs for source in run["sources"])
    # The model answers, and its files are the registered ones for the sweep's own loader too.
    assert seen["aliases"].keys() == {"champion", "cnn1"}
    assert seen["predictions"]["cnn1"] == pytest.approx(seen["predictions"]["champion"])
    monkeypatch.chdir(folder)
    client = open_client("sqlite:///mlflow.db")
    load(client, find_version(client, "blob-pictures@cnn1"))


def test_what_must_not_be_published_is_refused(tracking: Tracking, version: Version, tmp_path: Path):
    made = tmp_path / "mlruns.example"
    made.mkdir()
    shutil.copy(EXAMPLE / "remake.py", made)
    picture = io.BytesIO()
    Image.new("L", (40, 40)).save(picture, "JPEG")
    large = b"\0" * LIMIT
    files = {"a.bin": picture.getvalue(), "b.bin": b"in \xff\0/home/somebody/secret", "large.bin": large}
    tracking.log_files(version.run_id, files)
    store = Path(tracking.uri.removeprefix("sqlite:///")).parent
    before = sorted(store.rglob("*"))

    done = subprocess.run([sys.executable, made / "remake.py", store], capture_output=True, text=True)

    assert done.returncode == 1
    for said in (
        "too large",
        "a.bin: a JPEG that is no figure of ours",
        "/home/somebody/secret",
        "nothing was changed",
    ):
        assert said in done.stderr
    assert [path.name for path in made.iterdir()] == ["remake.py"]
    assert sorted(store.rglob("*")) == before


def test_the_committed_example_shows_everything():
    """Fails until the store is committed: `uv run python mlruns.example/remake.py STORE_DIR`."""
    assert (EXAMPLE / "mlflow.db").is_file(), "mlruns.example/mlflow.db is not there yet"
    listed = subprocess.run(["git", "ls-files", "-z", "."], cwd=EXAMPLE, capture_output=True, text=True, check=True)
    files = [EXAMPLE / name for name in listed.stdout.split("\0") if name]  # without what browsing left there
    assert EXAMPLE / "mlflow.db" in files
    assert sum(path.stat().st_size for path in files) <= LIMIT
    assert absolute_paths([path for path in files if path.name != "remake.py"]) == []
    status = ["git", "status", "--porcelain", "."]
    before = subprocess.run(status, cwd=EXAMPLE, capture_output=True, text=True, check=True).stdout

    seen = look(EXAMPLE)

    assert subprocess.run(status, cwd=EXAMPLE, capture_output=True, text=True, check=True).stdout == before
    architectures = {"cnn1", "cnn2", "cnn3", "resnet50"}
    assert {"champion", *architectures} <= seen["aliases"].keys()
    assert {run["tags"]["sweep.arch"] for run in kind(seen, "study")} == architectures
    trials = [run for run in seen["runs"].values() if "mlflow.parentRunId" in run["tags"]]
    assert {"COMPLETE", "PRUNED"} <= {run["tags"]["sweep.state"] for run in trials}
    assert len(seen["leaderboards"]) == len(architectures)
    assert "FAILED" in {run["status"] for run in trials}
    assert any("report.html" in run["files"] for run in kind(seen, "comparison"))
    assert {"cnn1", "cnn2"} <= seen["predictions"].keys()
