"""The table of finished trials: what has a column, and that no line is wider than 80 characters."""

from __future__ import annotations

import pytest

from sweep.orchestrator.trial_table import WIDTH, TrialTable, trial_table
from sweep.space import EXTRA, study_space

HISTORY = [{"images_per_second": 12_345.6}] * 30
SEARCHES = {
    "augmentation": "own,none,position,light,both,wide",
    "normalisation": "fixed,image,histogram",
    "pooling": "own,average",
    "label_smoothing": "0..0.2",
    "averaging": "none,ema",
    "schedule": "constant,cosine",
    "warmup_ratio": "own,0.1",
    "first_layer_rate": "0.01..1:log",
    "weight_decay": "0.001..0.1:log",
    "mix": "none,mixup,cutmix",
}
PARAMS = {
    "activation": "sigmoid",
    "optimizer": "adagrad",
    "learning_rate": 0.000123456,
    "batch_size": 128,
    "dropout": 0.0123456,
    "augmentation": "position",
    "normalisation": "histogram",
    "pooling": "average",
    "label_smoothing": 0.123456,
    "averaging": "none",
    "schedule": "constant",
    "warmup_ratio": "own",
    "first_layer_rate": 0.0123456,
    "weight_decay": 0.00123456,
    "mix": "cutmix",
}


def table_of(*search: str, fix: tuple[str, ...] = (), metric: str = "val/auroc", name: str = "cnn1-000") -> TrialTable:
    return trial_table(metric, study_space("cnn1", fix, search), name)


def test_what_varies_has_a_short_column_and_the_rest_stands_below():
    table = table_of("schedule=constant,cosine", fix=("activation=relu", "dropout=0.25"))

    assert table.header() == "trial    state    auroc  epoch img/s  optim   rate     batch sched"
    row = table.row("cnn1-007", "complete", 0.91234, HISTORY, PARAMS)
    assert row == "cnn1-007 complete 0.9123 30    12,346 adagrad 0.000123 128   const"
    assert table.beginning("cnn1-007", "failed") == "cnn1-007 failed"
    assert table.footer() == "all trials: activation relu, dropout 0.25"


def test_without_a_choice_every_hyperparameter_stands_on_one_line_below():
    fixed = ("activation=relu", "optimizer=adam", "learning_rate=0.001", "batch_size=32", "dropout=0.2")
    table = table_of(fix=fixed)

    assert table.header() == "trial    state    auroc  epoch img/s"
    assert table.footer() == "all trials: activ relu, optim adam, rate 0.001, batch 32, drop 0.2"


def test_the_five_of_every_study_have_a_column_and_nothing_stands_below():
    table = table_of()

    assert table.header().split() == [
        "trial",
        "state",
        "auroc",
        "epoch",
        "img/s",
        "activ",
        "optim",
        "rate",
        "batch",
        "drop",
    ]
    assert table.footer() == ""


@pytest.mark.parametrize("count", range(len(SEARCHES) + 1))
@pytest.mark.parametrize("name", ["cnn1-000", "resnet50-000", "a-long-name-that-somebody-gave-a-study-000"])
@pytest.mark.parametrize("metric", ["val/auroc", "val/balanced_accuracy", "val/stressed_auroc"])
def test_no_line_is_wider_than_a_terminal_and_nothing_is_left_out_in_silence(count, name, metric):
    searched = list(SEARCHES)[:count]
    table = table_of(*(f"{key}={SEARCHES[key]}" for key in searched), metric=metric, name=name)

    row = table.row(name.replace("000", "029"), "complete", 0.91234, HISTORY, PARAMS)
    assert len(table.header()) <= WIDTH
    assert len(row) <= WIDTH
    assert "029" in row
    assert len(row.split()) == len(table.columns)  # a value that is wider than its column would move the others
    assert len(table.beginning(name, "failed")) < WIDTH
    assert [*table.hyperparameters, *table.omitted] == [*PARAMS][: 5 + count]
    assert all(key in table.footer() for key in table.omitted)
    assert all(len(line) <= WIDTH for line in table.footer().splitlines())


def test_the_line_below_is_broken_where_it_is_longer_than_a_terminal():
    usual = {name: value for name, value in EXTRA.items() if name != "drop_path"}  # which cnn1 does not have
    table = table_of(fix=tuple(f"{name}={value}" for name, value in (PARAMS | usual).items()))

    lines = table.footer().splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= WIDTH


def test_a_linear_range_shows_the_digits_that_differ():
    table = table_of("learning_rate=1e-4..1e-2:linear")

    cells = dict(zip(table.headings(), table.cells({"learning_rate": 0.00123456, "dropout": 0.000123}), strict=True))
    assert (cells["rate"], cells["drop"], cells["batch"]) == ("0.00123", "0.000", "")
