"""Two checks of heat maps: whether the heat lies where the lungs are, and whether it depends on what was learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from sweep.metrics.bootstrap import CONFIDENCE, FEWEST_PATIENTS, Interval, draws

Box = tuple[float, float, float, float]  # top, bottom, left, right, as shares of a film's height and width


@dataclass(frozen=True)
class HeatCheck:
    """What the heat maps of a model are like, over some test images.

    Attributes:
        images: How many images.
        empty: How many of them have no heat anywhere, and are left out of what follows.
        area: What the area is, as a phrase.
        area_share: Mean share of the film that the area takes, 0 to 1; heat that is spread evenly has as much in it.
        inside: Mean share of the heat in the area, 0 to 1.
        correlation: Mean rank correlation of a map with that of the same network with other weights in its last
            layer, -1 to 1.
        mean_map: float [h, w], the mean of the maps, each scaled to a mean of 1.
        mean_box: The mean of the areas.
    """

    images: int
    empty: int
    area: str
    area_share: float
    inside: Interval
    correlation: Interval
    mean_map: np.ndarray
    mean_box: Box


def heat_check(heats: np.ndarray, boxes: np.ndarray, patients: Sequence[str], area: str) -> HeatCheck:
    """Checks heat maps of one model.

    Args:
        heats: float [1 + R, N, h, w], 0 or more: of the model, and of R networks with other weights in the last layer.
        boxes: float [N, 4], an area of each film; see Box.
        patients: Whose the N films are; those of one patient are drawn together for the intervals.
        area: What the areas are, as a phrase.
    """
    own, others = heats[0].astype(float), heats[1:]
    warm = own.max(axis=(1, 2)) > 0
    whose = [patient for patient, kept in zip(patients, warm, strict=True) if kept]
    correlations = np.mean([rank_correlations(own[warm], other[warm]) for other in others], axis=0)
    scaled = own[warm] / np.maximum(own[warm].mean(axis=(1, 2), keepdims=True), 1e-12)
    sides = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    top, bottom, left, right = boxes.mean(axis=0).tolist()
    return HeatCheck(
        images=len(own),
        empty=int((~warm).sum()),
        area=area,
        area_share=float((sides[0] * sides[1]).mean()),
        inside=mean_interval(shares_inside(own[warm], boxes[warm]), whose),
        correlation=mean_interval(correlations, whose),
        mean_map=scaled.mean(axis=0) if warm.any() else np.zeros(own.shape[1:]),
        mean_box=(top, bottom, left, right),
    )


def shares_inside(heats: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The share of each map's heat that lies in an area; a place on the border counts as far as it is inside.

    Args:
        heats: float [N, h, w], 0 or more, none of them 0 everywhere.
        boxes: float [N, 4]; see Box.

    Returns:
        float [N], 0 to 1.

    >>> shares_inside(np.ones((1, 4, 4)), np.array([[0, 0.5, 0, 0.625]])).tolist()
    [0.3125]
    """
    down = _overlaps(boxes[:, 0], boxes[:, 1], heats.shape[1])
    across = _overlaps(boxes[:, 2], boxes[:, 3], heats.shape[2])
    return np.einsum("nhw,nh,nw->n", heats, down, across) / heats.sum(axis=(1, 2))


def _overlaps(starts: np.ndarray, ends: np.ndarray, places: int) -> np.ndarray:
    """How much of each place along a side lies between two ends, [N, places], 0 to 1."""
    edges = np.arange(places + 1) / places
    low, high = np.maximum(edges[:-1], starts[:, None]), np.minimum(edges[1:], ends[:, None])
    return np.clip(high - low, 0, None) * places


def rank_correlations(heats: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of maps, pair by pair; equal values share their mean rank.

    Args:
        heats: float [N, h, w].
        others: Likewise.

    Returns:
        float [N], -1 to 1; 0 where a map has the same value everywhere, whose ranks say nothing.

    >>> rank_correlations(np.array([[[0, 1], [2, 3]]]), np.array([[[0, 10], [20, 99]]])).round(9).tolist()
    [1.0]
    """
    places = heats.shape[1] * heats.shape[2]
    ranks = [rankdata(maps.reshape(len(maps), places), axis=1) for maps in (heats, others)]
    first, second = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    spread = np.sqrt(np.square(first).sum(axis=1) * np.square(second).sum(axis=1))
    return np.where(spread > 0, (first * second).sum(axis=1) / np.where(spread > 0, spread, 1), 0.0)


def mean_interval(values: np.ndarray, patients: Sequence[str], seed: int = 0) -> Interval:
    """A mean over images with its percentile bootstrap interval, by whole patients; NaN ends where those are few."""
    if len(values) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    if len(set(patients)) < FEWEST_PATIENTS:
        return Interval(float(values.mean()), float("nan"), float("nan"))
    means = np.concatenate([weights @ values / weights.sum(axis=1) for weights in draws(patients, seed)])
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(values.mean()), float(low), float(high))
