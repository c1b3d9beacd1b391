"""Write the comparison report: one HTML file that needs no network, and the same in Markdown for a pull request."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sweep.comparisons.architectures import charts, heat_sections, search_charts
from sweep.comparisons.architectures import report_sections as sections
from sweep.comparisons.architectures.analysis import SHOWN, Comparison
from sweep.comparisons.architectures.chart_style import color
from sweep.comparisons.replication.published import TEST_IMAGES
from sweep.metrics import markdown
from sweep.metrics.bootstrap import CONFIDENCE
from sweep.metrics.formatting import SPACE
from sweep.metrics.names import NOT_A_DEVICE

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Picture:
    """A test image that the champion has wrong.

    Attributes:
        name: Of its file.
        label: Its class.
        predicted: The class that the champion predicts.
        probability: The probability of that class, 0 to 1.
        jpeg: The image.
    """

    name: str
    label: str
    predicted: str
    probability: float
    jpeg: bytes


def to_html(comparison: Comparison, diagrams: Mapping[str, str], pictures: Sequence[Picture] = ()) -> str:
    """Writes the page.

    Args:
        comparison: The comparison.
        diagrams: A drawing of each architecture, as an SVG element.
        pictures: Images of patients; with them the page must not be published.

    Returns:
        A whole document, the same for the same arguments.
    """
    figures = _charts(comparison)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    environment.filters["numbers"] = _dashes
    return environment.get_template(TEMPLATE).render(
        comparison=comparison,
        models=comparison.models,
        first=comparison.models[0],
        classes=comparison.models[0].predictions.classes,
        lead=sections.lead(comparison),
        not_a_device=NOT_A_DEVICE,
        notes=sections.notes(comparison),
        confidence=f"{100 * CONFIDENCE:g}{SPACE}%",
        columns=[SHOWN[name] for name in sections.columns(comparison)],
        scores=sections.scores(comparison),
        baseline=sections.baseline(comparison),
        paired_tests=sections.paired_tests(comparison),
        costs=sections.costs(comparison),
        selection_bias=sections.selection_sentences(comparison),
        configurations=sections.configurations(comparison),
        published=sections.published(comparison),
        provenance=sections.provenance(comparison),
        counts=sections.counts(comparison),
        class_names=sections.class_names(comparison),
        seeds=sections.seeds(comparison),
        diagrams={arch: Markup(_own_names(svg, arch)) for arch, svg in diagrams.items()},  # noqa: S704
        pictures=[(picture, b64encode(picture.jpeg).decode()) for picture in pictures],
        colors={model.arch: color(model.arch) for model in comparison.models},
        heights={name: int(figure.layout.height) for name, figure in figures.items()},  # pyright: ignore[reportAttributeAccessIssue]
        charts_json=_json(figures),
        plotly=_packed_plotly(),
        importances=[f"importance-{model.arch}" for model in comparison.models],
        test_images=TEST_IMAGES,
        heat_rows=(heat_rows := heat_sections.rows(comparison)),
        heat_area=heat_sections.area(comparison) if heat_rows else "",
        heat_sentences=heat_sections.sentences(comparison),
        heat_how_to_read=heat_sections.HOW_TO_READ,
    )


@cache
def _packed_plotly() -> str:
    """Plotly's code as the page carries it: a third of its size."""
    return b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def to_markdown(comparison: Comparison) -> str:
    """Writes the sentences and tables of the page in Markdown, for a pull request."""
    names = sections.columns(comparison)
    parts = [
        f"# {sections.title(comparison)}",
        f"**{sections.lead(comparison)}**",
        *(
            ["\n".join(f"- {paired_test.sentence}." for paired_test in comparison.paired_tests)]
            if comparison.paired_tests
            else []
        ),
        "## Scores on test",
        markdown.table(
            ("architecture", *(SHOWN[name] for name in names)),
            [
                *(
                    (row["arch"] + (" (champion)" if row["champion"] else ""), *(cell["both"] for cell in row["cells"]))
                    for row in sections.scores(comparison)
                ),
                (f"always {comparison.models[0].assessment.always}", *sections.baseline(comparison)),
            ],
        ),
        f"{sections.decision(comparison)}, on {comparison.images:,} images of {comparison.patients:,} patients. "
        f"In brackets {100 * CONFIDENCE:g} % intervals, from drawing whole patients anew; they tell nothing of another "
        "seed.",
        *(["\n".join(f"- {sections.missing(arch)}" for arch in comparison.missing)] if comparison.missing else []),
        "## What is to be known",
        "\n".join(f"- {note}" for note in (NOT_A_DEVICE, *sections.notes(comparison))),
    ]
    if comparison.paired_tests:
        heads = ("", "accuracy, points", "p", "corrected p", "AUROC, points", "p", "corrected p")
        parts += [
            f"## Against {comparison.reference}, on the same images",
            markdown.table(
                heads,
                [
                    (row["arch"], *(cell for name in ("accuracy", "auroc") for cell in row[name].values()))
                    for row in sections.paired_tests(comparison)
                ],
            ),
            "Accuracy: McNemar's exact test by whole patients. AUROC: paired bootstrap by whole patients. "
            "The corrected p accounts for the number of these tests (Holm).",
        ]
    costs = sections.costs(comparison)
    parts += [
        *heat_sections.to_markdown(comparison),
        "## Costs",
        markdown.table(("architecture", *costs[0]["cells"]), [(row["arch"], *row["cells"].values()) for row in costs]),
        "## Other seeds",
        sections.other_seeds(comparison),
        "## Beside the student report's final table",
        markdown.table(
            ("architecture", "score", "theirs", "ours"),
            [(row["arch"], row["score"], row["theirs"], row["ours"]) for row in sections.published(comparison)],
        ),
        "Theirs is one run each, chosen by test accuracy; ours was chosen by validation.",
        "## Provenance",
        markdown.table(("what", "value"), sections.provenance(comparison).items()),
    ]
    return "\n\n".join(parts) + "\n"


