"""What the terminal shows while studies run, and after several: at 80 columns, with and without colors."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from sweep.cli.sweep_view import best_alias, sweep_view
from sweep.cli.views import next_commands
from sweep.metrics.assessment import Assessment
from sweep.metrics.bootstrap import Interval
from sweep.orchestrator.conclude import Outcome
from sweep.orchestrator.progress import Progress, RunningTrial
from sweep.orchestrator.trial_table import trial_table
from sweep.plan import Plan
from sweep.settings import Settings
from sweep.space import study_space
from sweep.stores.registry import Version
from sweep.stores.trials import AskedTrial, TrialCounts, TrialRecord
from sweep.terminal import Terminal, live_view

PARAMS = {
    "activation": "sigmoid",
    "optimizer": "adagrad",
    "learning_rate": 0.000123456,
    "batch_size": 128,
    "dropout": 0.0123456,
    "schedule": "constant",
}
RECORD = TrialRecord(3, "COMPLETE", PARAMS, 0.91234, {}, 0.0, 1.0, {"result": {"best_epoch": 21, "history": []}})


def lines_of(renderable: Any, width: int = 80, **options: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False, **options)
    console.print(renderable)
    return [line.rstrip() for line in cast(io.StringIO, console.file).getvalue().splitlines()]


# While a study runs ---------------------------------------------------------------------------------------------------


def running(number: int, epochs: int) -> RunningTrial:
    asked = AskedTrial(number, PARAMS, number, None, 0, None, None, None, None)
    row = {"val/auroc": 0.7654321, "images_per_second": 12345.6}
    history = [{"epoch": float(epoch), **row} for epoch in range(1, epochs + 1)]
    return RunningTrial(asked, cast(Any, None), Path(), time.monotonic(), history)


def progress(**changes: Any) -> Progress:
    """12 of 30 trials have ended, 5 of them pruned, two are in training for 6 and 9 of 30 epochs."""
    shown = Progress(
        study="cnn1",
        wanted=30,
        done=12,
        counts=TrialCounts(complete=7, pruned=5, best=RECORD),
        running=(running(12, 6), running(13, 9)),
        metric="val/auroc",
        epochs=30,
        seconds_left=754.0,
        budget_left=None,
        table=trial_table(
            "val/auroc", study_space("cnn1", ["activation=sigmoid"], ["schedule=constant,cosine"]), "cnn1-000"
        ),
        studies=[(30, 12)],
    )
    return replace(shown, **changes)


def test_a_running_study_shows_its_bar_its_trials_and_what_all_share():
    lines = lines_of(live_view(progress(), 80))

    assert lines[0] == "study cnn1: 12/30 trials (5 pruned), about 13 min left"
    assert lines[1].split()[:2] == ["this", "study"]
    assert lines[1].split()[-2:] == ["42%", "12/30"]  # 12 trials and 0.2 + 0.3 of one
    assert [line.split()[:4] for line in lines[2:6]] == [
        ["trial", "epoch", "auroc", "img/s"],
        ["12", "6/30", "0.7654", "12,346"],
        ["13", "9/30", "0.7654", "12,346"],
        ["best", "3", "21", "0.9123"],
    ]
    assert lines[6:] == ["all trials: activation sigmoid"]
    assert max(map(len, lines)) <= 80


def test_several_studies_have_a_second_bar_for_all_of_their_trials():
    lines = lines_of(live_view(progress(studies=[(30, 30), (30, 12), (30, 4), (30, 0)]), 80))

    assert lines[1].split()[-2:] == ["42%", "12/30"]
    assert lines[2].split()[:3] == ["all", "4", "studies"]
    assert lines[2].split()[-2:] == ["39%", "46/120"]  # the third one is resumed
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("changes", "headline"),
    [
        ({"seconds_left": 1.0}, "study cnn1: 12/30 trials (5 pruned), about 1 s left"),
        ({"seconds_left": None}, "study cnn1: 12/30 trials (5 pruned)"),
        ({"budget_left": 300.0}, "study cnn1: 12/30 trials (5 pruned), 5 min of the budget left"),
        ({"budget_left": 3000.0}, "study cnn1: 12/30 trials (5 pruned), about 13 min left"),
        ({"budget_left": 0.0}, "study cnn1: 12/30 trials (5 pruned), the budget is used up"),
        ({"done": 30, "seconds_left": 0.0}, "study cnn1: 30/30 trials (5 pruned); finishing"),
    ],
)
def test_the_headline_says_when_it_ends_and_never_0_s(changes, headline):
    assert lines_of(live_view(progress(**changes), 80))[0] == headline


def test_a_bar_is_full_at_the_end_and_a_narrow_terminal_has_one_too():
    full = progress(done=30, running=(), studies=[(30, 30)])
    assert lines_of(live_view(full, 80))[1].split()[-2:] == ["100%", "30/30"]
    assert max(map(len, lines_of(live_view(full, 50), 50)[:2])) <= 50


def test_extra_hyperparameters_do_not_break_the_lines_of_running_trials():
    search = ["augmentation=own,position", "normalisation=fixed,histogram", "averaging=none,ema", "pooling=own,average"]
    table = trial_table("val/balanced_accuracy", study_space("cnn1", (), search), "cnn1-000")
    lines = lines_of(live_view(progress(table=table), 80))

    assert len(lines) == 7  # headline, bar, heading, two trials, the best one, and what has no column
    assert max(map(len, lines)) <= 80


def test_without_a_terminal_there_are_plain_lines_alone(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal(json=False)
    with terminal.live():
        terminal.update(progress())
        terminal.say(progress().table.header())
    out = capsys.readouterr().out
    assert out == f"{progress().table.header()}\n"


# After several studies ------------------------------------------------------------------------------------------------


def assessment(accuracy: float, own: float | None = None) -> Assessment:
    """Of a model with this accuracy at 0.5, and another at its own threshold where it has one."""

    def scores(accuracy: float) -> dict[str, Interval]:
        names = ("accuracy", "auroc", "recall", "specificity")
        return {name: Interval(accuracy, accuracy - 0.03, accuracy + 0.03) for name in names}

    tuned = None if own is None else scores(own)
    return Assessment(400, 150, 1.0, 0.5 if own is None else 0.3, scores(accuracy), tuned, {}, "PNEUMONIA", {})


def outcome(arch: str, version: int, value: float, accuracy: float, own: float | None = None) -> Outcome:
    test = assessment(accuracy, own)
    record = replace(RECORD, value=value)
    return Outcome(
        arch, f"chest-xray/{arch}", {}, record, "run", "parent", test, test, None, "chest-xray", str(version), {}
    )


def holder(version: int, arch: str) -> Version:
    return Version("chest-xray", str(version), "run", "model", {"sweep.arch": arch})


FOUR = [
    outcome("cnn1", 1, 0.952, 0.745),
    outcome("cnn2", 12, 0.981, 0.628, own=0.795),
    outcome("cnn3", 3, 0.971, 0.761),
    outcome("resnet50", 104, 0.912, 0.655),
]


def test_several_architectures_end_with_one_table_as_they_are_served():
    lines = lines_of(sweep_view(FOUR, "val/auroc", holder(12, "cnn2")))

    assert lines[1] == "4 architectures on 400 test images of chest-xray, as they are served:"
    assert lines[2:4] == [
        "               val.",
        "model          auroc   accuracy (95 %)      AUROC (95 %)         sens.  spec.",
    ]
    assert [line.split()[0] for line in lines[5:9]] == ["cnn2", "cnn3", "cnn1", "resnet50"]  # by validation
    assert lines[5].split() == [
        "cnn2",
        "v12",
        "*",
        "0.9810",
        "0.795",
        "(0.765-0.825)",
        "0.795",
        "(0.765-0.825)",
        "0.795",
        "0.795",
    ]
    assert lines[9] == "accuracy at a threshold of 0.5, which is not used: cnn2 0.628"
    assert lines[10] == "* @champion: chest-xray version 12 (cnn2)"
    assert max(map(len, lines)) <= 80


def test_the_best_by_a_loss_is_the_lowest():
    lines = lines_of(sweep_view(FOUR, "val/loss", None))

    assert [line.split()[0] for line in lines[5:9]] == ["resnet50", "cnn1", "cnn3", "cnn2"]
    assert lines[10] == "@champion: no version holds it; the lines of each study above say why"


def test_a_champion_of_another_study_is_named_as_such():
    lines = lines_of(sweep_view(FOUR, "val/auroc", holder(2, "cnn3")))

    assert lines[10] == "@champion: chest-xray version 2 (cnn3), of another study"
    assert not any("*" in line for line in lines)


def test_colors_are_for_terminals():
    assert "\x1b[1m" in lines_of(sweep_view(FOUR, "val/auroc", None), force_terminal=True)[1]
    assert "\x1b" not in "".join(lines_of(sweep_view(FOUR, "val/auroc", None)))


@pytest.mark.parametrize(
    ("outcomes", "metric", "champion", "alias"),
    [
        (FOUR[3:], "val/auroc", None, "resnet50"),
        (FOUR, "val/auroc", holder(3, "cnn3"), "champion"),
        (FOUR, "val/auroc", None, "cnn2"),
        (FOUR, "val/loss", None, "resnet50"),
    ],
)
def test_what_is_served_is_the_champion_or_the_best_by_validation(outcomes, metric, champion, alias):
    assert best_alias(outcomes, metric, champion) == alias


def commands_of(outcomes: list[Outcome], champion: Version | None, **settings: Any) -> list[str]:
    plan = cast(Plan, type("Planned", (), {"settings": Settings(archs=("cnn1",), **settings)}))
    lines = lines_of(next_commands(outcomes, plan, "1", champion), 1000)
    return [line.strip() for line in lines if line.startswith("  ") and not line.startswith("   ")]


def test_the_next_commands_after_several_architectures():
    assert commands_of(FOUR, holder(12, "cnn2")) == [
        "mlflow ui",
        "mlflow models serve -m models:/chest-xray@champion --env-manager local -p 5001",
        "sweep compare chest-xray",
        "optuna-dashboard sqlite:///optuna.db",
    ]


def test_the_next_commands_after_one_architecture_are_those_of_before():
    assert commands_of(FOUR[:1], None) == [
        "mlflow ui",
        "mlflow models serve -m models:/chest-xray@cnn1 --env-manager local -p 5001",
        "optuna-dashboard sqlite:///optuna.db",
    ]


def test_the_comparison_is_told_about_stores_that_were_given(monkeypatch):
    stores = {"tracking_uri": "http://127.0.0.1:5000", "storage": "postgresql://ann@db/sweep"}
    command = commands_of(FOUR, None, **stores)[2]
    assert command == (
        "sweep compare chest-xray --tracking-uri http://127.0.0.1:5000 --storage postgresql://ann@db/sweep"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stores["tracking_uri"])
    assert commands_of(FOUR, None, **stores)[2] == "sweep compare chest-xray --storage postgresql://ann@db/sweep"
