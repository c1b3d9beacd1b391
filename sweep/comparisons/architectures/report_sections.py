"""Sentences and tables of the comparison report as plain data, for the page and for its Markdown version."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sweep.comparisons.architectures.analysis import SHOWN, ComparedModel, Comparison, PairedTest, selection_bias
from sweep.comparisons.replication.published import FINAL
from sweep.metrics import markdown
from sweep.metrics.bootstrap import Interval
from sweep.metrics.formatting import (
    ENDS_IN_PRINT,
    POINTS_IN_PRINT,
    SCORE_IN_PRINT,
    format_count,
    format_interval,
    format_p_value,
    format_seconds,
)
from sweep.metrics.names import THRESHOLD_FREE, label_of

COLUMNS = ("accuracy", "precision_macro", "f1_macro", "auroc", "balanced_accuracy", "recall", "specificity")
NONE = "\u2013"
NAMES = {"mlflow.source.git.commit": "commit", "dirty": "changed since that commit", "version": "version of sweep"}


def title(comparison: Comparison) -> str:
    """The heading."""
    count = len(comparison.models)
    return f"{comparison.name}: {f'{count} architectures' if count > 1 else 'one architecture'} on the same test images"


def lead(comparison: Comparison) -> str:
    """The headline without the sentences of the paired tests, which follow it."""
    rest = " ".join(f"{paired_test.sentence}." for paired_test in comparison.paired_tests)
    return comparison.headline.removesuffix(rest).strip()


def notes(comparison: Comparison) -> list[str]:
    """Notes as sentences; an architecture's name stays as it is written."""
    names = tuple(model.arch for model in comparison.models)
    notes = [note if note.startswith(names) else note[:1].upper() + note[1:] for note in comparison.notes]
    return [note if note.endswith(".") else f"{note}." for note in notes]


def decision(comparison: Comparison) -> str:
    """How a class is decided, a sentence without its end."""
    if len(comparison.models[0].predictions.classes) > 2:
        return "By the largest probability"
    own = [f"{model.arch} {model.threshold:.3g}" for model in comparison.models if model.own_threshold]
    if not own:
        return "Each model as it is served, at a threshold of 0.5"
    rest = ", the others 0.5" if len(own) < len(comparison.models) else ""
    return f"Each model as it is served, at its own threshold ({', '.join(own)}{rest})"


def columns(comparison: Comparison) -> list[str]:
    """Scores of the headline table; there is no specificity with more than two classes."""
    return [name for name in COLUMNS if name in comparison.models[0].assessment.scores]


def heads(comparison: Comparison) -> list[str]:
    """What people call the scores of the headline table."""
    two = len(comparison.models[0].predictions.classes) == 2
    return [label_of(name, two=two) for name in columns(comparison)]


