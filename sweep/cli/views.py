"""Comparisons and replications in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sweep.comparisons.ablation.analysis import VERDICTS, cells
from sweep.comparisons.architectures.analysis import Comparison
from sweep.comparisons.crossvalidation import analysis as crossvalidation
from sweep.comparisons.crossvalidation.run import Logged
from sweep.comparisons.enqueued import EnqueuedResult
from sweep.comparisons.replication.analysis import Replica, format_gap, judge, selection_bias, side_by_side
from sweep.comparisons.replication.published import CONCLUSIONS
from sweep.metrics.formatting import format_duration, format_spread
from sweep.plan import Plan


def tried_view(result: EnqueuedResult, plan: Plan) -> Text:
    """The end of a study of enqueued trials."""
    del plan
    states = Counter(trial.state.lower() for trial in result.trials)
    said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    opened = "all complete ones scored on test" if result.predictions else "scored on test before"
    opened = opened if result.opened else "the test set stayed closed"
    return Text(f"study {result.study}: {said}; {opened}")


def replication_view(replicas: Sequence[Replica]) -> Group:
    """The report's rows beside ours, and its conclusions."""
    table = Table(
        "row", "theirs", "ours", "diff.", "one more seed", "in it", "AUROC", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for line in side_by_side(replicas).to_dict("records"):
        ours = (f"{line['ours']:.4f}", f"{line['difference']:+.4f}") if line["seeds"] else ("none ended", "")
        spread = f"{line['low']:.3f} to {line['high']:.3f}" if line["within"] else ""
        auroc = f"{line['auroc']:.3f}" if line["seeds"] else ""
        table.add_row(line["row"], f"{line['theirs']:.4f}", *ours, spread, line["within"], auroc)
    said = Table("the report says", "gap in accuracy", "our runs", box=box.SIMPLE_HEAD, pad_edge=False)
    for conclusion in CONCLUSIONS:
        found = judge(conclusion, replicas)
        said.add_row(conclusion.sentence, format_gap(found.accuracy), found.verdict)
    flattered = [
        Text(
            f"{found.arch}: choosing by test accuracy gives {found.by_test:.4f}, by validation "
            f"{found.by_validation:.4f}; test flatters its own choice by at most {100 * found.halves:.1f} points"
        )
        for arch in dict.fromkeys(replica.row.arch for replica in replicas)
        if (found := selection_bias(arch, replicas))
    ]
    return Group(table, said, *flattered)


def ablation_view(lines: Sequence[Mapping[str, Any]], metric: str) -> Group:
    """The changes of a configuration, and what they are worth."""
    name = metric.removeprefix("val/").replace("auroc", "AUROC")
    view = Table(
        "change", name, "gain", "test acc.", "gain", "test AUROC", "gain", "", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for line in lines:
        change, validation, chosen, _, accuracy, accuracy_gain, auroc, auroc_gain, said = cells(line)
        gains = [text.partition(" ")[0] for text in (chosen, accuracy_gain, auroc_gain)]
        label = change.replace("+", "\n+")  # lines break there, where a narrow terminal needs it
        view.add_row(label, validation, gains[0], accuracy, gains[1], auroc, gains[2], said)
    told = [Text(f"{name}: {VERDICTS[name]}") for name in VERDICTS if any(line["verdict"] == name for line in lines)]
    return Group(view, *told)


def crossvalidation_view(logged: Logged) -> Group:
    """The finalists over the folds, what they gain on the study's choice, and whom these choose."""
    opened = any(line["test_accuracy"] is not None for line in logged.lines)
    heads = ("trial", "study", "over folds", "gain", "folds", *(("test acc.", "test AUROC") if opened else ()))
    view = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for line in logged.lines:
        cells = crossvalidation.cells(line)
        if opened:  # without spread and interval, so that it fits; the page has them
            cells[2:4] = [cell.partition(" ")[0] for cell in cells[2:4]]
        view.add_row(*cells)
    return Group(view, *(Text(sentence) for sentence in logged.sentences))


def comparison_view(comparison: Comparison) -> Group:
    """The architectures side by side."""
    heads = ("", "accuracy (95 %)", "AUROC (95 %)", "parameters", "training", "images/s")
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for one in comparison.models:
        scores, cost = one.assessment.scores, one.cost
        table.add_row(
            f"{one.arch}{' *' if one.arch == comparison.champion else ''}",
            str(scores["accuracy"]),
            str(scores["auroc"]),
            f"{cost.parameters:,}",
            format_duration(cost.train_seconds),
            f"{cost.images_per_second:,.0f}",
        )
    lines = [Text(f"{comparison.name}: {comparison.images:,} test images, * chosen by validation", style="bold"), table]
    for one in comparison.models:
        if len(seeds := one.seeds.get("accuracy", ())) > 1:
            accuracy, auroc = format_spread(seeds), format_spread(one.seeds["auroc"])
            lines.append(Text(f"{one.arch}, {len(seeds)} other seeds: accuracy {accuracy}, AUROC {auroc}"))
    lines += [Text(f"{paired_test.sentence}.") for paired_test in comparison.paired_tests]
    lines += [Text(f"missing: {arch}; `sweep --arch {arch}` searches it") for arch in comparison.missing]
    lines += [Text(f"note: {note}") for note in comparison.notes]
    return Group(*lines)
