"""Hyperparameter sweeps for image classifiers: searched by Optuna, recorded by MLflow, compared and served.

Where to look:

    cli            the commands and what they print
    settings       what the user asked for
    space          which hyperparameters are searched
    plan           what will be done, checked before anything starts
    orchestrator   runs a study: asks Optuna, submits trials, reports, logs, chooses, registers
    engines        where trials run: processes of this machine, or a Ray cluster
    training       trains one network
    stores         Optuna's studies, MLflow's runs and the model registry
    metrics        scores, thresholds, calibration, intervals, figures
    lifecycle      a registered model: its card, promotion, evaluation, prediction
    comparisons    trained configurations side by side
    system         errors, signals, processes, passwords, hardware, provenance

The packages `data` (images) and `models` (networks) beside this one know nothing of it.
"""

__version__ = "0.1.0"
