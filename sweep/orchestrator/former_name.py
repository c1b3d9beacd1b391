"""Stores made when the built-in synthetic images were still called by their former name go on under it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from data import synthetic
from data.sources import under_name
from sweep.orchestrator.workdir import optuna_in
from sweep.plan import Plan
from sweep.stores.databases import has_study_named

NOTE = (
    f"this store began when the synthetic images were called {synthetic.FORMER_NAME}: its studies, its experiment and "
    "its registered model keep that name"
)


def keep_former_name(plan: Plan, folder: Path) -> Plan:
    """Gives a plan's synthetic images their former name where Optuna's store has studies under it.

    The same command would begin a second study, experiment and registered model otherwise.

    Args:
        plan: Any plan; one for other images, or for a new store, is returned as it is.
        folder: The working directory.

    Raises:
        InputError: Optuna's store cannot be opened.
    """
    storage = plan.settings.storage or optuna_in(folder)
    former = f"{synthetic.FORMER_NAME}/"
    if plan.source.kind != "synthetic" or not has_study_named("--storage", storage, former):
        return plan
    source = under_name(plan.source, synthetic.FORMER_NAME)
    return replace(plan, source=replace(source, notes=(*source.notes, NOTE)))
