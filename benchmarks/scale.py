"""How far one orchestrator goes: hundreds of trainings at once, and a study of thousands of trials.

The trainings take time and do no work (`benchmarks.sleeping`), so that two cores are enough for hundreds of them. All
else is the sweep itself: its loop, Optuna's and MLflow's stores, figures and files. Each study runs in a process of its
own, whose memory and processor time are then those of the orchestrator alone. No row is copied, and only the last table
is extrapolated; it says how. Linux only: it reads /proc.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import wraps
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.overhead import Silent, cache_in
from benchmarks.scale_tables import GROUPS, WAITING, Load, Mark, Outcome, tables
from benchmarks.sleeping import EPOCHS, SleepingEngine
from benchmarks.tables import Options, Table
from data import cache
from sweep.metrics import figures
from sweep.metrics import scores as scoring
from sweep.orchestrator.artifacts import Artifacts
from sweep.orchestrator.figure_pool import FigurePool
from sweep.orchestrator.mlflow_mirror import Mirror
from sweep.orchestrator.runner import open_studies, run_study
from sweep.orchestrator.study_run import SweepRun
from sweep.orchestrator.workdir import mlflow_in, optuna_in
from sweep.plan import make_plan
from sweep.settings import Settings
from sweep.stores.mlflow_stores import open_tracking
from sweep.stores.study import Study
from sweep.stores.tracking import Tracking

BROAD = tuple(Load(trials, workers, (0.5, 1.5)) for trials, workers in ((120, 8), (240, 64), (320, 256)))
QUICK_BROAD = (Load(5, 2, (0.0, 0.2)),)
LONG = Load(10_000, 256, (0.0, 0.5), (100, 1_000, 2_500, 5_000, 7_500, 10_000))
QUICK_LONG = Load(8, 4, (0.0, 0.1), (3, 8))


def measure(options: Options) -> list[Table]:
    """Runs studies with more and more trainings at once, and a long one; `repeats` is not looked at."""
    loads = (QUICK_LONG, *QUICK_BROAD) if options.quick else (LONG, *BROAD)
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(index) for index in range(len(loads))]
        # One process per study, or its memory would include that of earlier studies. The quick form shares one.
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=None if options.quick else 1) as pool:
            long, *broad = pool.map(run, loads, repeat(options.seed), folders)
    return tables(loads, long, broad)


def run(load: Load, seed: int, folder: Path) -> Outcome:
    """Runs a study around an engine that sleeps.

    Args:
        load: The study.
        seed: Every random draw comes from it; which trial ends first is the machine's.
        folder: The working directory, which is made; decoded images go beside it, and serve the next study, too.
    """
    folder.mkdir()
    os.chdir(folder)  # MLflow's files go where the process is
    settings = Settings(
        ("cnn3",),
        trials=load.trials,
        epochs=EPOCHS,
        image_size=16,  # the pixels are not used
        seed=seed,
        pruner="median",
        warmup=3,
        keep="best",
        workers=load.workers,
        device="cpu",
    )
    with cache_in(folder.parent / "cache"):
        plan = make_plan(settings, fetch=False)
        cache.build(plan.source, settings.image_size)
        images = cache.images_of(plan.source, plan.split, settings.image_size)
        (planned,), (study,) = plan.studies, open_studies(plan, optuna_in(folder))
        tracking = open_tracking(mlflow_in(folder), plan.experiment)
        engine = SleepingEngine(load.workers, load.seconds, images["validation"].labels)
        meter, delays = Meter(), []
        watch = _Watch(study, meter, load.sizes, folder)
        with meter.all_timed(), patch.object(Study, "report", _answering(Study.report, engine.due, delays)):
            run_study(SweepRun(plan, engine, tracking, folder, Silent(), watch.stopping), planned, study, watch.finish)
        study.release()
    meter.check()
    return Outcome(tuple(watch.marks), engine.trained, engine.last, delays, memory_of_this("VmHWM"))


class Meter:
    """Seconds and calls of methods, by name; of nested ones each has its own seconds alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._inner = [0.0]  # seconds of the timed calls within each one that is under way

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed.

        Args:
            name: What its seconds are counted under.
            function: Any function or method.
        """

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            began = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.monotonic() - began
                self.seconds[name] += took - self._inner.pop()
                self._inner[-1] += took
                self.calls[name] += 1

        return timed

    def check(self) -> None:
        """Checks that each kind of work was seen: a method that is called no more would silently count as no time.

        Raises:
            LookupError: None of the methods of a kind was called.
        """
        called = {name.partition("/")[0] for name in self.calls}
        if missing := [group for group in GROUPS if group not in called]:
            raise LookupError(f"no timed method of {', '.join(missing)} was called; see Meter.all_timed")

    @contextmanager
    def all_timed(self) -> Iterator[None]:
        """Times what the loop calls, by kind of work.

        Raises:
            AttributeError: There is no method of that name any more.
        """
        tracking = [name for name, method in vars(Tracking).items() if callable(method) and not name.startswith("_")]
        timed = (
            (WAITING, SleepingEngine, ("events",)),
            ("sampler", Study, ("ask",)),
            ("report, prune", Study, ("report", "should_prune")),
            ("tell", Study, ("note_trial", "complete", "prune", "fail")),
            ("scores", scoring, ("metrics_of",)),
            ("MLflow", Tracking, [name for name in tracking if name != "reaching"]),  # a context, which takes no time
            ("figures", figures, ("learning_curves", "predictions", "png")),
            ("figures", FigurePool, ("begin", "take")),  # what is drawn aside is waited for here, if at all
            ("files", Artifacts, ("keep_files",)),
            ("best kept", Mirror, ("thin",)),
        )
        with ExitStack() as stack:
            for group, owner, names in timed:
                for name in names:
                    wrapped = self.timed(f"{group}/{name}", getattr(owner, name))
                    stack.enter_context(patch.object(owner, name, wrapped))
            yield


def _answering(
    report: Callable[..., None], due: dict[tuple[int, int], float], delays: list[float]
) -> Callable[..., None]:
    """Notes how long after its end an epoch is known to the study."""

    @wraps(report)
    def answering(study: Study, number: int, epoch: int, value: float) -> None:
        report(study, number, epoch, value)
        delays.append(time.monotonic() - due.pop((number, epoch)))

    return answering


class _Watch:
    """Looks at a study when it begins, whenever it has grown to a size, and when it has ended."""

    def __init__(self, study: Study, meter: Meter, sizes: Iterable[int], folder: Path) -> None:
        self._study, self._meter, self._folder = study, meter, folder
        self._sizes = list(sizes)
        self.marks: list[Mark] = []

    def stopping(self) -> bool:
        """Says that the study is to go on: the loop asks before everything else it does."""
        trials = self._study.counts().done
        if not self.marks or (self._sizes and trials >= self._sizes[0]):
            self._sizes = [size for size in self._sizes if size > trials]
            self._look()
        return False

    def finish(self, *_: Any) -> None:
        """Concludes nothing."""
        self._look()

    def _look(self) -> None:
        began, counts, folder = time.monotonic(), self._study.counts(), self._folder
        counted = (time.process_time(), dict(self._meter.seconds), dict(self._meter.calls), memory_of_this("VmRSS"))
        sizes = [_bytes(folder.glob(pattern)) for pattern in ("optuna.db*", "mlflow.db*", "mlruns/**/*")]
        self.marks.append(Mark(counts.done, counts.pruned, began, time.monotonic(), *counted, *sizes))
        # It takes long, and what was found should outlive an interruption.
        print(json.dumps(asdict(self.marks[-1])), file=sys.stderr, flush=True)


def memory_of_this(figure: str) -> int:
    """Bytes that this process holds (`VmRSS`), or has held at most (`VmHWM`)."""
    # resource.getrusage would give a new process the peak of the one that started it.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{figure}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(f"/proc/self/status has no {figure}")


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.lstat().st_blocks * 512 for path in paths)
