"""The names of the attributes that a study carries in Optuna's store, each named once. Imports nothing.

Stores keep them for years: a name that was published is never changed.
"""

from __future__ import annotations

ABOUT = "sweep.about"  # what the study's MLflow run shows: name, experiment, metric, params, tags, data
FINGERPRINT = "sweep.fingerprint"  # what must not change while the study lives
OWNER = "sweep.owner"  # the process that runs the study
CONCLUSION = "sweep.conclusion"  # the chosen trial, its scores and their description
TIMES = "sweep.ms_per_image"  # how long each network of the study takes, by what decides its layers
TEST = "test"  # the scores on the test set, by the number of the trial that it was opened for
OPENED = "opened"  # whether enqueued trials were scored on the test set
