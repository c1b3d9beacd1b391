"""A study in both stores that nobody trained: complete and pruned trials with made-up epochs, mirrored as real ones are."""

from __future__ import annotations

import time
from pathlib import Path

from sweep.orchestrator.mlflow_mirror import Mirror
from sweep.orchestrator.run_params import DataDescription, StudyDescription
from sweep.space import SPACES
from sweep.stores import tags as tag
from sweep.stores.attributes import ABOUT, CONCLUSION, TEST
from sweep.stores.mlflow_stores import open_tracking
from sweep.stores.study import Pruning, Study, open_study
from tests.helpers.stocked import stocked

EXPERIMENT, STUDY_ID = "x-rays", "5eed"
# The area under the ROC curve after each epoch of each trial; the short one is pruned.
CURVES = ((0.7, 0.8), (0.75, 0.9), (0.6,), (0.65, 0.85))
PRUNED, BEST = 2, 1
SCORES = {
    "test/accuracy": 0.8, "test/auroc": 0.88, "test/balanced_accuracy": 0.79, "test/recall": 0.9, "test/f1": 0.85,
    "test_at_threshold/accuracy": 0.82, "test_at_threshold/balanced_accuracy": 0.81,
}  # fmt: skip


def mirrored_study(folder: Path) -> tuple[Study, Mirror]:
    """Makes the study in a directory, without its conclusion."""
    tracking = open_tracking(f"sqlite:///{stocked(folder)}/mlflow.db", EXPERIMENT, print)
    study = open_study(
        f"sqlite:///{folder}/optuna.db", f"{EXPERIMENT}/cnn3", SPACES["cnn3"],
        direction="maximize", fingerprint={}, seed=0, pruning=Pruning("none", 1, 2),
    )  # fmt: skip
    counts = {"train": {"NORMAL": 40, "PNEUMONIA": 60}}
    about = StudyDescription(
        name="cnn3",
        experiment=EXPERIMENT,
        metric="val/auroc",
        tags={tag.STUDY: study.name, tag.STUDY_ID: STUDY_ID, tag.ARCH: "cnn3", tag.DATA: EXPERIMENT},
        params={
            "arch": "cnn3", "image_size": 32, "metric": "val/auroc",
            **{f"space/{name}": str(domain) for name, domain in SPACES["cnn3"].items()},
        },
        data=DataDescription(EXPERIMENT, "/data", {"train": "t1", "validation": "v1"}, "{}"),
        counts=counts,
    )  # fmt: skip
    study.note(ABOUT, about.to_dict())
    mirror = Mirror(study, tracking, folder / "checkpoints", print)
    mirror.open()
    for curve in CURVES:
        asked = study.ask()
        mirror.trial_started(asked, {**asked.params, "seed": 7, "arch": "cnn3"}, about.tags)
        rows = [
            {
                "epoch": epoch,
                "time": time.time(),
                "train/loss": 1 - auroc,
                "val/loss": 1.1 - auroc,
                "val/auroc": auroc,
                "val/accuracy": auroc,
            }
            for epoch, auroc in enumerate(curve, 1)
        ]
        for row in rows:
            study.report(asked.number, row["epoch"], row["val/auroc"])
            mirror.epoch_ended(asked.number, row)
        result = {"history": rows, "best_epoch": len(rows)}
        if asked.number == PRUNED:
            study.prune(asked.number, result)
        else:
            study.complete(asked.number, curve[-1], result)
        mirror.trial_ended(asked.number)
    mirror.end_runs()
    return study, mirror


def conclude_mirrored(study: Study, mirror: Mirror, model_id: str | None = None) -> None:
    """Opens the test set for the best trial and shows the end of the study, as `conclude` does."""
    tags = {tag.TEST_OPENED: "for 1 of this study's trials so far", tag.THRESHOLD: 0.5}
    study.note(TEST, {str(BEST): {"scores": SCORES, "tags": tags, "epoch": 2}})
    mirror.show_test(BEST)
    scores = {"val/auroc": CURVES[BEST][-1], **SCORES}
    study.note(CONCLUSION, {"best": BEST, "scores": scores, "description": "The best one.", "model": model_id})
    mirror.show_conclusion()
