"""The section of the comparison report about heat maps: sentences, a table and charts, for the page and Markdown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from sweep.comparisons.architectures.analysis import ComparedModel, Comparison
from sweep.comparisons.architectures.chart_style import NEUTRAL, make_square, new_figure, rounded_all
from sweep.metrics import markdown
from sweep.metrics.bootstrap import Interval
from sweep.metrics.figures import RED
from sweep.metrics.formatting import SCORE_IN_PRINT, SPACE, Style, format_interval
from sweep.metrics.heat import HeatCheck

COLUMNS = ("heat in the area", "area of the film", "rank correlation", "films")
PERCENT = Style(".1f", f"{{value}}{SPACE}% ({{low}}\u2013{{high}})", f"{{value}}{SPACE}% (too few to tell)", 100)
NONE = "\u2013"
CORRELATION = replace(SCORE_IN_PRINT, known="{value} ({low} to {high})", minus="\u2212")  # its ends may be negative
HALF = 0.5  # a rank correlation above it: the map stays much the same
HOW_TO_READ = (
    "Heat that is spread evenly over the film has as large a share in the area as the area has of the film: only a "
    "larger share says that a network looks there more than elsewhere. The rank correlation compares each map with "
    "that of the same network whose last layer has random weights, five times (Adebayo et al. 2018). Near 0 the map "
    "depends on what the last layer has learned. Near 1 it shows the same whatever that is, as a detector of edges "
    "would, and explains nothing. It comes near 0 easily where that layer has a weight for each place (cnn1 and cnn2 "
    "with flattened maps), since random ones scatter the heat. Neither figure says that the network is right."
)


def checked(comparison: Comparison) -> list[tuple[ComparedModel, HeatCheck]]:
    """The models whose heat maps were checked; none where the test images were not there."""
    return [(model, model.heat) for model in comparison.models if model.heat is not None]


def area(comparison: Comparison) -> str:
    """What the area is."""
    return f"The area is {checked(comparison)[0][1].area}."


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per model."""
    return [
        {
            "arch": model.arch,
            "cells": {
                COLUMNS[0]: _shown(heat, heat.inside, PERCENT),
                COLUMNS[1]: f"{100 * heat.area_share:.1f}{SPACE}%",
                COLUMNS[2]: _shown(heat, heat.correlation, CORRELATION),
                COLUMNS[3]: f"{heat.images}" + (f" ({heat.empty} without heat)" if heat.empty else ""),
            },
        }
        for model, heat in checked(comparison)
    ]


def _shown(heat: HeatCheck, interval: Interval, style: Style) -> str:
    return NONE if heat.empty == heat.images else format_interval(interval, style)


def sentences(comparison: Comparison) -> list[str]:
    """What the figures come to, one sentence for all models of which it holds."""
    archs: dict[str, list[str]] = {}
    for model, heat in checked(comparison):
        archs.setdefault(meaning(heat), []).append(model.arch)
    return [f"{', '.join(names)}: {meant}" for meant, names in archs.items()]


def meaning(heat: HeatCheck) -> str:
    """What the two figures of a model come to, as far as their intervals tell."""
    if heat.empty == heat.images:
        return "no film has any heat"
    inside = {
        heat.inside.low > heat.area_share: "more of the heat lies in the area than if it were spread evenly",
        heat.inside.high < heat.area_share: "less of the heat lies in the area than if it were spread evenly",
    }.get(True, "the heat lies in the area no more surely than if it were spread evenly")
    change = {
        heat.correlation.high < HALF: "the maps depend on what the last layer has learned",
        heat.correlation.low > HALF: "the maps stay much the same with a random last layer and explain little",
    }.get(True, "how much the maps depend on the last layer is not clear")
    return f"{inside}; {change}"


def to_markdown(comparison: Comparison) -> list[str]:
    """The section in Markdown; nothing where no maps were checked."""
    if not checked(comparison):
        return []
    return [
        "## Heat maps",
        markdown.table(("architecture", *COLUMNS), [(row["arch"], *row["cells"].values()) for row in rows(comparison)]),
        "\n".join(f"- {sentence}." for sentence in sentences(comparison)),
        f"{area(comparison)} {HOW_TO_READ}",
    ]


def to_dict(comparison: Comparison) -> list[dict[str, Any]]:
    """The figures as plain data, one row per model."""
    return [
        {
            "arch": model.arch,
            "images": heat.images,
            "empty": heat.empty,
            "area": heat.area,
            "area_share": heat.area_share,
            "inside": vars(heat.inside),
            "rank_correlation": vars(heat.correlation),
        }
        for model, heat in checked(comparison)
    ]


def metrics(comparison: Comparison) -> dict[str, float]:
    """The figures as metrics of the comparison's run, without those that no film has."""
    return {
        f"{model.arch}/{name}": interval.value
        for model, heat in checked(comparison)
        if heat.empty < heat.images
        for name, interval in (("heat_inside", heat.inside), ("heat_rank_correlation", heat.correlation))
    }


def charts(comparison: Comparison) -> dict[str, go.Figure]:
    """The mean map of each model, by the chart's name on the page."""
    most = max((float(heat.mean_map.max()) for _, heat in checked(comparison)), default=1.0)
    return {f"heat-{model.arch}": mean_map(model.arch, heat, most) for model, heat in checked(comparison)}


def mean_map(arch: str, heat: HeatCheck, most: float) -> go.Figure:
    """Draws the mean of a model's heat maps; no film is in it.

    Args:
        arch: The architecture.
        heat: Its maps.
        most: Where the colours end, the same for all models of a page.
    """
    height, width = heat.mean_map.shape
    axis = {"visible": False, "range": [0, 1]}
    figure = new_figure(
        height=300,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        xaxis=axis,
        yaxis={**axis, "range": [1, 0]},
    )
    make_square(figure)
    red, green, blue = (int(RED[place : place + 2], 16) for place in (1, 3, 5))
    figure.add_trace(
        go.Heatmap(
            x=[(place + 0.5) / width for place in range(width)],
            y=[(place + 0.5) / height for place in range(height)],
            z=[rounded_all(row) for row in heat.mean_map],
            zmin=0,
            zmax=max(most, 1e-6),
            colorscale=[[0, f"rgba({red},{green},{blue},0.04)"], [1, f"rgba({red},{green},{blue},1)"]],
            colorbar={
                "thickness": 10,
                "len": 0.6,
                "y": 1,
                "yanchor": "top",
                "outlinewidth": 0,
                "ticksuffix": "\u00d7",
                "nticks": 5,
            },
            hovertemplate=f"%{{z:.1f}} times an even spread<extra>{arch}</extra>",
        )
    )
    top, bottom, left, right = heat.mean_box
    for x0, x1, y0, y1, dash in ((0, 1, 0, 1, "solid"), (left, right, top, bottom, "dash")):
        line = {"color": NEUTRAL, "width": 1.5, "dash": dash}
        figure.add_shape(type="rect", x0=x0, x1=x1, y0=y0, y1=y1, line=line)
    return figure
