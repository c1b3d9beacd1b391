"""Configurations that a search begins with: where they are read from, what is refused, and how a study takes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.faults import InputError
from sweep.orchestrator.starting_points import plan_with_starts
from sweep.plan import DEFAULT_START, Plan, make_plan
from sweep.settings import Settings
from sweep.space import SPACES, Choice, Range, default_configuration, faults_of, study_space
from sweep.stores.trials import StartingPoint
from tests.stores.conftest import opening

RATE = {"learning_rate": 0.01, "optimizer": "sgd"}


@pytest.fixture
def planned(tmp_path: Path, pictures: Path):
    """A plan of a small search with `--enqueue`."""

    def plan(*enqueue: str, **others) -> Plan:
        settings = Settings(
            archs=("cnn3",), data=pictures, image_size=24, trials=9, search=("batch_size=8,16",), enqueue=enqueue
        )
        return plan_with_starts(make_plan(Settings(**{**vars(settings), **others}), fetch=False), tmp_path)

    return plan


def starts_of(plan: Plan) -> dict[str, dict]:
    return {start.source: dict(start.params) for start in plan.studies[0].starts}


def test_the_default_configuration_is_in_every_space():
    for space in (*SPACES.values(), *(study_space("resnet50", (), (), name) for name in ("scratch", "finetune"))):
        assert faults_of(default_configuration("resnet50", space), space) == []
    assert default_configuration("cnn1", SPACES["cnn1"])["learning_rate"] == 1e-3
    assert default_configuration("resnet50", SPACES["resnet50"], pretrained=True)["learning_rate"] == 3e-4
    assert default_configuration("cnn1", SPACES["cnn1"], pretrained=True)["learning_rate"] == 1e-3  # has no weights
    narrow = {"batch_size": Choice((8, 48)), "dropout": Range(0.3, 0.6), "weight_decay": Range(1e-3, 0.1)}
    assert default_configuration("cnn1", narrow) == {"batch_size": 48, "dropout": 0.3, "weight_decay": 1e-3}


def test_configurations_come_from_files_from_json_and_after_the_default_one(planned, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("best.json").write_text(json.dumps(RATE))
    Path("some.json").write_text(json.dumps([{"dropout": 0}, {"batch_size": 8.0}]))
    Path("t.csv").write_text("trial,state,params_learning_rate,dropout\nx,COMPLETE,0.002,\ny,PRUNED,1e-4,0.5\n")
    plan = planned("best.json", "some.json", "t.csv", '{"activation": "gelu"}')
    starts = starts_of(plan)
    default = starts.pop(DEFAULT_START)
    assert default == default_configuration("cnn3", plan.studies[0].space)
    assert starts == {
        "best.json": RATE,
        "some.json, entry 1": {"dropout": 0.0},
        "some.json, entry 2": {"batch_size": 8},
        "t.csv, line 2": {"learning_rate": 0.002},
        "t.csv, line 3": {"learning_rate": 1e-4, "dropout": 0.5},
        "given": {"activation": "gelu"},
    }
    assert "--enqueue t.csv: columns that are no hyperparameters: trial, state" in plan.source.notes


def test_everything_that_is_wrong_is_said_at_once(planned, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.json").write_text('{"learning_rat": 0.1, "dropout": 7}')
    Path("b.json").write_text("[1, 2]")
    Path("c.csv").write_text("trial,value\n1,2\n")
    Path("d.csv").write_bytes(b"\xff\xfe")
    Path("e.json").write_text('{"batch_size": 64, "learning_rate": 0.5}')
    Path("f.json").write_text("{")
    with pytest.raises(InputError) as caught:
        planned("a.json", "b.json", "c.csv", "d.csv", "e.json", "f.json", "gone.csv", "cnn1")
    said = "\n".join(caught.value.faults)
    for part in (
        "--enqueue a.json: learning_rat: there is no such hyperparameter",
        "did you mean learning_rate?",
        "--enqueue a.json: dropout: 7 is not from 0 to below 1",
        '--enqueue b.json: write hyperparameters such as {"learning_rate": 0.001}, or a list',
        "--enqueue c.csv: no column is a hyperparameter",
        "--enqueue d.csv: cannot be read (it is no text in UTF-8)",
        "--enqueue e.json: study cnn3 cannot have batch_size '64', which is not one of 8, 16; learning_rate '0.5', ",
        "--enqueue f.json: is no JSON",
        "--enqueue gone.csv: cannot be read (No such file or directory)",
        "--enqueue cnn1: is no .json and no .csv file, and no study is stored here",
    ):
        assert part in said, said
    assert not list(tmp_path.glob("*.db"))


def test_a_study_has_room_for_what_it_begins_with(planned):
    with pytest.raises(InputError, match="--trials 1: cnn3 begins with 2 configurations, the default one among them"):
        planned('{"dropout": 0.1}', trials=1)
    with pytest.raises(InputError, match="--enqueue: --sampler brute tries every configuration anyway"):
        planned('{"dropout": 0.1}', sampler="brute")


def test_a_study_takes_each_once_and_draws_what_is_missing(storage: str):
    study = opening(storage)()
    starts = [StartingPoint(DEFAULT_START, {"dropout": 0.25}), StartingPoint("best.json", RATE)]
    study.begin_with(starts)
    first = study.ask()
    assert (first.start, first.params["dropout"]) == (DEFAULT_START, 0.25)
    assert study.retry(first.number, failures=1)
    study.fail(first.number)
    study.begin_with([*starts, StartingPoint("best.json", {"dropout": 0.5})])  # a file that was changed
    asked = [study.ask() for _ in range(4)]
    assert [one.start for one in asked] == ["best.json", DEFAULT_START, "best.json", None]
    assert asked[0].params.items() >= RATE.items()
    assert asked[1].params == first.params
    assert asked[2].params["dropout"] == 0.5


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'optuna.db'}"
    return request.getfixturevalue("postgres").database()
