"""Everything that outlives the process: Optuna studies, MLflow runs, registered models."""

import os

# Set before MLflow is imported: it would report usage to its makers and draw progress bars for single files.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# With a server it would print the address of every run that ends, on the stdout that --json needs for itself.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# A training does not wait minutes for a server that is away; orchestrator/mlflow_mirror.py completes the runs later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
