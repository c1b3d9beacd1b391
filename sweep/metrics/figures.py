"""Pictures of results, drawn with matplotlib's objects alone: no pyplot, no display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn import metrics

from sweep.metrics.calibration import claims, expected_calibration_error, reliability
from sweep.metrics.lettering import drawable, families
from sweep.metrics.predictions import Predictions
from sweep.metrics.threshold import decide

# Okabe and Ito's palette, which colour-blind people can tell apart, less the yellow that white swallows.
BLUE, ORANGE, GREEN, RED, GRAY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b7280"
PALETTE = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#000000")
DPI = 120


def png(figure: Figure) -> bytes:
    """Draws a figure as PNG, on white."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    content = io.BytesIO()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    # A palette is a third of the bytes. Median cut leaves every filled area its exact colour; the octree is faster,
    # but grays the white and puts steps into a confusion matrix that its counts do not have.
    palette = drawn.quantize(128, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette.save(content, "PNG", dpi=(DPI, DPI))
    return content.getvalue()


def learning_curves(history: pd.DataFrame, best_epoch: int, title: str) -> Figure:
    """Draws loss, and accuracy and AUROC, across epochs (report figures 5, 7, 9, 10 and 12).

    Args:
        history: Columns epoch, train/loss, train/accuracy, val/loss, val/accuracy, val/auroc, and where it
            decides val/stressed_loss.
        best_epoch: The epoch to mark; 0 marks none.
        title: Above the figure.
    """
    figure, (left, right) = panels(2, (9, 3.6), title)
    epochs = history["epoch"]
    for axes, column, label, color in (
        (left, "train/loss", "train", GRAY),
        (left, "val/loss", "validation", BLUE),
        *([(left, "val/stressed_loss", "validation, stressed", ORANGE)] if "val/stressed_loss" in history else []),
        (right, "train/accuracy", "train accuracy", GRAY),
        (right, "val/accuracy", "validation accuracy", BLUE),
        (right, "val/auroc", "validation AUROC", ORANGE),
    ):
        axes.plot(epochs, history[column], color=color, label=label, marker=".", linewidth=1.6)
    losses = history[["train/loss", "val/loss"]].to_numpy()
    # A first epoch that blew up would press the others flat.
    if losses.max() > 30 * losses.min() > 0:
        left.set_yscale("log")
    left.set(ylabel="weighted cross entropy")
    right.set(ylabel="score")
    for axes in (left, right):
        if best_epoch:
            axes.axvline(best_epoch, color=GREEN, linestyle="--", linewidth=1, label=f"best epoch ({best_epoch})")
        axes.set(xlabel="epoch", xlim=(epochs.min() - 0.5, epochs.max() + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend(frameon=False, fontsize=8)
    return figure


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Draws counts, and percentages of each true class.

    Args:
        labels: int [N].
        predicted: int [N].
        classes: Names in label order.
        title: Above the figure.
    """
    counts = metrics.confusion_matrix(labels, predicted, labels=range(len(classes)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(classes) <= 4
    side = max(3.6, (1.1 if few else 0.55) * len(classes) + 1)
    figure, (axes,) = panels(1, (side + 0.4, side), title)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(
        xticks=range(len(classes)),
        yticks=range(len(classes)),
        xticklabels=list(map(drawable, classes)),
        yticklabels=list(map(drawable, classes)),
        xlabel="predicted",
        ylabel="true",
    )
    if not few:
        axes.tick_params(axis="x", rotation=90)
    axes.grid(visible=False)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(
            column,
            row,
            f"{count:,}\n{100 * shares[row, column]:.1f} %",
            ha="center",
            va="center",
            color="white" if shares[row, column] > 0.6 else "black",
            fontsize=9 if few else 7,
            in_layout=False,  # it lies in its cell, and measuring each costs more than drawing it
        )
    return figure


def roc_curve(
    labels: np.ndarray, likely: np.ndarray, classes: Sequence[str], title: str, threshold: float = 0.5
) -> Figure:
    """Draws the ROC curve: of the positive class with two of them, else of each class against the rest.

    Args:
        labels: int [N].
        likely: Probabilities, float [N, classes].
        classes: Names in label order.
        title: Above the figure.
        threshold: An operating point to mark beside that at 0.5; with two classes.
    """
    figure, (axes,) = panels(1, (4.4, 4.2), title)
    shown = [1] if len(classes) == 2 else range(len(classes))
    for index, label in enumerate(shown):
        false, true, _ = metrics.roc_curve(labels == label, likely[:, label])
        name = f"{drawable(classes[label])}: AUROC {metrics.auc(false, true):.3f}"
        style = "-" if index < len(PALETTE) else "--"
        axes.plot(false, true, color=PALETTE[index % len(PALETTE)], linestyle=style, linewidth=1.8, label=name)
    if len(classes) == 2:
        points = [(0.5, "o", RED), (threshold, "D", ORANGE)]
        for cut, marker, color in points if threshold != 0.5 else points[:1]:
            predicted = decide(likely, cut)
            point = (predicted[labels == 0].mean(), predicted[labels == 1].mean())
            axes.plot(*point, marker, color=color, markersize=6, label=f"threshold {cut:.3g}")
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=":")
    axes.set(
        xlabel="1 \u2212 specificity" if len(classes) == 2 else "false positive rate",
        ylabel="sensitivity" if len(classes) == 2 else "true positive rate",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def calibration(predictions: Predictions, temperature: float, title: str) -> Figure:
    """Draws observed frequency against predicted probability, before and after the temperature; once where that is 1.

    Args:
        predictions: Of images whose classes are known.
        temperature: Logits are divided by it.
        title: Above the figure.
    """
    figure, (axes,) = panels(1, (4.4, 4.2), title)
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=":")
    curves = (("as trained", 1.0, ORANGE, "o"), ("as served", temperature, BLUE, "D"))
    for name, value, color, marker in curves if temperature != 1 else curves[1:]:
        bins = reliability(predictions.labels, predictions.probabilities(value))
        error = expected_calibration_error(predictions.labels, predictions.probabilities(value))
        axes.plot(bins.predicted, bins.observed, color=color, linewidth=1.4, label=f"{name}: ECE {error:.3f}")
        size = 12 + 120 * np.sqrt(bins.images / bins.images.sum())
        axes.scatter(bins.predicted, bins.observed, size, color=color, marker=marker, alpha=0.75, linewidths=0)
    positive = (
        f"predicted probability of {drawable(predictions.classes[1])}"
        if len(predictions.classes) == 2
        else "largest predicted probability"
    )
    axes.set(xlabel=positive, ylabel="observed frequency", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def score_histogram(predictions: Predictions, temperature: float, threshold: float | None, title: str) -> Figure:
    """Draws how probabilities are spread, by class with two of them, else by right and wrong.

    Args:
        predictions: Of images whose classes are known.
        temperature: Logits are divided by it.
        threshold: Marked with two classes.
        title: Above the figure.
    """
    figure, (axes,) = panels(1, (5.2, 3.4), title)
    likely = predictions.probabilities(temperature)
    probability, true = claims(predictions.labels, likely)
    two = len(predictions.classes) == 2
    names = list(map(drawable, predictions.classes)) if two else ["wrong", "right"]
    for name, chosen, color in zip(names, (~true, true), (BLUE, ORANGE), strict=True):
        axes.hist(probability[chosen], bins=np.linspace(0, 1, 31).tolist(), color=color, alpha=0.65, label=name)
    if two and threshold is not None:
        axes.axvline(threshold, color=RED, linewidth=1.2, linestyle="--", label=f"threshold {threshold:.3g}")
    axes.set(
        xlabel=f"predicted probability of {names[1]}" if two else "largest predicted probability",
        ylabel="images",
        xlim=(0, 1),
    )
    axes.legend(frameon=False, fontsize=8, loc="upper center")
    return figure


def predictions(
    predictions: Predictions, part: str, title: str, temperature: float = 1.0, threshold: float | None = None
) -> dict[str, bytes | str]:
    """Draws the figures of some predictions, and writes a table of them.

    Args:
        predictions: The predictions.
        part: `validation` or `test`.
        title: Above the figures.
        temperature: Logits are divided by it.
        threshold: From which probability of the second of two classes on it is predicted; None for 0.5.

    Returns:
        PNG and CSV by their path among a run's artifacts.
    """
    likely, cut = predictions.probabilities(temperature), 0.5 if threshold is None else threshold
    predicted = decide(likely, cut)
    before, named = "" if part == "validation" else f"{part}_", f"{title}, {part}"
    drawn = {
        "confusion_matrix": confusion_matrix(predictions.labels, predicted, predictions.classes, named),
        "roc": roc_curve(predictions.labels, likely, predictions.classes, named, cut),
    }
    if part == "test":
        drawn["calibration"] = calibration(predictions, temperature, named)
        drawn["scores"] = score_histogram(predictions, temperature, cut, named)
    pictures = {f"figures/{before}{name}.png": png(figure) for name, figure in drawn.items()}
    return {**pictures, f"predictions/{part}.csv": predictions.to_csv(temperature)}


def of_model(
    history: Sequence[Mapping[str, float]],
    epoch: int,
    parts: Mapping[str, Predictions],
    temperature: float,
    threshold: float | None,
    title: str,
) -> dict[str, bytes]:
    """Draws the figures of a model card.

    Args:
        history: One row of metrics per epoch; of an ensemble none.
        epoch: The one whose weights these are.
        parts: The model's predictions of `validation` and, where they were kept, of `test`.
        temperature: Logits are divided by it.
        threshold: The model's own; None for more than two classes.
        title: Above the figures.

    Returns:
        PNG by path.
    """
    drawn = {"learning_curves": learning_curves(pd.DataFrame(history), epoch, title)} if history else {}
    cut = 0.5 if threshold is None else threshold
    for part, predictions in parts.items():
        named = f"{title}, {part}"
        drawn[f"{part}_roc"] = roc_curve(
            predictions.labels, predictions.probabilities(temperature), predictions.classes, named, cut
        )
        drawn[f"{part}_calibration"] = calibration(predictions, temperature, named)
    return {f"figures/{name}.png": png(figure) for name, figure in drawn.items()}


def class_balance(counts: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """Draws how many images each class has in each split, one panel per split (report figure 2 drew pies).

    Args:
        counts: split -> class -> images.
        title: Above the figure.
    """
    names = list(next(iter(counts.values())))
    largest = max(max(images.values()) / max(1, sum(images.values())) for images in counts.values())
    figure, parts = panels(len(counts), (3 * len(counts), 0.32 * len(names) + 1.3), title)
    for axes, (split, images) in zip(parts, counts.items(), strict=True):
        total = sum(images.values())
        shares = [images[name] / max(1, total) for name in names]
        bars = axes.barh(list(map(drawable, names)), shares, color=BLUE, height=0.68)
        axes.bar_label(
            bars,
            [f"{images[name]:,}  ({100 * share:.0f} %)" for name, share in zip(names, shares, strict=True)],
            padding=3,
            fontsize=8,
        )
        axes.set_title(f"{split}: {total:,}", fontsize=9, loc="left")
        # Room for the label of the longest bar; the same scale everywhere, so that lengths compare across splits.
        axes.set(xlim=(0, 1.6 * largest or 1), xticks=[])
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelleft=axes is parts[0])
    return figure


def panels(count: int, size: tuple[float, float], title: str) -> tuple[Figure, list[Axes]]:
    """Makes a figure with panels side by side, in the one look that all figures share.

    Args:
        count: Panels.
        size: Width and height, in inches.
        title: Above the figure.
    """
    mpl.rcParams["font.family"] = families()
    figure = Figure(figsize=size, dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    figure.suptitle(drawable(title), fontsize=11)
    row = [figure.add_subplot(1, count, index + 1) for index in range(count)]
    for axes in row:
        axes.grid(visible=True, color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, row
