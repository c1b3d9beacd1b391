"""A search from its settings to its registered models: what `sweep search` and `sweep.search` both run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.orchestrator.engine import engine_of
from sweep.orchestrator.former_name import keep_former_name
from sweep.orchestrator.notify import notifying
from sweep.orchestrator.progress import View
from sweep.orchestrator.starting_points import plan_with_starts
from sweep.orchestrator.workdir import prepare, stoppable
from sweep.plan import Plan, make_plan
from sweep.settings import Settings

if TYPE_CHECKING:
    from sweep.orchestrator.conclude import Outcome
    from sweep.orchestrator.study_run import StudyRun
    from sweep.stores.tracking import Tracking


@dataclass(frozen=True)
class Searched:
    """What a search ended with.

    Attributes:
        plan: What was decided before it began.
        outcomes: One for each study that was concluded.
        tracking: The MLflow experiment that shows them.
    """

    plan: Plan
    outcomes: list[Outcome]
    tracking: Tracking


def run_search(settings: Settings, folder: Path, view: View, ended: Callable[[Outcome, Plan], None]) -> Searched:
    """Runs the studies of a search, one after the other.

    Args:
        settings: What was asked for.
        folder: The working directory, where stores and checkpoints are unless the settings name others.
        view: Shows what happens.
        ended: Called with each study's outcome, and the plan, as soon as it is there.

    Raises:
        InputError: Something cannot be done; nothing was written.
        StudyFailedError: As `runner.run_plan`.
        StudyInterruptedError: Somebody stopped it.
    """
    with stoppable() as stopping, ExitStack() as at_end:
        plan = plan_with_starts(keep_former_name(make_plan(settings, fetch=True), folder), folder)
        engine = engine_of(plan)
        at_end.callback(engine.close)
        if not (folder / "optuna.db").exists():  # else nothing may be left to train
            engine.start(settings.trials)  # workers import torch while this process imports MLflow
        prepare(plan, folder, view, stopping)
        message = at_end.enter_context(
            notifying(settings.notify, [plan.full_name(one) for one in plan.studies], view.say)
        )
        from sweep.orchestrator.runner import run_plan  # seconds of imports, which wrong input need not wait for

        def conclude(run: StudyRun) -> Outcome:
            from sweep.orchestrator import conclude  # imported by now, unless nothing was left to train

            return conclude.conclude(run)

        outcomes, tracking = run_plan(
            plan, folder, view, stopping, conclude, lambda outcome: ended(outcome, plan), engine
        )
        message["best"] = [_best(outcome) for outcome in outcomes]
    return Searched(plan, outcomes, tracking)


def _best(outcome: Outcome) -> dict[str, Any]:
    """What a person who is told of it wants to know first."""
    test = {name: round(outcome.test.served[name].value, 4) for name in ("accuracy", "auroc")}
    place = f"models:/{outcome.model}/{outcome.version}"
    return {
        "study": outcome.study,
        "trial": outcome.best.number,
        "value": outcome.best.value,
        "test": test,
        "model": place,
    }
