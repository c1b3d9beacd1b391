"""Tables of `sweep compare`, `replicate`, `ablate` and `crossvalidate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sweep.cli.clinical_views import clinical_rows
from sweep.comparisons.ablation.analysis import VERDICTS, cells
from sweep.comparisons.architectures.analysis import Comparison
from sweep.comparisons.crossvalidation import analysis as crossvalidation
from sweep.comparisons.crossvalidation.run import Logged
from sweep.comparisons.enqueued import EnqueuedResult
from sweep.comparisons.replication.analysis import Replica, format_gap, judge, selection_bias, side_by_side
from sweep.comparisons.replication.published import CONCLUSIONS
from sweep.metrics.formatting import SPACE, format_count, format_seconds, format_spread


def enqueued_view(result: EnqueuedResult) -> Text:
    """The end of a study of enqueued trials."""
    states = Counter(trial.state.lower() for trial in result.trials)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    test = "all complete ones scored on test" if result.predictions else "scored on test before"
    test = test if result.opened else "the test set stayed closed"
    return Text(f"study {result.study}: {counts}; {test}")


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
    conclusions = Table("the report says", "gap in accuracy", "our runs", box=box.SIMPLE_HEAD, pad_edge=False)
    for conclusion in CONCLUSIONS:
        judgement = judge(conclusion, replicas)
        conclusions.add_row(conclusion.sentence, format_gap(judgement.accuracy), judgement.verdict)
    biases = [
        Text(
            f"{bias.arch}: choosing by test accuracy gives {bias.by_test:.4f}, by validation "
            f"{bias.by_validation:.4f}; selection by test is optimistic by at most {100 * bias.halves:.1f} points"
        )
        for arch in dict.fromkeys(replica.row.arch for replica in replicas)
        if (bias := selection_bias(arch, replicas))
    ]
    return Group(table, conclusions, *biases)


def ablation_view(lines: Sequence[Mapping[str, Any]], metric: str) -> Group:
    """The changes of a configuration and their gains."""
    name = metric.removeprefix("val/").replace("auroc", "AUROC")
    table = Table(
        "change", name, "gain", "test acc.", "gain", "test AUROC", "gain", "", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for line in lines:
        change, validation, chosen, _, accuracy, accuracy_gain, auroc, auroc_gain, verdict = cells(line)
        gains = [text.partition(" ")[0] for text in (chosen, accuracy_gain, auroc_gain)]
        label = change.replace("+", "\n+")  # lines break there, where a narrow terminal needs it
        table.add_row(label, validation, gains[0], accuracy, gains[1], auroc, gains[2], verdict)
    verdicts = [verdict for verdict in VERDICTS if any(line["verdict"] == verdict for line in lines)]
    return Group(table, *(Text(f"{verdict}: {VERDICTS[verdict]}") for verdict in verdicts))


def crossvalidation_view(logged: Logged) -> Group:
    """The finalists over the folds, their gains on the study's choice, and the folds' choice."""
    opened = any(line["test_accuracy"] is not None for line in logged.lines)
    heads = ("trial", "study", "over folds", "gain", "folds", *(("test acc.", "test AUROC") if opened else ()))
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for line in logged.lines:
        row = crossvalidation.cells(line)
        if opened:  # without spread and interval, so that it fits; the page has them
            row[2:4] = [cell.partition(" ")[0] for cell in row[2:4]]
        table.add_row(*row)
    return Group(table, *(Text(sentence) for sentence in logged.sentences))


def comparison_view(comparison: Comparison) -> Group:
    """The architectures side by side."""
    heads = ("", "accuracy (95 %)", "AUROC (95 %)", "params", "training", "img/s")
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))  # so that 80 columns hold it
    for model in comparison.models:
        scores, cost = model.assessment.served, model.cost
        half = f"\n{model.assessment.scores['accuracy'].value:.3f} at 0.5" if model.own_threshold else ""
        table.add_row(
            f"{model.arch}{' *' if model.arch == comparison.champion else ''}",
            f"{scores['accuracy']}{half}",
            str(scores["auroc"]),
            format_count(cost.parameters).replace(SPACE, " "),
            format_seconds(cost.train_seconds).replace(SPACE, " "),
            f"{cost.images_per_second:,.0f}",
        )
    title = (
        f"{comparison.name}: {comparison.images:,} test images, each model as it is served, * selected on validation"
    )
    lines: list[Text | Table] = [Text(title, style="bold"), table]
    if own := [f"{model.arch} {model.threshold:.3g}" for model in comparison.models if model.own_threshold]:
        lines.append(
            Text(f"thresholds: {', '.join(own)}{', the others 0.5' if len(own) < len(comparison.models) else ''}")
        )
    clinical = {model.arch: model.assessment.clinical for model in comparison.models if model.assessment.clinical}
    lines += [clinical_rows(clinical)] if clinical else []
    for model in comparison.models:
        if len(accuracies := model.seeds.get("accuracy", ())) > 1:
            spreads = f"accuracy {format_spread(accuracies)}, AUROC {format_spread(model.seeds['auroc'])}"
            lines.append(Text(f"{model.arch}, {len(accuracies)} other seeds: {spreads}"))
    lines += [Text(f"{paired_test.sentence}.") for paired_test in comparison.paired_tests]
    lines += [Text(f"note: {note}") for note in comparison.notes]
    return Group(*lines)
