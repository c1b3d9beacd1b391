"""Ray Tune around a training that does nothing: what a trial costs by itself.

    python -m benchmarks.peers.empty_ray TRIALS EPOCHS ENDS [again]

Writes to ENDS when each trial ended, in seconds, a line each. With `again` a process trains one trial after the other,
which is not Ray Tune's default.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch


def trainable(config: dict[str, Any], metrics: int, epochs: int) -> None:
    """Reports as many metrics as a real training would."""
    for _ in range(epochs):
        tune.report({"val_auroc": config["dropout"], **{f"metric_{index}": 0.5 for index in range(metrics - 1)}})


class Clock(tune.Callback):
    """Takes the time at which trials end."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Writes it down."""
        with self.file.open("a") as file:
            file.write(f"{time.time()}\n")


def main(trials: int, epochs: int, ends: Path, *, again: bool) -> None:
    """Runs the study in the working directory, two trials at once."""
    ray.init("local", num_cpus=2, include_dashboard=False)
    mlflow = MLflowLoggerCallback(tracking_uri=f"sqlite:///{Path('mlflow.db').resolve()}", experiment_name="empty")
    tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, metrics=16, epochs=epochs), {"cpu": 1}),
        param_space={
            "activation": tune.choice(["relu", "sigmoid", "gelu", "silu"]),
            "optimizer": tune.choice(["adam", "adamw", "adagrad", "sgd"]),
            "learning_rate": tune.loguniform(1e-5, 1e-1),
            "batch_size": tune.choice([16, 32, 64, 128]),
            "dropout": tune.uniform(0.0, 0.6),
        },
        tune_config=tune.TuneConfig(
            metric="val_auroc",
            mode="max",
            search_alg=OptunaSearch(seed=0),
            scheduler=ASHAScheduler(max_t=epochs, grace_period=epochs),
            num_samples=trials,
            reuse_actors=again,
        ),
        run_config=tune.RunConfig(storage_path=str(Path("ray_results").resolve()), callbacks=[mlflow, Clock(ends)]),
    ).fit()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), again=sys.argv[4:] == ["again"])
