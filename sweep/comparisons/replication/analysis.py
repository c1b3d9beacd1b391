"""The student report's rows beside ours: the differences, its conclusions, and what choosing by test flatters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from sweep.comparisons.replication.published import CONCLUSIONS, CONTRADICTIONS, FINAL, Conclusion, Row
from sweep.comparisons.seed_result import SeedResult
from sweep.metrics.bootstrap import Interval
from sweep.metrics.formatting import GAP, format_interval
from sweep.metrics.markdown import table
from sweep.metrics.names import sign_of
from sweep.metrics.significance import another_run, mean_gap
from sweep.metrics.threshold import decide

CHOSEN = {"cnn1": 3, "cnn2": 2, "cnn3": 3}  # the rows that the report calls its final models
HALVES = 200


@dataclass(frozen=True)
class Replica:
    """A row of the student report, trained again.

    Attributes:
        row: What the report says.
        results: One per seed; empty if no training is complete.
        metric: The metric that would choose between rows.
    """

    row: Row
    results: tuple[SeedResult, ...]
    metric: str = "val/auroc"

    def scores(self, name: str) -> list[float]:
        """A test score of each seed, at a threshold of 0.5."""
        return [result.test_score(name) for result in self.results]

    def values(self) -> list[float]:
        """The metric of each seed on validation; more is better."""
        score = self.metric.removeprefix("val/")
        return [sign_of(self.metric) * result.validation[score] for result in self.results]


@dataclass(frozen=True)
class Verdict:
    """Whether our runs support a conclusion of the report.

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
class SelectionBias:
    """By how much choosing a row by its test accuracy flatters.

    Attributes:
        arch: The architecture whose rows are chosen from.
        by_test: Test accuracy of the row that test chooses, a mean over seeds: what the report prints.
        by_validation: Test accuracy of the row that validation chooses.
        halves: How much higher accuracy is on the half of the test patients that chose than on the other half: a mean
            over HALVES random halvings, and over seeds. Chance is larger on half as many images, so it is an upper
            bound.
    """

    arch: str
    by_test: float
    by_validation: float
    halves: float


def side_by_side(replicas: Sequence[Replica]) -> pd.DataFrame:
    """Sets every row beside ours.

    Returns:
        One line per row of the report: its hyperparameters, theirs, ours (mean over seeds), the difference, the range
        that one more seed is expected in, and whether theirs lies in it (empty with one seed).
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
                "ours_validation": _mean([result.validation["accuracy"] for result in replica.results]),
                "theirs": row.test_accuracy,
                "ours": _mean(accuracies),
                "difference": _mean(accuracies) - row.test_accuracy,
                "low": expected.low if expected else float("nan"),
                "high": expected.high if expected else float("nan"),
                "within": {None: "", True: "yes", False: "no"}[within],
                "auroc": _mean(replica.scores("auroc")),
                "epochs": _mean([result.epochs for result in replica.results]),
                "seeds": len(replica.results),
            }
        )
    return pd.DataFrame(rows)


def judge(conclusion: Conclusion, replicas: Sequence[Replica]) -> Verdict:
    """Says whether our seeds support a conclusion of the report: by the 95 % interval of the gap."""
    trained = _trained(replicas)
    pairs = [
        (trained[arch, better], trained[arch, worse])
        for arch, better, worse in conclusion.pairs
        if (arch, better) in trained and (arch, worse) in trained
    ]
    if not pairs:
        return Verdict(conclusion, None, None, "undecided")
    accuracy, auroc = (
        mean_gap([(better.scores(score), worse.scores(score)) for better, worse in pairs])
        for score in ("accuracy", "auroc")
    )
    verdict: Literal["held up", "contradicted", "undecided"] = "undecided"
    if accuracy.low > 0:
        verdict = "held up"
    elif accuracy.high < 0:
        verdict = "contradicted"
    return Verdict(conclusion, accuracy, auroc, verdict)


def selection_bias(arch: str, replicas: Sequence[Replica], seed: int = 0) -> SelectionBias | None:
    """Measures by how much choosing by test accuracy flatters; None where there is nothing to choose from."""
    rows = [replica for replica in replicas if replica.row.arch == arch and replica.results]
    if len(rows) < 2:
        return None
    random, chosen = np.random.default_rng(seed), []
    for index in range(min(len(replica.results) for replica in rows)):
        tests = [test for replica in rows if (test := replica.results[index].test) is not None]
        right = np.stack([decide(test.probabilities()) == test.labels for test in tests])
        accuracy, values = right.mean(axis=1), [replica.values()[index] for replica in rows]
        _, by_validation = max(zip(values, accuracy, strict=True), key=lambda pair: pair[0])
        _, patient = np.unique(np.asarray(tests[0].patients), return_inverse=True)
        gaps = []
        for _ in range(HALVES):
            half = (random.permutation(patient.max() + 1) % 2 == 0)[patient]
            best = int(right[:, half].mean(axis=1).argmax())
            gaps.append(right[best, half].mean() - right[best, ~half].mean())
        chosen.append((accuracy.max(), by_validation, np.mean(gaps)))
    by_test, by_validation, halves = np.mean(chosen, axis=0).tolist()
    return SelectionBias(arch, by_test, by_validation, halves)


def final_table(replicas: Sequence[Replica]) -> pd.DataFrame:
    """The report's final table (section 4) beside the same rows of ours, means over seeds."""
    trained = _trained(replicas)
    rows = []
    for arch, theirs in FINAL.items():
        ours = trained.get((arch, CHOSEN.get(arch, 0)))
        for name, value in theirs.items():
            mean = _mean(ours.scores(name)) if ours else float("nan")
            rows.append({"arch": arch, "score": name, "theirs": value, "ours": mean, "difference": mean - value})
    return pd.DataFrame(rows)


