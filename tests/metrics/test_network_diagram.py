import io
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon
from PIL import Image

from models import ARCHITECTURES
from models.outline import Layer, outline, sketch
from sweep.metrics import figures
from sweep.metrics import network_diagram as diagrams

CASES = [(arch, size) for arch, row in ARCHITECTURES.items() for size in (64, row.image_size, 512)]


def draw(arch, size, classes=2, title="cnn1-007"):
    return diagrams.architecture(outline(sketch(arch, size, classes, dropout=0.125), size), title)


def boxes(figure):
    """Where each text lies, in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [*figure.axes[0].texts, figure._suptitle]
    return {text: text.get_window_extent(renderer) for text in texts if text.get_text()}


def blocks(figure):
    """Corners of each front, in points."""
    return [patch.get_xy() for patch in figure.axes[0].patches if isinstance(patch, Polygon)][::3]


@pytest.mark.parametrize(("arch", "size"), CASES)
@pytest.mark.parametrize("title", ["cnn1-007", "a long title, " * 8])
def test_no_text_is_cut_or_meets_another_or_a_block(arch, size, title):
    figure = draw(arch, size, title=title)
    found = boxes(figure)
    for (one, first), (other, second) in combinations(found.items(), 2):
        assert not first.overlaps(second), f"{one} and {other}"
    for text, box in found.items():
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y1 <= figure.bbox.height, text
    shapes = [patch.get_window_extent() for patch in figure.axes[0].patches]
    assert not [text for text, box in found.items() for shape in shapes if box.overlaps(shape)]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_letters_can_be_read_where_the_figure_is_700_pixels_wide(arch):
    figure = draw(arch, ARCHITECTURES[arch].image_size)
    smallest = min(text.get_fontsize() for text in boxes(figure)) * figure.dpi / 72
    assert smallest * 700 / figure.bbox.width > 9


def test_every_layer_says_what_it_is():
    figure = draw("cnn1", 160)
    said = [text.get_text() for text in boxes(figure)]
    assert {"cnn1-007", "12 x 160 x 160", "20 x 80 x 80", "12 of 3 x 3", "batch norm", "dropout 0.12"} <= set(said)
    assert {"parameters", "132", "2,200", "5,824", "409,602"} <= set(said)
    assert (said.count("Conv"), said.count("Max pool"), said.count("Linear"), said.count("Input")) == (3, 1, 1, 1)


def test_blocks_are_as_tall_as_images_are_large_and_as_wide_as_channels_are_many():
    fronts = blocks(draw("cnn2", 160))
    heights = [np.ptp(front[:, 1]) for front in fronts]
    widths = [np.ptp(front[:, 0]) for front in fronts]
    sides = np.array([160, 160, 160, 80, 80, 80, 40, 40])
    assert np.array(heights[:-1]) / heights[0] == pytest.approx(np.sqrt(sides / 160))
    assert 0 < heights[-1] < heights[-2] / 2
    assert widths[1] == widths[2] < widths[4] == widths[5] < widths[7]
    ends = [(front[:, 0].min(), front[:, 0].max()) for front in fronts]
    assert all(right < left for (_, right), (left, _) in pairwise(ends))


def test_kinds_have_colours_and_an_unknown_one_is_gray():
    rows = [Layer(kind, kind, "", (8, 8, 8), 0) for kind in (*diagrams.COLORS, "attention")]
    figure = diagrams.architecture(rows, "x")
    sides = [patch.get_facecolor()[:3] for patch in figure.axes[0].patches if isinstance(patch, Polygon)][2::3]
    assert sides == [to_rgb(color) for color in (*diagrams.COLORS.values(), figures.GRAY)]
    assert len(set(diagrams.COLORS.values())) == 5


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_svg_is_small_and_the_same_again(arch):
    size = ARCHITECTURES[arch].image_size
    text = diagrams.svg(draw(arch, size))
    assert text == diagrams.svg(draw(arch, size))
    assert len(text.encode()) < 40_000
    assert text.startswith("<svg")
    assert "metadata" not in text
    said = "".join(ElementTree.fromstring(text).itertext())  # noqa: S314
    assert "cnn1-007" in said
    assert "Input" in said


def test_the_png_is_small_and_white_around():
    content = figures.png(draw("resnet50", 224))
    assert len(content) < 40_000
    image = Image.open(io.BytesIO(content)).convert("RGB")
    assert 700 <= image.width < 1000
    assert image.getpixel((2, 2)) == (255, 255, 255)
