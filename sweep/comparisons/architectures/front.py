"""The Pareto front of a search by several metrics: its chart, and its table for the page and for Markdown."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from sweep.comparisons.architectures.analysis import ComparedModel, Comparison
from sweep.comparisons.architectures.chart_style import NEUTRAL, color, new_figure, ring_marks
from sweep.metrics import markdown
from sweep.metrics.formatting import format_metric
from sweep.metrics.pareto import Point

CAPTION = (
    "The trials of the search that no other one beats in all metrics; the ring marks the chosen one, and what lies in "
    "the band is within one standard error of the best."
)


def chart(model: ComparedModel) -> go.Figure | None:
    """Draws the first metric against the second; None where the search was by one metric, or is not known."""
    choice = model.search.choice if model.search else None
    if choice is None or model.search is None:
        return None
    first, second = choice.metrics[:2]
    figure = new_figure(
        height=320,
        margin={"l": 78, "r": 24, "t": 16, "b": 48},
        xaxis={"title": {"text": format_metric(second)}, "nticks": 5},
        yaxis={"title": {"text": format_metric(first)}, "nticks": 6},
    )
    top, error = choice.best.values[0], choice.best.error
    figure.add_hrect(y0=top - error, y1=top + error, fillcolor=NEUTRAL, opacity=0.15, line_width=0)
    front = {point.number for point in choice.front}
    others = [point for point in choice.points if point.number not in front]
    parts = {"other trials": (others, NEUTRAL), "Pareto front": (choice.front, color(model.arch))}
    for name, (points, shade) in parts.items():
        figure.add_trace(
            go.Scatter(
                x=[point.values[1] for point in points],
                y=[point.values[0] for point in points],
                mode="markers",
                marker={"color": shade, "size": 8},
                name=name,
                customdata=[_text(point, choice.metrics) for point in points],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    chosen = choice.chosen
    figure.add_trace(ring_marks([(chosen.values[1], chosen.values[0], _text(chosen, choice.metrics))]))
    return figure


def tables(comparison: Comparison) -> list[dict[str, Any]]:
    """Of each search by several metrics: `arch`, the `sentence` of the choice, `heads`, and `rows` of texts."""
    choices = {model.arch: model.search.choice for model in comparison.models if model.search and model.search.choice}
    return [
        {
            "arch": arch,
            "sentence": f"{choice.sentence[0].upper()}{choice.sentence[1:]}.",
            "heads": ("trial", *map(format_metric, choice.metrics)),
            "rows": [
                (f"{point.number}{' (chosen)' if point == choice.chosen else ''}", *map(_number, point.values))
                for point in choice.front
            ],
        }
        for arch, choice in choices.items()
    ]


def to_markdown(comparison: Comparison) -> list[str]:
    """The same as parts of a page in Markdown; none where no search was by several metrics."""
    found = tables(comparison)
    parts = [
        part
        for one in found
        for part in (f"{one['arch']}: {one['sentence']}", markdown.table(one["heads"], one["rows"]))
    ]
    return ["## Pareto fronts", *parts] if found else []


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _text(point: Point, metrics: tuple[str, ...]) -> str:
    """The text of a trial under the cursor."""
    named = zip(metrics, point.values, strict=True)
    return "<br>".join(
        [f"<b>trial {point.number}</b>", *(f"{format_metric(name)} {_number(value)}" for name, value in named)]
    )