def format_gap(interval: Interval | None) -> str:
    """Writes the gap between the rows of a conclusion, if there are such rows."""
    return "rows are missing" if interval is None else format_interval(interval, GAP)


def to_markdown(replicas: Sequence[Replica], about: Mapping[str, Any], protocol: str) -> str:
    """Writes all of it as Markdown.

    Args:
        replicas: Every row that was to be trained.
        about: What the runs have in common, for the first paragraph.
        protocol: `ours` or `report`.
    """
    seeds = max((len(replica.results) for replica in replicas), default=0)
    parts = [
        "# The report's tables, trained again",
        f"{', '.join(f'{key} {value}' for key, value in about.items())}; {_protocol(protocol)}",
        "Test accuracy at a threshold of 0.5. Theirs is one run each, and the best of them were chosen by this very "
        f"figure; ours is the mean of {seeds} {'seeds' if seeds != 1 else 'seed'}. "
        "*One more seed*: where another run is expected to lie (95 %, Student's t).",
        _rows(replicas),
        "## Its conclusions",
        _conclusions(replicas),
        "The gap is between rows alike in all else, a mean over such pairs, with its 95 % interval over seeds. The row "
        "without early stopping trains to the end and keeps its best epoch by validation all the same.",
        "## What choosing by test accuracy flatters",
        table(
            ("of", "the row that test chooses", "the row that validation chooses", "test flatters by at most"),
            [
                (bias.arch, f"{bias.by_test:.4f}", f"{bias.by_validation:.4f}", f"{100 * bias.halves:+.1f} points")
                for arch in CHOSEN
                if (bias := selection_bias(arch, replicas)) is not None
            ],
        ),
        "The last column chooses on one half of the test patients and scores on the other, again and again.",
        "## Its final table (section 4)",
        _final(replicas),
        "resnet50's hyperparameters are not in the report; `sweep --arch resnet50` searches them.",
        "## Where the report contradicts itself",
        "\n".join(f"- {sentence}." for sentence in CONTRADICTIONS),
    ]
    return "\n\n".join(parts) + "\n"


def _rows(replicas: Sequence[Replica]) -> str:
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
        for line in side_by_side(replicas).to_dict("records")
    ]
    return table(heads, rows)


def _conclusions(replicas: Sequence[Replica]) -> str:
    verdicts = [judge(conclusion, replicas) for conclusion in CONCLUSIONS]
    return table(
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
    )


def _final(replicas: Sequence[Replica]) -> str:
    return table(
        ("network", "score", "theirs", "ours", "difference"),
        [
            (
                line["arch"],
                line["score"].replace("_macro", " (macro)"),
                f"{line['theirs']:.4f}",
                "not replicated" if np.isnan(line["ours"]) else f"{line['ours']:.4f}",
                "" if np.isnan(line["ours"]) else f"{line['difference']:+.4f}",
            )
            for line in final_table(replicas).to_dict("records")
        ],
    )


def _protocol(protocol: str) -> str:
    if protocol == "ours":
        return "early stopping and the choice of an epoch by validation patients, none of whom is in train."
    return (
        "as the report did: early stopping and the choice of an epoch by 16 images whose patients are in train. These "
        "figures are optimistic; `--protocol ours` gives unbiased ones."
    )


def _trained(replicas: Sequence[Replica]) -> dict[tuple[str, int], Replica]:
    """Replicas with results, by architecture and number of the row."""
    return {(replica.row.arch, replica.row.number): replica for replica in replicas if replica.results}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
