"""The examples do what they say, in a directory of their own; the notebook in a kernel of its own."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.helpers.stocked import stocked

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = EXAMPLES / "notebook.ipynb"


def test_examples_are_short_and_the_notebook_has_no_outputs():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"own_network.py", "own_data.py", "own_metric.py"}
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert sum(len(cell["source"]) for cell in cells) < 60
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_the_own_network_takes_every_activation_and_learns():
    build = runpy.run_path(str(EXAMPLES / "own_network.py"))["build"]
    for activation in ("relu", "sigmoid", "gelu", "silu"):
        network = build(activation, 0.1, classes=3, image_size=32)
        logits = network(torch.zeros(2, 1, 32, 32))
        assert logits.shape == (2, 3)
        logits.sum().backward()
        assert all(weights.grad is not None for weights in network.parameters())


def test_the_own_data_keep_every_image_and_every_patient_on_one_side(tmp_path):
    rows = [(f"{label}{n}.png", label, f"{label}-{n // 3}") for label in ("a", "b") for n in range(24)]
    for file, *_ in rows:
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / file)
    table = pd.DataFrame(rows, columns=["file", "label", "patient"])
    place = runpy.run_path(str(EXAMPLES / "own_data.py"))["arrange"](tmp_path, table, tmp_path / "arranged")
    sides = {side: sorted((place / side).rglob("*.png")) for side in ("train", "test")}
    assert [len(paths) for paths in sides.values()] == [36, 12]
    patients = {side: {path.name.split("__")[0] for path in paths} for side, paths in sides.items()}
    assert not patients["train"] & patients["test"]
    assert all(path.parent.name == path.name[0] for paths in sides.values() for path in paths)


def test_the_own_metric_is_the_lowest_cost_over_all_thresholds():
    cost = runpy.run_path(str(EXAMPLES / "own_metric.py"))["cost"]
    table = pd.DataFrame(
        {
            "class": ["NORMAL", "NORMAL", "NORMAL", "PNEUMONIA", "PNEUMONIA"],
            "probability_PNEUMONIA": [0.1, 0.3, 0.6, 0.2, 0.9],
        }
    )
    assert cost(table) == (pytest.approx(2 / 5), 0.2)  # two false alarms are cheaper than a missed case


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example as `python FILE` does, in a directory of its own; gives what it defines and what it printed."""

    def run(name):
        monkeypatch.chdir(stocked(tmp_path))
        monkeypatch.setattr(sys, "argv", [name])
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__"), capsys.readouterr().out

    return run


@pytest.mark.slow
def test_the_own_network_is_searched_and_registered(run):
    _, printed = run("own_network.py")
    assert "study synthetic/own_network: 2 trials" in printed
    assert "<SearchResult synthetic/own_network: trial" in printed


@pytest.mark.slow
def test_the_own_data_are_learned(run):
    defined, printed = run("own_data.py")
    assert "data: arranged from arranged: 104 train, 16 validation, 40 test" in printed
    assert defined["result"].test["value"]["accuracy"] > 0.9


@pytest.mark.slow
def test_the_own_metric_ranks_every_complete_trial(run):
    defined, _ = run("own_metric.py")
    result = defined["result"]
    table = defined["ranked"](result.study_run_id).set_index("trial")
    assert set(table.index) == set(result.trials["trial"])
    assert table["cost"].is_monotonic_increasing
    assert table["average precision"].max() == pytest.approx(result.best_value)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom_and_shows_its_results(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    folder = stocked(Path(shutil.copytree(EXAMPLES, tmp_path / "notebook")))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(folder / NOTEBOOK.name, 4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    streams = [output.text for several in outputs for output in several if output.output_type == "stream"]
    assert streams == []  # no warning of any library
    results = [several[-1].data for several in outputs]
    searched, trials, compared, ensemble, predicted, _, again = results
    assert "models:/synthetic/1" in searched["text/html"]
    assert trials["text/html"].count("cnn1-00") == 2
    assert "synthetic-comparison.html" in compared["text/html"]
    assert {"cnn1", "cnn2"} <= set(compared["text/html"].replace("<", ">").split(">"))
    assert "ensemble-cnn1-top-2" in ensemble["text/plain"]
    assert predicted["text/html"].count(".png") == 2
    assert again["text/plain"] == "True"
    assert (folder / "reports" / "synthetic-comparison.html").is_file()
