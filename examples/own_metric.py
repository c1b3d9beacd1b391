"""A metric of your own: what a missed PNEUMONIA and a false alarm cost ranks the trials of a finished search.

    python own_metric.py

The search itself chooses by one of its own metrics (`metric=`, `--metric`); here average precision. Each complete
trial keeps its predictions of the validation images in MLflow, and every score of your own can be computed from them.
Validation images alone are used: the test images are for the model that was chosen.
"""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

import sweep

MISSED, FALSE_ALARM = 10.0, 1.0  # what each costs
POSITIVE = "PNEUMONIA"


def cost(predictions: pd.DataFrame) -> tuple[float, float]:
    """The lowest cost per image over all thresholds, and the threshold that has it."""
    positive = predictions["class"].to_numpy() == POSITIVE
    probability = predictions[f"probability_{POSITIVE}"].to_numpy()
    thresholds = np.unique([0.5, *probability])
    answers = probability >= thresholds[:, None]  # [thresholds, images]
    costs = (MISSED * (positive & ~answers) + FALSE_ALARM * (~positive & answers)).mean(axis=1)
    return costs.min(), thresholds[costs.argmin()]


def ranked(study_run_id: str) -> pd.DataFrame:
    """All complete trials of a study, the cheapest first."""
    client, rows = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}"), []
    study = client.get_run(study_run_id)
    of_study = f"tags.`mlflow.parentRunId` = '{study_run_id}' and tags.`sweep.state` = 'COMPLETE'"
    for run in client.search_runs([study.info.experiment_id], of_study):
        file = client.download_artifacts(run.info.run_id, "predictions/validation.csv")
        lowest, threshold = cost(pd.read_csv(file))
        rows.append((run.info.run_name, lowest, threshold, run.data.metrics["objective"]))
    return pd.DataFrame(rows, columns=["trial", "cost", "threshold", "average precision"]).sort_values("cost")


if __name__ == "__main__":
    space = {"learning_rate": sweep.Range(3e-3, 1e-2, log=True)}
    fix = {"activation": "relu", "optimizer": "adam", "batch_size": 16, "dropout": 0.2}
    options = {"metric": "val/average_precision", "image_size": 32, "limit": 240, "epochs": 3, "workers": 1}
    result = sweep.search("cnn1", trials=3, space=space, fix=fix, **options)
    print(result)
    print(ranked(result.study_run_id).to_string(index=False))
