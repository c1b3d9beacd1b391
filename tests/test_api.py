"""The program as functions: a search in this process, what it gives, and what is made of it."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import sweep
from sweep.api.search import SearchOptions
from sweep.settings import Settings
from sweep.settings_file import NAMES
from tests.helpers.stocked import stocked
from tests.helpers.studies import client_of, trials_of
from tests.helpers.studies import sweep as typed_sweep

ROOT = Path(__file__).parents[1]
NAMED = {"arch", "data", "trials", "fix", "search", "space", "enqueue", "budget"}  # by parameters of their own


class Silent:
    """A view that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def update(self, progress) -> None:
        self.said.append(f"{progress.done} of {progress.wanted}")

    def live(self):
        return self

    def counting(self, what, total):
        return self

    def __enter__(self):
        return lambda done: None

    def __exit__(self, *_):
        return None


@pytest.fixture(scope="module")
def searched(pictures: Path, tmp_path_factory: pytest.TempPathFactory):
    """A search in a directory of its own: the directory, the result, and what was shown."""
    folder, view = stocked(tmp_path_factory.mktemp("api")), Silent()
    before = Path.cwd()
    os.chdir(folder)
    try:
        result = sweep.search(
            "cnn3",
            data=pictures,
            trials=2,
            fix={"activation": "relu", "batch_size": 16},
            space={"learning_rate": sweep.Range(1e-3, 1e-2, log=True), "optimizer": ["adam", "sgd"]},
            view=view,
            image_size=24,
            epochs=2,
            workers=1,
            pruner="none",
        )
    finally:
        os.chdir(before)
    return folder, result, view.said


def test_a_search_gives_its_best_trial_all_trials_scores_and_the_registered_model(searched):
    folder, result, said = searched
    trials = trials_of(folder, result.study)
    best = max(trials, key=lambda trial: trial.value)
    assert (result.best_trial, result.best_value, result.best_params) == (best.number, best.value, best.params)
    assert all(
        trial.params["activation"] == "relu" and trial.params["optimizer"] in ("adam", "sgd") for trial in trials
    )
    assert all(1e-3 <= trial.params["learning_rate"] <= 1e-2 for trial in trials)
    assert result.trials["val/auroc"].is_monotonic_decreasing
    assert len(result.trials) == 2
    assert ((result.test["low"] <= result.test["value"]) & (result.test["value"] <= result.test["high"])).all()
    run = client_of(folder).get_run(result.study_run_id)
    assert result.test["value"]["auroc"] == pytest.approx(run.data.metrics["test/auroc"])
    assert result.uri == "models:/blob-pictures/1"
    assert str(client_of(folder).get_model_version_by_alias("blob-pictures", "cnn3").version) == result.version
    assert any("2 trials" in line for line in said)
    assert "2 of 2" in said
    shown = result._repr_html_()
    assert {"learning_rate", "models:/blob-pictures/1", "auroc"} <= set(re.findall(r"[\w:/-]+", shown))
    assert repr(result).startswith("<SearchResult blob-pictures/cnn3: trial")


