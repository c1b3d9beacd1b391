"""A study whose files are named in no encoding and whose classes in Chinese, on a machine that knows only ASCII."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sweep.metrics.predictions import read_predictions
from tests.helpers.stocked import stocked
from tests.helpers.studies import ROOT, cold_sweep, tiny

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_a_study_is_trained_scored_and_asked(pictures: Path, tmp_path: Path):
    root, work = tmp_path / "set", tmp_path / "work"
    for split in ("train", "test"):
        for folder, name in (("NORMAL", "正常"), ("PNEUMONIA", "肺炎")):
            (root / split / name).mkdir(parents=True)
            for path in (pictures / split / folder).iterdir():
                (root / split / name / os.fsdecode(b"caf\xe9-" + path.name.encode())).symlink_to(path)
    work.mkdir()
    stocked(work)
    options = {"env": {**os.environ, **ASCII}}

    done = cold_sweep(work, *tiny(root, 1), **options)

    assert (done.returncode, done.stderr) == (0, "")
    assert r"all \u80ba\u708e" in done.stdout
    [table] = work.glob("mlruns/*/*/artifacts/predictions/test.csv")
    predictions = read_predictions(table)
    assert predictions.classes == ("正常", "肺炎")
    assert r"test/正常/caf\xe9-IM-0000-0000.jpeg" in predictions.images
    evaluated = cold_sweep(work, "evaluate", "set@cnn3", "--data", root, "--json", **options)
    assert json.loads(evaluated.stdout)["images"] == 60
    asked = cold_sweep(work, "predict", "set@cnn3", root / "test", "--csv", **options)
    assert (asked.returncode, asked.stdout.count(r"caf\xe9")) == (0, 60)
