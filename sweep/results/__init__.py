"""What it was worth: scores, thresholds, figures. Knows neither Optuna nor MLflow nor torch."""
