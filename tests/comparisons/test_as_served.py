"""A comparison shows each model as it is served: its own threshold and temperature first, 0.5 beside it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from sweep.cli.comparison_views import comparison_view
from sweep.comparisons.architectures import charts, paired_charts, report
from sweep.comparisons.architectures import report_sections as sections
from sweep.comparisons.architectures.analysis import errors_by_group, paired_tests, score_rows
from sweep.metrics.assessment import assess
from sweep.metrics.significance import holm
from sweep.metrics.threshold import decide
from tests.helpers.compared import ARCHS, compared_model, comparison, comparison_of

OWN = 0.839


@pytest.fixture(scope="module")
def served():
    """Four models, of which cnn2 is served at a threshold of its own; it is the champion, and cnn1 the reference."""
    options = {"cnn2": {"threshold": OWN}}
    models = (compared_model(arch, seed, **options.get(arch, {})) for seed, arch in enumerate(ARCHS))
    return comparison_of(tuple(models), "cnn2")


def labels_of(model, threshold):
    return decide(model.predictions.probabilities(model.assessment.temperature), threshold)


def test_a_model_predicts_at_its_own_threshold_after_its_temperature(served):
    cnn1, cnn2 = served.of("cnn1"), served.of("cnn2")
    assert cnn2.predicted().tolist() == labels_of(cnn2, OWN).tolist()
    assert cnn2.predicted(0.5).tolist() == labels_of(cnn2, 0.5).tolist() != cnn2.predicted().tolist()
    assert (cnn1.own_threshold, cnn2.own_threshold) == (False, True)
    right = cnn2.predicted() == cnn2.predictions.labels
    assert cnn2.assessment.served["accuracy"].value == right.mean()
    assert cnn1.assessment.served is cnn1.assessment.scores


def test_marks_matrices_and_errors_are_at_that_threshold(served):
    cnn2 = served.of("cnn2")
    own, half = cnn2.assessment.served, cnn2.assessment.scores
    marks = [trace for trace in charts.roc([cnn2]).data if trace.mode == "markers"]
    assert [(mark.x[0], mark.y[0]) for mark in marks] == [
        pytest.approx((1 - scores["specificity"].value, scores["recall"].value), abs=1e-4) for scores in (own, half)
    ]
    assert marks[0].marker.size > marks[1].marker.size
    assert f"at a threshold of {OWN}" in marks[0].hovertemplate
    assert len([trace for trace in charts.roc([served.of("cnn1")]).data if trace.mode == "markers"]) == 1
    for threshold, scores in ((None, own), (0.5, half)):
        counts = np.array(charts.confusion(cnn2, threshold).data[0].customdata)
        assert np.trace(counts) / counts.sum() == pytest.approx(scores["accuracy"].value)
    errors, at_half = (errors_by_group(served.models, cut).set_index("group") for cut in (None, 0.5))
    assert errors["cnn2"].sum() == round(200 * (1 - own["accuracy"].value))
    assert at_half["cnn2"].sum() == round(200 * (1 - half["accuracy"].value))
    assert errors["cnn1"].tolist() == at_half["cnn1"].tolist()
    bars = {bar.name: bar.text for bar in charts.errors(served.models).data}
    assert bars["cnn2"][0] == f"{errors['cnn2'].iloc[0]} of 100 ({at_half['cnn2'].iloc[0]})"
    assert bars["cnn1"][0] == f"{errors['cnn1'].iloc[0]} of 100"
    assert [trace.y[0] for trace in charts.cost([cnn2], "flops").data] == [own["accuracy"].value]


def test_pairs_are_tested_as_they_are_served(served):
    cnn1, cnn2 = served.of("cnn1"), served.of("cnn2")
    test = served.champion_tests[0]
    gap = cnn2.assessment.served["accuracy"].value - cnn1.assessment.served["accuracy"].value
    assert test.accuracy.interval.value == pytest.approx(gap)
    at_half = replace(cnn2, assessment=assess(cnn2.predictions, 1.2, 0.5))
    (other,) = paired_tests([cnn1, at_half], "cnn1")
    assert other.accuracy.interval.value != pytest.approx(gap)
    assert other.auroc == test.auroc


def test_the_champion_is_tested_against_each_rival_and_the_others_against_the_reference(served):
    pairs = [(test.arch, test.against) for test in served.paired_tests]
    assert pairs == [
        *(("cnn2", arch) for arch in ("cnn1", "cnn3", "resnet50")),
        *((arch, "cnn1") for arch in ("cnn3", "resnet50")),
    ]
    assert [test.against for test in served.champion_tests] == ["cnn1", "cnn3", "resnet50"]
    assert [test.arch for test in served.reference_tests] == ["cnn2", "cnn3", "resnet50"]
    raw = [p for test in served.paired_tests for p in (test.accuracy.p, test.auroc.p)]
    assert [p for test in served.paired_tests for p in test.corrected.values()] == holm(raw)
    assert len(raw) == 10


def test_a_champion_that_is_the_reference_is_tested_once():
    found = comparison_of(comparison(2).models, "cnn1")
    assert [(test.arch, test.against) for test in found.paired_tests] == [("cnn2", "cnn1")]
    assert found.champion_tests == ()
    assert "against its rivals" not in report.to_markdown(found)
    assert paired_charts.forest(found.champion_tests, "auroc", "against") is None


def test_the_page_has_the_served_scores_first_and_half_beside(served):
    own, half = served.of("cnn2").assessment.served["accuracy"], served.of("cnn2").assessment.scores["accuracy"]
    assert f"cnn2 was selected on validation: accuracy {own} at its threshold of {OWN} and AUROC " in served.headline
    assert f"At 0.5 its accuracy is {half}." in served.headline
    page, twin = report.to_html(served, {}), report.to_markdown(served).replace("\u00a0", " ")
    row = page.index(f"<td>{own.value:.3f}<small>")
    assert row < page.index('<th scope="row">cnn2 at 0.5</th>') < page.index(f"<td>{half.value:.3f}<small>", row + 1)
    assert "at its own threshold (cnn2 0.839, the others 0.5)" in page
    assert page.count('data-chart="confusion-half-') == 1
    assert 'data-chart="champion-auroc"' in page
    assert "all 10 tests on this page (Holm)" in page
    assert re.search(rf"\| cnn2 \(champion\)\s+\| {re.escape(str(own))}", twin)
    assert re.search(rf"\| cnn2 at 0\.5\s+\| {re.escape(str(half))}", twin)
    assert "## The champion, cnn2, against its rivals" in twin
    assert "at a threshold of 0.5" in sections.decision(comparison(2))
    assert " at 0.5" not in report.to_markdown(comparison(2)).partition("## Notes and limitations")[0]


def test_threshold_and_temperature_are_rows_of_the_configurations(served):
    table = dict(sections.configurations(served))
    assert list(table) == ["Searched", "As served", "Fixed"]
    assert table["As served"] == [("threshold", ["0.5", "0.839", "0.5", "0.5"]), ("temperature", ["1.2"] * 4)]
    three = comparison(2, classes=("a", "b", "c"))
    assert dict(dict(sections.configurations(three))["As served"])["threshold"] == ["\u2013", "\u2013"]


def test_rows_of_plain_data_have_both(served):
    rows = {(row["arch"], row["score"]): row for row in score_rows(served)}
    cnn2 = served.of("cnn2").assessment
    row = rows["cnn2", "accuracy"]
    served_ends = vars(cnn2.served["accuracy"]).values()
    assert [row[name] for name in ("served", "served_low", "served_high")] == list(served_ends)
    assert row["value"] == cnn2.scores["accuracy"].value
    assert rows["cnn1", "accuracy"]["served"] == rows["cnn1", "accuracy"]["value"]


def test_the_terminal_shows_both_in_eighty_columns(served):
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(comparison_view(served))
    lines = capture.get().splitlines()
    own, half = served.of("cnn2").assessment.served["accuracy"], served.of("cnn2").assessment.scores["accuracy"]
    row = next(number for number, line in enumerate(lines) if line.startswith(" cnn2 * "))
    assert str(own) in lines[row]
    assert f"{half.value:.3f} at 0.5" in lines[row + 1]
    assert "thresholds: cnn2 0.839, the others 0.5" in lines
    assert max(map(len, lines)) <= 80
