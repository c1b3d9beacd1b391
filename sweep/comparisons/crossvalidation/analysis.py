"""Compare the finalists of a study, each trained once on each fold of patients; the mean over folds chooses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.comparisons.seed_result import SeedResult
from sweep.metrics.bootstrap import Interval
from sweep.metrics.formatting import GAIN, GAIN_IN_SENTENCE, format_interval
from sweep.metrics.markdown import table
from sweep.metrics.significance import paired_gap


@dataclass(frozen=True)
class Finalist:
    """One of the best trials of a study.

    Attributes:
        name: Of its run.
        value: Its value in the study.
        folds: Its result by the fold's number, from 1; without folds whose training failed.
    """

    name: str
    value: float
    folds: Mapping[int, SeedResult]

    def validation(self, score: str) -> dict[int, float]:
        """A validation score by fold."""
        return {number: fold.validation[score] for number, fold in sorted(self.folds.items())}

    def test(self, score: str) -> list[float]:
        """A test score of each fold at a threshold of 0.5, where the test set was opened."""
        return [fold.test_score(score) for fold in self.folds.values() if fold.test is not None]


@dataclass(frozen=True)
class Choice:
    """The finalist that the folds choose.

    Attributes:
        finalist: The one with the best mean, of those that were trained on every fold.
        own: Whether that is the study's own choice.
        gain: By how much it is better than the study's own choice, with its 95 % interval, widened because it was
            picked as the best of all; None if it is that, or that one was not trained on every fold.
        alone: How many single folds would have chosen each finalist, by name, the most frequent first.
    """

    finalist: Finalist
    own: bool
    gain: Interval | None
    alone: Mapping[str, int]


def choose(finalists: Sequence[Finalist], metric: str, sign: int, folds: int) -> Choice | None:
    """Chooses by the mean over folds.

    Args:
        finalists: The study's own choice first.
        metric: The validation score that the study chooses by.
        sign: 1 where more of it is better, else -1.
        folds: How many there are.

    Returns:
        The choice; None where no finalist was trained on every fold.
    """
    whole = [finalist for finalist in finalists if len(finalist.folds) == folds]
    if not whole:
        return None
    best = max(whole, key=lambda finalist: sign * float(np.mean(list(finalist.validation(metric).values()))))
    alone = Counter(
        max(whole, key=lambda finalist: sign * finalist.validation(metric)[number]).name
        for number in range(1, folds + 1)
    )
    own = finalists[0]
    comparable = best is not own and own in whole
    gain = gap(best, own, metric, sign, folds, rivals=len(whole) - 1) if comparable else None
    return Choice(best, best is own, gain, dict(alone.most_common()))


def gap(ours: Finalist, theirs: Finalist, metric: str, sign: int, folds: int, rivals: int = 1) -> Interval:
    """By how much one finalist is better than another on the same folds: positive where better, ends NaN where unknown.

    Any two folds share most of what they train on, so the spread over folds alone would promise too much: its interval
    is widened as Nadeau and Bengio (2003) do; for the best of several `rivals` by Bonferroni, too.
    """
    scores, others = ours.validation(metric), theirs.validation(metric)
    both = sorted(scores.keys() & others.keys())
    if not both:
        return Interval(float("nan"), float("nan"), float("nan"))
    differences = [sign * (scores[number] - others[number]) for number in both]
    return paired_gap(differences, overlap=1 / (folds - 1), rivals=rivals)


def rows(finalists: Sequence[Finalist], metric: str, sign: int, folds: int) -> list[dict[str, Any]]:
    """One row per finalist as plain data, the best mean over folds first."""
    lines = []
    for finalist in finalists:
        scores = list(finalist.validation(metric).values())
        gain = None if finalist is finalists[0] else gap(finalist, finalists[0], metric, sign, folds)
        tested = finalist.test("accuracy")
        lines.append(
            {
                "trial": finalist.name,
                "in_the_study": finalist.value,
                "folds": len(scores),
                "mean": float(np.mean(scores)) if scores else None,
                "sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
                "gain": None if gain is None or np.isnan(gain.value) else gain.value,
                "low": None if gain is None or np.isnan(gain.low) else gain.low,
                "high": None if gain is None or np.isnan(gain.high) else gain.high,
                "test_accuracy": float(np.mean(tested)) if tested else None,
                "test_auroc": float(np.mean(finalist.test("auroc"))) if tested else None,
            }
        )
    return sorted(lines, key=lambda line: (-line["folds"], 0 if line["mean"] is None else -sign * line["mean"]))


HEADS = ("trial", "in the study", "over the folds (sd)", "gain on the study's choice (95 %)", "folds")
TESTED = ("test accuracy", "test AUROC")


def cells(line: Mapping[str, Any]) -> list[str]:
    """A row of `rows` as text, a cell for each of HEADS, and of TESTED where the test set was opened."""
    mean = "none ended" if line["mean"] is None else f"{line['mean']:.4f}"
    spread = "" if line["sd"] is None else f" ({line['sd']:.4f})"
    numbers = (float("nan") if line[name] is None else line[name] for name in ("gain", "low", "high"))
    gain = "" if line["gain"] is None else format_interval(Interval(*numbers), GAIN)
    tested = [] if line["test_accuracy"] is None else [f"{line['test_accuracy']:.4f}", f"{line['test_auroc']:.4f}"]
    return [line["trial"], f"{line['in_the_study']:.4f}", mean + spread, gain, str(line["folds"]), *tested]


def sentences(choice: Choice | None, own: str, metric: str, folds: int) -> list[str]:
    """Says what the folds choose, and what single folds would have chosen.

    Args:
        choice: As `choose` returns it.
        own: The study's own choice.
        metric: The metric that chose, in words.
        folds: How many there are.
    """
    if choice is None:
        return [f"No finalist was trained on all of the {folds} folds, so none is chosen."]
    name, gain = choice.finalist.name, choice.gain
    if choice.own:
        first = f"Over {folds} folds {name}, the study's own choice, is ahead."
    elif gain is None:
        first = f"Over {folds} folds {name} is ahead; {own}, the study's own choice, was not trained on all of them."
    else:
        ahead = f"is ahead of the study's choice {own} in {metric} by {format_interval(gain, GAIN_IN_SENTENCE)}"
        first = f"Over {folds} folds {name} {ahead}: {'' if gain.low > 0 else 'not '}significant."
    others = ", ".join(f"{finalist} {count} of {folds}" for finalist, count in choice.alone.items())
    return [first, f"A single fold would have chosen: {others}."]


def to_markdown(lines: Sequence[Mapping[str, Any]], summary: Sequence[str]) -> str:
    """Writes the sentences of a summary and the table in Markdown."""
    tested = any(line["test_accuracy"] is not None for line in lines)
    heads = (*HEADS, *(TESTED if tested else ()))
    shown = [[*cells(line), *[""] * len(TESTED)][: len(heads)] for line in lines]
    return "\n\n".join((" ".join(summary), table(heads, shown)))
