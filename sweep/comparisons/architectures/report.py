"""The report of a comparison: one HTML file that needs no network, and its twin in Markdown for a pull request."""

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
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sweep.comparisons.architectures import charts, search_charts
from sweep.comparisons.architectures.analysis import SHOWN, ComparedModel, Comparison, selection_bias
from sweep.comparisons.architectures.chart_style import color
from sweep.comparisons.replication.published import FINAL, TEST_IMAGES
from sweep.metrics import markdown as writing
from sweep.metrics.bootstrap import CONFIDENCE, Interval
from sweep.metrics.formatting import (
    ENDS_IN_PRINT,
    POINTS_IN_PRINT,
    SCORE_IN_PRINT,
    SPACE,
    format_count,
    format_interval,
    format_p_value,
    format_seconds,
)
from sweep.metrics.names import NOT_A_DEVICE

TEMPLATE = "report.html.jinja"
COLUMNS = ("accuracy", "precision_macro", "f1_macro", "auroc", "balanced_accuracy", "recall", "specificity")
NONE = "\u2013"
NAMES = {"mlflow.source.git.commit": "commit", "dirty": "changed since that commit", "version": "version of sweep"}


@dataclass(frozen=True)
class Picture:
    """A test image that the champion has wrong.

    Attributes:
        name: Of its file.
        label: What it shows.
        called: What the champion calls it.
        probability: With which it does, 0 to 1.
        jpeg: The image.
    """

    name: str
    label: str
    called: str
    probability: float
    jpeg: bytes


def html(comparison: Comparison, diagrams: Mapping[str, str], pictures: Sequence[Picture] = ()) -> str:
    """Writes the page.

    Args:
        comparison: What it tells.
        diagrams: A drawing of each architecture, as an SVG element.
        pictures: Images of patients; with them the page must not be published.

    Returns:
        A whole document, the same for the same arguments.
    """
    drawn = _charts(comparison)
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
        contenders=comparison.contenders,
        first=comparison.contenders[0],
        classes=comparison.contenders[0].predictions.classes,
        lead=_lead(comparison),
        not_a_device=NOT_A_DEVICE,
        notes=_notes(comparison),
        confidence=f"{100 * CONFIDENCE:g}{SPACE}%",
        columns=[SHOWN[name] for name in _columns(comparison)],
        scores=_scores(comparison),
        baseline=_baseline(comparison),
        paired_tests=_duels(comparison),
        costs=_costs(comparison),
        flattered=_flattered(comparison),
        configurations=_configurations(comparison),
        published=_published(comparison),
        provenance=_provenance(comparison),
        counts=_counts(comparison),
        counted=_classes(comparison),
        seeds=_seeds(comparison),
        diagrams={arch: Markup(_own_names(svg, arch)) for arch, svg in diagrams.items()},  # noqa: S704
        pictures=[(picture, b64encode(picture.jpeg).decode()) for picture in pictures],
        colors={one.arch: color(one.arch) for one in comparison.contenders},
        heights={name: int(figure.layout.height) for name, figure in drawn.items()},  # pyright: ignore[reportAttributeAccessIssue]
        charts_json=_json(drawn),
        plotly=_packed_plotly(),
        importances=[f"importance-{one.arch}" for one in comparison.contenders],
        test_images=TEST_IMAGES,
    )


