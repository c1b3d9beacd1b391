"""How a study draws its configurations: Optuna's samplers by the names of `--sampler`."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna
from optuna.exceptions import ExperimentalWarning

from sweep.space import Choice, Space


def sampler_of(name: str, seed: int, begun: int, space: Space) -> optuna.samplers.BaseSampler:
    """Makes one of Optuna's samplers.

    Args:
        name: `tpe`; `random`; `gp`, a Gaussian process; `cmaes`, of numbers, the choices at random; `qmc`, a Sobol
            sequence; `grid` and `brute`, every combination of a space of choices, the second in an order of its own.
        seed: Of the study's draws.
        begun: Trials that the study has. A sampler that draws anew would repeat the first ones with the same seed; one
            that goes through a sequence goes on with it only with the same seed.
        space: What is searched.
    """
    anew = seed + begun
    values = {key: list(domain.values) for key, domain in space.items() if isinstance(domain, Choice)}
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=anew),
        "random": lambda: optuna.samplers.RandomSampler(seed=anew),
        "gp": lambda: optuna.samplers.GPSampler(seed=anew),
        "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=anew, warn_independent_sampling=False),
        "qmc": lambda: optuna.samplers.QMCSampler(scramble=True, seed=seed, warn_independent_sampling=False),
        "grid": lambda: optuna.samplers.GridSampler(values, seed=seed),
        "brute": lambda: optuna.samplers.BruteForceSampler(seed=seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return samplers[name]()
