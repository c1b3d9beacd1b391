"""Optuna's store, and a study in it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Literal

import optuna
from optuna.exceptions import ExperimentalWarning

from sweep.stores.databases import is_database

Direction = Literal["maximize", "minimize"]
# Seconds, and milliseconds of the last: a machine of PostgreSQL that is gone is noticed within a minute or so.
POSTGRES_LIMITS = {"connect_timeout": 15, "keepalives_idle": 30, "tcp_user_timeout": 60_000}


def make_study(storage: optuna.storages.BaseStorage, name: str, directions: list[Direction]) -> optuna.Study:
    """Makes a study, or loads it: one without trials, which a refused command may have left, with these directions."""
    make = partial(optuna.create_study, storage=storage, study_name=name, load_if_exists=True, directions=directions)
    study = make()
    there = [direction.name.lower() for direction in study.directions]
    if there != directions and not study.get_trials(deepcopy=False):
        optuna.delete_study(study_name=name, storage=storage)
        study = make()
    return study


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Opens Optuna's store."""
    if not is_database(url):
        return optuna.storages.get_storage(url)
    # An epoch may take longer than a firewall keeps a silent connection: each is tried before it is used.
    limits = {"connect_args": POSTGRES_LIMITS} if url.startswith("postgresql") else {}
    engine = {"pool_pre_ping": True, **limits}
    return optuna.storages.get_storage(optuna.storages.RDBStorage(url, engine_kwargs=engine))


def name_metrics(study: optuna.Study, names: Sequence[str]) -> None:
    """Tells Optuna what the values of a study are called; its dashboard has `Objective 0` otherwise."""
    if names and study.metric_names != list(names):
        with warnings.catch_warnings(category=ExperimentalWarning, action="ignore"):
            study.set_metric_names(list(names))
