"""The one look that all charts share: an architecture has one colour and one symbol everywhere.

Titles are left to the page, and so are the colours of text and grid, which change with its theme; what is coloured here
shows on white and on near-black alike.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from models import ARCHITECTURES
from sweep.metrics.bootstrap import Interval
from sweep.metrics.figures import BLUE, GREEN, RED

# Those of Okabe and Ito's palette that stand out from white and from near-black at least 3 to 1; then four others.
COLORS = (BLUE, RED, GREEN, "#CC79A7", "#6b7280", "#7B61FF", "#A6761D", "#00828F")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "cross", "pentagon")
NEUTRAL = "#7f7f7f"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
NOTHING = "rgba(0,0,0,0)"
# Margins grow for names alone. Where they grow for numbers they may never settle: fewer pixels have fewer numbers,
# which leave more pixels.
NAMED_AXIS: dict[str, Any] = {"showgrid": False, "automargin": True}
TIMES = [
    *(number * unit for unit in (1, 60, 3600) for number in (1, 2, 5, 10, 20, 30)),
    *(86400 * number for number in (1, 2, 5, 10, 20, 50)),
]
STEPS = [number * 10.0**power for power in range(-6, 13) for number in (1, 2, 5)]


def color(arch: str) -> str:
    """The colour of an architecture."""
    return COLORS[_place(arch) % len(COLORS)]


def symbol(arch: str) -> str:
    """The marker of an architecture, for those who cannot tell its colour."""
    return SYMBOLS[_place(arch) % len(SYMBOLS)]


def tick_values(steps: Sequence[float], low: float, high: float, most: int = 6) -> list[float]:
    """At most so many of the steps between two ends; the ends themselves where no step is."""
    within = [step for step in steps if low <= step <= high]
    return within[:: -(-len(within) // most)] if within else sorted({low, high})


def _place(arch: str) -> int:
    """Where an architecture stands in the table of all, so that its colour does not depend on the other models."""
    names = list(ARCHITECTURES)
    if arch in names:
        return names.index(arch)
    return len(names) + zlib.crc32(arch.encode()) % (len(COLORS) - len(names))


def new_figure(height: int, **layout: Any) -> go.Figure:
    """A figure in the one look that all charts share; its width is the page's."""
    axis = {"fixedrange": True, "zeroline": False, "title": {"standoff": 8, "font": {"size": 13}}}
    axes = {name: _merged(axis, layout.pop(name, {})) for name in ("xaxis", "yaxis")}
    legend = {
        "orientation": "h",
        "x": 0,
        "font": {"size": 12},
        "y": 1.02,
        "yanchor": "bottom",
        **layout.pop("legend", {}),
    }
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 62, "r": 24, "t": 16, "b": 48},
            "paper_bgcolor": NOTHING,
            "plot_bgcolor": NOTHING,
            # A finger that scrolls the page over a chart does not zoom it.
            "dragmode": False,
            "hovermode": "closest",
            "font": {"family": FONT, "size": 13},
            "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
            "legend": legend,
            **axes,
            **layout,
        }
    )


def make_square(figure: go.Figure) -> None:
    """Makes a chart as high as wide, right below its legend."""
    figure.update_xaxes(constrain="domain")
    figure.update_yaxes(scaleanchor="x", constrain="domain", constraintoward="top")


def _merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    title = {**base.get("title", {}), **more.get("title", {})}
    return {**base, **more, "title": title}


def share_axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis from 0 to 1 that leaves room for markers at its ends."""
    return {"title": {"text": title}, "range": [-0.03, 1.03], "dtick": 0.2, "tickformat": ".0%", **more}


def arch_marker(arch: str, size: int, *, ring: bool = False) -> dict[str, Any]:
    """The marker of an architecture, of some pixels across."""
    line = {"color": NEUTRAL, "width": 2} if ring else {"width": 0}
    return {"symbol": symbol(arch), "color": color(arch), "size": size, "line": line}


def ring_marks(points: Sequence[tuple[float, float, str]]) -> go.Scatter:
    """Rings around what was chosen."""
    return go.Scatter(
        x=[x for x, *_ in points],
        y=[y for _, y, _ in points],
        mode="markers",
        marker={"symbol": "circle-open", "size": 18, "color": NEUTRAL, "line": {"width": 2}},
        name="chosen",
        customdata=[text for *_, text in points],
        # Rings lie above the points, and may not take their hover texts from them.
        hoverinfo="skip",
    )


def diagonal_line(low: float, high: float) -> go.Scatter:
    """A dotted line on which both coordinates are alike."""
    return go.Scatter(
        x=[low, high],
        y=[low, high],
        mode="lines",
        line={"color": NEUTRAL, "width": 1, "dash": "dot"},
        showlegend=False,
        hoverinfo="skip",
    )


def error_bars(interval: Interval) -> dict[str, Any]:
    """Error bars to the ends of an interval; none where it is not known."""
    if np.isnan(interval.low) or np.isnan(interval.high):
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [interval.high - interval.value],
        "arrayminus": [interval.value - interval.low],
        "thickness": 2,
        "width": 6,
    }


def finite(value: float | None) -> float | None:
    """A number that JSON can hold; None for what is none."""
    return float(value) if value is not None and np.isfinite(value) else None


def finite_ones(values: Sequence[float | None]) -> list[float]:
    """Those that are numbers."""
    return [value for value in map(finite, values) if value is not None]


def rounded(value: float) -> float:
    """To four digits, which no screen tells from more."""
    return round(float(value), 4)


def rounded_all(values: np.ndarray) -> list[float]:
    """Numbers as a reader of the page's source would like them."""
    return [rounded(value) for value in values]
