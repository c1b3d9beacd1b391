"""Train the rows of the report's tables again, as given trials of ordinary studies, and set them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import pandas as pd

from sweep.comparisons.enqueued import Tried
from sweep.comparisons.replication.analysis import Attempt, Replica, judge, page, selection_bias, side_by_side
from sweep.comparisons.replication.published import CONCLUSIONS, ROWS
from sweep.metrics import markdown
from sweep.metrics.names import sign_of
from sweep.plan import Plan, seed_of
from sweep.space import EnqueuedTrial
from sweep.stores import tags as tag
from sweep.stores.tracking import FINISHED, Tracking
from sweep.system import provenance


def plan_of_rows(plan: Plan, name: str, seeds: int) -> Plan:
    """Turns a plan into one that trains the report's rows of its architectures.

    Args:
        plan: As the settings give it.
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


def replicas_of(tried: Sequence[Tried], metric: str) -> list[Replica]:
    """The report's rows with what became of them, in its order.

    Args:
        tried: A study for each architecture.
        metric: What would be chosen by.
    """
    found = []
    for study in tried:
        for row in ROWS:
            if row.arch == study.arch:
                attempts = []
                for trial in study.labelled(row.name):
                    kept = trial.history[(trial.best_epoch or 1) - 1]
                    attempts.append(
                        Attempt(
                            trial.attributes["seed"],
                            len(trial.history),
                            sign_of(metric) * kept[metric],
                            kept["val/accuracy"],
                            study.predictions[trial.number],
                        )
                    )
                found.append(Replica(row, tuple(attempts)))
    return found


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
    written = page(replicas, about, protocol)
    table = side_by_side(replicas)
    run = tracking.start(
        f"replication-{protocol}",
        {
            tag.KIND: "replication",
            tag.STATE: "RUNNING",
            tag.PROTOCOL: protocol,
            tag.DATA: plan.source.name,
            tag.DATA_DIGEST: plan.source.digest,
            tag.SPLIT_DIGEST: plan.split.digest,
            "mlflow.note.content": markdown.note(written, "replication.md"),
            **provenance.tags(),
        },
    )
    params = {"protocol": protocol, "epochs": settings.epochs, "patience": settings.patience, "seed": settings.seed}
    tracking.log_params(run.run_id, {**params, "image_size": " ".join(map(str, sizes)), "studies": _names(plan)})
    lines = table.to_dict("records")
    scores = {f"{line['row'].replace(' ', '_')}/accuracy": line["ours"] for line in lines if line["seeds"]}
    tracking.log(run.run_id, scores, tags={tag.STATE: "COMPLETE"})
    tracking.log_files(run.run_id, {"replication.md": written})
    tracking.log_table(run.run_id, pd.DataFrame(table), "rows.json")
    tracking.finish(run.run_id, FINISHED)
    return run.run_id, written


def _names(plan: Plan) -> str:
    return " ".join(plan.full_name(planned) for planned in plan.studies)


def plain(replicas: Sequence[Replica]) -> dict[str, object]:
    """A replication as plain data."""
    verdicts = []
    for conclusion in CONCLUSIONS:
        found = judge(conclusion, replicas)
        gaps = {
            name: asdict(gap) if gap else None for name, gap in (("accuracy", found.accuracy), ("auroc", found.auroc))
        }
        verdicts.append({"conclusion": conclusion.sentence, "verdict": found.verdict, **gaps})
    archs = dict.fromkeys(replica.row.arch for replica in replicas)
    flattered = [asdict(found) for arch in archs if (found := selection_bias(arch, replicas))]
    return {"rows": side_by_side(replicas).to_dict("records"), "conclusions": verdicts, "selection_bias": flattered}
