"""The report's section on clinical use: the figures of each model as it is served, and its decision curves."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from rich.console import Console

from sweep.cli.clinical_views import clinical_rows
from sweep.comparisons.architectures import report
from sweep.comparisons.architectures.clinical import clinical, clinical_markdown
from sweep.comparisons.architectures.clinical_charts import decision_charts
from sweep.metrics.assessment import assess
from sweep.metrics.bootstrap import Interval
from tests.helpers.compared import compared_model, comparison

THRESHOLDS = (0.5, 0.839)


@cache
def served(prevalence: float | None = 0.05, **options):
    """A comparison of two models, one of which has a threshold of its own."""
    found = comparison(2, **options)
    models = tuple(
        replace(model, assessment=assess(model.predictions, 1.2, threshold, prevalence=prevalence))
        for model, threshold in zip(found.models, THRESHOLDS, strict=True)
    )
    return replace(found, models=models)


def rows(section) -> dict[str, list[str]]:
    return {f"{heading}: {label}": [cell["both"] for cell in cells] for heading, lines in section["groups"] for label, cells in lines}  # fmt: skip


def test_every_figure_is_that_of_the_model_as_it_is_served():
    found = served()
    section = clinical(found)
    assert section is not None
    scores = [model.assessment.clinical.scores for model in found.models]
    table = rows(section)
    own = "At each model's own threshold"
    assert table[f"{own}: threshold"] == ["0.5", "0.839"]
    assert table[f"{own}: sensitivity (recall)"] == [str(one["sensitivity"]) for one in scores]
    tuned = found.models[1].assessment.at_threshold
    assert tuned is not None
    assert table[f"{own}: specificity"][1] == str(tuned["specificity"])
    assert table["Predictive values at a prevalence of 5 %: PPV"] == [str(one["ppv_at_prevalence"]) for one in scores]
    assert table["On the ROC curve: specificity at 95 % sensitivity"] == [
        str(one["specificity_at_95_sensitivity"]) for one in scores
    ]
    assert "50 % of the images are PNEUMONIA" in section["sentence"]
    assert section["hint"] == ""


def test_page_and_markdown_have_the_same_figures():
    found = served()
    written, page = report.to_markdown(found), report.to_html(found, {})
    section = clinical(found)
    assert section is not None
    for label, cells in rows(section).items():
        assert all(f"| {label.partition(': ')[2]}" in written and cell in written for cell in cells)
    for _, lines in section["groups"]:
        for label, cells in lines:
            assert f'<th scope="row">{label}</th>' in page
            assert all(f"<td>{cell['value']}" in page for cell in cells)
    assert page.index('id="tests"') < page.index('id="clinical"') < page.index('id="curves"')
    assert page.count("(recall)") == 1


def test_without_a_stated_prevalence_it_says_how_to_state_one():
    found = served(None)
    assert not any("a prevalence of 5 %" in label for label in rows(clinical(found)))
    assert "<code>sweep compare --prevalence 0.05</code>" in report.to_html(found, {})
    assert "`sweep compare --prevalence 0.05`" in "\n".join(clinical_markdown(found))


def test_a_value_that_is_not_defined_is_said_to_be():
    found = served()
    first = found.models[0]
    blind = replace(first, assessment=assess(first.predictions, 1.2, 1.0, prevalence=0.05))
    section = clinical(replace(found, models=(blind, found.models[1])))
    cells = rows(section)["Predictive values at a prevalence of 5 %: PPV"]
    assert cells[0] == "not defined"
    assert "nan" not in json.dumps(section)


def test_three_classes_have_no_such_section():
    found = comparison(2, classes=("COVID", "NORMAL", "PNEUMONIA"))
    assert clinical(found) is None
    assert clinical_markdown(found) == []
    assert decision_charts(found.models) == {}
    assert "Clinical use" not in report.to_html(found, {})


def test_decision_curves_mark_each_models_own_threshold():
    found = served()
    figures = decision_charts(found.models)
    assert list(figures) == ["decision", "decision-cnn1", "decision-cnn2"]
    model = found.models[1]
    marks = [trace for trace in figures["decision-cnn2"].data if trace.mode == "markers"]
    assert [(trace.x, len(trace.y)) for trace in marks] == [((0.839,), 1)]
    scores, prevalence = model.assessment.clinical.scores, model.assessment.clinical.prevalence
    hits = prevalence * scores["sensitivity"].value
    alarms = (1 - prevalence) * (1 - scores["specificity"].value)
    assert marks[0].y[0] == pytest.approx(hits - alarms * 0.839 / 0.161, abs=1e-4)
    names = [trace.name for trace in figures["decision"].data if trace.showlegend is not False]
    assert names == ["cnn1", "cnn2", "treat all", "treat none"]


def test_decision_curves_share_an_axis_and_have_bands_where_intervals_are_known():
    figures = decision_charts(served().models)
    ranges = {tuple(figure.layout.yaxis.range) for figure in figures.values()}
    assert len(ranges) == 1
    assert ranges.pop()[1] > 0.5  # the prevalence is the most that can be gained
    (band,) = [trace for trace in figures["decision-cnn1"].data if trace.fill == "toself"]
    (line,) = [trace for trace in figures["decision-cnn1"].data if trace.name == "cnn1"]
    half = len(band.y) // 2
    low, high = np.array(band.y[half:][::-1]), np.array(band.y[:half])
    assert ((low <= np.array(line.y)) & (np.array(line.y) <= high)).all()
    few = [compared_model("cnn1", 0, patients=5)]
    drawn = decision_charts(few)["decision-cnn1"]
    assert not [trace for trace in drawn.data if trace.fill == "toself"]
    json.loads(drawn.to_json(engine="json"), parse_constant=pytest.fail)
    assert str(Interval(0.5, np.nan, np.nan)) == "0.500 (too few)"
    assert "too few to tell" in next(trace for trace in drawn.data if trace.name == "cnn1").customdata[0]


def test_the_terminal_has_a_row_for_each_model_in_80_columns():
    models = {model.arch: model.assessment.clinical for model in served().models}
    console = Console(width=80, file=io.StringIO())
    console.print(clinical_rows(models))
    lines = console.file.getvalue().splitlines()
    row = next(line for line in lines if "cnn2" in line).split()
    names = ("sensitivity", "specificity", "ppv", "npv", "ppv_at_prevalence", "npv_at_prevalence")
    assert row == ["cnn2", *(f"{models['cnn2'].scores[name].value:.3f}" for name in names)]
    assert "sensitivity" in lines[2]
    assert max(map(len, lines)) <= 80
