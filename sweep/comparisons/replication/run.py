"""Train the rows of the student report's tables again, as enqueued trials of ordinary studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from sweep.comparisons.enqueued import EnqueuedResult
from sweep.comparisons.replication.analysis import Replica, judge, selection_bias, side_by_side, to_markdown
from sweep.comparisons.replication.published import CONCLUSIONS, ROWS
from sweep.comparisons.run_log import log_run
from sweep.orchestrator.run_params import leakage_tags
from sweep.plan import Plan, leakage_paragraphs, seed_of
from sweep.stores import tags as tag
from sweep.stores.tracking import Tracking
from sweep.stores.trials import EnqueuedTrial


def plan_of_rows(plan: Plan, name: str, seeds: int) -> Plan:
    """Turns a plan into one that trains the report's rows of its architectures.

    Args:
        plan: The plan of the settings.
        name: Of the studies, after their architecture.
        seeds: How often each row is trained.
    """
    studies = []
    for planned in plan.studies:
        enqueued = [
            EnqueuedTrial(
                row.name,
                row.params,
                seed_of(plan.settings.seed, row.name, index),
                None if row.early_stopping else 0,
            )
            for index in range(seeds)  # every row once before any a second time
            for row in ROWS
            if row.arch == planned.arch
        ]
        studies.append(planned.of(f"{planned.arch}-{name}", enqueued))
    return replace(plan, studies=tuple(studies))


def replicas_of(studies: Sequence[EnqueuedResult], metric: str) -> list[Replica]:
    """The report's rows with their results, in its order.

    Args:
        studies: One for each architecture.
        metric: The metric that would choose.
    """
    return [Replica(row, study.tested(row.name), metric) for study in studies for row in ROWS if row.arch == study.arch]


def log(replicas: Sequence[Replica], plan: Plan, tracking: Tracking, protocol: str) -> tuple[str, str]:
    """Logs a replication as a run of its own.

    Returns:
        The run's id, and the page in Markdown.
    """
    settings, sizes = plan.settings, sorted({planned.image_size for planned in plan.studies})
    about = {
        "data": f"{plan.source.name} ({len(plan.split.train):,} train, {len(plan.split.validation):,} validation and "
        f"{len(plan.source.splits['test']):,} test images)",
        "pixels": " and ".join(f"{size} x {size}" for size in sizes),
        "epochs": f"up to {settings.epochs}",
        "patience": settings.patience,
    }
    page, table = to_markdown(replicas, about, protocol), side_by_side(replicas)
    for paragraph in leakage_paragraphs(plan):
        page = page.replace("\n\n", f"\n\n{paragraph}\n\n", 1)
    params = {"protocol": protocol, "epochs": settings.epochs, "patience": settings.patience, "seed": settings.seed}
    names = " ".join(plan.full_name(planned) for planned in plan.studies)
    run_id = log_run(
        tracking,
        f"replication-{protocol}",
        {
            tag.KIND: "replication",
            tag.PROTOCOL: protocol,
            tag.DATA: plan.source.name,
            tag.DATA_DIGEST: plan.source.digest,
            tag.SPLIT_DIGEST: plan.split.digest,
            **leakage_tags(plan),
        },
        params={**params, "image_size": " ".join(map(str, sizes)), "studies": names},
        metrics={
            f"{line['row'].replace(' ', '_')}/accuracy": line["ours"]
            for line in table.to_dict("records")
            if line["seeds"]
        },
        files={"replication.md": page, "rows.json": table},
        page="replication.md",
    )
    return run_id, page


def to_dict(replicas: Sequence[Replica]) -> dict[str, Any]:
    """A replication as plain data."""
    judged = [(conclusion.sentence, judge(conclusion, replicas)) for conclusion in CONCLUSIONS]
    conclusions = [
        {
            "conclusion": sentence,
            "verdict": judgement.verdict,
            "accuracy": judgement.accuracy and asdict(judgement.accuracy),
            "auroc": judgement.auroc and asdict(judgement.auroc),
        }
        for sentence, judgement in judged
    ]
    archs = dict.fromkeys(replica.row.arch for replica in replicas)
    biases = [asdict(bias) for arch in archs if (bias := selection_bias(arch, replicas))]
    return {"rows": side_by_side(replicas).to_dict("records"), "conclusions": conclusions, "selection_bias": biases}
