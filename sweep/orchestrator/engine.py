"""The engine that a plan asks for; quick to import, so that workers can start before the stores are opened."""

from __future__ import annotations

from sweep.engines import Engine
from sweep.engines.local import LocalEngine
from sweep.plan import Plan


def engine_of(plan: Plan) -> Engine:
    """Makes the engine that a plan asks for; nothing runs yet."""
    if plan.settings.engine == "ray":
        from sweep.engines.ray import RayEngine

        return RayEngine(plan.workers, plan.device, plan.threads, plan.gpus, plan.settings.work_dir)
    return LocalEngine(plan.workers, plan.device, plan.threads)
