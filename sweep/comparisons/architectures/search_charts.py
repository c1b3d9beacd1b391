"""Charts of a search: learning curves, its trials, importance of hyperparameters, selection bias."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from sweep.comparisons.architectures.analysis import ComparedModel
from sweep.comparisons.architectures.chart_style import (
    NAMED_AXIS,
    NEUTRAL,
    STEPS,
    arch_marker,
    color,
    diagonal_line,
    finite,
    finite_ones,
    make_square,
    new_figure,
    ring_marks,
    tick_values,
)
from sweep.comparisons.architectures.searches import ScoredTrial
from sweep.metrics.formatting import (
    SPACE,
    format_metric,
    format_seconds,
)
from sweep.metrics.names import LABELS

STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
FEWEST_FOR_IMPORTANCE = 3  # trials; of two any difference explains all


def learning_curves(model: ComparedModel, part: Literal["loss", "scores"]) -> go.Figure:
    """Draws the loss, or accuracy and AUROC, across epochs (report figures 5, 7, 9, 10 and 12).

    Args:
        model: Its best epoch is marked.
        part: Which of the two.
    """
    shade, stressed = color(model.arch), any("val/stressed_loss" in row for row in model.history)
    lines = {
        "loss": (
            ("train/loss", "training", NEUTRAL, "dot"),
            ("val/loss", "validation", shade, "solid"),
            *([("val/stressed_loss", "validation, stressed", shade, "dash")] if stressed else []),
        ),
        "scores": (
            ("train/accuracy", "training accuracy", NEUTRAL, "dot"),
            ("val/accuracy", "validation accuracy", shade, "solid"),
            ("val/auroc", "validation AUROC", shade, "dash"),
        ),
    }[part]
    epochs = [int(row["epoch"]) for row in model.history]
    figure = new_figure(
        height=300,
        hovermode="x unified",
        xaxis={"title": {"text": "epoch"}, "dtick": max(1, len(epochs) // 8)},
        yaxis={"title": {"text": "weighted cross entropy" if part == "loss" else "score"}},
    )
    values = [[finite(row.get(key)) for row in model.history] for key, *_ in lines]
    for (_, name, line, dash), ys in zip(lines, values, strict=True):
        figure.add_trace(
            go.Scatter(
                x=epochs,
                y=ys,
                mode="lines+markers",
                line={"color": line, "width": 2, "dash": dash},
                marker={"size": 5},
                name=name,
                hovertemplate="%{y:.3f}",
            )
        )
    losses = finite_ones([value for ys in values for value in ys])
    # A first epoch that blew up would press the others flat.
    if part == "loss" and losses and max(losses) > 30 * min(losses) > 0:
        ticks = tick_values(STEPS, min(losses), max(losses))
        figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    if model.epoch:
        figure.add_vline(x=model.epoch, line={"color": NEUTRAL, "width": 1.5, "dash": "dash"})
        figure.add_annotation(
            x=model.epoch,
            y=1,
            yref="paper",
            yanchor="bottom",
            text=f"kept: epoch {model.epoch}",
            showarrow=False,
            font={"size": 11},
        )
        # The legend stands above that.
        figure.update_layout(legend={"y": 1.1})
    return figure


def search_history(model: ComparedModel) -> go.Figure | None:
    """Draws the value of each trial of the search, and the best so far; None where the search is not known."""
    search = model.search
    if search is None or not search.trials:
        return None
    metric = format_metric(search.metric)
    # Whole numbers, however few trials there are.
    step = max(1, len(search.trials) // 6)
    figure = new_figure(
        height=320,
        # Room for values that differ in their fourth digit alone.
        margin={"l": 78, "r": 24, "t": 16, "b": 48},
        xaxis={"title": {"text": "trial"}, "dtick": step},
        yaxis={"title": {"text": metric}, "nticks": 6},
    )
    finished = [trial for trial in search.trials if trial.state == "COMPLETE" and finite(trial.value) is not None]
    if finished:
        best = np.maximum if search.maximize else np.minimum
        steps = best.accumulate([float(trial.value or 0) for trial in finished]).tolist()
        # The line of the best goes on to the last trial, also where that failed.
        last = max(trial.number for trial in search.trials)
        figure.add_trace(
            go.Scatter(
                x=[*(trial.number for trial in finished), last],
                y=[*steps, steps[-1]],
                mode="lines",
                line={"color": color(model.arch), "width": 2, "shape": "hv"},
                name="best so far",
                hovertemplate="best so far %{y:.3f}<extra></extra>",
            )
        )
    values = finite_ones([trial.value for trial in search.trials])
    floor = (min if search.maximize else max)(values, default=0.0)
    looks = {
        "COMPLETE": {"symbol": "circle", "color": color(model.arch), "size": 8},
        "PRUNED": {"symbol": "x-thin", "color": NEUTRAL, "size": 8, "line": {"color": NEUTRAL, "width": 2}},
        "FAIL": {"symbol": "triangle-down-open", "color": NEUTRAL, "size": 10},
    }
    for state, look in looks.items():
        some = [trial for trial in search.trials if trial.state == state]
        if some:
            # Trials without a value are drawn at the bottom, so that none is missing.
            values = [finite(trial.value) for trial in some]
            figure.add_trace(
                go.Scatter(
                    x=[trial.number for trial in some],
                    y=[floor if value is None else value for value in values],
                    mode="markers",
                    marker=look,
                    name=STATES[state],
                    customdata=[_hover_text(trial, metric) for trial in some],
                    hovertemplate="%{customdata}<extra></extra>",
                )
            )
    figure.add_trace(
        ring_marks(
            [
                (trial.number, trial.value, _hover_text(trial, metric))
                for trial in search.trials
                if trial.name == model.run and trial.value is not None
            ]
        )
    )
    return figure


def importance(model: ComparedModel) -> go.Figure | None:
    """Draws how much of the search's variance each hyperparameter explains.

    Returns:
        The chart; None where that is not known, and where so few trials finished that an estimate says nothing.
    """
    search = model.search
    if search is None or not search.importances:
        return None
    if sum(trial.state == "COMPLETE" for trial in search.trials) < FEWEST_FOR_IMPORTANCE:
        return None
    importances = sorted(search.importances.items(), key=lambda pair: pair[1])
    shares = [float(share) for _, share in importances]
    figure = new_figure(
        height=60 + 34 * len(importances) + 40,
        xaxis={
            "title": {"text": "share of the variance"},
            "tickformat": ".0%",
            "range": [0, 1.25 * max(shares) or 1],
            "nticks": 4,  # more would not fit beside each other on paper
        },
        yaxis=NAMED_AXIS,
    )
    figure.add_trace(
        go.Bar(
            x=shares,
            y=[escape(name.replace("_", " ")) for name, _ in importances],
            orientation="h",
            marker={"color": color(model.arch)},
            width=0.6,
            text=[f"{100 * share:.0f}{SPACE}%" for share in shares],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{y}} explains %{{x:.0%}}<extra>{model.arch}</extra>",
        )
    )
    return figure


def selection(models: Sequence[ComparedModel], score: str) -> go.Figure:
    """Draws each trial's score on test against that on validation, which chose.

    Args:
        models: Their chosen trials are ringed; of others only those whose test scores are known.
        score: `accuracy` or `auroc`.
    """
    figure, points, rings = new_figure(height=400), [], []
    for model in models:
        trials = [trial for trial in _tested(model, score) if trial.name != model.run]
        shown = [(trial.validation[score], (trial.test or {})[score], trial.name) for trial in trials]
        # The chosen trial comes from the model, which is there without a search, too.
        if score in model.validation:
            rings.append((model.validation[score], model.assessment.scores[score].value, f"{model.run}, chosen"))
            shown.append(rings[-1])
        points += finite_ones([value for x, y, _ in shown for value in (x, y)])
        figure.add_trace(
            go.Scatter(
                x=[finite(x) for x, *_ in shown],
                y=[finite(y) for _, y, _ in shown],
                mode="markers",
                marker=arch_marker(model.arch, 9),
                customdata=[name for *_, name in shown],
                name=model.arch,
                hovertemplate="%{customdata}<br>validation %{x:.3f}, test %{y:.3f}<extra></extra>",
            )
        )
    low, high = (min(points), max(points)) if points else (0.0, 1.0)
    pad = 0.06 * (high - low) or 0.05
    ends = [low - pad, min(high + pad, 1.02)]
    label = LABELS[score]
    figure.add_trace(diagonal_line(*ends))
    figure.add_trace(ring_marks(rings))
    figure.update_xaxes(title={"text": f"{label} on validation"}, range=ends, nticks=6)
    figure.update_yaxes(title={"text": f"{label} on test"}, range=ends, nticks=6)
    make_square(figure)
    return figure


def _tested(model: ComparedModel, score: str) -> list[ScoredTrial]:
    """Trials whose score is known on validation and on test."""
    trials = model.search.trials if model.search else ()
    return [trial for trial in trials if trial.test and score in trial.test and score in trial.validation]


def _hover_text(trial: ScoredTrial, metric: str) -> str:
    """The text of a trial under the cursor."""
    value = finite(trial.value)
    worth = f"{metric} {value:.3f}" if value is not None else "no score"
    params = [
        f"{escape(name.replace('_', ' '))} {escape(f'{v:.3g}' if isinstance(v, float) else str(v))}"
        for name, v in trial.params.items()
    ]
    lines = [", ".join(params[place : place + 2]) for place in range(0, len(params), 2)]
    state = STATES.get(trial.state, trial.state.lower())
    return "<br>".join([f"<b>{escape(trial.name)}</b>, {state} after {format_seconds(trial.seconds)}", worth, *lines])
