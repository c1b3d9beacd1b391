"""Everything that outlives the process: Optuna studies, MLflow runs, registered models."""
