"""The report's rows beside ours: how far apart, which of its conclusions hold, and what choosing by test flatters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from sweep.comparisons.replication.published import CONCLUSIONS, CONTRADICTIONS, FINAL, Conclusion, Row
from sweep.metrics.bootstrap import Interval
from sweep.metrics.formatting import GAP, format_interval
from sweep.metrics.markdown import table
from sweep.metrics.predictions import Predictions
from sweep.metrics.scores import all_scores
from sweep.metrics.significance import another_run, mean_gap
from sweep.metrics.threshold import decide

CHOSEN = {"cnn1": 3, "cnn2": 2, "cnn3": 3}  # the rows that the report calls its final models
HALVES = 200


@dataclass(frozen=True)
class Attempt:
    """A row trained with one seed.

    Attributes:
        seed: The seed.
        epochs: How many it trained.
        validation: What the study would choose by; the higher the better.
        validation_accuracy: At the epoch that was kept.
        test: What it says of the test images.
    """

    seed: int
    epochs: int
    validation: float
    validation_accuracy: float
    test: Predictions


@dataclass(frozen=True)
class Replica:
    """A row of the report, trained anew; without attempts if none came to an end.

    Attributes:
        row: What the report says.
        attempts: A seed each.
    """

    row: Row
    attempts: tuple[Attempt, ...]

    def scores(self, name: str) -> list[float]:
        """A test score of each seed, at a threshold of 0.5."""
        return [all_scores(found.test.labels, found.test.probabilities())[name] for found in self.attempts]


@dataclass(frozen=True)
class Verdict:
    """What our runs say of a conclusion of the report.

    Attributes:
        conclusion: The conclusion.
        accuracy: How much better the rows are that should be, in test accuracy, over seeds; None without them.
        auroc: Likewise in AUROC.
        verdict: By accuracy, the report's measure.
    """

    conclusion: Conclusion
    accuracy: Interval | None
    auroc: Interval | None
    verdict: Literal["held up", "contradicted", "undecided"]


@dataclass(frozen=True)
class Flattery:
    """What choosing a row by its test accuracy flatters.

    Attributes:
        arch: The architecture whose rows are chosen from.
        by_test: Test accuracy of the row that test chooses, a mean over seeds: what the report prints.
        by_validation: Test accuracy of the row that validation chooses.
        halves: How much higher accuracy is on the half of the test patients that chose than on the other half: a mean
            over HALVES cuts, and over seeds. Half as many images are easier to be lucky with, so it is an upper bound.
    """

    arch: str
    by_test: float
    by_validation: float
    halves: float


def side_by_side(replicas: Sequence[Replica]) -> pd.DataFrame:
    """Sets every row beside ours.

    Returns:
        A row each: what it is, theirs, ours (mean over seeds), the difference, the range that one more seed is expected
        in, and whether theirs lies in it (empty with one seed).
    """
    rows = []
    for replica in replicas:
        row, accuracies = replica.row, replica.scores("accuracy")
        expected = another_run(accuracies) if accuracies else None
        within = None
        if expected is not None and not np.isnan(expected.low):
            within = bool(expected.low <= row.test_accuracy <= expected.high)
        rows.append(
            {
                "row": row.name,
                **{key: f"{value:g}" if isinstance(value, float) else value for key, value in row.params.items()},
                "early_stopping": "yes" if row.early_stopping else "no",
                "theirs_validation": row.validation_accuracy,
                "ours_validation": _mean([found.validation_accuracy for found in replica.attempts]),
                "theirs": row.test_accuracy,
                "ours": _mean(accuracies),
                "difference": _mean(accuracies) - row.test_accuracy,
                "low": expected.low if expected else float("nan"),
                "high": expected.high if expected else float("nan"),
                "within": {None: "", True: "yes", False: "no"}[within],
                "auroc": _mean(replica.scores("auroc")),
                "epochs": _mean([found.epochs for found in replica.attempts]),
                "seeds": len(replica.attempts),
            }
        )
    return pd.DataFrame(rows)


def judge(conclusion: Conclusion, replicas: Sequence[Replica]) -> Verdict:
    """Says whether our seeds support a conclusion of the report: by the 95 % interval of the gap."""
    known = {(found.row.arch, found.row.number): found for found in replicas if found.attempts}
    pairs = [
        (known[arch, better], known[arch, worse])
        for arch, better, worse in conclusion.pairs
        if (arch, better) in known and (arch, worse) in known
    ]
    if not pairs:
        return Verdict(conclusion, None, None, "undecided")
    accuracy, auroc = (
        mean_gap([(one.scores(name), other.scores(name)) for one, other in pairs]) for name in ("accuracy", "auroc")
    )
    verdict: Literal["held up", "contradicted", "undecided"] = "undecided"
    if accuracy.low > 0:
        verdict = "held up"
    elif accuracy.high < 0:
        verdict = "contradicted"
    return Verdict(conclusion, accuracy, auroc, verdict)


def selection_bias(arch: str, replicas: Sequence[Replica], seed: int = 0) -> Flattery | None:
    """Measures what choosing by test accuracy flatters; None where there is nothing to choose from."""
    rows = [replica for replica in replicas if replica.row.arch == arch and replica.attempts]
    if len(rows) < 2:
        return None
    random, chosen = np.random.default_rng(seed), []
    for index in range(min(len(replica.attempts) for replica in rows)):
        attempts = [replica.attempts[index] for replica in rows]
        right = np.stack([decide(found.test.probabilities()) == found.test.labels for found in attempts])
        accuracy = right.mean(axis=1)
        by_validation = accuracy[int(np.argmax([found.validation for found in attempts]))]
        _, patient = np.unique(np.asarray(attempts[0].test.patients), return_inverse=True)
        gaps = []
        for _ in range(HALVES):
            half = (random.permutation(patient.max() + 1) % 2 == 0)[patient]
            best = int(right[:, half].mean(axis=1).argmax())
            gaps.append(right[best, half].mean() - right[best, ~half].mean())
        chosen.append((accuracy.max(), by_validation, np.mean(gaps)))
    by_test, by_validation, halves = np.mean(chosen, axis=0).tolist()
    return Flattery(arch, by_test, by_validation, halves)


def final_table(replicas: Sequence[Replica]) -> pd.DataFrame:
    """The report's final table (section 4) beside the same rows of ours, means over seeds."""
    known = {(found.row.arch, found.row.number): found for found in replicas if found.attempts}
    rows = []
    for arch, theirs in FINAL.items():
        ours = known.get((arch, CHOSEN.get(arch, 0)))
        for name, value in theirs.items():
            mean = _mean(ours.scores(name)) if ours else float("nan")
            rows.append({"arch": arch, "score": name, "theirs": value, "ours": mean, "difference": mean - value})
    return pd.DataFrame(rows)


