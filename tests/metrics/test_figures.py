import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sweep.metrics import figures
from sweep.metrics.calibration import expected_calibration_error, reliability
from sweep.metrics.predictions import Predictions

CLASSES = ("NORMAL", "PNEUMONIA")
LABELS = np.array([0, 0, 0, 1, 1, 1, 1, 1])
LIKELY = np.array([0.1, 0.2, 0.7, 0.6, 0.9, 0.4, 0.8, 0.55])
LIKELY = np.stack([1 - LIKELY, LIKELY], axis=1)


def history():
    columns = ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/auroc"]
    return pd.DataFrame({"epoch": [1, 2, 3], **{column: [0.9, 0.5, 0.6] for column in columns}})


def everything():
    return {
        "curves": figures.learning_curves(history(), 2, "cnn1-007"),
        "confusion": figures.confusion_matrix(LABELS, (LIKELY[:, 1] > 0.5).astype(int), CLASSES, "cnn1-007"),
        "roc": figures.roc_curve(LABELS, LIKELY, CLASSES, "cnn1-007", threshold=0.3),
        "balance": figures.class_balance({"train": {"NORMAL": 25, "PNEUMONIA": 75}, "test": {"NORMAL": 1, "PNEUMONIA": 1}}, "x"),
    }  # fmt: skip


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.mark.parametrize("name", ["curves", "confusion", "roc", "balance"])
def test_every_figure_is_a_small_png_that_is_not_blank(name):
    content = figures.png(everything()[name])
    assert len(content) < 60_000
    image = Image.open(io.BytesIO(content)).convert("RGB")
    assert 350 < image.width < 1100
    assert image.getpixel((2, 2)) == (255, 255, 255)
    assert len(np.unique(np.asarray(image.resize((60, 60))))) > 20


def test_figures_say_what_they_show():
    drawn = everything()
    assert {"epoch", "weighted cross entropy", "best epoch (2)", "validation AUROC"} <= set(texts(drawn["curves"]))
    assert {"2\n66.7 %", "1\n33.3 %", "4\n80.0 %", "true", "predicted"} <= set(texts(drawn["confusion"]))
    assert {"PNEUMONIA: AUROC 0.800", "threshold 0.5", "threshold 0.3"} <= set(texts(drawn["roc"]))
    assert {"25  (25 %)", "75  (75 %)", "train: 100", "test: 2"} <= set(texts(drawn["balance"]))


def test_bars_are_as_long_as_the_shares_on_one_scale():
    train, test = everything()["balance"].axes
    assert [bar.get_width() for bar in train.patches] == [0.25, 0.75]
    assert [bar.get_width() for bar in test.patches] == [0.5, 0.5]
    assert train.get_xlim() == test.get_xlim()


@pytest.mark.parametrize(("threshold", "markers"), [(0.5, 1), (0.3, 2)])
def test_operating_points_lie_where_the_counts_put_them(threshold, markers):
    (axes,) = figures.roc_curve(LABELS, LIKELY, CLASSES, "x", threshold).axes
    points = [line for line in axes.lines if line.get_marker() in ("o", "D")]
    assert len(points) == markers
    assert [*points[0].get_xdata(), *points[0].get_ydata()] == pytest.approx([1 / 3, 4 / 5])
    assert [*points[-1].get_xdata(), *points[-1].get_ydata()] == pytest.approx([1 / 3, 4 / 5 if markers == 1 else 1])


def test_one_epoch_has_one_tick_and_a_burst_a_logarithmic_scale():
    (left, right) = figures.learning_curves(history()[:1], 1, "x").axes
    assert [tick for tick in left.get_xticks() if 0.5 <= tick <= 1.5] == [1]
    assert left.get_yscale() == right.get_yscale() == "linear"
    burst = history()
    burst.loc[0, "train/loss"] = 92.0
    (left, right) = figures.learning_curves(burst, 0, "x").axes
    assert (left.get_yscale(), right.get_yscale()) == ("log", "linear")
    assert not any("best epoch" in text for text in texts(left.figure))


def test_png_keeps_the_colour_of_every_filled_area():
    figure = figures.confusion_matrix(*np.divmod(np.arange(81), 9), [f"class {index}" for index in range(9)], "x")
    content = figures.png(figure)
    assert len(content) < 60_000
    drawn = Image.open(io.BytesIO(content)).convert("RGB")
    box = figure.axes[0].get_window_extent()
    corner = drawn.getpixel((int(box.x0) + 4, drawn.height - int(box.y1) + 4))
    image = figure.axes[0].images[0]
    assert corner == tuple(image.to_rgba(image.get_array(), bytes=True)[0, 0, :3].tolist())


def test_several_classes_have_a_curve_each():
    labels = np.arange(30) % 3
    likely = np.random.default_rng(0).dirichlet([1, 1, 1], 30)
    named = set(texts(figures.roc_curve(labels, likely, ("a", "b", "c"), "x")))
    assert sum("AUROC" in text for text in named) == 3
    assert len(figures.png(figures.confusion_matrix(labels, likely.argmax(1), ("a", "b", "c"), "x"))) > 1000


RIGHT = 4 / 1.5  # the temperature that undoes what follows


def some_predictions(classes: tuple[str, ...]) -> Predictions:
    random = np.random.default_rng(0)
    labels = np.arange(300) % len(classes)
    logits = random.normal(size=(300, len(classes)))
    logits[np.arange(300), labels] += 1.5
    return Predictions([str(row) for row in range(300)], ["x"] * 300, labels, 4 * logits, classes)


@pytest.mark.parametrize("classes", [("NORMAL", "PNEUMONIA"), ("a", "b", "c")])
def test_calibration_is_drawn_before_and_after(classes):
    found = some_predictions(classes)
    figure = figures.calibration(found, RIGHT, "x")
    (axes,) = figure.axes
    said = {
        text: expected_calibration_error(found.labels, found.probabilities(t))
        for text, t in (("as trained", 1), ("as served", RIGHT))
    }
    assert {f"{name}: ECE {error:.3f}" for name, error in said.items()} <= set(texts(figure))
    assert said["as served"] < 0.8 * said["as trained"]
    *_, after = axes.lines
    known = reliability(found.labels, found.probabilities(RIGHT))
    assert after.get_xdata() == pytest.approx(known.predicted)
    assert after.get_ydata() == pytest.approx(known.observed)


def test_a_histogram_holds_every_image_in_its_class():
    found = some_predictions(CLASSES)
    figure = figures.score_histogram(found, 4.0, 0.3, "x")
    assert {"NORMAL", "PNEUMONIA", "threshold 0.3", "predicted probability of PNEUMONIA"} <= set(texts(figure))
    heights = [sum(bar.get_height() for bar in container) for container in figure.axes[0].containers]
    assert heights == [150, 150]
    three = figures.score_histogram(some_predictions(("a", "b", "c")), 4.0, None, "x")
    assert {"right", "wrong", "largest predicted probability"} <= set(texts(three))


def test_test_images_have_more_to_show_than_validation():
    found = some_predictions(CLASSES)
    assert set(figures.predictions(found, "validation", "x")) == {
        "figures/confusion_matrix.png", "figures/roc.png", "predictions/validation.csv",
    }  # fmt: skip
    assert set(figures.predictions(found, "test", "x", 4.0, 0.3)) == {
        "figures/test_confusion_matrix.png", "figures/test_roc.png", "figures/test_calibration.png",
        "figures/test_scores.png", "predictions/test.csv",
    }  # fmt: skip


def test_no_figure_stays_behind():
    from matplotlib import pyplot

    everything()
    assert pyplot.get_fignums() == []
