import json
from dataclasses import replace

import numpy as np
import pytest

from sweep.comparisons.architectures import chart_style, charts, paired_charts, search_charts
from sweep.comparisons.architectures import report_sections as sections
from sweep.comparisons.architectures.analysis import SHOWN, paired_tests
from sweep.metrics import formatting as wording
from sweep.metrics.bootstrap import Interval
from sweep.metrics.names import LABELS
from tests.helpers.compared import ARCHS, compared_model, comparison

THREE = ("COVID", "NORMAL", "PNEUMONIA")


def drawn(found):
    """Every chart of a comparison, by name."""
    some = found.models
    charted = {
        "roc": charts.roc(some),
        "calibration": charts.calibration(some),
        "errors": charts.errors(some),
        "classes": charts.class_distribution(found.counts),
        **{f"forest {score}": paired_charts.forest(found.paired_tests, score) for score in ("accuracy", "auroc")},
        **{f"selection {score}": search_charts.selection(some, score) for score in ("accuracy", "auroc")},
        **{f"seeds {score}": charts.seeds(some, score) for score in ("accuracy", "auroc")},
        **{f"cost {over}": charts.cost(some, over) for over in ("train_seconds", "flops", "parameters")},
    }
    for one in some:
        charted[f"confusion {one.arch}"] = charts.confusion(one)
        charted[f"history {one.arch}"] = search_charts.search_history(one)
        charted[f"importance {one.arch}"] = search_charts.importance(one)
        charted[f"loss {one.arch}"] = search_charts.learning_curves(one, "loss")
        charted[f"scores {one.arch}"] = search_charts.learning_curves(one, "scores")
    return charted


def plain(figure):
    text = figure.to_json(engine="json")
    # JSON has no NaN, and a browser would stop at one.
    return json.loads(text, parse_constant=lambda constant: pytest.fail(constant))