def format_gap(interval: Interval | None) -> str:
    """Writes the gap between the rows of a conclusion, if there are such rows."""
    return "rows are missing" if interval is None else format_interval(interval, GAP)


def page(replicas: Sequence[Replica], about: Mapping[str, Any], protocol: str) -> str:
    """Writes all of it as Markdown.

    Args:
        replicas: Every row that was to be trained.
        about: What the runs have in common, for the first paragraph.
        protocol: `ours` or `report`.
    """
    found, final = side_by_side(replicas), final_table(replicas)
    heads = (
        "row",
        "hyperparameters",
        "theirs",
        "ours",
        "difference",
        "one more seed",
        "theirs in it",
        "AUROC",
        "seeds",
    )
    rows = [
        (
            line["row"],
            f"{line['activation']} {line['optimizer']} {line['learning_rate']} batch {line['batch_size']} "
            f"dropout {line['dropout']}{'' if line['early_stopping'] == 'yes' else ', no early stopping'}",
            f"{line['theirs']:.4f}",
            *((f"{line['ours']:.4f}", f"{line['difference']:+.4f}") if line["seeds"] else ("none ended", "")),
            f"{line['low']:.3f} to {line['high']:.3f}" if line["within"] else "",
            line["within"],
            f"{line['auroc']:.3f}" if line["seeds"] else "",
            line["seeds"],
        )
        for line in found.to_dict("records")
    ]
    verdicts = [judge(conclusion, replicas) for conclusion in CONCLUSIONS]
    flattered = [one for arch in CHOSEN if (one := selection_bias(arch, replicas)) is not None]
    seeds = max((len(replica.attempts) for replica in replicas), default=0)
    parts = [
        "# The report's tables, trained again",
        f"{', '.join(f'{key} {value}' for key, value in about.items())}; {_said_of(protocol)}",
        "Test accuracy at a threshold of 0.5. Theirs is one run each, and the best of them were chosen by this very "
        f"figure; ours is the mean of {seeds} {'seeds' if seeds != 1 else 'seed, which is one draw'}. "
        "*One more seed*: where another run is expected to lie (95 %, Student's t).",
        table(heads, rows),
        "## Its conclusions",
        table(
            ("the report says", "section", "gap in accuracy", "gap in AUROC", "our runs"),
            [
                (
                    verdict.conclusion.sentence,
                    verdict.conclusion.sections,
                    format_gap(verdict.accuracy),
                    format_gap(verdict.auroc),
                    f"**{verdict.verdict}**",
                )
                for verdict in verdicts
            ],
        ),
        "The gap is between rows alike in all else, a mean over such pairs, with its 95 % interval over seeds. The row "
        "without early stopping trains to the end and keeps its best epoch by validation all the same.",
        "## What choosing by test accuracy flatters",
        table(
            ("of", "the row that test chooses", "the row that validation chooses", "test flatters by at most"),
            [
                (one.arch, f"{one.by_test:.4f}", f"{one.by_validation:.4f}", f"{100 * one.halves:+.1f} points")
                for one in flattered
            ],
        ),
        "The last column chooses on one half of the test patients and scores on the other, again and again.",
        "## Its final table (section 4)",
        table(
            ("network", "score", "theirs", "ours", "difference"),
            [
                (
                    line["arch"],
                    line["score"].replace("_macro", " (macro)"),
                    f"{line['theirs']:.4f}",
                    "not replicated" if np.isnan(line["ours"]) else f"{line['ours']:.4f}",
                    "" if np.isnan(line["ours"]) else f"{line['difference']:+.4f}",
                )
                for line in final.to_dict("records")
            ],
        ),
        "resnet50's hyperparameters are not in the report; `sweep --arch resnet50` searches them.",
        "## Where the report contradicts itself",
        "\n".join(f"- {sentence}." for sentence in CONTRADICTIONS),
    ]
    return "\n\n".join(parts) + "\n"


def _said_of(protocol: str) -> str:
    if protocol == "ours":
        return "early stopping and the choice of an epoch by validation patients, none of whom is in train."
    return (
        "as the report did: early stopping and the choice of an epoch by 16 images whose patients are in train. Do not "
        "believe these figures; `--protocol ours` gives honest ones."
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
