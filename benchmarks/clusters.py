"""What a trial costs on Ray beside its training: the sweep's own engine, and Ray Tune, around the same empty training.

Two trials at once on a Ray of this machine; what is taken are the seconds between the ends of trials. The sweep does
more in them: it decodes nothing and trains nothing, but it keeps checkpoints, scores validation images, draws figures
and writes Optuna's store and MLflow's, as it would for a real trial.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.overhead import CHECKPOINT_BYTES, EPOCHS, Silent, cache_in
from benchmarks.tables import Options, Table, environment, median
from data.cache import Images, build
from sweep.engines import EpochFinished, Event
from sweep.training.config import BEST, LAST, EpochResult, TrainingConfig

TRIALS, BEGUN = 30, 5  # BEGUN are not counted: Ray's first processes start with them
QUICK_TRIALS, QUICK_BEGUN = 2, 1
AT_ONCE = 2
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


def measure(options: Options) -> list[Table]:
    """Runs the same number of empty trials in each way, one way after the other; nothing where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        return []
    trials, begun = (QUICK_TRIALS, QUICK_BEGUN) if options.quick else (TRIALS, BEGUN)
    count = trials + begun
    ways: dict[str, Callable[[Path, int, int], np.ndarray]] = {
        "Ray Tune": lambda *given: run_tune(*given, again=False),
        "Ray Tune, actors used again": lambda *given: run_tune(*given, again=True),
        "sweep --engine ray": run_ours,
    }
    if options.quick:
        del ways["Ray Tune, actors used again"]
    with tempfile.TemporaryDirectory() as name:
        ends = {way: run(Path(name) / str(index), count, options.seed) for index, (way, run) in enumerate(ways.items())}
    costs = {way: np.diff(np.sort(found))[begun - 1 :] for way, found in ends.items()}
    base = costs["Ray Tune"].mean()
    rows = [
        (way, median((1000 * cost).tolist(), 0), f"{1000 * cost.mean():,.0f}", f"{cost.mean() / base:.2f}")
        for way, cost in costs.items()
    ]
    notes = (
        f"{trials} trials of {EPOCHS} epochs each, {AT_ONCE} at once; two ends fall together often, so that the "
        "mean is what a study takes.",
        "The sweep keeps checkpoints, scores and draws what a trial came to; Ray Tune logs the metrics.",
    )
    columns = ("way", "between ends of trials, ms", "mean", "of Ray Tune's")
    values = {way: cost.tolist() for way, cost in costs.items()}
    return [Table("clusters", "An empty training on Ray: milliseconds a trial", columns, rows, values, notes)]


def run_tune(folder: Path, count: int, seed: int, *, again: bool) -> np.ndarray:
    """Runs Ray Tune in a process of its own and returns when trials ended, in seconds."""
    folder.mkdir()
    ends = folder / "ends"
    command = [sys.executable, "-m", "benchmarks.peers.empty_ray", str(count), str(EPOCHS), str(ends)]
    subprocess.run(
        [*command, *(["again"] if again else [])],
        cwd=folder,
        env=environment(**RAY),
        check=True,
        capture_output=True,
    )
    return np.loadtxt(ends)


def run_ours(folder: Path, count: int, seed: int) -> np.ndarray:
    """Runs a study on the sweep's Ray engine in a process of its own, likewise."""
    folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.clusters", str(count), str(seed)]
    subprocess.run(command, cwd=folder, env=environment(**RAY), check=True, capture_output=True)
    return np.loadtxt(folder / "ends")


def empty_training(
    config: TrainingConfig, training: Images, validation: Images, folder: Path, stop: Callable[[], bool]
) -> Iterator[EpochResult]:
    """Trains nothing: as many epochs as asked for, with logits and checkpoints of the right kind."""
    draws = np.random.default_rng(config.seed)
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(1, config.epochs + 1):
        if stop():
            return
        (folder / LAST).write_bytes(bytes(CHECKPOINT_BYTES))
        logits = draws.normal(size=(len(validation), config.classes)).astype(np.float32)
        yield EpochResult(epoch, 1 / epoch, 0.5, 1 / epoch, logits, True, 0.0, 1.0, time.time())
    (folder / BEST).write_bytes(bytes(CHECKPOINT_BYTES))


def _study(count: int, seed: int) -> None:
    """Runs a study of empty trainings in the working directory; writes when its trials ended."""
    from sweep.engines import ray as engine
    from sweep.engines.ray_cluster import ray
    from sweep.orchestrator.runner import open_studies, run_study
    from sweep.orchestrator.study_run import SweepRun
    from sweep.orchestrator.workdir import mlflow_in, optuna_in
    from sweep.plan import make_plan
    from sweep.settings import Settings
    from sweep.stores.mlflow_stores import open_tracking

    ends: list[float] = []

    class Empty(engine._Worker):
        def __init__(self, *given: Any) -> None:
            import sweep.training.loop

            super().__init__(*given)
            sweep.training.loop.train = empty_training

    class Timed(engine.RayEngine):
        def events(self, timeout: float) -> list[Event]:
            happened = super().events(timeout)
            ends.extend(time.time() for event in happened if not isinstance(event, EpochFinished))
            return happened

    folder = Path.cwd()
    ray.init("local", num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    settings = Settings(
        ("cnn3",), trials=count, epochs=EPOCHS, warmup=EPOCHS, image_size=16, seed=seed, engine="ray", workers=AT_ONCE,
        precision="float32",
    )  # fmt: skip
    with cache_in(folder / "cache"), patch.object(engine, "_Worker", Empty):
        plan = make_plan(settings, fetch=False)
        build(plan.source, settings.image_size)
        (planned,), (study,) = plan.studies, open_studies(plan, optuna_in(folder))
        tracking = open_tracking(mlflow_in(folder), plan.experiment)
        workers = Timed(plan.workers, plan.device, plan.threads)
        run_study(SweepRun(plan, workers, tracking, folder, Silent(), lambda: False), planned, study, lambda _: None)
        workers.close()
    np.savetxt("ends", ends, fmt="%.6f")


if __name__ == "__main__":
    _study(int(sys.argv[1]), int(sys.argv[2]))
