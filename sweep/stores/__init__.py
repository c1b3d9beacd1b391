"""Everything that outlives the process: Optuna studies, MLflow runs, registered models."""

import os

# MLflow reports usage to its makers and draws bars for single files unless told otherwise before it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
