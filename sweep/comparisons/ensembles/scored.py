"""The predictions of an ensemble: computed from its members, or read from its run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.cache import Images, images_of
from sweep.comparisons.architectures.audit import TESTED
from sweep.comparisons.crossvalidation.run import Searched
from sweep.comparisons.ensembles.members import Member, Selection, identity_of
from sweep.metrics.ensembles import joined, log_mean
from sweep.metrics.names import STRESSED
from sweep.metrics.predictions import STRESSED_VALIDATION, VALIDATION, Predictions, predictions_of, read_predictions
from sweep.metrics.scores import softmax
from sweep.metrics.threshold import Threshold, choose_threshold
from sweep.plan import Plan
from sweep.stores.tracking import Tracking
from sweep.training.inference import predict

KIND = "ensemble"


@dataclass(frozen=True)
class Ensemble:
    """What an ensemble is made of.

    Attributes:
        search: The study.
        plan: Its own, whose images are cached.
        selection: How the members were chosen.
        members: Their networks.
        flip: Whether each answers the mean of an image and its mirror image.
        tracking: The study's experiment.
        step: Called after each of `steps`; may raise to stop.
    """

    search: Searched
    plan: Plan
    selection: Selection
    members: tuple[Member, ...]
    flip: bool
    tracking: Tracking
    step: Callable[[], None] = lambda: None

    @property
    def steps(self) -> int:
        """How often a member predicts: validation, test, and examples before the ensemble is registered."""
        return len(self.members) * (4 if self.search.metric in STRESSED else 3)

    @property
    def arch(self) -> str:
        """Its name among architectures, also its alias."""
        return f"{self.plan.studies[0].short_arch}-ensemble"

    @property
    def name(self) -> str:
        """The name of its run."""
        how = self.selection.asked.replace(":", "-")
        return f"{KIND}-{self.search.description.name}-{how}{'-flip' if self.flip else ''}"

    @property
    def identity(self) -> str:
        """What finds its run again."""
        return identity_of(self.selection, flip=self.flip)


@dataclass(frozen=True)
class Scored:
    """The predictions of an ensemble.

    Attributes:
        validation: Of validation images; with folds of each training image by the member that did not learn from it.
        stressed: Of the same as another machine might have made them; None unless the study chose by these.
        test: Of the test images.
    """

    validation: Predictions
    stressed: Predictions | None
    test: Predictions


def stored(ensemble: Ensemble, run_id: str) -> Scored | None:
    """The predictions that an earlier process has logged; None where it did not get to the end of them."""
    tracking, images = ensemble.tracking, len(ensemble.plan.source.splits["test"])
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: tracking.fetch(run_id, name, Path(folder)) for name in (VALIDATION, STRESSED_VALIDATION, TESTED)}
        try:
            there = {name: read_predictions(path) for name, path in paths.items() if path is not None}
        except ValueError:
            return None
    if VALIDATION not in there or TESTED not in there or len(there[TESTED].images) != images:
        return None
    return Scored(there[VALIDATION], there.get(STRESSED_VALIDATION), there[TESTED])


def score(ensemble: Ensemble) -> Scored:
    """Predicts the validation images, and after that the test images."""
    plan = ensemble.plan
    validation = _validation(ensemble)
    stressed = _validation(ensemble, stressed=True) if ensemble.search.metric in STRESSED else None
    images = images_of(plan.source, plan.split, plan.studies[0].image_size)["test"]
    return Scored(validation, stressed, predictions_of(images, logits_of(ensemble, images), plan.source.classes))


def _validation(ensemble: Ensemble, *, stressed: bool = False) -> Predictions:
    """Predictions of images that no member that answers learned from."""
    classes, members = ensemble.plan.source.classes, ensemble.members
    if not ensemble.selection.of_folds:
        images = members[0].validation
        return predictions_of(images, logits_of(ensemble, images, stressed=stressed), classes)
    alone = [replace(ensemble, members=(member,)) for member in members]
    return joined(
        [
            predictions_of(member.validation, logits_of(one, member.validation, stressed=stressed), classes)
            for one, member in zip(alone, members, strict=True)
        ]
    )


def logits_of(ensemble: Ensemble, images: Images, *, stressed: bool = False) -> np.ndarray:
    """The ensemble's logits, float32 [N, classes]: the logarithms of the mean of its members' probabilities."""
    answers = []
    for member in ensemble.members:
        trained = member.trained
        device = trained.config.device if trained.config.device == ensemble.plan.device else "cpu"
        views = [
            predict(trained.network.to(device), trained.config, images, stressed=stressed, mirrored=mirrored)
            for mirrored in ((False, True) if ensemble.flip else (False,))
        ]
        answers.append(np.mean([softmax(view) for view in views], axis=0))
        ensemble.step()
    return log_mean(np.stack(answers))


def threshold_of(ensemble: Ensemble, scored: Scored, temperature: float) -> Threshold | None:
    """The decision threshold that validation supports; None for more than two classes."""
    if len(ensemble.plan.source.classes) > 2:
        return None
    on = "out-of-fold validation" if ensemble.selection.of_folds else "validation"
    chosen_on = scored.validation
    if scored.stressed is not None:
        chosen_on, on = scored.stressed, f"{on} under stress"
    return choose_threshold(chosen_on.labels, chosen_on.probabilities(temperature)[:, 1], on=on)
