"""What a search found, in figures: Optuna's plots, and how much each hyperparameter matters."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import matplotlib as mpl
import optuna
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from sweep.metrics.formatting import format_metric
from sweep.metrics.pareto import Choice
from sweep.stores.bounded_study import COMPLETE, ended_elsewhere


def importances(study: optuna.Study) -> dict[str, float]:
    """How much of the value's variance each hyperparameter explains; empty where too few trials differ in value."""
    study = _trained(study)
    if len(_values(study)) < 2:  # where all are equal no hyperparameter made a difference
        return {}
    target = _first if len(study.directions) > 1 else None
    with warnings.catch_warnings(record=True):  # Optuna calls its own default experimental
        shares = optuna.importance.get_param_importances(study, target=target)
    return {name: float(share) for name, share in shares.items()}


def figures(study: optuna.Study, metric: str, choice: Choice | None = None) -> dict[str, Figure]:
    """Draws Optuna's history, importance, parallel coordinate and timeline plots, those that the trials allow.

    Args:
        study: The study.
        metric: What the study's value is called; of several metrics the first.
        choice: How a trial is chosen by several; None with one.

    Returns:
        The figures by name: `history`, `timeline`, `importance`, `parallel_coordinate`, and with several metrics
        `pareto_front`; the others then show the first metric.
    """
    import optuna.visualization.matplotlib as plots

    mpl.use("agg")
    from matplotlib import pyplot

    study = _trained(study)
    values, wanted = _values(study), {}
    shown = {"target_name": metric, "target": _first if len(study.directions) > 1 else None}
    if values:
        wanted["history"] = partial(plots.plot_optimization_history, **shown)
        wanted["timeline"] = plots.plot_timeline
    if len(values) > 1:  # where all are equal no hyperparameter made a difference
        wanted["importance"] = partial(plots.plot_param_importances, **shown)
        wanted["parallel_coordinate"] = partial(plots.plot_parallel_coordinate, **shown)
    drawn: dict[str, Figure] = {}
    for name, plot in wanted.items():
        # Optuna calls its own plots experimental, and leaves their style to whatever is drawn next.
        with warnings.catch_warnings(record=True), mpl.rc_context():
            drawn[name] = plot(study).figure
        _restyle(drawn[name])
        pyplot.close(drawn[name])  # Optuna opens them in pyplot, which would keep them for ever
    if choice is not None:
        drawn["pareto_front"] = pareto_front(choice)
    return drawn


def pareto_front(choice: Choice) -> Figure:
    """Draws the first metric against each other one: all trials, the Pareto front, and the chosen trial.

    A band shows what lies within one standard error of the best by the first metric. With three metrics or more the
    front has trials that lie behind others in one of the panels.

    Args:
        choice: Which trial was chosen, among which.
    """
    first, *others = choice.metrics
    best, error = choice.best.values[0], choice.best.error
    figure = Figure(figsize=(1 + 6 * len(others), 5), layout="tight")
    for place, name in enumerate(others, start=1):
        axes = figure.add_subplot(1, len(others), place)
        front = sorted((point.values[place], point.values[0], point.number) for point in choice.front)
        axes.axhspan(best - error, best + error, color="#e5e7eb", label="within one standard error of the best")
        dots: dict[str, Any] = {"color": "#9ca3af", "label": "other trials"}
        points = choice.points
        axes.scatter([point.values[place] for point in points], [point.values[0] for point in points], **dots)
        style = "o-" if len(others) == 1 else "o"
        axes.plot([x for x, *_ in front], [y for _, y, _ in front], style, color="#2563eb", label="Pareto front")
        for x, y, number in front:
            axes.annotate(str(number), (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
        chosen = (choice.chosen.values[place], choice.chosen.values[0])
        ring: dict[str, Any] = {"s": 200, "facecolors": "none", "edgecolors": "#dc2626", "linewidths": 2}
        axes.scatter(*chosen, label=f"chosen: trial {choice.chosen.number}", **ring)
        axes.set(xlabel=format_metric(name), ylabel=format_metric(first))
        axes.grid(visible=True, color="#e5e7eb")
        axes.legend(fontsize=8)
    return figure


def _trained(study: optuna.Study) -> optuna.Study:
    """The study without the trials that other programs ended, whose values are of another kind."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    own = [trial for trial in trials if not ended_elsewhere(trial)]
    if len(own) == len(trials):
        return study
    copied = optuna.create_study(directions=study.directions)
    copied.add_trials(own)
    return copied


def _values(study: optuna.Study) -> set[float]:
    return {_first(trial) for trial in study.get_trials(deepcopy=False, states=COMPLETE)}


def _first(trial: FrozenTrial) -> float:
    """The value of a complete trial, of several the first."""
    return trial.values[0]


def _restyle(figure: Figure) -> None:
    figure.set_size_inches(9, 5)
    figure.set_layout_engine("tight")
    for axes in figure.axes:
        axes.set_facecolor("white")
        for lines in axes.collections:
            if lines.get_array() is not None:
                lines.set_cmap("viridis_r")  # Optuna's own fades to white
        if axes.get_label() != "<colorbar>":
            axes.grid(visible=True, color="#e5e7eb")
