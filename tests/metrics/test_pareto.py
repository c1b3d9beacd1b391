"""Several metrics: the Pareto front, and the one-standard-error rule on fronts that are counted by hand."""

import numpy as np
import pytest

from sweep.metrics.bootstrap import standard_error
from sweep.metrics.pareto import Point, choose
from sweep.metrics.predictions import Predictions

METRICS = ("val/auroc", "cost/parameters")


def chosen(points, metrics=METRICS):
    """The numbers of the front, of those within one standard error, and of the chosen trial."""
    choice = choose(metrics, [Point(number, values, error) for number, (*values, error) in enumerate(points)])
    numbers = [tuple(point.number for point in some) for some in (choice.front, choice.within)]
    return (*numbers, choice.chosen.number)


@pytest.mark.parametrize(
    ("points", "front", "within", "number"),
    [
        # The best one's own error counts, 0.02; the cheapest within it is chosen, not the cheapest of the front.
        ([(0.95, 900, 0.02), (0.94, 300, 0.5), (0.935, 200, 0.0), (0.8, 10, 0.5)], (0, 1, 2, 3), (0, 1, 2), 2),
        # Trial 1 is beaten: as good and dearer. Trial 3 is as cheap as 2, but worse.
        ([(0.9, 100, 0.0), (0.9, 200, 0.0), (0.8, 50, 0.0), (0.7, 50, 0.0)], (0, 2), (0,), 0),
        # All are equal: all are on the front, and the first is chosen.
        ([(0.9, 100, 0.01)] * 3, (0, 1, 2), (0, 1, 2), 0),
        # Of those with the best first metric the cheapest gives the standard error.
        ([(0.9, 100, 0.3), (0.9, 90, 0.0), (0.85, 10, 0.0)], (1, 2), (1,), 1),
        ([(0.9, 100, 0.0)], (0,), (0,), 0),
    ],
)
def test_the_cheapest_within_one_standard_error_of_the_best_is_chosen(points, front, within, number):
    assert chosen(points) == (front, within, number)


def test_less_is_better_of_a_loss_and_a_third_metric_decides_between_equals():
    points = [(0.30, 500, 9.0, 0.05), (0.33, 100, 8.0, 0.0), (0.34, 100, 3.0, 0.0), (0.9, 100, 1.0, 0.0)]
    metrics = ("val/loss", "cost/parameters", "cost/mflops")
    assert chosen(points, metrics) == ((0, 1, 2, 3), (0, 1, 2), 2)


def test_the_choice_is_on_the_front_and_depends_on_no_order():
    random = np.random.default_rng(0)
    for _ in range(50):
        values = random.integers(0, 4, (12, 3)) / 4
        points = [Point(number, tuple(row), 0.25) for number, row in enumerate(values.tolist())]
        metrics = ("val/auroc", "val/ece", "val/mcc")
        choice = choose(metrics, points)
        gains = values * [1, -1, 1]
        beaten = [(gains >= row).all(axis=1) & (gains > row).any(axis=1) for row in gains]
        assert {point.number for point in choice.front} == {row for row, by in enumerate(beaten) if not by.any()}
        assert choice.chosen in choice.front
        shuffled = [points[row] for row in random.permutation(12)]
        assert choose(metrics, shuffled) == choice


def test_the_sentence_says_which_why_and_among_how_many():
    points = [Point(0, (0.95, 900.0), 0.02), Point(1, (0.94, 300.0)), Point(2, (0.5, 400.0))]
    assert choose(METRICS, points).sentence == (
        "chosen among 2 of 3 trials, the Pareto front: trial 1, the best by cost/parameters of the 2 whose val/auroc is "
        "within one standard error (0.0200) of the best, 0.9500 of trial 0"
    )
    alone = choose(METRICS, [points[0], Point(2, (0.5, 400.0))])
    assert alone.sentence.endswith("trial 0, which has the best val/auroc, 0.9500; no other on it is within one "
                                   "standard error (0.0200)")  # fmt: skip
    assert alone.rows()[1] == {"trial": 2, "val/auroc": 0.5, "cost/parameters": 400.0}


@pytest.mark.parametrize("metric", ["val/accuracy", "val/loss", "val/specificity_at_95_sensitivity"])
def test_a_standard_error_is_that_of_patients_drawn_anew(metric):
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    logits = random.normal(size=(400, 2)).astype(np.float32) + np.eye(2, dtype=np.float32)[labels]
    names = [str(row) for row in range(400)]
    one = Predictions(names, names, labels, logits, ("NORMAL", "PNEUMONIA"))
    pairs = Predictions(names, [str(row // 2) for row in range(400)], labels, np.repeat(logits[::2], 2, 0), one.classes)

    error = standard_error(metric, one)

    if metric == "val/accuracy":  # as of a share
        accuracy = float((logits.argmax(1) == labels).mean())
        assert error == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / 400), rel=0.1)
    assert standard_error(metric, one) == error
    assert 1.15 * error < standard_error(metric, pairs) < 2.2 * error  # half as many patients, each twice