@cache
def _packed_plotly() -> str:
    """Plotly's code as the page carries it: a third of its size."""
    return b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def markdown(comparison: Comparison) -> str:
    """Writes the page's twin for a pull request: its sentences and tables."""
    names = _columns(comparison)
    parts = [
        f"# {_title(comparison)}",
        f"**{_lead(comparison)}**",
        *(
            ["\n".join(f"- {paired_test.sentence}." for paired_test in comparison.paired_tests)]
            if comparison.paired_tests
            else []
        ),
        "## Scores on test",
        writing.table(
            ("architecture", *(SHOWN[name] for name in names)),
            [
                *(
                    (row["arch"] + (" (champion)" if row["champion"] else ""), *(cell["both"] for cell in row["cells"]))
                    for row in _scores(comparison)
                ),
                (f"always {comparison.contenders[0].assessment.always}", *_baseline(comparison)),
            ],
        ),
        f"{_decided(comparison)}, on {comparison.images:,} images of {comparison.patients:,} patients. In brackets "
        f"{100 * CONFIDENCE:g} % intervals, from drawing whole patients anew; they tell nothing of another seed.",
        *(["\n".join(f"- {_missing(arch)}" for arch in comparison.missing)] if comparison.missing else []),
        "## What is to be known",
        "\n".join(f"- {note}" for note in (NOT_A_DEVICE, *_notes(comparison))),
    ]
    if comparison.paired_tests:
        heads = ("", "accuracy, points", "p", "corrected p", "AUROC, points", "p", "corrected p")
        parts += [
            f"## Against {comparison.reference}, on the same images",
            writing.table(
                heads,
                [
                    (row["arch"], *(cell for name in ("accuracy", "auroc") for cell in row[name].values()))
                    for row in _duels(comparison)
                ],
            ),
            "Accuracy: McNemar's exact test by whole patients. AUROC: paired bootstrap by whole patients. "
            "The corrected p accounts for the number of these tests (Holm).",
        ]
    costs = _costs(comparison)
    parts += [
        "## Costs",
        writing.table(("architecture", *costs[0]["cells"]), [(row["arch"], *row["cells"].values()) for row in costs]),
        "## Other seeds",
        _seeds_told(comparison),
        "## Beside the student report's final table",
        writing.table(
            ("architecture", "score", "theirs", "ours"),
            [(row["arch"], row["score"], row["theirs"], row["ours"]) for row in _published(comparison)],
        ),
        "Theirs is one run each, chosen by test accuracy; ours was chosen by validation.",
        "## Provenance",
        writing.table(("what", "value"), _provenance(comparison).items()),
    ]
    return "\n\n".join(parts) + "\n"


def _charts(comparison: Comparison) -> dict[str, go.Figure]:
    """Every chart that there is something to draw of, by its name on the page."""
    contenders = comparison.contenders
    found = {
        "roc": charts.roc(contenders),
        "calibration": charts.calibration(contenders),
        "forest-accuracy": charts.forest(comparison.paired_tests, "accuracy"),
        "forest-auroc": charts.forest(comparison.paired_tests, "auroc"),
        "errors": charts.errors(contenders),
        "cost-train_seconds": charts.cost(contenders, "train_seconds"),
        "cost-flops": charts.cost(contenders, "flops"),
        "selection-auroc": search_charts.selection(contenders, "auroc"),
        "selection-accuracy": search_charts.selection(contenders, "accuracy"),
        "seeds-accuracy": charts.seeds(contenders, "accuracy"),
        "seeds-auroc": charts.seeds(contenders, "auroc"),
        "classes": charts.class_distribution(comparison.counts),
    }
    for one in contenders:
        found[f"confusion-{one.arch}"] = charts.confusion(one)
        found[f"history-{one.arch}"] = search_charts.search_history(one)
        found[f"importance-{one.arch}"] = search_charts.importance(one)
        found[f"loss-{one.arch}"] = search_charts.learning_curves(one, "loss")
        found[f"scores-{one.arch}"] = search_charts.learning_curves(one, "scores")
    return {name: figure for name, figure in found.items() if figure is not None}


def _json(drawn: Mapping[str, go.Figure]) -> Markup:
    """Figures as an object of JSON that no text in it can end early."""
    # One engine of plotly's two, so that the bytes do not depend on whether the other is installed.
    named = [f"{json.dumps(name)}: {figure.to_json(engine='json')}" for name, figure in drawn.items()]
    return Markup(("{\n" + ",\n".join(named) + "\n}").replace("<", "\\u003c"))  # noqa: S704


def _title(comparison: Comparison) -> str:
    count = len(comparison.contenders)
    return f"{comparison.name}: {f'{count} architectures' if count > 1 else 'one architecture'} on the same test images"


