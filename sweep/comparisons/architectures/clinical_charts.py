"""Decision curves for the comparison report: net benefit by threshold probability (Vickers and Elkin 2006)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from sweep.comparisons.architectures.analysis import ComparedModel
from sweep.comparisons.architectures.chart_style import (
    NEUTRAL,
    NOTHING,
    arch_marker,
    color,
    new_figure,
    rounded,
    rounded_all,
    share_axis,
)
from sweep.metrics.bootstrap import Interval
from sweep.metrics.formatting import SCORE_IN_PRINT, format_interval
from sweep.metrics.net_benefit import THRESHOLDS, DecisionCurve, decision_curve

BELOW = 0.2  # how far the axis reaches below 0, as a share of what it reaches above


def decision_charts(models: Sequence[ComparedModel]) -> dict[str, go.Figure]:
    """Draws the decision curves of all models, and that of each with its interval; none for more than two classes.

    Args:
        models: Scored on the same images; each is drawn as it is served.

    Returns:
        Figures by name: `decision`, and `decision-ARCH` of each model.
    """
    if len(models[0].predictions.classes) != 2:
        return {}
    curves = {model.arch: _curve(model) for model in models}
    tops = [float(max(curve.net_benefit.max(), np.nanmax(curve.high, initial=0))) for curve in curves.values()]
    top = 1.06 * max(*tops, float(curves[models[0].arch].treat_all.max()))
    every = _figure(440, top)
    for model in models:
        every.add_traces(_lines(model, curves[model.arch]))
    # Last, so that they can be seen on a model that is no better.
    every.add_traces(_references(curves[models[0].arch], top))
    figures = {"decision": every}
    for model in models:
        figure = _figure(280, top)
        figure.update_layout(showlegend=False, xaxis={"dtick": 0.5})
        if not np.isnan(curves[model.arch].low).any():
            figure.add_trace(_band(model, curves[model.arch]))
        figure.add_traces([*_lines(model, curves[model.arch]), *_references(curves[model.arch], top)])
        figures[f"decision-{model.arch}"] = figure
    return figures


def _curve(model: ComparedModel) -> DecisionCurve:
    predictions, assessment = model.predictions, model.assessment
    own = [threshold for threshold in (assessment.threshold,) if threshold is not None and 0 < threshold < 1]
    positive = predictions.probabilities(assessment.temperature)[:, 1]
    return decision_curve(predictions.labels, positive, predictions.patients, np.union1d(THRESHOLDS, own))


def _figure(height: int, top: float) -> go.Figure:
    return new_figure(
        height=height,
        xaxis=share_axis("threshold probability"),
        yaxis={"title": {"text": "net benefit"}, "range": [-BELOW * top, top]},
    )


def _references(curve: DecisionCurve, top: float) -> list[go.Scatter]:
    """The lines of acting on all images and on none."""
    shown = curve.treat_all > -2 * BELOW * top  # where it leaves the chart it is drawn no further
    return [
        go.Scatter(
            x=rounded_all(x),
            y=rounded_all(y),
            mode="lines",
            line={"color": NEUTRAL, "width": 1.5, "dash": dash},
            name=name,
            hovertemplate=f"{name}: %{{y:.3f}} at a threshold probability of %{{x:.0%}}<extra></extra>",
        )
        for name, x, y, dash in (
            ("treat all", curve.thresholds[shown], curve.treat_all[shown], "dash"),
            ("treat none", np.array([0.0, 1.0]), np.zeros(2), "dot"),
        )
    ]


def _lines(model: ComparedModel, curve: DecisionCurve) -> list[go.Scatter]:
    """A model's curve, and the marker of its own threshold."""
    texts = [
        format_interval(Interval(*ends), SCORE_IN_PRINT)
        for ends in zip(curve.net_benefit, curve.low, curve.high, strict=True)
    ]
    hover = "net benefit %{customdata}<br>at a threshold probability of %{x:.1%}"
    line = go.Scatter(
        x=rounded_all(curve.thresholds),
        y=rounded_all(curve.net_benefit),
        mode="lines",
        line={"color": color(model.arch), "width": 2},
        name=model.arch,
        legendgroup=model.arch,
        customdata=texts,
        hovertemplate=f"{hover}<extra>{model.arch}</extra>",
    )
    own = np.flatnonzero(curve.thresholds == model.assessment.threshold).tolist()
    marks = go.Scatter(
        x=[rounded(curve.thresholds[place]) for place in own],
        y=[rounded(curve.net_benefit[place]) for place in own],
        mode="markers",
        marker=arch_marker(model.arch, 11, ring=True),
        legendgroup=model.arch,
        showlegend=False,
        customdata=[texts[place] for place in own],
        hovertemplate=f"{hover}, the model's own<extra>{model.arch}</extra>",
    )
    return [line, marks]


def _band(model: ComparedModel, curve: DecisionCurve) -> go.Scatter:
    """The interval around a model's curve."""
    red, green, blue = (int(color(model.arch)[place : place + 2], 16) for place in (1, 3, 5))
    ends: Mapping[str, np.ndarray] = {
        "x": np.concatenate([curve.thresholds, curve.thresholds[::-1]]),
        "y": np.concatenate([curve.high, curve.low[::-1]]),
    }
    return go.Scatter(
        x=rounded_all(ends["x"]),
        y=rounded_all(ends["y"]),
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.22)",
        line={"color": NOTHING, "width": 0},
        mode="lines",
        hoverinfo="skip",
    )
