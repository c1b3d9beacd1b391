"""The end of a sweep over several architectures: one table across them, and who holds the champion's alias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sweep.metrics.names import THRESHOLD_FREE, sign_of
from sweep.orchestrator.trial_table import SHORT
from sweep.stores.tags import ARCH

if TYPE_CHECKING:
    from sweep.orchestrator.conclude import Outcome
    from sweep.stores.registry import Version

SCORES = {"accuracy": "accuracy (95 %)", "auroc": "AUROC (95 %)", "recall": "sens.", "specificity": "spec."}
WITH_INTERVAL = ("accuracy", "auroc")


def sweep_view(outcomes: Sequence[Outcome], metric: str, champion: Version | None) -> Group:
    """The best model of each architecture as it is served, the best by validation first.

    Args:
        outcomes: Of the studies, all with the same test images.
        metric: What they choose by.
        champion: The version that holds `champion`; None where nobody does.
    """
    ranked = sorted(outcomes, key=lambda outcome: -sign_of(metric) * (outcome.best.value or 0.0))
    name, test = ranked[0].model, ranked[0].test
    shown = [score for score in SCORES if all(score in outcome.test.served for outcome in ranked)]
    chosen_by = metric.removeprefix("val/")
    chosen_by = "\n".join(f"val. {SHORT.get(chosen_by, chosen_by)}".split())  # narrow, so that a line fits 80 columns
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in ("model", chosen_by, *(SCORES[score] for score in shown)):
        table.add_column(heading, vertical="bottom", no_wrap=True)
    for outcome in ranked:
        served = outcome.test.served
        table.add_row(
            f"{outcome.arch} v{outcome.version}{' *' if _is(champion, outcome) else ''}",
            f"{outcome.best.value:.4f}",
            *(str(served[score]) if score in WITH_INTERVAL else f"{served[score].value:.3f}" for score in shown),
        )
    title = f"{len(ranked)} architectures on {test.images:,} test images of {name}, as they are served:"
    return Group(Text(f"\n{title}", style="bold"), table, *map(Text, _remarks(ranked, shown, champion)))


def _remarks(ranked: Sequence[Outcome], shown: Sequence[str], champion: Version | None) -> list[str]:
    """What stands below the table: accuracy at the usual threshold where a model has its own, and the champion."""
    remarks = []
    own = [outcome for outcome in ranked if outcome.test.at_threshold is not None]
    if own and any(score not in THRESHOLD_FREE for score in shown):
        values = ", ".join(f"{outcome.arch} {outcome.test.scores['accuracy'].value:.3f}" for outcome in own)
        remarks.append(f"accuracy at a threshold of 0.5, which is not used: {values}")
    if champion is None:
        remarks.append("@champion: no version holds it; the lines of each study above say why")
    else:
        here = any(_is(champion, outcome) for outcome in ranked)
        holder = f"@champion: {champion.name} version {champion.version} ({champion.tags.get(ARCH, 'unknown')})"
        remarks.append(f"* {holder}" if here else f"{holder}, of another study")
    return remarks


def best_alias(outcomes: Sequence[Outcome], metric: str, champion: Version | None) -> str:
    """The alias to serve: the architecture's after one study, else `champion`, or the best architecture's without one.

    Args:
        outcomes: Of the studies.
        metric: What they choose by.
        champion: The version that holds `champion`.
    """
    if len(outcomes) > 1 and champion is not None:
        return "champion"
    return max(outcomes, key=lambda outcome: sign_of(metric) * (outcome.best.value or 0.0)).arch


def _is(version: Version | None, outcome: Outcome) -> bool:
    return version is not None and version.version == outcome.version
