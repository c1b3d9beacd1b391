"""Compare a configuration with its changes, seed by seed: which changes improve the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sweep.comparisons.seed_result import SeedResult
from sweep.metrics.bootstrap import Interval
from sweep.metrics.formatting import GAIN, format_interval
from sweep.metrics.markdown import table
from sweep.metrics.significance import paired_gap

VERDICTS = {
    "pays": "better on validation, the 95 % interval of the gain above 0, and on test no interval below 0",
    "validation only": "better on validation, and worse on test: what it gains does not carry over",
    "harms": "worse on validation",
    "undecided": "validation cannot tell: more seeds, or no difference",
}
Verdict = Literal["pays", "validation only", "harms", "undecided"]


@dataclass(frozen=True)
class Variant:
    """A configuration of the ablation, with the result of every seed that is complete."""

    label: str
    results: tuple[SeedResult, ...]

    def validation(self, name: str) -> dict[int, float]:
        """A validation score by seed."""
        return {result.seed: result.validation[name] for result in self.results}

    def test(self, name: str) -> dict[int, float]:
        """A test score by seed, at a threshold of 0.5."""
        return {result.seed: result.test_score(name) for result in self.results}


@dataclass(frozen=True)
class Effect:
    """The effect of a change: means over seeds of the difference to the same seed of the base, with 95 % intervals.

    Attributes:
        variant: The change.
        chosen: In the metric that a study chooses by, positive where better.
        loss: In the validation loss; negative is better.
        accuracy: In test accuracy at a threshold of 0.5.
        auroc: In test AUROC.
        verdict: A key of VERDICTS.
    """

    variant: Variant
    chosen: Interval
    loss: Interval
    accuracy: Interval
    auroc: Interval
    verdict: Verdict


def effects(variants: Sequence[Variant], metric: str, sign: int) -> list[Effect]:
    """Compares every variant with the first one.

    Args:
        variants: The base first; those without a seed in common with it are left out.
        metric: The validation score that a study chooses by.
        sign: 1 where more of it is better, else -1.
    """
    base, *others = variants
    compared = []
    for variant in others:
        if not set(variant.validation(metric)) & set(base.validation(metric)):
            continue
        chosen = _gap(variant.validation(metric), base.validation(metric), sign)
        loss = _gap(variant.validation("loss"), base.validation("loss"))
        accuracy, auroc = (_gap(variant.test(name), base.test(name)) for name in ("accuracy", "auroc"))
        compared.append(Effect(variant, chosen, loss, accuracy, auroc, verdict(chosen, (accuracy, auroc))))
    return compared


def verdict(chosen: Interval, tested: Sequence[Interval]) -> Verdict:
    """Judges by validation; the test set can only object."""
    if chosen.low > 0:
        return "validation only" if any(gap.high < 0 for gap in tested) else "pays"
    return "harms" if chosen.high < 0 else "undecided"


def rows(variants: Sequence[Variant], metric: str, sign: int) -> list[dict[str, Any]]:
    """One row per variant: means over seeds, gaps to the base and the verdict, as plain data."""
    by_label = {effect.variant.label: effect for effect in effects(variants, metric, sign)}
    lines = []
    for variant in variants:
        effect = by_label.get(variant.label)
        gaps = {
            name: {"value": gap.value, "low": gap.low, "high": gap.high}
            for name in ("chosen", "loss", "accuracy", "auroc")
            if effect is not None
            for gap in (getattr(effect, name),)
        }
        lines.append(
            {
                "change": variant.label,
                "seeds": len(variant.results),
                "validation": _mean(variant.validation(metric)),
                "validation_loss": _mean(variant.validation("loss")),
                "test_accuracy": _mean(variant.test("accuracy")),
                "test_auroc": _mean(variant.test("auroc")),
                "gaps": gaps,
                "verdict": effect.verdict if effect else "",
            }
        )
    return lines


HEADS = ("", "validation {}", "gain", "validation loss", "test accuracy", "gain", "test AUROC", "gain", "")


def cells(line: Mapping[str, Any]) -> list[str]:
    """A row of `rows` as text, a cell for each of HEADS."""

    def gap(name: str) -> str:
        interval = line["gaps"].get(name)
        return "" if interval is None else format_interval(Interval(**interval), GAIN)

    if not line["seeds"]:
        return [line["change"], "none ended", *[""] * (len(HEADS) - 2)]
    return [
        line["change"],
        f"{line['validation']:.4f}",
        gap("chosen"),
        f"{line['validation_loss']:.4f}",
        f"{line['test_accuracy']:.4f}",
        gap("accuracy"),
        f"{line['test_auroc']:.4f}",
        gap("auroc"),
        line["verdict"],
    ]


def to_markdown(lines: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Writes the table in Markdown, and what its verdicts mean."""
    heads = [head.format(metric.replace("auroc", "AUROC").replace("_", " ")) for head in HEADS]
    verdicts = {line["verdict"] for line in lines}
    meanings = [f"- *{name}*: {meaning}." for name, meaning in VERDICTS.items() if name in verdicts]
    return "\n\n".join(part for part in (table(heads, map(cells, lines)), "\n".join(meanings)) if part)


def _gap(scores: Mapping[int, float], base: Mapping[int, float], sign: int = 1) -> Interval:
    return paired_gap([sign * (scores[seed] - base[seed]) for seed in sorted(scores.keys() & base.keys())])


def _mean(values: Mapping[int, float]) -> float:
    return float(np.mean(list(values.values()))) if values else float("nan")
