"""A study with Ray Tune, as its guides show it: OptunaSearch asks, ASHA stops, MLflow records, one core a trial.

python -m benchmarks.peers.ray_tune FOLDER 30 --epochs 4 --image-size 64 --batch-size 64 --seed 0 --workers 2
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import ray
import torch
import typer
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.peers.tutorial import Task, build, load, train_epoch, validate


def trainable(config: dict[str, Any], task: Task) -> None:
    """Trains one trial in a process of its own."""
    torch.manual_seed(task.seed)
    training, validation = load(task, config["batch_size"])
    network, optimizer = build(task, config)
    for _ in range(task.epochs):
        train_loss = train_epoch(network, training, optimizer)
        val_loss, val_auroc = validate(network, validation)
        with tempfile.TemporaryDirectory() as folder:
            torch.save(network.state_dict(), Path(folder) / "network.pt")
            tune.report(
                {"train_loss": train_loss, "val_loss": val_loss, "val_auroc": val_auroc},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def main(
    images: Path,
    trials: int,
    epochs: Annotated[int, typer.Option()],
    image_size: Annotated[int, typer.Option()],
    batch_size: Annotated[list[int], typer.Option()],
    seed: Annotated[int, typer.Option()],
    workers: Annotated[int, typer.Option()],
) -> None:
    """Runs the study in the working directory."""
    ray.init("local", num_cpus=workers, include_dashboard=False)
    task = Task(images, image_size, epochs, batch_size, seed)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, task=task), {"cpu": 1}),
        param_space={
            "activation": tune.choice(["relu", "sigmoid", "gelu", "silu"]),
            "optimizer": tune.choice(["adam", "adamw", "adagrad", "sgd"]),
            "learning_rate": tune.loguniform(1e-5, 1e-1),
            "batch_size": tune.choice(task.batch_sizes),
            "dropout": tune.uniform(0.0, 0.6),
        },
        tune_config=tune.TuneConfig(
            metric="val_auroc",
            mode="max",
            search_alg=OptunaSearch(seed=seed),
            scheduler=ASHAScheduler(max_t=epochs),
            num_samples=trials,
            reuse_actors=True,  # not the default; else every trial imports torch again
        ),
        run_config=tune.RunConfig(
            name="ray_tune",
            storage_path=str(Path("ray_results").resolve()),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="val_auroc"),
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{Path('mlflow.db').resolve()}",
                    experiment_name="ray_tune",
                    save_artifact=True,
                )
            ],
        ),
    )
    print(tuner.fit().get_best_result().metrics)


if __name__ == "__main__":
    typer.run(main)
