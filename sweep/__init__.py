"""Hyperparameter sweeps for image classifiers: searched by Optuna, recorded by MLflow, compared and served."""

__version__ = "0.1.0"
