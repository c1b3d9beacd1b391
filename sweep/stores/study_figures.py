"""What a search found, in figures: Optuna's plots, and how much each hyperparameter matters."""

from __future__ import annotations

import warnings
from functools import partial

import matplotlib as mpl
import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState

from sweep.stores.bounded_study import ended_elsewhere


def importances(study: optuna.Study) -> dict[str, float]:
    """How much of the value's variance each hyperparameter explains; empty where too few trials differ in value."""
    study = _trained(study)
    if len(_values(study)) < 2:  # where all are equal no hyperparameter made a difference
        return {}
    with warnings.catch_warnings(record=True):  # Optuna calls its own default experimental
        return {name: float(share) for name, share in optuna.importance.get_param_importances(study).items()}


def figures(study: optuna.Study, metric: str) -> dict[str, Figure]:
    """Draws Optuna's history, importance, parallel coordinate and timeline plots, those that the trials allow.

    Args:
        study: The study.
        metric: What the study's value is called.

    Returns:
        The figures by name: `history`, `timeline`, `importance`, `parallel_coordinate`.
    """
    import optuna.visualization.matplotlib as plots

    mpl.use("agg")
    from matplotlib import pyplot

    study = _trained(study)
    values, wanted = _values(study), {}
    if values:
        wanted["history"] = partial(plots.plot_optimization_history, target_name=metric)
        wanted["timeline"] = plots.plot_timeline
    if len(values) > 1:  # where all are equal no hyperparameter made a difference
        wanted["importance"] = partial(plots.plot_param_importances, target_name=metric)
        wanted["parallel_coordinate"] = partial(plots.plot_parallel_coordinate, target_name=metric)
    drawn: dict[str, Figure] = {}
    for name, plot in wanted.items():
        # Optuna calls its own plots experimental, and leaves their style to whatever is drawn next.
        with warnings.catch_warnings(record=True), mpl.rc_context():
            drawn[name] = plot(study).figure
        _restyle(drawn[name])
        pyplot.close(drawn[name])  # Optuna opens them in pyplot, which would keep them for ever
    return drawn


def _trained(study: optuna.Study) -> optuna.Study:
    """The study without the trials that other programs ended, whose values are of another kind."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    own = [trial for trial in trials if not ended_elsewhere(trial)]
    if len(own) == len(trials):
        return study
    copied = optuna.create_study(direction=study.direction)
    copied.add_trials(own)
    return copied


def _values(study: optuna.Study) -> set[float | None]:
    return {trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}


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
