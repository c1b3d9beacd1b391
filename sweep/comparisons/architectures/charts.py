"""Charts of a comparison for a page that people can point at: figures of plotly, one function per chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from sklearn import metrics

from sweep.comparisons.architectures.analysis import ComparedModel, errors_by_group
from sweep.comparisons.architectures.chart_style import (
    NAMED_AXIS,
    NEUTRAL,
    STEPS,
    TIMES,
    arch_marker,
    color,
    diagonal_line,
    error_bars,
    make_square,
    new_figure,
    rounded,
    rounded_all,
    share_axis,
    symbol,
    tick_values,
)
from sweep.metrics.calibration import reliability
from sweep.metrics.figures import ORANGE, PALETTE
from sweep.metrics.formatting import (
    SCORE_IN_PRINT,
    SPACE,
    format_count,
    format_interval,
    format_seconds,
)
from sweep.metrics.names import LABELS

# Classes are no architectures and share no colour with them; a line around each bar does what contrast does not.
CLASS_COLORS = (PALETTE[5], ORANGE, "#F0E442", "#bdbdbd")


def roc(models: Sequence[ComparedModel]) -> go.Figure:
    """Draws the ROC curve of each model; with more than two classes the mean of one class against the rest.

    Args:
        models: Scored on the same images. With two classes the thresholds that they are served with are marked, and
            0.5, smaller, where that is another.
    """
    classes = [escape(name) for name in models[0].predictions.classes]
    two = len(classes) == 2
    figure = new_figure(
        height=440,
        xaxis=share_axis("1 \u2212 specificity" if two else "false positive rate"),
        yaxis=share_axis("sensitivity" if two else "true positive rate"),
    )
    make_square(figure)
    figure.add_trace(diagonal_line(0, 1))
    hover = (
        "sensitivity %{y:.1%}<br>1 \u2212 specificity %{x:.1%}"
        if two
        else "true positive rate %{y:.1%}<br>false positive rate %{x:.1%}"
    )
    for model in models:
        false, true = _roc_of(model)
        area = model.assessment.scores["auroc"].value
        figure.add_trace(
            go.Scatter(
                x=rounded_all(false),
                y=rounded_all(true),
                mode="lines",
                line={"color": color(model.arch), "width": 2},
                name=f"{model.arch}, AUROC {area:.3f}",
                legendgroup=model.arch,
                hovertemplate=f"{hover}<extra>{model.arch}</extra>",
            )
        )
    for model in models if two else ():
        figure.add_trace(_operating_point(model, model.threshold, hover, arch_marker(model.arch, 11, ring=True)))
        if model.own_threshold:
            small = {**arch_marker(model.arch, 7), "symbol": f"{symbol(model.arch)}-open"}
            figure.add_trace(_operating_point(model, 0.5, hover, small))
    return figure


def _operating_point(model: ComparedModel, threshold: float, hover: str, marker: dict[str, Any]) -> go.Scatter:
    """A mark on the ROC curve: what the model does at a threshold."""
    predicted, labels = model.predicted(threshold), model.predictions.labels
    return go.Scatter(
        x=[rounded(predicted[labels == 0].mean())],
        y=[rounded(predicted[labels == 1].mean())],
        mode="markers",
        marker=marker,
        legendgroup=model.arch,
        showlegend=False,
        hovertemplate=f"at a threshold of {threshold:.3g}<br>{hover}<extra>{model.arch}</extra>",
    )


def calibration(models: Sequence[ComparedModel]) -> go.Figure:
    """Draws observed frequency against predicted probability, as served; larger markers stand for more images."""
    predictions = models[0].predictions
    two = len(predictions.classes) == 2
    figure = new_figure(
        height=440,
        xaxis=share_axis(
            f"predicted probability of {escape(predictions.classes[1])}" if two else "largest predicted probability"
        ),
        yaxis=share_axis("observed frequency"),
    )
    make_square(figure)
    figure.add_trace(diagonal_line(0, 1))
    for model in models:
        bins = reliability(model.predictions.labels, model.probabilities)
        figure.add_trace(
            go.Scatter(
                x=rounded_all(bins.predicted),
                y=rounded_all(bins.observed),
                mode="lines+markers",
                line={"color": color(model.arch), "width": 1},
                marker={
                    "symbol": symbol(model.arch),
                    "size": rounded_all(5 + 18 * np.sqrt(bins.images / bins.images.sum())),
                    "line": {"width": 0},
                },
                cliponaxis=False,
                customdata=bins.images.tolist(),
                name=f"{model.arch}, ECE {model.assessment.scores['ece'].value:.3f}",
                hovertemplate="%{customdata:,} images<br>mean predicted probability %{x:.1%}"
                f"<br>observed frequency %{{y:.1%}}<extra>{model.arch}</extra>",
            )
        )
    return figure


def confusion(model: ComparedModel, threshold: float | None = None) -> go.Figure:
    """Draws counts, and percentages of each true class, as the model is served or at another threshold."""
    predictions = model.predictions
    classes = [escape(name) for name in predictions.classes]
    predicted = model.predicted(threshold)
    counts = metrics.confusion_matrix(predictions.labels, predicted, labels=range(len(classes)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = new_figure(
        height=max(280, 56 * len(classes) + 100),
        margin={"l": 12, "r": 8, "t": 8, "b": 12},
        xaxis={"title": {"text": "predicted class"}, "showgrid": False, "ticks": "", "automargin": True},
        yaxis={
            "title": {"text": "true class"},
            **NAMED_AXIS,
            "ticks": "",
            "autorange": "reversed",
            "tickangle": -90 if len(classes) == 2 else 0,
        },
    )
    red, green, blue = (int(color(model.arch)[place : place + 2], 16) for place in (1, 3, 5))
    figure.add_trace(
        go.Heatmap(
            x=classes,
            y=classes,
            z=[rounded_all(row) for row in shares],
            zmin=0,
            zmax=1,
            # Never full, so that the page's own ink can be read on every cell in both themes.
            colorscale=[[0, f"rgba({red},{green},{blue},0.04)"], [1, f"rgba({red},{green},{blue},0.5)"]],
            showscale=False,
            xgap=3,
            ygap=3,
            customdata=counts.tolist(),
            hovertemplate="%{customdata:,} images of %{y} predicted %{x}"
            f"<br>%{{z:.1%}} of %{{y}}<extra>{model.arch}</extra>",
        )
    )
    few = len(classes) <= 4
    for (row, column), count in np.ndenumerate(counts):
        share = f"{100 * shares[row, column]:.1f}{SPACE}%"
        figure.add_annotation(
            x=classes[column],
            y=classes[row],
            text=f"<b>{count:,}</b><br>{share}" if few else f"{count:,}",
            showarrow=False,
            font={"size": 14 if few else 10},
        )
    return figure


def cost(models: Sequence[ComparedModel], over: Literal["train_seconds", "flops", "parameters"]) -> go.Figure:
    """Draws test accuracy, with its interval, against what a network costs.

    Args:
        models: One point each.
        over: The cost, on a logarithmic axis.
    """
    label, write, steps = {
        "train_seconds": ("training time", format_seconds, TIMES),
        "flops": ("floating point operations an image", format_count, STEPS),
        "parameters": ("parameters", format_count, STEPS),
    }[over]
    amounts = [max(float(getattr(model.cost, over)), 1e-3) for model in models]
    ends = [min(amounts) / 2, max(amounts) * 2]
    ticks = tick_values(steps, *ends, most=4)  # more would not stand upright beside each other on a phone
    figure = new_figure(
        height=360,
        xaxis={
            "title": {"text": label},
            "type": "log",
            "range": np.log10(ends).tolist(),
            "tickvals": ticks,
            "ticktext": [write(tick) for tick in ticks],
        },
        yaxis={"title": {"text": "test accuracy"}},
    )
    for model, amount in zip(models, amounts, strict=True):
        accuracy = model.assessment.served["accuracy"]
        figure.add_trace(
            go.Scatter(
                x=[amount],
                y=[accuracy.value],
                mode="markers",
                marker=arch_marker(model.arch, 11),
                error_y=error_bars(accuracy),
                name=model.arch,
                hovertemplate=f"accuracy {format_interval(accuracy, SCORE_IN_PRINT)}<br>{write(amount)} ({label})"
                f"<extra>{model.arch}</extra>",
            )
        )
    return figure


def errors(models: Sequence[ComparedModel]) -> go.Figure:
    """Draws how many images of each group each model has wrong as it is served; in brackets at 0.5 where it differs."""
    table, at_half = errors_by_group(models), errors_by_group(models, 0.5)
    groups = [escape(str(name)) for name in table["group"]]
    totals = [int(count) for count in table["images"]]
    rates = {
        model.arch: [int(wrong) / total for wrong, total in zip(table[model.arch], totals, strict=True)]
        for model in models
    }
    # Room for the counts behind the longest bar, up to all of a group. Where there is none they are in the bar.
    end = min(1.0, 1.5 * max(map(max, rates.values())) or 1.0)
    figure = new_figure(
        height=110 + len(groups) * (26 * len(models) + 18),
        barmode="group",
        bargap=0.25,
        xaxis={
            "title": {"text": "share misclassified"},
            "tickformat": ".0%",
            "range": [0, end],
        },
        yaxis={**NAMED_AXIS, "autorange": "reversed"},
    )
    for model in models:
        wrong = [int(count) for count in table[model.arch]]
        figure.add_trace(
            go.Bar(
                x=rates[model.arch],
                # A long name in one line would leave a phone no room for bars.
                y=[name.replace(", ", ",<br>") for name in groups],
                orientation="h",
                marker={"color": color(model.arch)},
                name=model.arch,
                text=[
                    f"{count:,} of {total:,}{f' ({half:,})' if model.own_threshold else ''}"
                    for count, total, half in zip(wrong, totals, at_half[model.arch], strict=True)
                ],
                textposition=["inside" if rate > 0.75 * end else "outside" for rate in rates[model.arch]],
                insidetextanchor="end",
                textangle=0,
                cliponaxis=False,
                hovertemplate=f"%{{text}} wrong, %{{x:.1%}}<extra>{model.arch}</extra>",
            )
        )
    return figure


def class_distribution(counts: Mapping[str, Mapping[str, int]]) -> go.Figure | None:
    """Draws which share of each split each class is (report figure 2); None where the counts are not known."""
    if not any(sum(images.values()) for images in counts.values()):
        return None
    splits = {split: max(1, sum(images.values())) for split, images in counts.items()}
    figure = new_figure(
        height=110 + 46 * len(splits),
        barmode="stack",
        xaxis={"title": {"text": "share of the split's images"}, "tickformat": ".0%", "range": [0, 1]},
        yaxis={**NAMED_AXIS, "autorange": "reversed"},
        legend={"traceorder": "normal"},
    )
    for place, name in enumerate(dict.fromkeys(name for images in counts.values() for name in images)):
        images = [counts[split].get(name, 0) for split in splits]
        shares = [count / total for count, total in zip(images, splits.values(), strict=True)]
        figure.add_trace(
            go.Bar(
                x=shares,
                y=[escape(split) for split in splits],
                orientation="h",
                marker={
                    "color": CLASS_COLORS[place % len(CLASS_COLORS)],
                    "line": {"color": NEUTRAL, "width": 1},
                },
                width=0.62,
                name=escape(name),
                text=[f"{count:,} ({100 * share:.0f}{SPACE}%)" for count, share in zip(images, shares, strict=True)],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"color": "#111827"},
                hovertemplate=f"%{{y}}: %{{text}} of {escape(name)}<extra></extra>",
            )
        )
    return figure


def seeds(models: Sequence[ComparedModel], score: str) -> go.Figure | None:
    """Draws a test score of every seed with the mean of each architecture; None where there are no seeds."""
    seeded = [model for model in models if model.seeds.get(score)]
    if not seeded:
        return None
    figure = new_figure(
        height=110 + 52 * len(seeded),
        xaxis={"title": {"text": f"test {LABELS[score]}"}},
        yaxis={**NAMED_AXIS, "autorange": "reversed", "type": "category"},
        showlegend=False,
    )
    for model in seeded:
        values = [float(value) for value in model.seeds[score]]
        mean = float(np.mean(values))
        figure.add_trace(
            go.Scatter(
                x=[mean],
                y=[model.arch],
                mode="markers",
                marker={"symbol": "line-ns", "size": 26, "line": {"color": NEUTRAL, "width": 3}},
                hovertemplate=f"mean of {len(values)} seeds %{{x:.3f}}<extra>{model.arch}</extra>",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=values,
                y=[model.arch] * len(values),
                mode="markers",
                marker=arch_marker(model.arch, 10),
                customdata=list(range(1, len(values) + 1)),
                hovertemplate=f"seed %{{customdata}} of {len(values)}: %{{x:.3f}}<extra>{model.arch}</extra>",
            )
        )
    return figure


def _roc_of(model: ComparedModel) -> tuple[np.ndarray, np.ndarray]:
    labels, likely = model.predictions.labels, model.probabilities
    if likely.shape[1] == 2:
        false, true, _ = metrics.roc_curve(labels == 1, likely[:, 1])
        return false, true
    curves = [metrics.roc_curve(labels == label, likely[:, label])[:2] for label in range(likely.shape[1])]
    grid = np.linspace(0, 1, 201)
    mean = np.mean([np.interp(grid, false, true) for false, true in curves], axis=0)
    return np.concatenate([[0.0], grid]), np.concatenate([[0.0], mean])
