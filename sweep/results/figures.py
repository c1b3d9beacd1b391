"""Pictures of results, drawn with matplotlib's objects alone: no pyplot, no global state, no display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn import metrics

# Okabe and Ito's palette, which colour-blind people can tell apart.
BLUE, ORANGE, GREEN, RED, GRAY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b7280"
PALETTE = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#F0E442", "#000000")
DPI = 110


def png(figure: Figure) -> bytes:
    """Draws a figure as PNG, on white."""
    content = io.BytesIO()
    if figure.canvas is None or not isinstance(figure.canvas, FigureCanvasAgg):
        FigureCanvasAgg(figure)
    figure.savefig(content, format="png", dpi=DPI, facecolor="white", bbox_inches="tight")
    return content.getvalue()


def learning_curves(history: pd.DataFrame, best_epoch: int, title: str) -> Figure:
    """Draws loss, and accuracy and AUROC, across epochs (report figures 5, 7, 9, 10 and 12).

    Args:
        history: Columns epoch, train/loss, train/accuracy, val/loss, val/accuracy, val/auroc.
        best_epoch: The epoch to mark; 0 marks none.
        title: Above the figure.
    """
    figure, (left, right) = _panels(1, 2, (9, 3.6), title)
    for column, label, color in (("train/loss", "train", GRAY), ("val/loss", "validation", BLUE)):
        left.plot(history["epoch"], history[column], color=color, label=label, marker=".", linewidth=1.6)
    right.plot(
        history["epoch"], history["train/accuracy"], color=GRAY, label="train accuracy", marker=".", linewidth=1.6
    )
    right.plot(
        history["epoch"], history["val/accuracy"], color=BLUE, label="validation accuracy", marker=".", linewidth=1.6
    )
    right.plot(
        history["epoch"], history["val/auroc"], color=ORANGE, label="validation AUROC", marker=".", linewidth=1.6
    )
    left.set(xlabel="epoch", ylabel="weighted cross entropy")
    right.set(xlabel="epoch", ylabel="score")
    for axes in (left, right):
        if best_epoch:
            axes.axvline(best_epoch, color=GREEN, linestyle="--", linewidth=1, label=f"best epoch ({best_epoch})")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
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
    side = max(3.6, 1.1 * len(classes) + 1)
    figure, (axes,) = _panels(1, 1, (side + 0.4, side), title)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(
        xticks=range(len(classes)),
        yticks=range(len(classes)),
        xticklabels=classes,
        yticklabels=classes,
        xlabel="predicted",
        ylabel="true",
    )
    axes.grid(visible=False)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(
            column,
            row,
            f"{count:,}\n{100 * shares[row, column]:.1f} %",
            ha="center",
            va="center",
            color="white" if shares[row, column] > 0.6 else "black",
            fontsize=9,
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
    figure, (axes,) = _panels(1, 1, (4.4, 4.2), title)
    shown = [1] if len(classes) == 2 else range(len(classes))
    for index, label in enumerate(shown):
        false, true, _ = metrics.roc_curve(labels == label, likely[:, label])
        name = f"{classes[label]}: AUROC {metrics.auc(false, true):.3f}"
        axes.plot(false, true, color=PALETTE[index % len(PALETTE)], linewidth=1.8, label=name)
    if len(classes) == 2:
        for cut, marker in {0.5: "o", threshold: "D"}.items():
            called = likely[:, 1] >= cut
            point = (called[labels == 0].mean(), called[labels == 1].mean())
            axes.plot(*point, marker, color=RED, markersize=6 if cut == 0.5 else 5, label=f"threshold {cut:.3g}")
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=":")
    axes.set(
        xlabel="false positive rate",
        ylabel="true positive rate",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def class_balance(counts: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """Draws how many images each class has in each split (report figure 2).

    Args:
        counts: split -> class -> images.
        title: Above the figure.
    """
    figure, (axes,) = _panels(1, 1, (7.5, 0.7 * len(counts) + 1.2), title)
    rows = list(counts)[::-1]
    start = np.zeros(len(rows))
    for index, name in enumerate(next(iter(counts.values()))):
        widths = np.array([counts[row][name] / max(1, sum(counts[row].values())) for row in rows])
        axes.barh(rows, widths, left=start, color=PALETTE[index % len(PALETTE)], label=name, height=0.62)
        for row, (split, width) in enumerate(zip(rows, widths, strict=True)):
            text = f"{counts[split][name]:,}  ({100 * width:.0f} %)"
            axes.text(start[row] + width / 2, row, text, ha="center", va="center", color="white", fontsize=9)
        start += widths
    axes.set(xlim=(0, 1), xlabel="share of the split's images")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.grid(visible=False)
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _panels(rows: int, columns: int, size: tuple[float, float], title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = [figure.add_subplot(rows, columns, index + 1) for index in range(rows * columns)]
    for axes in panels:
        axes.grid(visible=True, color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, panels
