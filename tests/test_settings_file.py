"""A search in a file: read with lines, written so that it reads again, and what goes before what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.faults import InputError
from sweep.settings import Settings, check
from sweep.settings_file import read_settings, write_settings
from tests.helpers.studies import STUDY, client_of, sweep, tiny


@pytest.mark.parametrize(
    "settings",
    [
        Settings(archs=("cnn1",)),
        Settings(archs=("cnn1",), metrics=("val/mcc", "cost/parameters", "val/ece")),
        Settings(
            archs=("cnn1", "cnn2"),
            data=Path("a folder"),
            trials=3,
            fix=("activation=relu", "cnn2/activation=gelu", "weight_decay=own"),
            search=("batch_size=32,64", "learning_rate=0.00012345678..0.1:log", "augmentation=own,none"),
            budget=90.0,
            study=None,
            allow_leakage=True,
            gpus_per_trial=0.5,
            engine="ray",
            work_dir=Path("/shared"),
        ),
        Settings(archs=("resnet50",), space="finetune", weights="none", study="2024", patient_pattern=r"p\d+: #x"),
    ],
)
def test_what_is_written_reads_again(settings: Settings, tmp_path: Path):
    path = tmp_path / "sweep.yaml"
    path.write_text(write_settings(settings))
    read = Settings(**read_settings(path).values)
    assert read.spaces == settings.spaces
    names = vars(settings).keys() - {"fix", "search", "spaces"}
    assert {name: getattr(read, name) for name in names} == {name: getattr(settings, name) for name in names}


def test_a_store_with_a_password_is_not_written():
    text = write_settings(
        Settings(archs=("cnn1",), storage="postgresql://ann:hunter2@db/sweep", tracking_uri="sqlite:///m.db")
    )
    assert "hunter2" not in text
    assert "tracking_uri: sqlite:///m.db" in text


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("arch: cnn1\ntrails: 3\n", ["line 2: there is no option 'trails'; did you mean trials?"]),
        ("epochs: many\nseed: 1.5\nallow-leakage: maybe\n", [
            "line 1: epochs: 'many' is not a whole number", "line 2: seed: '1.5' is not a whole number",
            "line 3: allow_leakage: 'maybe' is not true or false",
        ]),
        ("trials: 3\n\ntrials: 4\n", ["line 3: trials is given twice, first in line 1"]),
        ("fix: activation=relu\n", ["line 1: fix: write hyperparameters below it, such as `learning_rate: 1e-4..1e-2:log`"]),
        ("search:\n  batch_size: {a: 1}\n", ["line 1: search: batch_size is neither a value nor a list of values"]),
        ("budget: 3 days\n", ["line 1: --budget 3 days: write a time such as 45m, 2h or 1h30m"]),
        ("trials:\n", ["line 1: trials: give a value"]),
        ("- a\n- b\n", ["write one option a line, such as `trials: 30`"]),
        ("a: [1,\n", ["is no YAML"]),
        ("a: !!python/object/apply:os.system ['true']\n", ["line 1: there is no option 'a'"]),
    ],
)  # fmt: skip
def test_every_fault_is_named_with_its_line(text: str, faults: list[str], tmp_path: Path):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        read_settings(path)
    assert len(raised.value.faults) == len(faults)
    for said, fault in zip(raised.value.faults, faults, strict=True):
        assert said.startswith(str(path))
        assert fault in said


def test_faults_of_values_are_named_with_their_line_too_unless_they_were_typed(tmp_path: Path, typed):
    (tmp_path / "s.yaml").write_text(
        "arch: cnn1\ntrials: 0\nepochs: 0\nsearch:\n  lr: 1..2\n  cnn9/dropout: [0, 0.1]\nfix:\n  optimizer: adm\n"
    )
    code, _, err = typed(tmp_path, "search", "s.yaml", "--epochs", -1)
    assert code == 2
    said = err.splitlines()
    assert "error: s.yaml, line 2: trials 0: give 1 or more" in said
    assert "error: --epochs -1: give 1 or more" in said
    for start in ("line 5: search lr=1..2: there is no", "line 6: search cnn9/dropout=0,0.1: this", "line 8: fix opti"):
        assert any(line.startswith(f"error: s.yaml, {start}") for line in said), start
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.yaml"]


def test_typed_goes_before_the_file_and_the_file_before_the_environment(tmp_path: Path, typed, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of-the-environment")
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///environment.db")
    (tmp_path / "s.yaml").write_text("arch: cnn3\ntrials: 2\nexperiment: of-the-file\nepochs: 5\nimage-size: 32\n")
    code, _, err = typed(tmp_path, "search", "s.yaml", "--trials", 3, "--dry-run", "--save-config", "whole.yaml")
    assert code == 0, err
    held = read_settings(tmp_path / "whole.yaml").values
    assert (held["trials"], held["epochs"], held["experiment"]) == (3, 5, "of-the-file")
    assert held["storage"] == "sqlite:///environment.db"
    check(Settings(**held))


def test_the_run_of_a_study_keeps_the_file_that_searches_it_again(pictures: Path, tmp_path: Path):
    done = sweep(tmp_path, *tiny(pictures, 1, "--fix", "optimizer=adam"), blank_figures=True)
    assert done.returncode == 0, done.stderr
    client = client_of(tmp_path)
    (run,) = client.search_runs(["1"], "tags.`sweep.kind` = 'study'")
    file = client.download_artifacts(run.info.run_id, "sweep.yaml", str(tmp_path))
    again = sweep(tmp_path, "search", file, "--json")
    assert again.returncode == 0, again.stderr
    assert "nothing is left to train" in again.stderr
    assert json.loads(again.stdout)["studies"][0]["study"] == STUDY