def traces(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def luminance(color):
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("color", [*chart_style.COLORS, chart_style.NEUTRAL])
@pytest.mark.parametrize("page", ["#ffffff", "#15191e"])
def test_colours_stand_out_from_both_pages(color, page):
    dark, light = sorted((luminance(color), luminance(page)))
    assert (light + 0.05) / (dark + 0.05) >= 3


def test_an_architecture_has_one_colour_and_symbol_whoever_is_beside_it():
    assert len({chart_style.color(arch) for arch in ARCHS}) == len({chart_style.symbol(arch) for arch in ARCHS}) == 4
    for count in (1, 4):
        line = traces(charts.roc(comparison(count).models), f"cnn1, AUROC {auroc('cnn1', count):.3f}")[0].line
        assert line.color == chart_style.color("cnn1")
    assert chart_style.color("a network that is none of ours") in chart_style.COLORS


def auroc(arch, count):
    return comparison(count).of(arch).assessment.scores["auroc"].value


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_chart_is_drawn_of_one_to_four_models(count):
    charted = drawn(comparison(count))
    absent = {name for name, figure in charted.items() if figure is None}
    assert absent == ({"forest accuracy", "forest auroc"} if count == 1 else set())
    for figure in charted.values():
        if figure is not None:
            shown = plain(figure)
            assert shown["data"]
            assert "title" not in shown["layout"]  # the page has headings
            assert shown["layout"]["paper_bgcolor"] == shown["layout"]["plot_bgcolor"] == "rgba(0,0,0,0)"
            assert shown["layout"]["height"] >= 100
            assert "width" not in shown["layout"]  # it is the page's


def test_without_a_search_its_charts_are_missing_and_no_other():
    found = comparison(2, search=False, seeds=False)
    absent = {name.split()[0] for name, figure in drawn(found).items() if figure is None}
    assert absent == {"history", "importance", "seeds"}
    # The chosen ones are known all the same.
    assert [len(trace.x) for trace in search_charts.selection(found.models, "auroc").data] == [1, 1, 2, 2]


def test_two_trials_give_no_importance():
    (model,) = comparison(1).models
    trials = [trial for trial in model.search.trials if trial.state == "COMPLETE"]
    few = replace(model, search=replace(model.search, trials=tuple(trials[:2])))
    assert search_charts.importance(model) is not None
    assert search_charts.importance(few) is None


def test_the_caption_of_the_search_explains_the_marks_that_are_there():
    found = comparison(1)
    (model,) = found.models
    complete = tuple(trial for trial in model.search.trials if trial.state == "COMPLETE")
    whole = replace(found, models=(replace(model, search=replace(model.search, trials=complete)),))
    assert "Crosses were pruned." in sections.search_caption(found)
    assert "Crosses" not in sections.search_caption(whole)


def test_three_classes_have_a_macro_roc_without_an_operating_point():
    found = comparison(2, classes=THREE)
    assert all(plain(figure)["data"] for figure in drawn(found).values() if figure is not None)
    roc = charts.roc(found.models)
    assert not [trace for trace in roc.data if trace.mode == "markers"]
    curve = roc.data[1]
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(auroc_of_three(found), abs=0.01)
    assert charts.confusion(found.models[0]).data[0].z[0][0] > 0.4
    assert charts.calibration(found.models).layout.xaxis.title.text == "largest predicted probability"


def auroc_of_three(found):
    return found.models[0].assessment.scores["auroc"].value


def test_intervals_that_are_not_known_are_not_drawn():
    some = [compared_model(arch, seed, patients=5) for seed, arch in enumerate(ARCHS[:2])]
    assert np.isnan(some[0].assessment.scores["accuracy"].low)
    costs, gaps = charts.cost(some, "flops"), paired_charts.forest(paired_tests(some, "cnn1"), "auroc")
    assert [trace.error_y.visible for trace in costs.data] == [False, False]
    assert [trace.error_x.visible for trace in gaps.data] == [False]
    assert "too few to tell" in costs.data[0].hovertemplate
    for figure in (costs, gaps):
        assert plain(figure)["data"]


def test_the_operating_point_is_at_a_threshold_of_a_half():
    one = comparison(1).models[0]
    (point,) = [trace for trace in charts.roc([one]).data if trace.mode == "markers"]
    scores = one.assessment.scores
    assert point.y[0] == pytest.approx(scores["recall"].value, abs=1e-4)
    assert point.x[0] == pytest.approx(1 - scores["specificity"].value, abs=1e-4)


def test_confusion_matrices_count_every_image_once():
    one = comparison(1).models[0]
    figure = charts.confusion(one)
    counts = np.array(figure.data[0].customdata)
    assert counts.sum() == 200
    assert np.trace(counts) / 200 == pytest.approx(one.assessment.scores["accuracy"].value)
    assert any(f"<b>{counts[1, 1]:,}</b>" in note.text for note in figure.layout.annotations)


def test_the_search_shows_every_trial_and_the_best_so_far():
    figure = search_charts.search_history(comparison(1).models[0])
    assert list(traces(figure, "best so far")[0].y) == pytest.approx([0.9, 0.91, 0.94, 0.94])
    assert [list(traces(figure, name)[0].x) for name in ("finished", "pruned", "failed")] == [[0, 1, 4], [2], [3]]
    assert list(traces(figure, "failed")[0].y) == [0.9]  # at the edge, and not left out
    assert list(traces(figure, "chosen")[0].x) == [1]
    assert "no score" in traces(figure, "failed")[0].customdata[0]


def test_a_search_for_less_goes_down():
    one = comparison(1).models[0]
    search = replace(one.search, metric="val/loss", maximize=False)
    figure = search_charts.search_history(replace(one, search=search))
    assert list(traces(figure, "best so far")[0].y) == pytest.approx([0.9, 0.9, 0.9, 0.9])
    assert figure.layout.yaxis.title.text == "validation loss"


def test_the_kept_epoch_is_marked_and_a_loss_that_blew_up_is_on_a_logarithmic_scale():
    one = comparison(1).models[0]
    figure = search_charts.learning_curves(one, "scores")
    assert figure.layout.shapes[0].x0 == 3
    assert [trace.name for trace in figure.data] == ["training accuracy", "validation accuracy", "validation AUROC"]
    assert search_charts.learning_curves(one, "loss").layout.yaxis.type is None
    wild = [{**row, "val/loss": 10.0 ** -row["epoch"], "train/loss": float("nan")} for row in one.history]
    figure = search_charts.learning_curves(replace(one, history=wild), "loss")
    assert figure.layout.yaxis.type == "log"
    assert figure.data[0].y == (None,) * 4


def test_errors_are_shares_of_their_group():
    found = comparison(2)
    figure = charts.errors(found.models)
    assert list(figure.data[0].y) == ["NORMAL", "PNEUMONIA,<br>bacterial", "PNEUMONIA,<br>viral"]
    one = found.models[0]
    assert figure.data[0].x[0] == pytest.approx(1 - one.assessment.scores["specificity"].value)
    assert figure.data[0].text[0].endswith(" of 100")
    assert set(figure.data[0].textposition) == {"outside"}


def test_errors_end_at_all_of_a_group_and_counts_that_have_no_room_beside_their_bar_are_in_it():
    one = comparison(1).models[0]
    found = one.predictions
    missed = np.where(found.labels[:, None] == 1, [[9.0, -9.0]], found.logits)  # all PNEUMONIA is called NORMAL
    figure = charts.errors([replace(one, predictions=replace(found, logits=missed))])
    assert figure.layout.xaxis.range == (0, 1)
    assert figure.data[0].x[1:] == (1, 1)
    assert figure.data[0].textposition == ("outside", "inside", "inside")


def test_shares_of_each_split_add_up():
    figure = charts.class_distribution({"train": {"a": 30, "b": 90}, "test": {"a": 1, "b": 1}})
    assert np.sum([trace.x for trace in figure.data], axis=0) == pytest.approx([1, 1])
    assert charts.class_distribution({}) is None
    assert charts.class_distribution({"train": {"a": 0}}) is None


def test_names_of_classes_are_text_under_the_cursor_too():
    nasty = ("<b>NORMAL</b>", "<a href='http://x'>")
    for name, figure in drawn(comparison(1, classes=nasty)).items():
        if figure is not None:
            text = json.dumps(plain(figure))
            assert "<a " not in text, name
            assert "<b>NORMAL" not in text, name


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0.4 s"),
        (54, "54 s"),
        (59.7, "1 min"),
        (74, "1.2 min"),
        (3570, "1 h"),
        (5400, "1.5 h"),
        (86400, "24 h"),
        (200000, "2.3 d"),
    ],
)
def test_times_are_in_the_unit_that_people_would_choose(seconds, said):
    assert wording.format_seconds(seconds).replace(wording.SPACE, " ") == said


@pytest.mark.parametrize(
    ("count", "said"), [(7, "7"), (73_694, "73.7 k"), (999_900, "1 M"), (12_345_678, "12.3 M"), (8.2e9, "8.2 G")]
)
def test_counts_have_three_digits(count, said):
    assert wording.format_count(count).replace(wording.SPACE, " ") == said


def test_numbers_are_written_as_in_print():
    assert (
        wording.format_interval(Interval(0.9124, 0.8891, 0.935), wording.SCORE_IN_PRINT) == "0.912 (0.889\u20130.935)"
    )
    points = wording.format_interval(Interval(-0.0121, -0.03, 0.004), wording.POINTS_IN_PRINT)
    assert points == "\u22121.2 (\u22123.0 to +0.4)"
    assert wording.format_p_value(0.00099) == "<\u00a00.001"
    assert wording.format_p_value(0.0312) == "0.031"
    assert set(LABELS) - {"loss", "stressed_auroc"} < set(SHOWN)
