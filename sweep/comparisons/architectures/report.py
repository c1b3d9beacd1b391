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
from typing import Literal

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sweep.comparisons.architectures import charts, clinical_charts, front, heat_sections, paired_charts, search_charts
from sweep.comparisons.architectures import report_sections as sections
from sweep.comparisons.architectures.analysis import Comparison, PairedTest
from sweep.comparisons.architectures.chart_style import color
from sweep.comparisons.architectures.clinical import clinical, clinical_markdown
from sweep.comparisons.architectures.report_info import (
    ReportInfo,
    date_rows,
    dates,
    shows_student_report,
    student_report_caveats,
)
from sweep.metrics import markdown
from sweep.metrics.bootstrap import CONFIDENCE
from sweep.metrics.calibration import BINS
from sweep.metrics.formatting import SPACE, format_probability
from sweep.metrics.names import NOT_A_DEVICE

TEMPLATE = "report.html.jinja"
LOGGED = "report.html"  # its name among the artifacts of a comparison's run


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


def to_html(
    comparison: Comparison,
    diagrams: Mapping[str, str],
    pictures: Sequence[Picture] = (),
    info: ReportInfo = ReportInfo(),  # noqa: B008 - frozen
    figures: Mapping[str, go.Figure] | None = None,
) -> str:
    """Writes the page.

    Args:
        comparison: The comparison.
        diagrams: A drawing of each architecture, as an SVG element.
        pictures: Images of patients; with them the page must not be published.
        info: Its date, what is linked, what was asked for.
        figures: What `charts_of` makes, where another page has needed them already; None makes them.

    Returns:
        A whole document, the same for the same arguments.
    """
    figures = charts_of(comparison) if figures is None else figures
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            comparison=comparison,
            models=comparison.models,
            first=comparison.models[0],
            classes=comparison.models[0].predictions.classes,
            lead=sections.lead(comparison),
            not_a_device=NOT_A_DEVICE,
            notes=sections.notes(comparison),
            bins=BINS,
            confidence=f"{100 * CONFIDENCE:g}{SPACE}%",
            columns=sections.heads(comparison),
            scores=sections.scores(comparison),
            decision=sections.decision(comparison),
            own_thresholds=[model.arch for model in comparison.models if model.own_threshold],
            baseline=sections.baseline(comparison),
            paired_tests=comparison.paired_tests,
            champion_tests=sections.paired_tests(comparison.champion_tests),
            reference_tests=sections.paired_tests(comparison.reference_tests),
            clinical=clinical(comparison),
            costs=sections.costs(comparison),
            selection_bias=sections.selection_sentences(comparison),
            configurations=sections.configurations(comparison),
            published=sections.published(comparison) if shows_student_report(comparison, info) else [],
            caveats=student_report_caveats(comparison),
            provenance={**date_rows(info), **sections.provenance(comparison)},
            dates=dates(info),
            checklist=info.checklist,
            counts=sections.counts(comparison),
            class_names=sections.class_names(comparison),
            seeds=sections.seeds(comparison),
            registered=sections.registered(comparison),
            diagrams={arch: Markup(_own_names(svg, arch)) for arch, svg in diagrams.items()},  # noqa: S704
            pictures=[(picture, b64encode(picture.jpeg).decode()) for picture in pictures],
            colors={model.arch: color(model.arch) for model in comparison.models},
            heights={name: int(figure.layout.height) for name, figure in figures.items()},  # pyright: ignore[reportAttributeAccessIssue]
            charts_json=_json(figures),
            plotly=_packed_plotly(),
            importances=[f"importance-{model.arch}" for model in comparison.models],
            fewest_for_importance=search_charts.FEWEST_FOR_IMPORTANCE,
            fronts=front.tables(comparison),
            front_caption=front.CAPTION,
            search_caption=sections.search_caption(comparison),
            several_splits=sections.several_splits(comparison),
            heat_rows=(heat_rows := heat_sections.rows(comparison)),
            heat_area=heat_sections.area(comparison) if heat_rows else "",
            heat_sentences=heat_sections.sentences(comparison),
            heat_how_to_read=heat_sections.HOW_TO_READ,
        )
    )


