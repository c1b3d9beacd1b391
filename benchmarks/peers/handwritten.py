"""A study by hand, as the tutorials of Optuna, MLflow and PyTorch show it: one trial after another in one process.

python -m benchmarks.peers.handwritten FOLDER 30 --epochs 4 --image-size 64 --batch-size 64 --seed 0
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import mlflow
import optuna
import torch
import typer

from benchmarks.peers.tutorial import Task, build, load, train_epoch, validate


def main(
    images: Path,
    trials: int,
    epochs: Annotated[int, typer.Option()],
    image_size: Annotated[int, typer.Option()],
    batch_size: Annotated[list[int], typer.Option()],
    seed: Annotated[int, typer.Option()],
) -> None:
    """Runs the study in the working directory."""
    task = Task(images, image_size, epochs, batch_size, seed)

    def objective(trial: optuna.Trial) -> float:
        config = {
            "activation": trial.suggest_categorical("activation", ["relu", "sigmoid", "gelu", "silu"]),
            "optimizer": trial.suggest_categorical("optimizer", ["adam", "adamw", "adagrad", "sgd"]),
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
            "batch_size": trial.suggest_categorical("batch_size", task.batch_sizes),
            "dropout": trial.suggest_float("dropout", 0.0, 0.6),
        }
        torch.manual_seed(task.seed + trial.number)
        training, validation = load(task, config["batch_size"])
        network, optimizer = build(task, config)
        best, weights = 0.0, Path(f"trial-{trial.number}.pt")
        with mlflow.start_run(run_name=f"trial-{trial.number}", nested=True):
            mlflow.log_params(config)
            for epoch in range(task.epochs):
                train_loss = train_epoch(network, training, optimizer)
                val_loss, val_auroc = validate(network, validation)
                mlflow.log_metrics({"train_loss": train_loss, "val_loss": val_loss, "val_auroc": val_auroc}, step=epoch)
                if val_auroc > best:
                    best = val_auroc
                    torch.save(network.state_dict(), weights)
                trial.report(val_auroc, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
            mlflow.log_artifact(str(weights))
        return best

    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("handwritten")
    study = optuna.create_study(
        storage="sqlite:///optuna.db",
        study_name="handwritten",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    with mlflow.start_run(run_name="study"):
        # A learning rate of 0.1 may diverge, and no AUROC can be computed of what is not a number.
        study.optimize(objective, n_trials=trials, catch=(ValueError,))
        mlflow.log_params({f"best_{name}": value for name, value in study.best_params.items()})
        mlflow.log_metric("best_val_auroc", study.best_value)


if __name__ == "__main__":
    typer.run(main)
