"""Databases are looked at without a trace."""

from __future__ import annotations

import sqlite3

import optuna

from sweep.stores.databases import has_study_named


def tables(path):
    with sqlite3.connect(path) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_looking_for_a_study_writes_nothing(tmp_path):
    path = tmp_path / "optuna.db"
    url = f"sqlite:///{path}"
    assert not has_study_named("--storage", url, "phantom/")
    assert not path.exists()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE of_somebody_else (x INTEGER)")
    assert not has_study_named("--storage", url, "phantom/")
    assert tables(path) == {"of_somebody_else"}


def test_a_study_is_known_by_the_beginning_of_its_name(tmp_path):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(storage=url, study_name="phantom/cnn1")
    assert has_study_named("--storage", url, "phantom/")
    assert not has_study_named("--storage", url, "synthetic/")
    assert not has_study_named("--storage", url, "cnn1")
