"""What all benchmarks share: their tables, and the page that holds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import BEGIN, END, PARTS, with_tables
from benchmarks.overhead import CHECKPOINT_BYTES, grow, run_bare
from benchmarks.scale import Meter
from benchmarks.scale_tables import GROUPS, ideal_seconds
from benchmarks.sleeping import CURVES, EPOCHS, SleepingEngine, logits_of
from benchmarks.tables import Options, Table, median, ratio
from data.cache import Images
from sweep.engines import EpochFinished, Job, JobFinished
from sweep.metrics.scores import scores, softmax
from sweep.training.config import BEST, TrainingConfig

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
    root = Path(__file__).parents[2]
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


def test_recorded_scores_come_back_as_logits():
    labels = np.array([0, 1] * 100)
    for auroc in (0.5, 0.7257, 0.9309, 0.995):
        found = scores(labels, softmax(logits_of(labels, auroc)))
        assert found["auroc"] == pytest.approx(auroc, abs=1e-3)
    assert found["accuracy"] > 0.9


def test_trainings_that_sleep_end_when_they_are_due_and_stop_when_they_are_told_to(tmp_path: Path):
    labels = np.array([0, 1] * 10)
    images = Images(tmp_path / "none.npy", np.arange(20), labels, (), ())
    config = TrainingConfig("cnn3", "relu", "adam", 1e-3, 4, 0.0, 7, EPOCHS, 0, 16, 2)
    engine = SleepingEngine(2, (0.1, 0.15), labels)
    events, began = [], time.monotonic()
    for number in range(2):
        engine.submit(Job(number, replace(config, seed=number), images, images, tmp_path / str(number)))
    assert engine.free == 0
    while engine.free < 2:
        found = engine.events(0.5)
        events += found
        if any(event.number == 0 and isinstance(event, EpochFinished) and event.result.epoch == 2 for event in found):
            engine.stop(0, after_epoch=True)

    stopped, whole = ([event for event in events if event.number == number] for number in (0, 1))
    epochs = len(stopped) - 1
    assert [event.result.epoch for event in stopped[:-1]] == list(range(1, epochs + 1))
    assert 3 <= epochs < EPOCHS  # the third was under way when the second had been heard of
    assert stopped[-1] == JobFinished(0, stopped=True)
    assert [event.result.validation_loss for event in whole[:-1]] in [[loss for loss, _ in curve] for curve in CURVES]
    assert whole[-1] == JobFinished(1)
    assert sum(event.result.seconds for event in whole[:-1]) == pytest.approx(engine.trained[-1])
    assert time.monotonic() - began >= engine.trained[-1]
    assert (tmp_path / "1" / BEST).stat().st_size == CHECKPOINT_BYTES
    assert engine.events(0.01) == []


def test_time_is_counted_once_and_never_twice():
    meter = Meter()
    inner = meter.timed("inner", lambda: time.sleep(0.02))
    outer = meter.timed("outer", lambda: (inner(), time.sleep(0.01)))

    began = time.monotonic()
    outer()
    took = time.monotonic() - began

    assert meter.calls == {"inner": 1, "outer": 1}
    assert meter.seconds["inner"] >= 0.02
    assert 0.01 <= meter.seconds["outer"] <= took - meter.seconds["inner"]
    assert ideal_seconds([3.0, 1.0, 1.0, 2.0], workers=2) == 4.0


def test_work_whose_methods_are_called_no_more_is_not_counted_as_no_time():
    meter = Meter()
    for group in GROUPS:
        meter.timed(f"{group}/method", lambda: None)()
    meter.check()
    del meter.calls["tell/method"]
    with pytest.raises(LookupError, match="no timed method of tell was called"):
        meter.check()


@pytest.mark.slow
def test_the_overhead_of_every_way_is_measured_at_every_size(tmp_path: Path):
    """With fewer trials than its quick form has: a hundred and eighty of them would show nothing else."""
    code = """
import json
from benchmarks import overhead
from benchmarks.tables import Options
overhead.MEASURED, overhead.QUICK_SIZES = 4, (4, 20)
print(json.dumps([table.values for table in overhead.measure(Options(None, quick=True))]))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    overhead, _ = json.loads(done.stdout.splitlines()[-1])
    for way in ("bare", "by hand", "ours"):
        assert len(overhead[f"{way}/trial/20"]) == 4
        assert all(0 < epoch < max(overhead[f"{way}/trial/20"]) for epoch in overhead[f"{way}/epoch/20"])


@pytest.mark.slow
def test_every_benchmark_runs(pictures: Path, tmp_path: Path):
    parts = [part for part in PARTS if part not in ("studies", "overhead")]  # which have tests of their own
    figures, page = tmp_path / "figures.json", tmp_path / "page.md"
    command = [sys.executable, "-m", "benchmarks", *parts, "--quick", "--repeats", "1", "--data", str(pictures)]
    done = subprocess.run(
        [*command, "--json", str(figures), "--markdown", str(page)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    tables = json.loads(figures.read_text())["tables"]
    assert page.read_text().count("### ") == len(tables)

    speeds = tables["training_speed"]
    assert all(value > 0 for values in speeds.values() for value in values)
    assert all(value > 0 for values in tables["sharing"].values() for value in values)
    assert tables["clusters"].keys() == {"Ray Tune", "sweep --engine ray"}
    assert all(len(values) == 2 and min(values) >= 0 for values in tables["clusters"].values())
    scale = {name: value for name, (value, *_) in tables["scale"].items()}
    assert 0 < scale["2/trials/s"] < scale["2/ideal trials/s"]
    assert 0 < scale["2/busy"] < 1
    assert all(scale[f"2/{figure}"] > 0 for figure in ("processor", "peak", "delays"))
    grown = {name: value for name, (value,) in tables["scale_growth"].items()}
    assert all(grown[f"8/{work}"] > 0 for work in ("trials/s", "sampler", "tell", "MLflow", "figures", "files", "rest"))
    assert sum(grown[f"8/{work}"] for work in (*GROUPS, "rest")) == pytest.approx(grown["8/all"])
    assert all(size > 0 for name, (size,) in tables["scale_sizes"].items() if name.startswith("8/"))
    fleet = {name: value for name, (value,) in tables["scale_fleet"].items()}
    assert fleet["256/10"] == pytest.approx(32 * fleet["8/10"]) == pytest.approx(6 * fleet["256/60"])
    for name in ("decoding", "first_batch", "augmentation"):
        assert all(value > 0 for values in tables[name].values() for value in values)
    pruning = tables["pruning"]
    assert pruning["none/pruned"] == [0.0]
    assert 0 < pruning["median/epochs"][0] <= pruning["none/epochs"][0]
    starting = {name: seconds for name, (seconds,) in tables["starting"].items()}
    assert starting["sweep --help"] < starting["a study of one trial of one epoch"]
    assert starting["first epoch begins, stores are made first"] < starting["a study of one trial of one epoch"]
