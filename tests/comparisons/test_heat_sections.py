from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from data import cache as pixels
from data.sources import read_synthetic
from sweep.comparisons.architectures import heat_sections, report
from sweep.comparisons.architectures.heat_images import CENTRE, CENTRE_NAME, LUNGS_NAME, check_heat
from sweep.metrics.bootstrap import Interval
from sweep.metrics.heat import HeatCheck
from tests.comparisons.test_report import PLOTLY, Elements
from tests.helpers.compared import ARCHS, comparison
from tests.stores.test_heat_map import exported

HEAT = HeatCheck(
    images=64,
    empty=2,
    area=CENTRE_NAME,
    area_share=0.638,
    inside=Interval(0.751, 0.72, 0.78),
    correlation=Interval(0.12, 0.08, 0.16),
    mean_map=np.arange(16.0).reshape(4, 4) / 7.5,
    mean_box=CENTRE,
)


@cache
def with_heat(**changes):
    known = comparison(2)
    models = tuple(replace(model, heat=replace(HEAT, **changes)) for model in known.models)
    return replace(known, models=models)


def test_the_report_has_the_figures_how_to_read_them_and_a_chart_each():
    written = PLOTLY.sub("", report.to_html(with_heat(), {}))

    found = Elements(written)
    assert found.open == []
    assert "heat" in [attrs["id"] for attrs in found.all("section")]
    assert 'href="#heat"' in written
    for text in ("75.1\u00a0% (72.0\u201378.0)", "63.8\u00a0%", "0.120 (0.080 to 0.160)", "64 (2 without heat)"):
        assert text in found.text
    assert "a fixed central part of each film (8 to 84 % of its height" in found.text
    assert "cnn1, cnn2: more of the heat lies in the area" in found.text
    assert "Near 0 the map depends on what the last layer has learned" in found.text
    assert "Adebayo et al. 2018" in found.text
    charts = [attrs["data-chart"] for attrs in found.all("div") if "data-chart" in attrs]
    assert {"heat-cnn1", "heat-cnn2"} <= set(charts)
    assert "data:image" not in written


def test_the_markdown_the_run_and_json_have_the_same_figures():
    written = report.to_markdown(with_heat())

    assert "| cnn1" in written.split("## Heat maps")[1]
    assert "75.1\u00a0% (72.0\u201378.0)" in written
    assert heat_sections.metrics(with_heat())["cnn2/heat_rank_correlation"] == 0.12
    (first, _) = heat_sections.to_dict(with_heat())
    assert (first["arch"], first["inside"]["value"], first["area_share"]) == ("cnn1", 0.751, 0.638)


def test_without_test_images_nothing_is_said_of_heat():
    assert heat_sections.to_markdown(comparison(2)) == []
    assert 'id="heat"' not in report.to_html(comparison(2), dict.fromkeys(ARCHS[:2], ""))
    assert heat_sections.metrics(comparison(2)) == heat_sections.charts(comparison(2)) == {}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "more of the heat lies in the area than if it were spread evenly; the maps depend on"),
        ({"inside": Interval(0.5, 0.4, 0.6)}, "less of the heat"),
        ({"inside": Interval(0.65, 0.6, 0.7)}, "no more surely"),
        ({"inside": Interval(0.8, np.nan, np.nan)}, "no more surely"),
        ({"correlation": Interval(0.9, 0.8, 0.95)}, "the maps stay much the same with a random last layer"),
        ({"correlation": Interval(0.5, 0.4, 0.6)}, "how much the maps depend on the last layer is not clear"),
        ({"empty": 64}, "no film has any heat"),
    ],
)
def test_a_sentence_says_no_more_than_the_intervals(changes, sentence):
    assert sentence in heat_sections.meaning(replace(HEAT, **changes))


def test_a_model_without_heat_has_dashes():
    nothing = Interval(np.nan, np.nan, np.nan)
    known = with_heat(empty=64, inside=nothing, correlation=nothing)

    assert "nan" not in report.to_markdown(known).lower().split("## heat maps")[1].split("## costs")[0]
    assert heat_sections.metrics(known) == {}


def test_heat_is_checked_on_films_where_their_lungs_are(tmp_path, monkeypatch):
    """A network that sums what is bright in the middle of a film has all its heat there; a random one has not."""
    monkeypatch.setattr("data.cache.user_cache_path", lambda _: tmp_path)
    source = read_synthetic()
    few = {name: listing.select(np.arange(8)) for name, listing in source.splits.items()}
    source = replace(source, splits=few)
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(256, 2))
    weights = torch.zeros(16, 16)
    weights[6:10, 6:10] = 1
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[2].weight.copy_(torch.stack([-weights.flatten(), weights.flatten()]))
    about = {"mean": 0.0, "std": 1.0, "classes": list(source.classes), "positive": source.classes[1]}
    classifier = SimpleNamespace(network=exported(network, 16), about=about)

    pixels.build(source, 16)
    check = check_heat(classifier, source, pixels.test_images(source, 16))

    assert (check.images, check.empty, check.area) == (8, 0, LUNGS_NAME)
    assert check.area_share == pytest.approx(0.6, abs=0.15)
    assert check.inside.value == pytest.approx(1)
    assert abs(check.correlation.value) < 0.5
