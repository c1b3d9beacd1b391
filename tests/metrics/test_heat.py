import numpy as np
import pytest
from scipy.stats import spearmanr

from sweep.metrics.heat import heat_check, mean_interval, rank_correlations, shares_inside


def test_the_share_inside_counts_places_on_the_border_in_part():
    heats = np.zeros((3, 4, 4))
    heats[0, 1, 1] = heats[1, 3, 0] = 2
    heats[2] = 1
    boxes = np.array([[0.25, 0.5, 0.25, 0.375], [0, 0.5, 0, 1], [0.1, 0.7, 0.2, 0.9]])

    np.testing.assert_allclose(shares_inside(heats, boxes), [0.5, 0, 0.6 * 0.7])


def test_rank_correlations_are_scipys_with_ties():
    random = np.random.default_rng(0)
    first, second = np.maximum(random.normal(size=(2, 5, 8, 8)), 0).round(1)

    expected = [spearmanr(ours.ravel(), theirs.ravel()).statistic for ours, theirs in zip(first, second, strict=True)]

    np.testing.assert_allclose(rank_correlations(first, second), expected)
    np.testing.assert_allclose(rank_correlations(first, 3 * first + 1), 1)
    assert rank_correlations(first, np.ones_like(first)).tolist() == [0] * 5


def test_a_mean_has_an_interval_by_patients():
    values, patients = np.arange(40) / 40, [f"person{image // 2}" for image in range(40)]

    interval = mean_interval(values, patients)

    assert interval.value == pytest.approx(values.mean())
    spread = values.reshape(20, 2).mean(axis=1).std() / np.sqrt(20)
    assert (interval.high - interval.low) == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert np.isnan(mean_interval(values[:6], patients[:6]).low)
    assert np.isnan(mean_interval(values[:0], []).value)


def test_a_check_leaves_out_maps_without_heat():
    heats = np.random.default_rng(0).uniform(0.1, 1, (3, 30, 6, 6))
    heats[0, 7] = 0
    boxes = np.tile([0.0, 0.5, 0.0, 1.0], (30, 1))

    check = heat_check(heats, boxes, [str(image) for image in range(30)], "the upper half")

    assert (check.images, check.empty, check.area) == (30, 1, "the upper half")
    assert check.area_share == 0.5
    assert check.inside.low < 0.5 < check.inside.high
    assert check.correlation.low < 0 < check.correlation.high
    assert check.mean_map.mean() == pytest.approx(1)
    assert check.mean_box == (0, 0.5, 0, 1)


def test_maps_that_a_random_last_layer_leaves_alone_have_correlation_one():
    own = np.random.default_rng(0).uniform(0, 1, (1, 30, 6, 6))
    boxes = np.tile([0.0, 0.5, 0.0, 1.0], (30, 1))

    check = heat_check(np.concatenate([own, own, own]), boxes, [str(image) for image in range(30)], "")

    assert check.correlation.low == pytest.approx(1)


def test_a_model_without_any_heat_has_no_figures():
    check = heat_check(np.zeros((2, 12, 4, 4)), np.tile([0.0, 1.0, 0.0, 1.0], (12, 1)), ["a"] * 12, "all")

    assert check.empty == check.images == 12
    assert np.isnan(check.inside.value)
    assert check.mean_map.tolist() == np.zeros((4, 4)).tolist()