def _charts(comparison: Comparison) -> dict[str, go.Figure]:
    """Every chart that has something to show, by its name on the page."""
    models = comparison.models
    figures = {
        "roc": charts.roc(models),
        "calibration": charts.calibration(models),
        "forest-accuracy": charts.forest(comparison.paired_tests, "accuracy"),
        "forest-auroc": charts.forest(comparison.paired_tests, "auroc"),
        "errors": charts.errors(models),
        "cost-train_seconds": charts.cost(models, "train_seconds"),
        "cost-flops": charts.cost(models, "flops"),
        "selection-auroc": search_charts.selection(models, "auroc"),
        "selection-accuracy": search_charts.selection(models, "accuracy"),
        "seeds-accuracy": charts.seeds(models, "accuracy"),
        "seeds-auroc": charts.seeds(models, "auroc"),
        "classes": charts.class_distribution(comparison.counts),
    }
    for model in models:
        figures[f"confusion-{model.arch}"] = charts.confusion(model)
        figures[f"history-{model.arch}"] = search_charts.search_history(model)
        figures[f"importance-{model.arch}"] = search_charts.importance(model)
        figures[f"loss-{model.arch}"] = search_charts.learning_curves(model, "loss")
        figures[f"scores-{model.arch}"] = search_charts.learning_curves(model, "scores")
    figures |= heat_sections.charts(comparison)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _json(figures: Mapping[str, go.Figure]) -> Markup:
    """Figures as an object of JSON that no text in it can end early."""
    # One engine of plotly's two, so that the bytes do not depend on whether the other is installed.
    named = [f"{json.dumps(name)}: {figure.to_json(engine='json')}" for name, figure in figures.items()]
    return Markup(("{\n" + ",\n".join(named) + "\n}").replace("<", "\\u003c"))  # noqa: S704


def _prose(text: str) -> Markup:
    """A sentence as HTML: text between backticks is code, and text between two stars is strong."""
    written = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", written))  # noqa: S704


def _dashes(text: str) -> str:
    """A sentence with the dashes of print: between numbers, and before negative ones."""
    return re.sub(r"(?<![\w-])-(?=\d)", "\u2212", re.sub(r"(?<=\d)-(?=\d)", "\u2013", text))


def _own_names(svg: str, arch: str) -> str:
    """A drawing whose names and styles concern nothing else on the page."""
    prefix = f"{re.sub(r'[^A-Za-z0-9]', '-', arch)}-"
    named = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', svg)
    named = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", named))
    return re.sub(r"(<style[^>]*>)\s*\*", r"\1.drawing *", named)