def _lead(comparison: Comparison) -> str:
    """The headline without what the paired_tests say, which follows it."""
    rest = " ".join(f"{paired_test.sentence}." for paired_test in comparison.paired_tests)
    return comparison.headline.removesuffix(rest).strip()


def _notes(comparison: Comparison) -> list[str]:
    """Notes as sentences; an architecture's name stays as it is written."""
    names = (*(one.arch for one in comparison.contenders), *comparison.missing)
    notes = [note if note.startswith(names) else note[:1].upper() + note[1:] for note in comparison.notes]
    return [note if note.endswith(".") else f"{note}." for note in notes]


def _decided(comparison: Comparison) -> str:
    two = len(comparison.contenders[0].predictions.classes) == 2
    return "At a threshold of 0.5" if two else "By the largest probability"


def _missing(arch: str) -> str:
    return f"missing: {arch} - run `python -m sweep --arch {arch}`"


def _columns(comparison: Comparison) -> list[str]:
    """Scores of the headline table; there is no specificity with more than two classes."""
    return [name for name in COLUMNS if name in comparison.contenders[0].assessment.scores]


def _scores(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "arch": one.arch,
            "champion": one.arch == comparison.champion,
            "cells": [_cell(one.assessment.scores[name]) for name in _columns(comparison)],
        }
        for one in comparison.contenders
    ]


def _cell(interval: Interval) -> dict[str, str]:
    return {
        "value": f"{interval.value:.3f}",
        "ends": format_interval(interval, ENDS_IN_PRINT),
        "both": format_interval(interval),
    }


def _baseline(comparison: Comparison) -> list[str]:
    """What answering always the same scores."""
    baseline = comparison.contenders[0].assessment.baseline
    return [f"{baseline[name]:.3f}" if name in baseline else NONE for name in _columns(comparison)]


def _duels(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "arch": paired_test.arch,
            "sentence": paired_test.sentence,
            **{
                name: {
                    "gap": format_interval(found.interval, POINTS_IN_PRINT),
                    "p": format_p_value(found.p),
                    "corrected": format_p_value(paired_test.corrected[name]),
                }
                for name, found in (("accuracy", paired_test.accuracy), ("auroc", paired_test.auroc))
            },
        }
        for paired_test in comparison.paired_tests
    ]


def _costs(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "arch": one.arch,
            "cells": {
                "parameters": format_count(one.cost.parameters),
                "MFLOPs an image": _amount(one.cost.flops / 1e6),
                "file, MB": _amount(one.cost.bytes / 1e6),
                "training": format_seconds(one.cost.train_seconds),
                "search": NONE if one.cost.search_seconds is None else format_seconds(one.cost.search_seconds),
                "images/s here": f"{one.cost.images_per_second:,.0f}",
                "search for a point": NONE if one.seconds_per_point is None else format_seconds(one.seconds_per_point),
            },
        }
        for one in comparison.contenders
    ]


def _amount(number: float) -> str:
    return f"{number:,.0f}" if number >= 99.5 else f"{number:.{1 if number >= 9.95 else 2}f}"


def _flattered(comparison: Comparison) -> list[str]:
    """How far scores fall from validation to test, a sentence an architecture."""
    found = []
    for one in comparison.contenders:
        falls = selection_bias(one)
        if falls is not None and one.search is not None:
            tested = sum(trial.test is not None for trial in one.search.trials)
            found.append(
                f"{one.arch}: AUROC {_fall(falls[0])} from validation to test for the chosen trial, and "
                f"{_fall(falls[1])} on average over all {tested} trials that were scored on test."
            )
    return found


def _fall(gap: float) -> str:
    return f"{'falls' if gap >= 0 else 'rises'} by {abs(gap):.3f}"


