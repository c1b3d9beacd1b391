"""What a trial and an epoch cost beside their training: the same empty training under three programs.

`bare` makes the library calls that no tracked trial can avoid, and nothing else: ask, create a run, log its
parameters, for each epoch report, should_prune and one batch of metrics, tell, end the run. `ours` is the whole loop
of the sweep around an engine that trains nothing. Stores are SQLite files. A store of 1,000 or 10,000 trials is grown
by copying the rows of the hundred trials that were really run, in Optuna and in MLflow alike.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Options, Table, median
from sweep.engines import EpochFinished, Event, Job, JobFinished
from sweep.training.config import BEST, EpochResult

SIZES, QUICK_SIZES = (10, 100, 1_000, 10_000), (10, 40)
MEASURED, EPOCHS = 20, 5  # sizes lie further apart than what is measured at each
CHECKPOINT_BYTES = 1_000_000
PEERS_LARGEST = 1_000
FIRST = 100  # trials that are run one by one; what is beyond is copies of them
TRIAL_TABLES = (
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_user_attributes",
    "trial_system_attributes",
)


@dataclass(frozen=True)
class Cost:
    """What `MEASURED` trials took.

    Attributes:
        trials: Seconds of each trial, all its epochs included.
        epochs: Seconds of each epoch, likewise beside its training.
        meanwhile: Seconds of each trial's work that is done while others train, so that nothing waits for it.
    """

    trials: list[float] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    meanwhile: list[float] = field(default_factory=list)


def measure(options: Options) -> list[Table]:
    """Measures the overhead of a trial and of an epoch at growing numbers of trials."""
    sizes = QUICK_SIZES if options.quick else SIZES
    ways = {"bare": run_bare, "by hand": run_by_hand, "ours": run_ours}
    with tempfile.TemporaryDirectory() as name:
        costs = {way: run(Path(name) / way.replace(" ", "-"), sizes, options.seed) for way, run in ways.items()}
    base = costs["ours"][min(FIRST, sizes[-1])]
    trials, epochs, values = [], [], {}
    for size in sizes:
        found = {way: cost.get(size, Cost()) for way, cost in costs.items()}
        bare, ours = found["bare"], found["ours"]
        named = f"{size:,}"
        trials.append(
            (
                named,
                *(_milliseconds(cost.trials) for cost in found.values()),
                _milliseconds(ours.meanwhile),
                f"{np.median(ours.trials) / np.median(bare.trials):.2f}",
                f"{np.median(ours.trials) / np.median(base.trials):.2f}",
            )
        )
        epochs.append((named, *(_milliseconds(found[way].epochs) for way in ("bare", "by hand", "ours"))))
        for way, cost in found.items():
            kinds = {"trial": cost.trials, "epoch": cost.epochs, "meanwhile": cost.meanwhile}
            values |= {f"{way}/{kind}/{size}": seconds for kind, seconds in kinds.items()}
    notes = (
        f"A trial has {EPOCHS} epochs, which its own time includes; medians over {MEASURED} trials.",
        "Meanwhile: what is done while the worker trains (run and data begun, figures drawn, files logged).",
    )
    wide = ("trials", *(f"{way}, ms" for way in ways), "ours meanwhile, ms", "ours / bare", "ours / at 100")
    return [
        Table("overhead", "An empty training: milliseconds a trial", wide, trials, values, notes),
        Table("overhead_epoch", "... and an epoch", ("trials", "bare, ms", "by hand, ms", "ours, ms"), epochs, {}),
    ]


def _milliseconds(seconds: list[float]) -> str:
    return median([1000 * value for value in seconds], 0 if np.median(seconds) > 0.1 else 1) if seconds else "-"


def run_bare(folder: Path, sizes: tuple[int, ...], seed: int) -> dict[int, Cost]:
    """Makes the unavoidable calls alone."""
    import optuna
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    from sweep.space import study_space
    from sweep.stores.conversion import to_distribution

    folder.mkdir(parents=True)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("bare", str(folder / "mlruns"))
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'optuna.db'}",
        study_name="bare",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=EPOCHS + 1),
    )
    space = {name: to_distribution(domain) for name, domain in study_space("cnn3", (), ()).items()}
    draws = np.random.default_rng(seed)

    def one(cost: Cost) -> None:
        began = time.perf_counter()
        trial = study.ask(space)
        tags = {"mlflow.runName": f"bare-{trial.number}", "sweep.trial": str(trial.number)}
        run = client.create_run(experiment, tags=tags).info.run_id
        metrics: dict[str, float] = {}
        client.log_batch(run, params=[Param(name, str(value)) for name, value in trial.params.items()])
        for epoch in range(1, EPOCHS + 1):
            now = time.perf_counter()
            metrics = dict(zip(METRICS, draws.random(len(METRICS)).tolist(), strict=True))
            trial.report(metrics["val/auroc"], epoch)
            stamp = int(time.time() * 1000)
            client.log_batch(run, [Metric(name, value, stamp, epoch) for name, value in metrics.items()])
            trial.should_prune()
            cost.epochs.append(time.perf_counter() - now)
        study.tell(trial, metrics["val/auroc"])
        client.log_batch(run, tags=[RunTag("sweep.state", "COMPLETE")])
        client.set_terminated(run, "FINISHED")
        cost.trials.append(time.perf_counter() - began)

    def run(count: int) -> Cost:
        cost = Cost()
        while len(study.get_trials(deepcopy=False)) < count:
            one(cost)
        return cost

    return _at_sizes(folder, sizes, run)


METRICS: tuple[str, ...] = (
    "train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/balanced_accuracy", "val/precision", "val/recall",
    "val/specificity", "val/f1", "val/auroc", "val/average_precision", "val/brier", "val/log_loss", "val/ece",
    "images_per_second", "epoch_seconds",
)  # fmt: skip


def run_by_hand(folder: Path, sizes: tuple[int, ...], seed: int) -> dict[int, Cost]:
    """Runs an objective that trains nothing, as tutorials write one; up to 1,000 trials."""
    import mlflow
    import optuna

    folder.mkdir(parents=True)
    draws = np.random.default_rng(seed)
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_experiment("by-hand")
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'optuna.db'}",
        study_name="by hand",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=EPOCHS + 1),
    )

    def run(count: int) -> Cost:
        cost, ends = Cost(), [time.perf_counter()]

        def objective(trial: optuna.Trial) -> float:
            config = {
                "activation": trial.suggest_categorical("activation", ["relu", "sigmoid", "gelu", "silu"]),
                "optimizer": trial.suggest_categorical("optimizer", ["adam", "adamw", "adagrad", "sgd"]),
                "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
                "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64, 128]),
                "dropout": trial.suggest_float("dropout", 0.0, 0.6),
            }
            tags = {"sweep.trial": str(trial.number)}  # what `grow` tells runs by
            with mlflow.start_run(run_name=f"trial-{trial.number}", tags=tags):
                mlflow.log_params(config)
                metrics: dict[str, float] = {}
                for epoch in range(1, EPOCHS + 1):
                    began = time.perf_counter()
                    metrics = dict(zip(METRICS, draws.random(len(METRICS)).tolist(), strict=True))
                    mlflow.log_metrics(metrics, step=epoch)
                    trial.report(metrics["val/auroc"], epoch)
                    if trial.should_prune():
                        raise optuna.TrialPruned
                    cost.epochs.append(time.perf_counter() - began)
            return metrics["val/auroc"]

        def ended(*_: object) -> None:
            ends.append(time.perf_counter())

        study.optimize(objective, count - len(study.get_trials(deepcopy=False)), callbacks=[ended])
        cost.trials.extend(np.diff(ends).tolist())
        return cost

    return _at_sizes(folder, tuple(size for size in sizes if size <= PEERS_LARGEST), run)


def run_ours(folder: Path, sizes: tuple[int, ...], seed: int) -> dict[int, Cost]:
    """Runs the sweep's own loop, from opening its stores, around an engine that trains nothing."""
    from data import cache
    from sweep.orchestrator.runner import open_studies, run_study
    from sweep.orchestrator.study_run import SweepRun
    from sweep.orchestrator.workdir import mlflow_in, optuna_in
    from sweep.plan import make_plan
    from sweep.settings import Settings
    from sweep.stores.mlflow_stores import open_tracking

    folder.mkdir(parents=True)
    settings = Settings(("cnn3",), epochs=EPOCHS, warmup=EPOCHS, image_size=16, workers=1, device="cpu", seed=seed)
    with cache_in(folder / "cache"):
        plan = make_plan(settings, fetch=False)
        cache.build(plan.source, 16)
        tracking = open_tracking(mlflow_in(folder), plan.experiment)

        def run(count: int) -> Cost:
            planned = replace(plan.studies[0], trials=count)
            (study,) = open_studies(replace(plan, studies=(planned,)), optuna_in(folder))
            engine = EmptyEngine(seed)
            run_study(SweepRun(plan, engine, tracking, folder, Silent(), lambda: False), planned, study, lambda _: None)
            study.release()
            return engine.cost()

        return _at_sizes(folder, sizes, run)


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Has decoded images go to a folder of the measurement's own, not to the user's cache."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


