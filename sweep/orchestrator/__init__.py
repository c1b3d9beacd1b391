"""The one process that writes: asks Optuna, submits, reports, prunes, tells, and mirrors everything to MLflow."""
