"""Studies in stores of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sweep.space import SPACES
from sweep.stores.study import Pruning, Study, open_study


@pytest.fixture
def sqlite(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'optuna.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request) -> str:
    """Where studies are: what holds for one kind of database holds for the other."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite")
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def open_it(storage) -> Callable[..., Study]:
    return opening(storage)


@pytest.fixture
def open_sqlite(sqlite) -> Callable[..., Study]:
    return opening(sqlite)


def opening(storage: str) -> Callable[..., Study]:
    def open_it(**changes: Any) -> Study:
        given = {
            "direction": "maximize",
            "fingerprint": {"image size": 64},
            "seed": 0,
            "pruning": Pruning("median", warmup=3, epochs=9),
        }
        space = changes.pop("space", SPACES["cnn1"])
        return open_study(storage, "x-rays/cnn1", space, **{**given, **changes})

    return open_it


@pytest.fixture
def open_it_elsewhere(tmp_path) -> Callable[[int], Callable[..., Study]]:
    """Studies of the same name in other stores, by a number."""
    return lambda number: opening(f"sqlite:///{tmp_path / f'optuna-{number}.db'}")