def test_the_same_call_and_the_same_command_find_nothing_left_to_train(searched, pictures, monkeypatch):
    folder, result, _ = searched
    monkeypatch.chdir(folder)
    view = Silent()
    again = sweep.search(
        "cnn3", data=pictures, trials=2, fix={"activation": "relu", "batch_size": 16}, view=view, image_size=24,
        space={"learning_rate": sweep.Range(1e-3, 1e-2, log=True), "optimizer": sweep.Choice(("adam", "sgd"))},
        epochs=2, workers=1, pruner="none",
    )  # fmt: skip
    assert any("nothing is left to train" in line for line in view.said)
    assert (again.version, again.run_id) == (result.version, result.run_id)
    asked = ("--arch", "cnn3", "--data", pictures, "--trials", 2, "--image-size", 24, "--epochs", 2, "--workers", 1)
    space = ("--fix", "activation=relu", "--fix", "batch_size=16", "--search", "learning_rate=1e-3..1e-2:log")
    done = typed_sweep(folder, *asked, *space, "--search", "optimizer=adam,sgd", "--pruner", "none", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["studies"][0]["version"] == result.version


def test_the_registered_model_is_used_as_the_commands_use_it(searched, pictures, monkeypatch):
    folder, result, _ = searched
    monkeypatch.chdir(folder)
    files = sorted((pictures / "test").rglob("*.jpeg"))[:3]
    predicted = sweep.predict(result.uri, files, view=Silent())
    model = sweep.load_model(result.uri)
    pixels = np.stack([model.prepare(model.read(path)) for path in files])
    logits = model.logits(pixels)
    assert predicted.answers["label"].tolist() == [model.about["classes"][at] for at in logits.argmax(1)]
    assert predicted.version.version == result.version
    assert predicted._repr_html_().count(".jpeg") == 3
    evaluated = sweep.evaluate(result.uri, data=pictures, view=Silent())
    assert evaluated.scores["served"]["auroc"] == pytest.approx(result.test["value"]["auroc"])
    compared = sweep.compare(audit=False, view=Silent())
    assert compared.report.is_file()
    assert compared.scores["served"]["AUROC", "cnn3"] == pytest.approx(result.test["value"]["auroc"])
    assert f"{result.test['value']['auroc']:.3f} (" in compared._repr_html_()
    assert max(len(repr(one)) for one in (predicted, evaluated, compared)) < 500
    assert sweep.replay(result.run_id, view=Silent()).equal
    mended = sweep.doctor(view=Silent())
    assert (mended.studies, mended.mended, mended.missing) == ((result.study,), (), ())


def test_wrong_input_is_one_exception_with_every_fault(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sweep.InputError) as raised:
        sweep.search("cnn1", trials=0, fix={"lr": 1}, metric="auroc", view=Silent())
    assert len(raised.value.faults) == 3
    with pytest.raises(sweep.InputError, match=r"--budget 3 days: write a time"):
        sweep.search("cnn1", budget="3 days", view=Silent())
    with pytest.raises(sweep.InputError, match="--prevalence 2"):
        sweep.compare(prevalence=2.0, view=Silent())
    with pytest.raises(TypeError, match="learning_rates"):
        sweep.search("cnn1", view=Silent(), learning_rates=3)  # type: ignore[call-arg]
    assert list(tmp_path.iterdir()) == []


def test_a_search_takes_every_option_of_the_command():
    assert set(SearchOptions.__annotations__) | NAMED == {
        NAMES.get(field.name, field.name) for field in fields(Settings)
    }


def test_every_public_name_is_there_and_documented():
    for name in sweep.__all__:
        found = getattr(sweep, name)
        assert inspect.getdoc(found), name
        if inspect.isfunction(found):
            parameters = inspect.signature(found).parameters
            assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters.values()), name
            documented = inspect.getdoc(found).partition("Args:")[2]
            assert all(f"{parameter}:" in documented for parameter in parameters), name
    assert set(sweep.__all__) <= set(dir(sweep))
    with pytest.raises(AttributeError, match="module 'sweep' has no attribute 'serach'"):
        sweep.serach  # noqa: B018


def test_pages_and_examples_import_public_names_alone():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.py")]
    for page in pages:
        text = page.read_text()
        for code in re.findall(r"```python\n(.*?)```", text, re.S) if page.suffix == ".md" else [text]:
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom):
                    assert not (node.module or "").startswith("sweep."), f"{page}: {node.module}"
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sweep":
                    assert node.attr in sweep.__all__, f"{page}: sweep.{node.attr}"


def test_packages_that_hide_ours_are_named_at_the_first_import(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", "import sweep"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"ImportError: sweep's own package `models` in {ROOT} is hidden by {tmp_path}/models/__init__.py"
    )
    typed = subprocess.run(
        [sys.executable, "-m", "sweep", "--version"],
        cwd=ROOT.parent,
        env={**environment, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert (typed.returncode, typed.stdout) == (2, "")
    assert typed.stderr.startswith(f"error: sweep's own package `models` in {ROOT} is hidden by {tmp_path}/models/")
