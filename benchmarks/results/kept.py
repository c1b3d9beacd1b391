"""What is kept of the studies behind RESULTS.md: every trial with its epochs and its predictions.

`mlruns.example/results/trials.parquet` has one row per trial, `studies.json` what the studies were and the images'
labels. Both are copied from Optuna's and MLflow's stores by `collect`; there are no images in them and no file names.
`comparison.md` and `replication.md` are what `sweep compare` and `sweep replicate` logged last. `costs.json` is what
answers of the networks cost, see `benchmarks.results.costs`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.results.costs import Cost
from sweep.comparisons.architectures.audit import AUDITED, TESTED, runs_of
from sweep.metrics.names import METRICS
from sweep.metrics.predictions import STRESSED_VALIDATION, VALIDATION, Predictions, read_predictions
from sweep.metrics.scores import all_scores
from sweep.orchestrator.run_params import description_of
from sweep.stores import tags as tag
from sweep.stores.mlflow_stores import open_tracking
from sweep.stores.study import Study, stored_studies
from sweep.stores.tracking import Run, Tracking
from sweep.stores.trials import TrialRecord

PLACE = Path(__file__).parents[2] / "mlruns.example" / "results"
TRIALS, STUDIES, COSTS = "trials.parquet", "studies.json", "costs.json"
SEEDS = "-seeds"  # ends the names of studies that train a chosen trial with other seeds; thresholds are tried on these
CLASSES = ("NORMAL", "PNEUMONIA")
PAGES = {"comparison": "comparison.md", "replication": "replication.md"}  # kind of run -> its artifact


@dataclass(frozen=True)
class Images:
    """The labels and patients of scored images, without the images.

    Attributes:
        labels: int [N].
        patients: int [N], numbered.
    """

    labels: np.ndarray
    patients: np.ndarray

    def predictions(self, logits: np.ndarray) -> Predictions:
        """Returns predictions of these images, from logits float [N, 2]."""
        names = [str(row) for row in range(len(self.labels))]
        return Predictions(names, [str(patient) for patient in self.patients], self.labels, logits, CLASSES)


@dataclass(frozen=True)
class Trial:
    """A trial of a study.

    Attributes:
        number: From 0.
        state: As Optuna has it.
        label: What it was called, where it was given and not searched.
        params: Its hyperparameters.
        seed: Of its training.
        value: The metric of its study; None if it was not complete.
        best_epoch: Whose weights were kept, from 1.
        history: Metrics by epoch.
        seconds: All of its epochs.
        on_validation: Its predictions of the validation images, kept only for trials with other seeds; else None.
        on_stressed: Likewise, of these images as another machine might have made them.
        on_test: Its predictions of the test images; None where they were not kept.
    """

    number: int
    state: str
    label: str
    params: Mapping[str, Any]
    seed: int
    value: float | None
    best_epoch: int
    history: tuple[Mapping[str, float], ...]
    seconds: float
    on_validation: Predictions | None
    on_stressed: Predictions | None
    on_test: Predictions | None

    @property
    def kept(self) -> Mapping[str, float]:
        """The metrics of the epoch whose weights were kept."""
        return self.history[self.best_epoch - 1]

    @cached_property
    def tested(self) -> dict[str, float]:
        """Its test scores at a threshold of 0.5."""
        assert self.on_test is not None
        return all_scores(self.on_test.labels, self.on_test.probabilities())

    @property
    def validated(self) -> dict[str, float]:
        """Its validation scores at a threshold of 0.5."""
        return {key.removeprefix("val/"): value for key, value in self.kept.items() if key.startswith("val/")}


@dataclass(frozen=True)
class KeptStudy:
    """A study.

    Attributes:
        name: Short, without the experiment.
        params: What its trials have in common, as MLflow shows it.
        tags: Where it came from.
        trials: All of them, in order.
    """

    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    trials: tuple[Trial, ...]

    @property
    def sign(self) -> int:
        """1 where more of its metric is better, else -1."""
        return 1 if METRICS[self.params["metric"]] == "maximize" else -1

    @property
    def tested(self) -> list[Trial]:
        """The complete trials whose predictions of the test images are there."""
        return [trial for trial in self.trials if trial.state == "COMPLETE" and trial.on_test is not None]

    @property
    def best(self) -> Trial:
        """The trial that the study chooses: the first of the best, as Optuna does."""
        return max(self.tested, key=lambda trial: (self.sign * (trial.value or 0.0), -trial.number))


@dataclass(frozen=True)
class Results:
    """Everything that the page is made of.

    Attributes:
        studies: By name.
        pages: What comparison and replication logged, in Markdown, by a key of PAGES.
        costs: What networks cost, by architecture and image size.
        machine: Where that was measured.
    """

    studies: Mapping[str, KeptStudy]
    pages: Mapping[str, str]
    costs: Mapping[tuple[str, int], Cost] = field(default_factory=dict)
    machine: str = ""


def collect(stores: Sequence[Path], experiment: str, place: Path = PLACE) -> None:
    """Copies what the page needs out of directories where studies ran; kept studies of other names stay.

    Args:
        stores: The directories; what was compared and replicated is in the first.
        experiment: Of the studies.
        place: Where the copy goes.
    """
    rows: list[dict[str, Any]] = []
    about: dict[str, Any] = {"studies": {}, "validation": {}, "test": {}}
    opened = [open_tracking(f"sqlite:///{store / 'mlflow.db'}", experiment) for store in stores]
    for store, tracking in zip(stores, opened, strict=True):
        for study in stored_studies(f"sqlite:///{store / 'optuna.db'}"):
            _study(study, tracking, rows, about)
    tracking = opened[0]
    place.mkdir(exist_ok=True)
    for kind, file in PAGES.items():
        runs = tracking.search(f"tags.`{tag.KIND}` = '{kind}' and tags.`{tag.STATE}` = 'COMPLETE'")
        for run in runs[-1:]:  # the latest
            with tempfile.TemporaryDirectory() as folder:
                if path := tracking.fetch(run.run_id, file, Path(folder)):
                    (place / file).write_text(path.read_text().replace("\u00a0", ""))  # spaces for MLflow's page
    table = pd.DataFrame(rows)
    if (place / STUDIES).is_file():
        before, kept = json.loads((place / STUDIES).read_text()), pd.read_parquet(place / TRIALS)
        table = pd.concat([kept[~kept["study"].isin(list(about["studies"]))], table], ignore_index=True)
        about = {key: {**before[key], **about[key]} for key in about}
    table.to_parquet(place / TRIALS, index=False, compression="zstd")
    (place / STUDIES).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


def keep_costs(costs: Mapping[tuple[str, int], Cost], machine: str, place: Path = PLACE) -> None:
    """Writes what networks cost, and where that was measured."""
    rows = [{"arch": arch, "image_size": size, **asdict(cost)} for (arch, size), cost in sorted(costs.items())]
    (place / COSTS).write_text(json.dumps({"machine": machine, "networks": rows}, indent=1) + "\n")


def _kept(key: str, value: str) -> str:
    """A param as it may be published: of a file of weights its name, not where it was."""
    return Path(value).name if key == "weights" else value


def _study(study: Study, tracking: Tracking, rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    stored = description_of(study)
    parent = tracking.find_study(stored.study_id)
    if parent is None:
        return  # it was ended before it had begun
    runs = runs_of(tracking, parent.run_id)
    about["studies"][stored.name] = {
        "params": {key: _kept(key, str(value)) for key, value in stored.params.items() if key != "weights_file"},
        "tags": {key: value for key, value in stored.tags.items() if key.startswith(("sweep.", "mlflow.source.git"))},
    }
    split = stored.tags[tag.SPLIT_DIGEST]
    for trial in study.trials():
        if trial.state not in ("COMPLETE", "PRUNED"):
            continue  # an attempt that failed; what came of its configuration is a trial of its own
        run = runs.get(trial.number)
        found = {} if run is None or trial.state != "COMPLETE" else dict(_predictions(run, tracking))
        if not stored.name.endswith(SEEDS):
            for part in ("validation", "stressed"):  # its scores are in the history, and git keeps what it has seen
                found.pop(part, None)
        for part, key in (("validation", split), ("test", "all")):
            if part in found:
                about[part].setdefault(key, _images(found[part]))
        rows.append(_row(stored.name, split, trial, found))


def _predictions(run: Run, tracking: Tracking) -> Iterator[tuple[str, Predictions]]:
    with tempfile.TemporaryDirectory() as folder:
        places = {"validation": (VALIDATION,), "stressed": (STRESSED_VALIDATION,), "test": (TESTED, AUDITED)}
        for part, names in places.items():
            for name in names:
                if path := tracking.fetch(run.run_id, name, Path(folder)):
                    yield part, read_predictions(path)
                    break


def _images(predictions: Predictions) -> dict[str, list[int]]:
    _, patients = np.unique(np.asarray(predictions.patients), return_inverse=True)
    return {"labels": predictions.labels.tolist(), "patients": patients.tolist()}


def _row(study: str, split: str, trial: TrialRecord, found: Mapping[str, Predictions]) -> dict[str, Any]:
    return {
        "study": study,
        "split": split,
        "number": trial.number,
        "state": trial.state,
        "label": trial.attributes.get("label", ""),
        "params": json.dumps(trial.params),
        "seed": int(trial.attributes["run"]["params"]["seed"]),
        "value": trial.value if trial.state == "COMPLETE" else None,
        "best_epoch": trial.best_epoch or 0,
        "history": json.dumps(trial.history),
        # Two classes: of two logits their difference is all that any score looks at.
        **{
            part: (found[part].logits[:, 1] - found[part].logits[:, 0]).astype(np.float32) if part in found else None
            for part in ("validation", "stressed", "test")
        },
    }


def read(place: Path = PLACE) -> Results:
    """Reads what `collect` has written."""
    about = json.loads((place / STUDIES).read_text())
    images = {
        (part, key): Images(np.array(entry["labels"]), np.array(entry["patients"]))
        for part in ("validation", "test")
        for key, entry in about[part].items()
    }
    trials: dict[str, list[Trial]] = {name: [] for name in about["studies"]}
    for row in pd.read_parquet(place / TRIALS).to_dict("records"):
        predictions = {}
        split = ("validation", row["split"])
        for part, whose in (("validation", split), ("stressed", split), ("test", ("test", "all"))):
            gap = row[part]
            logits = None if gap is None else np.stack([np.zeros_like(gap), gap], axis=1)
            predictions[part] = None if logits is None else images[whose].predictions(logits)
        history = tuple(json.loads(row["history"]))
        trials[row["study"]].append(
            Trial(
                row["number"],
                row["state"],
                row["label"],
                json.loads(row["params"]),
                row["seed"],
                None if pd.isna(row["value"]) else float(row["value"]),
                row["best_epoch"],
                history,
                sum(epoch["epoch_seconds"] for epoch in history),
                predictions["validation"],
                predictions["stressed"],
                predictions["test"],
            )
        )
    studies = {
        name: KeptStudy(
            name, entry["params"], entry["tags"], tuple(sorted(trials[name], key=lambda trial: trial.number))
        )
        for name, entry in about["studies"].items()
    }
    pages = {kind: (place / file).read_text() for kind, file in PAGES.items() if (place / file).is_file()}
    path = place / COSTS
    measured = json.loads(path.read_text()) if path.is_file() else {"machine": "", "networks": []}
    costs = {(row.pop("arch"), row.pop("image_size")): Cost(**row) for row in measured["networks"]}
    return Results(studies, pages, costs, measured["machine"])
