"""Names of classes in figures: letters that no font has, and signs that would begin a formula."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from sweep.metrics import figures
from sweep.metrics.lettering import drawable, families
from sweep.metrics.predictions import Predictions


def test_a_letter_is_drawn_or_written_as_its_escape():
    assert drawable("NORMAL é µ") == "NORMAL é µ"
    assert drawable("$a$") == r"\$a\$"
    assert drawable("a\nb") == r"a\nb"
    assert families()[0] == "sans-serif"
    if families() == ["sans-serif"]:  # no font with Chinese letters is installed
        assert drawable("肺") == r"\u80ba"


@pytest.mark.parametrize("classes", [("正常", "肺炎"), ("طبيعي", "التهاب رئوي"), ("$x$", r"$\frac{$")])
def test_figures_of_any_script_are_drawn_without_a_warning(classes: tuple[str, str]):
    random = np.random.default_rng(0)
    names = [str(row) for row in range(40)]
    predictions = Predictions(names, names, np.arange(40) % 2, random.normal(size=(40, 2)).astype(np.float32), classes)
    with warnings.catch_warnings(action="error"):
        drawn = figures.predictions(predictions, "test", f"$title {classes[0]}")
        figures.png(figures.class_balance({"train": dict.fromkeys(classes, 3)}, "study"))
    assert drawn["figures/test_roc.png"][:4] == b"\x89PNG"
