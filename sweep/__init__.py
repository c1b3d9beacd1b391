"""Hyperparameter sweeps for image classifiers: searched by Optuna, recorded by MLflow, compared and served.

    import sweep
    result = sweep.search("cnn1", data="my_folder", space={"learning_rate": sweep.Range(1e-4, 1e-2, log=True)})

Where to look:

    api            the program as functions: sweep.search, sweep.predict, ...
    cli            the commands and what they print
    terminal       lines, live tables and JSON
    settings       what the user asked for
    space          which hyperparameters are searched
    plan           what will be done, checked before anything starts
    orchestrator   runs a study: asks Optuna, submits trials, reports, logs, chooses, registers
    engines        where trials run: processes of this machine, or a Ray cluster
    training       trains one network
    stores         Optuna's studies, MLflow's runs and the model registry
    metrics        scores, thresholds, calibration, intervals, figures
    lifecycle      a registered model: its card, promotion, evaluation, prediction
    comparisons    trained configurations side by side
    system         errors, signals, processes, passwords, hardware, provenance

The packages `data` (images) and `models` (networks) beside this one know nothing of it.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data.faults import InputError
    from sweep.api.comparing import compare, ensemble, replay
    from sweep.api.models import evaluate, load_model, predict
    from sweep.api.repair import doctor
    from sweep.api.search import search
    from sweep.api.search_result import SearchResult
    from sweep.space import Choice, Range
    from sweep.system.errors import StudyFailedError, StudyInterruptedError

__version__ = "0.1.0"
__all__ = [
    "Choice",
    "InputError",
    "Range",
    "SearchResult",
    "StudyFailedError",
    "StudyInterruptedError",
    "compare",
    "doctor",
    "ensemble",
    "evaluate",
    "load_model",
    "predict",
    "replay",
    "search",
]

# Imported when they are asked for: a training process has no use for them.
_PLACES = {
    "data.faults": ("InputError",),
    "sweep.api.comparing": ("compare", "ensemble", "replay"),
    "sweep.api.models": ("evaluate", "load_model", "predict"),
    "sweep.api.repair": ("doctor",),
    "sweep.api.search": ("search",),
    "sweep.api.search_result": ("SearchResult",),
    "sweep.space": ("Choice", "Range"),
    "sweep.system.errors": ("StudyFailedError", "StudyInterruptedError"),
}


_OURS = {"data": "near_duplicates.py", "models": "architecture.py"}  # a file that no other package of that name has


def _check_neighbours() -> None:
    """Makes sure that `data` and `models`, names that others use too, are ours, wherever a cluster has put them."""
    root = Path(__file__).resolve().parents[1]
    for name, file in _OURS.items():
        spec = find_spec(name)
        place = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if place is None or not place.with_name(file).exists():
            hides = f"is hidden by {place}" if place else "is missing"
            raise ImportError(
                f"sweep's own package `{name}` in {root} {hides}; start Python elsewhere, or take that one off its path"
            )


if sys.argv[:1] != ["-m"]:  # `python -m sweep` leaves the working directory out first, and checks then
    _check_neighbours()


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'sweep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
