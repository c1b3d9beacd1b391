"""The benchmark of whole studies, as small as it can be: does every way do what it is asked?"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from benchmarks import studies
from benchmarks.tables import Options
from data.sources import open_source
from data.splits import split_source


def test_peers_get_the_images_of_the_split(pictures: Path, tmp_path: Path):
    source = open_source(pictures)
    split = split_source(source, limit=120)
    studies.export(source, split, 32, tmp_path)
    for part, rows in (("train", split.train), ("val", split.validation)):
        names = {f"{path.parent.name}/{path.name.partition('-')[2]}" for path in tmp_path.glob(f"{part}/*/*")}
        assert names == {source.splits["train"].names[row].removeprefix("train/") for row in rows}
    assert all(path.is_file() for path in tmp_path.glob("*/*/*"))


@pytest.mark.slow
def test_every_way_does_all_trials(pictures: Path):
    (table,) = studies.measure(Options(pictures, quick=True))
    ways = [
        way for way in ("hand-written", "Ray Tune", "sweep") if way != "Ray Tune" or importlib.util.find_spec("ray")
    ]
    assert list(table.columns) == ["", *ways]
    (target,) = (row[0] for row in table.rows if row[0].startswith("seconds to a validation AUROC"))
    for way in ways:
        found = {name.removeprefix(f"{way}/"): value for name, (value,) in table.values.items() if way in name}
        assert found["trials"] == studies.QUICK.trials
        assert found["epochs trained"] == studies.QUICK.trials * studies.QUICK.epochs
        assert 0 < found[target] <= found["seconds to the last epoch"] < found["seconds"]
        assert 0 < found["best validation AUROC"] <= 1
        assert found["memory at its peak, MB"] > 100
        assert found["disk, MB"] > 0
        assert (found["decoded images, MB"] > 0) == (way == "sweep")