def scores(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per model: its scores as it is served with their intervals, and those at 0.5 where they differ."""
    names = columns(comparison)
    return [
        {
            "arch": model.arch,
            "champion": model.arch == comparison.champion,
            "threshold": f"{model.threshold:.3g}",
            "cells": [_cell(model.assessment.served[name]) for name in names],
            "at_half": [
                None if name in THRESHOLD_FREE else _cell(model.assessment.scores[name])
                for name in (names if model.own_threshold else ())
            ],
        }
        for model in comparison.models
    ]


def _cell(interval: Interval) -> dict[str, str]:
    return {
        "value": f"{interval.value:.3f}",
        "ends": format_interval(interval, ENDS_IN_PRINT),
        "both": format_interval(interval),
    }


def baseline(comparison: Comparison) -> list[str]:
    """Scores of always predicting the same class."""
    baseline = comparison.models[0].assessment.baseline
    return [f"{baseline[name]:.3f}" if name in baseline else NONE for name in columns(comparison)]


def paired_tests(tests: Sequence[PairedTest]) -> list[dict[str, Any]]:
    """One row per paired test."""
    return [
        {
            "arch": paired_test.arch,
            "against": paired_test.against,
            "sentence": paired_test.sentence,
            **{
                name: {
                    "gap": format_interval(difference.interval, POINTS_IN_PRINT),
                    "p": format_p_value(difference.p),
                    "corrected": format_p_value(paired_test.corrected[name]),
                }
                for name, difference in (("accuracy", paired_test.accuracy), ("auroc", paired_test.auroc))
            },
        }
        for paired_test in tests
    ]


def costs(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per model: what it costs."""
    return [
        {
            "arch": model.arch,
            "cells": {
                "parameters": format_count(model.cost.parameters),
                "MFLOPs an image": _amount(model.cost.flops / 1e6),
                "file, MB": _amount(model.cost.bytes / 1e6),
                "training": format_seconds(model.cost.train_seconds),
                "search": _time(model.cost.search_seconds),
                "images/s here": f"{model.cost.images_per_second:,.0f}",
                "search time per point": _time(model.seconds_per_point),
            },
        }
        for model in comparison.models
    ]


def _time(seconds: float | None) -> str:
    return NONE if seconds is None else format_seconds(seconds)


def _amount(number: float) -> str:
    return f"{number:,.0f}" if number >= 99.5 else f"{number:.{1 if number >= 9.95 else 2}f}"


def search_caption(comparison: Comparison) -> str:
    """What the charts of the trials show; marks that none of them has are not explained."""
    trials = [trial for model in comparison.models if model.search for trial in model.search.trials]
    pruned = " Crosses were pruned." if any(trial.state == "PRUNED" for trial in trials) else ""
    failed = " Open triangles failed." if any(trial.state == "FAIL" for trial in trials) else ""
    unscored = any(trial.value is None or np.isnan(trial.value) for trial in trials)
    edge = " Trials without a score stand at the edge of the others." if unscored else ""
    marks = f"{pruned}{failed}{edge} The ring marks the chosen one."
    return f"The value of each trial on validation, and the best so far.{marks}"


def several_splits(comparison: Comparison) -> bool:
    """Whether not all models learned from the same split."""
    return len({value for name, value in comparison.provenance.items() if name.startswith("split digest")}) > 1


def selection_sentences(comparison: Comparison) -> list[str]:
    """How far scores fall from validation to test, one sentence per model."""
    sentences = []
    for model in comparison.models:
        falls = selection_bias(model)
        if falls is not None and model.search is not None:
            tested = sum(trial.test is not None for trial in model.search.trials)
            sentences.append(
                f"{model.arch}: AUROC {_fall(falls[0])} from validation to test for the chosen trial, and "
                f"{_fall(falls[1])} on average over all {tested} trials that were scored on test."
            )
    return sentences


def _fall(gap: float) -> str:
    return f"{'falls' if gap >= 0 else 'rises'} by {abs(gap):.3f}"


def configurations(comparison: Comparison) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Settings of the models, those that a search chose before the others: (heading, [(name, one value per model)])."""
    names = [
        name for name in dict.fromkeys(name for model in comparison.models for name in model.params) if name != "arch"
    ]
    searched = {
        name
        for model in comparison.models
        for trial in (model.search.trials if model.search else ())
        if trial.name == model.run
        for name in trial.params
    }
    parts = {
        "Searched": [name for name in names if name in searched],
        "Fixed" if searched else "Settings": [name for name in names if name not in searched],
    }
    tables = [
        (
            heading,
            [(name.replace("_", " "), [_setting(model, name) for model in comparison.models]) for name in some],
        )
        for heading, some in parts.items()
        if some
    ]
    return [*tables[:-1], ("As served", _served(comparison)), *tables[-1:]]


def _served(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """What a registered version adds to its network."""
    assessments = [model.assessment for model in comparison.models]
    thresholds = [NONE if each.threshold is None else f"{each.threshold:.4g}" for each in assessments]
    return [("threshold", thresholds), ("temperature", [f"{each.temperature:.4g}" for each in assessments])]


def _setting(model: ComparedModel, name: str) -> str:
    value = model.params.get(name)
    if value is None:
        return NONE
    text = str(value)
    # MLflow keeps settings as texts; of a learning rate three digits are enough for people.
    return f"{float(text):.3g}" if re.fullmatch(r"\d+\.\d{4,}(e-?\d+)?|\d(\.\d+)?e-\d+", text) else text


def published(comparison: Comparison) -> list[dict[str, str]]:
    """The student report's final table beside ours."""
    return [
        {
            "arch": model.arch,
            "score": SHOWN[name],
            "theirs": f"{value:.4f}",
            "ours": format_interval(model.assessment.served[name], SCORE_IN_PRINT),
            "at_half": f"{model.assessment.scores[name].value:.3f}",
            "difference": f"{100 * (model.assessment.served[name].value - value):+.1f}".replace("-", "\u2212"),
        }
        for model in comparison.models
        for name, value in FINAL.get(model.arch, {}).items()
    ]


def class_names(comparison: Comparison) -> list[str]:
    """The classes in the order of the counts."""
    return list(dict.fromkeys(name for images in comparison.counts.values() for name in images))


def counts(comparison: Comparison) -> dict[str, list[str]]:
    """Images of each split by class, and all of them."""
    classes = class_names(comparison)
    return {
        split: [*(f"{images.get(name, 0):,}" for name in classes), f"{sum(images.values()):,}"]
        for split, images in comparison.counts.items()
    }


def seeds(comparison: Comparison) -> list[dict[str, str]]:
    """Scores of the registered model beside the mean and the range of other seeds, where there are any; all at 0.5.

    A training with another seed is not registered, so it has no threshold of its own.
    """
    return [
        {
            "arch": model.arch,
            "score": SHOWN[name],
            "registered": f"{model.assessment.scores[name].value:.3f}",
            "mean": f"{float(np.mean(values)):.3f}",
            "range": f"{min(values):.3f}\u2013{max(values):.3f}",
            "seeds": str(len(values)),
        }
        for model in comparison.models
        for name in ("accuracy", "auroc")
        if (values := model.seeds.get(name, ()))
    ]


def registered(comparison: Comparison) -> str:
    """What the registered model's scores beside those of other seeds are called."""
    return "registered, at 0.5" if len(comparison.models[0].predictions.classes) == 2 else "registered"


def other_seeds(comparison: Comparison) -> str:
    """A table of the other seeds in Markdown, or a sentence where there are none."""
    rows = seeds(comparison)
    if not rows:
        return "None was trained with another seed: each of these figures is of a single training seed."
    heads = ("architecture", "score", registered(comparison), "mean of other seeds", "lowest to highest", "seeds")
    return markdown.table(heads, [tuple(row.values()) for row in rows])


def provenance(comparison: Comparison) -> dict[str, str]:
    """What made the comparison, by name."""
    return {
        NAMES.get(name) or name.replace("version.", "version of ").replace("machine.", "machine, "): str(value)
        for name, value in comparison.provenance.items()
    }