def environment() -> Environment:
    """What fills the templates of this folder."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["prose"] = _prose
    made.filters["numbers"] = _dashes
    made.filters["probability"] = format_probability
    return made


@cache
def _packed_plotly() -> str:
    """Plotly's code as the page carries it: a third of its size."""
    return b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def to_markdown(comparison: Comparison, info: ReportInfo = ReportInfo()) -> str:  # noqa: B008 - frozen
    """Writes the sentences and tables of the page in Markdown, for a pull request."""
    parts = [
        f"# {sections.title(comparison)}",
        f"**{sections.lead(comparison)}**",
        *([" ".join(dates(info))] if dates(info) else []),
        *(
            ["\n".join(f"- {paired_test.sentence}." for paired_test in comparison.paired_tests)]
            if comparison.paired_tests
            else []
        ),
        "## Scores on test",
        markdown.table(
            ("architecture", *sections.heads(comparison)),
            [
                *_score_rows(comparison),
                (f"always {comparison.models[0].assessment.always}", *sections.baseline(comparison)),
            ],
        ),
        f"{sections.decision(comparison)}, on {comparison.images:,} images of {comparison.patients:,} patients. "
        f"In brackets {100 * CONFIDENCE:g} % intervals, from a bootstrap of whole patients; they do not include the "
        "variation between training seeds.",
        "## Notes and limitations",
        "\n".join(f"- {note}" for note in (NOT_A_DEVICE, *sections.notes(comparison))),
    ]
    if comparison.champion_tests:
        parts += [
            f"## The champion, {comparison.champion}, against its rivals, on the same images",
            _table_of_tests(comparison.champion_tests, "against"),
        ]
    if comparison.paired_tests:
        parts += [
            f"## Against {comparison.reference}, on the same images",
            _table_of_tests(comparison.reference_tests, "arch"),
            "Accuracy: McNemar's exact test by whole patients. AUROC: paired bootstrap by whole patients. "
            f"The corrected p accounts for all {2 * len(comparison.paired_tests)} tests (Holm).",
        ]
    costs = sections.costs(comparison)
    parts += clinical_markdown(comparison)
    parts += [
        *heat_sections.to_markdown(comparison),
        "## Costs",
        markdown.table(("architecture", *costs[0]["cells"]), [(row["arch"], *row["cells"].values()) for row in costs]),
        *front.to_markdown(comparison),
        "## Other seeds",
        sections.other_seeds(comparison),
        *(_student_report(comparison) if shows_student_report(comparison, info) else []),
        "## Provenance",
        markdown.table(("what", "value"), {**date_rows(info), **sections.provenance(comparison)}.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _score_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Rows of the headline table in Markdown: each model as it is served, and at 0.5 where that differs."""
    rows = []
    for row in sections.scores(comparison):
        name = row["arch"] + (" (champion)" if row["champion"] else "")
        rows.append((name, *(cell["both"] for cell in row["cells"])))
        if row["at_half"]:
            rows.append((f"{row['arch']} at 0.5", *("" if cell is None else cell["both"] for cell in row["at_half"])))
    return rows


def _table_of_tests(tests: Sequence[PairedTest], by: Literal["arch", "against"]) -> str:
    """Paired tests in Markdown; `by` says which of the two models names a row."""
    heads = ("", "accuracy, points", "p", "corrected p", "AUROC, points", "p", "corrected p")
    rows = [
        (row[by], *(cell for name in ("accuracy", "auroc") for cell in row[name].values()))
        for row in sections.paired_tests(tests)
    ]
    return markdown.table(heads, rows)


def _student_report(comparison: Comparison) -> list[str]:
    """The section beside the student report, in Markdown."""
    heads = ("architecture", "score", "theirs", "ours", "ours at 0.5")
    rows = [
        (row["arch"], row["score"], row["theirs"], row["ours"], row["at_half"])
        for row in sections.published(comparison)
    ]
    return [
        "## Beside the student report's final table",
        markdown.table(heads, rows),
        " ".join(student_report_caveats(comparison)),
    ]


def charts_of(comparison: Comparison) -> dict[str, go.Figure]:
    """Every chart that has something to show, by its name on the page."""
    models = comparison.models
    figures = {
        "roc": charts.roc(models),
        "calibration": charts.calibration(models),
        "champion-accuracy": paired_charts.forest(comparison.champion_tests, "accuracy", "against"),
        "champion-auroc": paired_charts.forest(comparison.champion_tests, "auroc", "against"),
        "forest-accuracy": paired_charts.forest(comparison.reference_tests, "accuracy"),
        "forest-auroc": paired_charts.forest(comparison.reference_tests, "auroc"),
        "errors": charts.errors(models),
        "cost-train_seconds": charts.cost(models, "train_seconds"),
        "cost-flops": charts.cost(models, "flops"),
        "selection-auroc": search_charts.selection(models, "auroc"),
        "selection-accuracy": search_charts.selection(models, "accuracy"),
        "seeds-accuracy": charts.seeds(models, "accuracy"),
        "seeds-auroc": charts.seeds(models, "auroc"),
        "classes": charts.class_distribution(comparison.counts),
        **clinical_charts.decision_charts(models),
    }
    for model in models:
        figures[f"confusion-{model.arch}"] = charts.confusion(model)
        if model.own_threshold:
            figures[f"confusion-half-{model.arch}"] = charts.confusion(model, 0.5)
        figures[f"history-{model.arch}"] = search_charts.search_history(model)
        figures[f"front-{model.arch}"] = front.chart(model)
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
