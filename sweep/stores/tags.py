"""The names of the tags that runs and model versions carry, each named once. Imports nothing.

Stores keep them for years: a name that was published is never changed.
"""

from __future__ import annotations

# What a run is, and how it ended.
KIND = "sweep.kind"  # `study`, `comparison`, `ablation`, ...; a trial's run has none
STATE = "sweep.state"  # `RUNNING`, `COMPLETE`, `PRUNED`, `FAIL`, `STOPPED`
CAUSE = "sweep.cause"  # why a trial failed
REASON = "sweep.reason"  # the same in a sentence
RETRY_OF = "sweep.retry_of"  # the trial that this one repeats
LABEL = "sweep.label"  # what an enqueued trial is called
START = "sweep.start"  # where a configuration comes from that a search began with

# Where it belongs.
STUDY = "sweep.study"  # the study's full name
STUDY_ID = "sweep.study_id"  # finds its run: names come again, in another store or after a study was deleted
TRIAL = "sweep.trial"  # the trial's number
ARCH = "sweep.arch"
METRIC = "sweep.metric"  # what the study chooses by
BEST = "sweep.best"  # the run of the chosen trial
MEMBERS = "sweep.members"  # of an ensemble: how its members were chosen and how many they are, as `top:5`
ENSEMBLE_ID = "sweep.ensemble_id"  # finds an ensemble's run again: a digest of its members

# What it learned from.
DATA = "sweep.data"
DATA_DIGEST = "sweep.data_digest"
SPLIT_DIGEST = "sweep.split_digest"
TRAIN_IMAGES = "sweep.train_images"
LEAKAGE = "sweep.leakage"  # images and patients that are on both sides: sentences with their numbers

# How a model is served, and how often its test set was opened.
TEMPERATURE = "sweep.temperature"
THRESHOLD = "sweep.threshold"
THRESHOLD_REASON = "sweep.threshold_reason"
TEST_OPENED = "sweep.test_opened"
AUDITED = "sweep.audited"  # digest of the data that a trial was scored on after the choice
MISSED_CLASSES = "sweep.missed_classes"  # of a version: classes that it hardly ever answers, a sentence
PROMOTION = "sweep.promotion"  # `sweep.promotion.ALIAS`, of the logged model: the decision about an alias
COMMIT = "mlflow.source.git.commit"  # MLflow's own tag
MODEL_SHA256 = "sweep.model_sha256"  # hash of a version's `model.json`, which holds the hashes of its other files

# Of an experiment.
SHARED_VIEW = "sweep"  # the name of the view of its runs, a tag `mlflow.sharedViewState.sweep`; links name it
EXACT = "sweep.exact_params"  # of a run: params that are shown with 4 significant digits, as they are, JSON

# Of comparisons and evaluations.
MODEL = "sweep.model"
MODEL_VERSION = "sweep.model_version"
CHAMPION = "sweep.champion"
PROTOCOL = "sweep.protocol"
