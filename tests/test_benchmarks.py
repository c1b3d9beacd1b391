"""What all benchmarks share: their tables, and the page that holds them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import BEGIN, END, PARTS, with_tables
from benchmarks.overhead import grow, run_bare
from benchmarks.tables import Options, Table, median, ratio

TABLE = Table("speed", "Speed", ("", "images/s"), [("cnn1", "3.0")], {"cnn1": [3.0]}, ("One note.",))


def test_figures_have_a_median_and_a_range():
    assert median([3.0, 1.0, 2.0], 1) == "2.0 (1.0 to 3.0)"
    assert median([1234.5], 0) == "1,234"
    # Side by side, not of the medians.
    assert ratio([2.0, 30.0, 9.0], [1.0, 10.0, 2.0]) == "3.00 (2.00 to 4.50)"


def test_a_page_keeps_its_text_and_gets_new_tables():
    given, machine = Options(Path("folder/x-rays"), seed=3), {"processor": "Abacus"}
    page = f"# Text before\n\n{BEGIN}\nold\n{END}\n\nText after\n"

    once = with_tables(page, machine, given, [TABLE])

    assert once.startswith("# Text before\n")
    assert once.endswith(f"{END}\n\nText after\n")
    assert "old" not in once
    assert "processor Abacus" in once
    assert "On x-rays, seed 3, 5 repeats." in once
    assert "### Speed" in once
    assert "One note." in once
    assert with_tables(once, machine, given, [TABLE]) == once
    assert "### Speed" in with_tables("", machine, given, [TABLE])


def test_a_benchmark_that_is_not_there_is_refused(tmp_path: Path):
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nothing", "--json", str(tmp_path / "figures.json")],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert all(part in done.stderr for part in PARTS)
    assert not (tmp_path / "figures.json").exists()


def test_a_store_grows_by_copies_that_optuna_and_mlflow_take_for_trials(tmp_path: Path, monkeypatch):
    import optuna
    from mlflow import MlflowClient

    monkeypatch.setattr("benchmarks.overhead.MEASURED", 2)
    monkeypatch.setattr("benchmarks.overhead.FIRST", 6)
    costs = run_bare(tmp_path / "bare", (4, 20), seed=0)

    assert {size: len(cost.trials) for size, cost in costs.items()} == {4: 2, 20: 2}
    study = optuna.load_study(study_name="bare", storage=f"sqlite:///{tmp_path / 'bare' / 'optuna.db'}")
    assert [trial.number for trial in study.trials] == list(range(23))
    copied, template = study.trials[13], study.trials[0]
    assert (copied.params, copied.intermediate_values) == (template.params, template.intermediate_values)
    client = MlflowClient(f"sqlite:///{tmp_path / 'bare' / 'mlflow.db'}")
    (experiment,) = [found.experiment_id for found in client.search_experiments() if found.name == "bare"]
    runs = client.search_runs([experiment])
    assert sorted(int(run.data.tags["sweep.trial"]) for run in runs) == list(range(23))
    assert all(run.data.metrics and run.data.params for run in runs)
    grow(tmp_path / "bare", 23, 30)
    assert len(client.search_runs([experiment])) == 30


@pytest.mark.slow
def test_every_benchmark_runs(pictures: Path, tmp_path: Path):
    parts = [part for part in PARTS if part != "studies"]  # which has a test of its own
    figures, page = tmp_path / "figures.json", tmp_path / "page.md"
    command = [sys.executable, "-m", "benchmarks", *parts, "--quick", "--repeats", "1", "--data", str(pictures)]
    done = subprocess.run(
        [*command, "--json", str(figures), "--markdown", str(page)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    tables = json.loads(figures.read_text())["tables"]
    assert page.read_text().count("### ") == len(tables)

    speeds = tables["training_speed"]
    assert all(value > 0 for values in speeds.values() for value in values)
    assert all(value > 0 for values in tables["sharing"].values() for value in values)
    overhead = tables["overhead"]
    for way in ("bare", "by hand", "ours"):
        assert len(overhead[f"{way}/trial/40"]) == 20
        assert all(0 < epoch < max(overhead[f"{way}/trial/40"]) for epoch in overhead[f"{way}/epoch/40"])
    for name in ("decoding", "first_batch", "augmentation"):
        assert all(value > 0 for values in tables[name].values() for value in values)
    pruning = tables["pruning"]
    assert pruning["none/pruned"] == [0.0]
    assert all(0 < pruning[f"{pruner}/epochs"][0] <= pruning["none/epochs"][0] for pruner in ("median", "hyperband"))
    starting = {name: seconds for name, (seconds,) in tables["starting"].items()}
    assert starting["sweep --help"] < starting["a study of one trial of one epoch"]
    assert starting["first epoch begins, stores are made first"] < starting["a study of one trial of one epoch"]
