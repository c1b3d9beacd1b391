"""The Pareto front of a search by several metrics, on the page and in Markdown."""

from dataclasses import replace

import pytest

from sweep.comparisons.architectures import front
from sweep.comparisons.architectures.report import charts_of, to_html, to_markdown
from sweep.metrics.pareto import Point, choose
from tests.helpers.compared import comparison

POINTS = [Point(0, (0.95, 90_000.0), 0.02), Point(1, (0.94, 30_000.0)), Point(4, (0.5, 40_000.0)), Point(5, (0.4, 2e4))]


@pytest.fixture
def several():
    """Two models, the first of which was found by two metrics."""
    two = comparison(2)
    first, second = two.models
    search = replace(first.search, choice=choose(("val/auroc", "cost/parameters"), POINTS))
    return replace(two, models=(replace(first, search=search), second))


def test_the_chart_shows_the_front_the_others_and_the_chosen_one(several):
    figure = front.chart(several.models[0])
    xs = {trace.name: list(trace.x) for trace in figure.data}
    assert xs == {"other trials": [40_000], "Pareto front": [90_000, 30_000, 20_000], "chosen": [30_000]}
    assert [figure.layout.xaxis.title.text, figure.layout.yaxis.title.text] == ["parameters", "validation AUROC"]
    assert (figure.layout.shapes[0].y0, figure.layout.shapes[0].y1) == pytest.approx((0.93, 0.97))
    assert "<b>trial 1</b><br>validation AUROC 0.94<br>parameters 30,000" in figure.data[1].customdata


def test_page_and_markdown_have_the_table_and_the_reason(several):
    (table,) = front.tables(several)
    assert table["rows"] == [("0", "0.95", "90,000"), ("1 (chosen)", "0.94", "30,000"), ("5", "0.4", "20,000")]
    page, text = to_html(several, {}), to_markdown(several)
    for part in (page, text):
        assert "trial 1, the best by cost/parameters of the 2 whose val/auroc is within one standard error" in part
        assert "1 (chosen)" in part
    assert f"front-{several.models[0].arch}" in charts_of(several)
    assert f"front-{several.models[1].arch}" not in charts_of(several)


def test_a_search_by_one_metric_has_no_front():
    one = comparison(1)
    assert (front.chart(one.models[0]), front.tables(one), front.to_markdown(one)) == (None, [], [])
    assert "Pareto" not in to_html(one, {})