def _configurations(comparison: Comparison) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Settings of the winners, those that a search chose before the others: (heading, [(name, a value each)])."""
    names = [
        name for name in dict.fromkeys(name for one in comparison.contenders for name in one.params) if name != "arch"
    ]
    searched = {
        name
        for one in comparison.contenders
        for trial in (one.search.trials if one.search else ())
        if trial.name == one.run
        for name in trial.params
    }
    parts = {
        "Searched": [name for name in names if name in searched],
        "Fixed" if searched else "Settings": [name for name in names if name not in searched],
    }
    return [
        (
            heading,
            [(name.replace("_", " "), [_setting(one, name) for one in comparison.contenders]) for name in some],
        )
        for heading, some in parts.items()
        if some
    ]


def _setting(one: ComparedModel, name: str) -> str:
    value = one.params.get(name)
    if value is None:
        return NONE
    text = str(value)
    # MLflow keeps settings as texts; of a learning rate three digits are enough for people.
    return f"{float(text):.3g}" if re.fullmatch(r"\d+\.\d{4,}(e-?\d+)?|\d(\.\d+)?e-\d+", text) else text


def _published(comparison: Comparison) -> list[dict[str, str]]:
    return [
        {
            "arch": one.arch,
            "score": SHOWN[name],
            "theirs": f"{value:.4f}",
            "ours": format_interval(one.assessment.scores[name], SCORE_IN_PRINT),
            "difference": f"{100 * (one.assessment.scores[name].value - value):+.1f}".replace("-", "\u2212"),
        }
        for one in comparison.contenders
        for name, value in FINAL.get(one.arch, {}).items()
    ]


def _classes(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys(name for images in comparison.counts.values() for name in images))


def _counts(comparison: Comparison) -> dict[str, list[str]]:
    """Images of each split by class, and all of them."""
    classes = _classes(comparison)
    return {
        split: [*(f"{images.get(name, 0):,}" for name in classes), f"{sum(images.values()):,}"]
        for split, images in comparison.counts.items()
    }


def _seeds(comparison: Comparison) -> list[dict[str, str]]:
    """The registered one beside the mean and the spread of other seeds, for those who have any."""
    return [
        {
            "arch": one.arch,
            "score": SHOWN[name],
            "registered": f"{one.assessment.scores[name].value:.3f}",
            "mean": f"{float(np.mean(values)):.3f}",
            "range": f"{min(values):.3f}\u2013{max(values):.3f}",
            "seeds": str(len(values)),
        }
        for one in comparison.contenders
        for name in ("accuracy", "auroc")
        if (values := one.seeds.get(name, ()))
    ]


def _seeds_told(comparison: Comparison) -> str:
    rows = _seeds(comparison)
    if not rows:
        return "None was trained with another seed: each of these figures is one draw."
    heads = ("architecture", "score", "registered", "mean of other seeds", "lowest to highest", "seeds")
    return writing.table(heads, [tuple(row.values()) for row in rows])


def _provenance(comparison: Comparison) -> dict[str, str]:
    told = {
        name: name.replace("version.", "version of ").replace("machine.", "machine, ") for name in comparison.provenance
    }
    return {NAMES.get(name, told[name]): str(value) for name, value in comparison.provenance.items()}


def _prose(text: str) -> Markup:
    """A sentence as HTML: what stands between backticks is code, and what is between two stars is strong."""
    written = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", written))  # noqa: S704


def _dashes(text: str) -> str:
    """A sentence with the dashes of print: between numbers, and before negative ones."""
    return re.sub(r"(?<![\w-])-(?=\d)", "\u2212", re.sub(r"(?<=\d)-(?=\d)", "\u2013", text))


def _own_names(svg: str, arch: str) -> str:
    """A drawing whose names and styles concern nothing else on the page."""
    mine = f"{re.sub(r'[^A-Za-z0-9]', '-', arch)}-"
    named = re.sub(r'\bid="([^"]+)"', rf'id="{mine}\1"', svg)
    named = re.sub(r'href="#([^"]+)"', rf'href="#{mine}\1"', re.sub(r"url\(#([^)]+)\)", rf"url(#{mine}\1)", named))
    return re.sub(r"(<style[^>]*>)\s*\*", r"\1.drawing *", named)
