"""Networks as pictures: a row of blocks from the image to the logits (report figures 4, 6, 8 and 11)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2, sqrt
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, Polygon
from matplotlib.textpath import text_to_path

from sweep.metrics.figures import BLUE, GRAY, GREEN, ORANGE, PALETTE, panels

if TYPE_CHECKING:
    from models.outline import Layer

COLORS = {"input": GRAY, "convolution": BLUE, "pooling": ORANGE, "stage": PALETTE[5], "linear": GREEN}

# Lengths are points, 1/72 inch, as those of letters are, so that what a text measures holds in the figure.
_NARROWEST = 490
_TALLEST = 90
_GAP = 8
_LETTERS = 7.5
_LINE = 10.5
_TITLE = 30


@dataclass(frozen=True)
class _Block:
    """A layer's cuboid and the texts around it; lengths in points."""

    kind: str
    width: float
    height: float
    depth: float
    output: str
    name: str
    details: tuple[str, ...]
    parameters: str

    def column(self) -> float:
        """How wide it is with its texts."""
        texts = [_wide(text) for text in (self.output, *self.details, self.parameters)]
        return max(*texts, _wide(self.name, "bold"), self.width + self.depth)


def architecture(layers: Sequence[Layer], title: str) -> Figure:
    """Draws a network: a block is the taller the larger its images, and the wider the more channels it has.

    Args:
        layers: The input and what follows, of `models.outline.outline`.
        title: Above the figure.
    """
    largest = max(_side(layer) for layer in layers)
    blocks = [_block(layer, largest) for layer in layers]
    columns = [block.column() + _GAP for block in blocks]
    # A title's letters are half as large again as those that were measured.
    spare = max(0, max(_NARROWEST, 1.6 * _wide(title)) - sum(columns)) / len(columns)

    below = (max(len(block.details) for block in blocks) + 3.4) * _LINE
    middle = below + _TALLEST / 2
    size = (sum(columns) + spare * len(columns) + _GAP, below + _TALLEST + 2 * _LINE + _TITLE)
    figure, axes = _canvas(size, title)

    left, before = _GAP / 2, None
    for block, column in zip(blocks, columns, strict=True):
        center = left + (column + spare) / 2
        _cuboid(axes, block, center, middle)
        start, end = (center + side * (block.width + block.depth) / 2 for side in (-1, 1))
        if before is not None:
            arrow = FancyArrowPatch((before + 1, middle), (start - 1, middle), arrowstyle="-|>", shrinkA=0, shrinkB=0)
            arrow.set(mutation_scale=5, linewidth=0.8, color=GRAY)
            axes.add_patch(arrow)
        top = middle + (block.height + block.depth) / 2
        _write(axes, center, top + _LINE, block.output)
        _write(axes, center, below - _LINE, block.name, weight="bold")
        for line, detail in enumerate(block.details):
            _write(axes, center, below - (line + 2) * _LINE, detail)
        _write(axes, center, _LINE, block.parameters, color=GRAY)
        left, before = left + column + spare, end
    return figure


def svg(figure: Figure) -> str:
    """Draws a figure as an SVG element, on white; the same figure gives the same text."""
    content = io.StringIO()
    # Outlines of letters would be most of the bytes and could not be searched. Fonts that a reader may have in place
    # of ours are as wide or narrower, so texts still do not overlap.
    with matplotlib.rc_context({"svg.hashsalt": "sweep", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = content.getvalue()
    # The text before the element is for files and not allowed in a page.
    return text[text.index("<svg") :]


def _side(layer: Layer) -> int:
    """The side of a layer's images in pixels; values alone count as images of one pixel."""
    return layer.output[1] if len(layer.output) == 3 else 1


def _block(layer: Layer, largest: int) -> _Block:
    # Square root and logarithm, so that 7 pixels still show beside 224, and 12 channels beside 2,048.
    height = max(5.0, _TALLEST / 1.2 * sqrt(_side(layer) / largest))
    return _Block(
        layer.kind,
        3 + 3 * log2(layer.output[0]),
        height,
        height / 5,
        " x ".join(map(str, layer.output)),
        layer.name,
        tuple(filter(None, layer.detail.split(", "))),
        "parameters" if layer.kind == "input" else f"{layer.parameters:,}",
    )


def _wide(text: str, weight: str = "normal") -> float:
    """The width of a text, in points."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=_LETTERS, weight=weight), False)[0]


def _canvas(size: tuple[float, float], title: str) -> tuple[Figure, Axes]:
    """A figure of the common look, whose axes cover it and measure points."""
    width, height = size
    figure, (axes,) = panels(1, (width / 72, height / 72), title)
    figure.set_layout_engine("none")
    axes.set(position=(0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def _cuboid(axes: Axes, block: _Block, center: float, middle: float) -> None:
    """Draws a block around a point: its front, its top and its right side, a shade each."""
    depth = block.depth
    left, bottom = center - (block.width + depth) / 2, middle - (block.height + depth) / 2
    right, top = left + block.width, bottom + block.height
    faces = {
        0.25: [(left, bottom), (right, bottom), (right, top), (left, top)],
        0.5: [(left, top), (right, top), (right + depth, top + depth), (left + depth, top + depth)],
        0.0: [(right, bottom), (right + depth, bottom + depth), (right + depth, top + depth), (right, top)],
    }
    for white, corners in faces.items():
        color = [white + (1 - white) * part for part in to_rgb(COLORS.get(block.kind, GRAY))]
        axes.add_patch(Polygon(corners, facecolor=color, edgecolor="white", linewidth=0.4))


def _write(axes: Axes, x: float, y: float, text: str, color: str = "#111827", weight: str = "normal") -> None:
    axes.text(x, y, text, fontsize=_LETTERS, color=color, weight=weight, ha="center", va="center")
