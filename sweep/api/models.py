"""`sweep.predict`, `evaluate` and `load_model`: what registered models are used for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.faults import InputError
from data.sources import PATIENT_PATTERN, check_depth
from sweep.api.view import view_or_terminal

if TYPE_CHECKING:
    import pandas as pd

    from sweep.lifecycle.evaluate import Evaluation
    from sweep.lifecycle.predict import Labelled
    from sweep.lifecycle.scored_data import ScoredData
    from sweep.orchestrator.progress import View
    from sweep.stores.registry import Version

Images = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Predicted:
    """What a registered model says of some files.

    Attributes:
        labelled: The answers, one row per file, and the files that could not be read.
        version: The version that answered.
        about: What it tells about itself.
        warnings: What speaks against trusting it, a sentence each without its end.
        notes: What a person should know of the files and pixels, likewise.
    """

    labelled: Labelled = field(repr=False)
    version: Version = field(repr=False)
    about: Mapping[str, Any] = field(repr=False)
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def answers(self) -> pd.DataFrame:
        """One row per file: `file`, `label`, and the probability of each class."""
        return self.labelled.answers

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.answers.to_html(float_format="{:.4f}".format)


def predict(
    model: str,
    images: Images,
    *,
    threshold: float | None = None,
    heatmap: str | Path | None = None,
    depth: int | None = None,
    tracking_uri: str | None = None,
    view: View | None = None,
) -> Predicted:
    """Labels images with a registered model.

    Args:
        model: `NAME@ALIAS`, `NAME/VERSION`, or `NAME` for its champion.
        images: Files, folders and globs.
        threshold: From which probability on an image is positive; None for the model's own.
        heatmap: A folder for each image beside its heat map; None writes none.
        depth: Bits per pixel, where images are otherwise than those of the training.
        tracking_uri: MLflow's store; None for the one here.
        view: Shows what happens; None prints it.

    Raises:
        InputError: There is no such model or file, or an option is wrong.
    """
    place = None if heatmap is None else Path(heatmap)
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"--threshold {threshold}: give a number from 0 to 1")
    check_depth(depth)
    if place is not None and place.exists() and not place.is_dir():
        raise InputError(f"--heatmap {place}: is a file; give a folder")
    from data import synthetic
    from sweep.lifecycle.predict import find_images, label
    from sweep.lifecycle.scored_data import warnings_of
    from sweep.orchestrator.workdir import mlflow_in, stoppable, unless
    from sweep.stores import tags as tag
    from sweep.stores.mlflow_stores import open_client
    from sweep.stores.registry import find_version, load

    named = [images] if isinstance(images, str | os.PathLike) else list(images)
    found, view = find_images([str(name) for name in named]), view_or_terminal(view)
    client = open_client(tracking_uri or mlflow_in(Path.cwd()))
    version = find_version(client, model)
    classifier = load(client, version)
    if threshold is not None and classifier.about["positive"] is None:
        raise InputError(f"--threshold: {model} has more than two classes and answers with the likeliest")
    warnings, _ = warnings_of(version)
    if version.tags.get(tag.DATA) in synthetic.NAMES:
        warnings += ("it learned from synthetic images, which a program drew: its answers say nothing about X-rays",)
    for line in (*(f"warning: {warning}" for warning in warnings), *(f"note: {note}" for note in found.notes)):
        view.say(line)
    try:
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        with stoppable("stopped") as stopping, view.counting("labelling", len(found.paths)) as progress:
            labelled = label(classifier, found.paths, threshold, place, unless(stopping, progress), depth)
    except OSError as error:  # of what is written; an image that cannot be read is in `labelled.unreadable`
        raise InputError(f"--heatmap {place}: cannot be written ({error.strerror or error})") from error
    return Predicted(labelled, version, classifier.about, tuple(warnings), (*found.notes, *labelled.notes))


@dataclass(frozen=True)
class Evaluated:
    """A registered model's scores on test images.

    Attributes:
        evaluation: Its scores, the predictions behind them, and the MLflow run that shows them.
        data: The images, and what is to be known about them.
    """

    evaluation: Evaluation = field(repr=False)
    data: ScoredData = field(repr=False)

    @property
    def scores(self) -> pd.DataFrame:
        """A row per score: as it is served, at 0.5, each with the ends of its 95 % interval, and the baseline."""
        import pandas as pd

        from sweep.lifecycle.evaluate import rows_of

        return pd.DataFrame(rows_of(self.evaluation.assessment)).set_index("score")

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.scores.to_html(float_format="{:.3f}".format)


def evaluate(
    model: str,
    *,
    data: str | Path | None = None,
    patient_pattern: str = PATIENT_PATTERN,
    depth: int | None = None,
    prevalence: float | None = None,
    tracking_uri: str | None = None,
    view: View | None = None,
) -> Evaluated:
    """Scores a registered model on test images, with 95 % intervals, and logs it to MLflow.

    Args:
        model: `NAME@ALIAS`, `NAME/VERSION`, or `NAME` for its champion.
        data: A data set with `test/`, or one folder per class; None for the model's own test images.
        patient_pattern: Regular expression that finds the patient in a file's name.
        depth: Bits per pixel, where images are otherwise than those of the training.
        prevalence: Of a population, for predictive values; above 0 and below 1.
        tracking_uri: MLflow's store; None for the one here.
        view: Shows what happens; None prints it.

    Raises:
        InputError: There is no such model, the images are not for it, or an option is wrong.
    """
    check_prevalence(prevalence)
    from sweep.lifecycle import evaluate as scoring
    from sweep.lifecycle.scored_data import data_for
    from sweep.orchestrator.workdir import mlflow_in, stoppable, unless
    from sweep.stores.mlflow_stores import open_client, read_run, tracking_of
    from sweep.stores.registry import find_version, load

    view = view_or_terminal(view)
    client = open_client(tracking_uri or mlflow_in(Path.cwd()))
    version = find_version(client, model)
    classifier, tracking = load(client, version), tracking_of(client, version.run_id)
    if prevalence is not None and classifier.about["positive"] is None:
        raise InputError(f"--prevalence: {model} has more than two classes, and predictive values are of two")
    past = read_run(tracking.uri, version.run_id, ensembles=True)
    scored = data_for(version, classifier.about, past, None if data is None else Path(data), patient_pattern, depth)
    for line in (*(f"note: {note}" for note in scored.notes), *(f"warning: {text}" for text in scored.warnings)):
        view.say(line)
    counting = view.counting("scoring", len(scored.source.splits["test"]))
    with stoppable("stopped; nothing was logged") as stopping, counting as progress:
        evaluation = scoring.evaluate(version, classifier, scored, tracking, unless(stopping, progress), prevalence)
    for note in evaluation.notes:
        view.say(f"note: {note}")
    return Evaluated(evaluation, scored)


def load_model(model: str, *, tracking_uri: str | None = None) -> Any:
    """Loads a registered model as it is served; a file that is not the registered one is refused.

    Args:
        model: `NAME@ALIAS`, `NAME/VERSION`, or `NAME` for its champion.
        tracking_uri: MLflow's store; None for the one here.

    Returns:
        The `ImageClassifier` of `sweep/stores/serving_model.py`: `about`; `logits` of pixels, uint8 [N, size, size].

    Raises:
        InputError: There is no such model, or one of its files is missing or another one.
    """
    from sweep.orchestrator.workdir import mlflow_in
    from sweep.stores.mlflow_stores import open_client
    from sweep.stores.registry import find_version, load

    client = open_client(tracking_uri or mlflow_in(Path.cwd()))
    return load(client, find_version(client, model))


def check_prevalence(prevalence: float | None) -> None:
    """Checks a prevalence.

    Raises:
        InputError: It is not between 0 and 1.
    """
    if prevalence is not None and not 0 < prevalence < 1:
        raise InputError(
            f"--prevalence {prevalence:g}: give a share of positives above 0 and below 1, such as 0.05 for 5 %"
        )