class Silent:
    """A view that nobody watches."""

    def update(self, progress: Any) -> None:
        """Shows nothing."""

    def say(self, text: str) -> None:
        """Says nothing."""

    def live(self) -> nullcontext[None]:
        """Shows nothing meanwhile."""
        return nullcontext()

    def counting(self, what: str, total: int) -> nullcontext[Callable[[int], None]]:
        """Counts nothing."""
        return nullcontext(lambda done: None)


class EmptyEngine:
    """Ends every epoch of a job at once, with random logits, and takes the time that the loop around it takes.

    The first question after a job gets no answer, as a real worker has nothing to say for a while. What the loop does
    between a submission and that question's end is done while the worker trains; what it does once it has heard of
    an epoch, or of the end of a trial until it submits the next one, is what workers may have to wait for.
    """

    def __init__(self, seed: int) -> None:
        self._draws = np.random.default_rng(seed)
        self._events: list[Event] = []
        self._answered: tuple[str, float] | None = None
        self._costs: list[dict[str, list[float]]] = []

    def start(self, jobs: int) -> None:
        """Nothing has to start."""

    @property
    def free(self) -> int:
        """One trial at a time."""
        return 0 if self._events else 1

    def submit(self, job: Job) -> None:
        """Has all results of a job ready."""
        shape = (len(job.validation), job.config.classes)
        results = []
        for epoch in range(1, job.config.epochs + 1):
            logits = self._draws.normal(size=shape).astype(np.float32)
            loss = 1 / epoch
            results.append(EpochResult(epoch, loss, 0.5, loss, logits, True, 0.0, 1.0, time.time()))
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / BEST).write_bytes(bytes(CHECKPOINT_BYTES))
        self._events = [*(EpochFinished(job.number, result) for result in results), JobFinished(job.number)]
        now = time.perf_counter()
        if self._answered is not None:
            self._costs[-1][self._answered[0]].append(now - self._answered[1])
        self._costs.append(defaultdict(list))
        self._answered = ("start", now)

    def events(self, timeout: float) -> list[Event]:
        """One event at a time, as those of real trainings come."""
        if self._answered is not None:
            kind, at = self._answered
            self._costs[-1][kind].append(time.perf_counter() - at)
        if self._answered is None or self._answered[0] == "start":
            kind, events = "idle", []
        else:
            events = [self._events.pop(0)]
            kind = "epoch" if self._events else "trial"
        self._answered = (kind, time.perf_counter())
        return events

    def stop(self, number: int, *, after_epoch: bool = False) -> None:
        """Nothing is left to stop."""

    def close(self) -> None:
        """Nothing is open."""

    def cost(self) -> Cost:
        """What the last trials cost; the very last one's end is the study's, and not counted."""
        costs = self._costs[-MEASURED - 1 : -1]
        trials = [sum(cost["epoch"]) + sum(cost["trial"]) for cost in costs]
        epochs = [seconds for cost in costs for seconds in cost["epoch"]]
        return Cost(trials, epochs, [sum(cost["idle"]) + sum(cost["start"]) for cost in costs])


def _at_sizes(folder: Path, sizes: tuple[int, ...], run: Callable[[int], Cost]) -> dict[int, Cost]:
    costs, done = {}, 0
    for size in sizes:
        if size <= FIRST:
            run(size)
        else:
            grow(folder, done, size)
        cost = run(size + MEASURED + 1)
        last = slice(-MEASURED, None)
        costs[size] = Cost(cost.trials[last], cost.epochs[-MEASURED * EPOCHS :], cost.meanwhile[last])
        done = size + MEASURED + 1
    return costs


def grow(folder: Path, trials: int, wanted: int) -> None:
    """Copies the rows of the first trials until a store has as many as are wanted.

    Args:
        folder: Where the stores are; each has `trials` trials, numbered from 0.
        trials: How many there are.
        wanted: How many there are to be.
    """
    with closing(sqlite3.connect(folder / "optuna.db", isolation_level=None)) as db:
        db.execute("begin")
        for first in range(trials, wanted, FIRST):
            rows = f"trial_id <= {min(FIRST, wanted - first)}"
            _copy(db, "trials", rows, trial_id=f"trial_id + {first}", number=f"number + {first}")
            for table in TRIAL_TABLES:
                key = table.replace("attributes", "attribute").removesuffix("s") + "_id"
                key = {"trial_param_id": "param_id"}.get(key, key)
                _copy(db, table, rows, drop=key, trial_id=f"trial_id + {first}")
        db.execute("commit")
    with closing(sqlite3.connect(folder / "mlflow.db", isolation_level=None)) as db:
        db.execute("begin")
        for first in range(trials, wanted, FIRST):
            below = min(FIRST, wanted - first)
            number = f"select run_uuid from tags where key = 'sweep.trial' and cast(value as integer) < {below}"
            other = f"printf('%08x', {first}) || substr({{}}, 9)"
            run = other.format("run_uuid")
            for table in ("runs", "params", "metrics", "latest_metrics"):
                _copy(db, table, f"run_uuid in ({number})", run_uuid=run)
            moved = f"case key when 'sweep.trial' then cast(value as integer) + {first} else value end"
            _copy(db, "tags", f"run_uuid in ({number})", run_uuid=run, value=moved)
            _copy(
                db,
                "inputs",
                f"destination_id in ({number})",
                input_uuid=other.format("input_uuid"),
                destination_id=other.format("destination_id"),
            )
        db.execute("commit")


def _copy(db: sqlite3.Connection, table: str, condition: str, drop: str = "", **changed: str) -> None:
    names = [row[1] for row in db.execute(f"pragma table_info({table})") if row[1] != drop]
    chosen = ", ".join(changed.get(name, f'"{name}"') for name in names)
    columns = ", ".join(f'"{name}"' for name in names)
    db.execute(f"insert into {table} ({columns}) select {chosen} from {table} where {condition}")
