"""The architectures side by side on the same test images: scores, paired tests, errors by group, costs, sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from data.sources import group_of
from sweep.comparisons.architectures.searches import Search
from sweep.metrics.assessment import Assessment
from sweep.metrics.bootstrap import Difference, difference
from sweep.metrics.formatting import POINTS_IN_SENTENCE, format_interval
from sweep.metrics.heat import HeatCheck
from sweep.metrics.names import LABELS
from sweep.metrics.predictions import Predictions
from sweep.metrics.significance import another_run, holm, mcnemar
from sweep.metrics.threshold import decide

SIGNIFICANT = 0.05
# What chose the champion: the gate, a person with --force, or, where no version holds the alias, the usual order.
CHOSEN = {
    "gate": "{arch} was selected on validation",
    "person": "{arch} was selected by a person",
    "nobody": "none is champion, and {arch} is listed first",
}
# The report's three, which it averages over the classes, and then ours.
SHOWN = {
    "accuracy": "accuracy",
    "precision_macro": "precision (macro)",
    "f1_macro": "F1 (macro)",
    "auroc": "AUROC",
    "balanced_accuracy": "balanced accuracy",
    "recall": "recall",
    "specificity": "specificity",
    "average_precision": "average precision",
    "ece": "calibration error",
}


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        parameters: How many the network has.
        flops: Floating point operations of one image's forward pass; a multiplication with its addition is two.
        bytes: Size of the network's file, as it is registered.
        train_seconds: Duration of the training that made it.
        search_seconds: Duration of all trainings of its study, one after the other; None where it is not known.
        images_per_second: Images that the registered network labels on this machine, in batches.
    """

    parameters: int
    flops: int
    bytes: int
    train_seconds: float
    search_seconds: float | None
    images_per_second: float


@dataclass(frozen=True)
class ComparedModel:
    """The best of an architecture.

    Attributes:
        arch: The architecture.
        version: Of the registered model.
        run: The name of the run that made it.
        run_id: That run.
        params: Everything that it was trained with.
        history: One row of metrics per epoch.
        epoch: The one whose weights these are.
        validation: Its scores on validation.
        assessment: Its scores on test.
        predictions: Its predictions of the test images, by the registered version where the images are here.
        cost: What it costs.
        search: The study that found it; None where Optuna's store does not have it.
        seeds: Test scores of the same configuration with other seeds: name -> one per seed; empty without.
        heat: What its heat maps are like; None where the test images were not there.
    """

    arch: str
    version: str
    run: str
    run_id: str
    params: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    epoch: int
    validation: Mapping[str, float]
    assessment: Assessment
    predictions: Predictions
    cost: Cost
    search: Search | None
    seeds: Mapping[str, Sequence[float]]
    heat: HeatCheck | None = None

    @property
    def threshold(self) -> float:
        """The threshold that it is served with; 0.5, which `decide` does not use, for more than two classes."""
        return 0.5 if self.assessment.threshold is None else self.assessment.threshold

    @property
    def own_threshold(self) -> bool:
        """Whether it is served at another threshold than 0.5, so that its scores at 0.5 are others."""
        return self.assessment.at_threshold is not None

    @property
    def probabilities(self) -> np.ndarray:
        """Probabilities of the test images as they are served, after the temperature: float64 [N, classes]."""
        return self.predictions.probabilities(self.assessment.temperature)

    def predicted(self, threshold: float | None = None) -> np.ndarray:
        """The predicted class of each test image, int [N]: as served, or at another threshold."""
        return decide(self.probabilities, self.threshold if threshold is None else threshold)

    @property
    def points(self) -> float:
        """Percentage points of test accuracy above answering always the same."""
        return 100 * (self.assessment.served["accuracy"].value - self.assessment.baseline["accuracy"])

    @property
    def seconds_per_point(self) -> float | None:
        """Seconds of search for each of these points; None where the search is not known or nothing was gained."""
        if self.cost.search_seconds is None or self.points <= 0:
            return None
        return self.cost.search_seconds / self.points

    @property
    def from_scratch(self) -> bool:
        """Whether a network that is meant to be fine-tuned began with random weights."""
        return self.params.get("weights") == "none"


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same images.

    Attributes:
        arch: The one.
        against: The other.
        accuracy: By how much the one is better, each as it is served; its `p` is McNemar's, by whole patients.
        auroc: Likewise; its `p` is the paired bootstrap's.
        corrected: Both `p`, corrected for all tests of the comparison: `accuracy` and `auroc`.
        sentence: What it comes to.
    """

    arch: str
    against: str
    accuracy: Difference
    auroc: Difference
    corrected: Mapping[str, float]
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """The architectures side by side.

    Attributes:
        name: The data set.
        models: The best of each architecture.
        champion: The architecture that stands first.
        chosen: Who or what chose it; one of CHOSEN.
        reference: The one that all others are compared with.
        paired_tests: The champion against each of its rivals, and each of the others against the reference.
        missing: Those of the project's own architectures that have none.
        notes: What one should know, a sentence each.
        counts: Images by split and class.
        provenance: What made it.
    """

    name: str
    models: tuple[ComparedModel, ...]
    champion: str
    chosen: str
    reference: str
    paired_tests: tuple[PairedTest, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    provenance: Mapping[str, Any]

    @property
    def images(self) -> int:
        """How many test images all were scored on."""
        return self.models[0].assessment.images

    @property
    def patients(self) -> int:
        """How many patients these show."""
        return self.models[0].assessment.patients

    @property
    def headline(self) -> str:
        """The result in a sentence or two."""
        best = self.of(self.champion)
        scores, at_half = best.assessment.served, best.assessment.scores
        count = len(self.models)
        who = (
            f"Of {count} architectures, {self.chosen.format(arch=best.arch)}"
            if count > 1
            else f"There is {best.arch} alone"
        )
        cut = f" at its threshold of {best.threshold:.3g}" if best.own_threshold else ""
        half = f" At 0.5 its accuracy is {at_half['accuracy']}." if best.own_threshold else ""
        on = f"on {self.images:,} test images"
        scored = f"{who}: accuracy {scores['accuracy']}{cut} and AUROC {scores['auroc']} {on}.{half}"
        return " ".join([scored, *(f"{paired_test.sentence}." for paired_test in self.paired_tests)])

    @property
    def champion_tests(self) -> tuple[PairedTest, ...]:
        """Those of the champion against each of its rivals; none where it is the reference of all the others."""
        return tuple(test for test in self.paired_tests if test.arch == self.champion)

    @property
    def reference_tests(self) -> tuple[PairedTest, ...]:
        """Those of each of the others against the reference, the champion among them."""
        return tuple(test for test in self.paired_tests if test.against == self.reference)

    def of(self, arch: str) -> ComparedModel:
        """The model of an architecture."""
        return next(model for model in self.models if model.arch == arch)


def paired_tests(models: Sequence[ComparedModel], reference: str, champion: str = "") -> tuple[PairedTest, ...]:
    """Tests the champion against its rivals and every other model against the reference, each as it is served.

    Each pair is tested once, in accuracy and AUROC, and all these tests are corrected together for their number (Holm).

    Args:
        models: Scored on the same images, in the same order.
        reference: The architecture of one of them.
        champion: The architecture of one of them, which may be the reference.

    Returns:
        Those of the champion against each of the others, then those of the others against the reference. Where the
        champion is the reference, the latter alone.
    """
    by_arch = {model.arch: model for model in models}
    rivals = [] if champion in ("", reference) else [arch for arch in by_arch if arch != champion]
    names = [(champion, arch) for arch in rivals]
    names += [(arch, reference) for arch in by_arch if arch not in (champion, reference)]
    pairs = [(*both, *_differences(*(by_arch[arch] for arch in both))) for both in names]
    corrected = holm([tested.p for *_, accuracy, auroc in pairs for tested in (accuracy, auroc)])
    tests = []
    for index, (arch, against, accuracy, auroc) in enumerate(pairs):
        p_values = {"accuracy": corrected[2 * index], "auroc": corrected[2 * index + 1]}
        images = len(by_arch[arch].predictions.labels)
        sentence = _sentence(arch, against, {"accuracy": accuracy, "auroc": auroc}, p_values, images)
        tests.append(PairedTest(arch, against, accuracy, auroc, p_values, sentence))
    return tuple(tests)


def errors_by_group(models: Sequence[ComparedModel], threshold: float | None = None) -> pd.DataFrame:
    """Counts errors by class, and by kind where file names have it (bacterial and viral pneumonia).

    Args:
        models: Scored on the same images.
        threshold: The same for all of them; None for the one that each is served with.

    Returns:
        Columns group, images, and for each architecture how many of them it has wrong.
    """
    first = models[0].predictions
    groups = [
        f"{first.classes[label]}{f', {kind}' if (kind := group_of(name)) else ''}"
        for name, label in zip(first.images, first.labels, strict=True)
    ]
    wrong = {model.arch: model.predicted(threshold) != model.predictions.labels for model in models}
    rows = []
    for group in sorted(set(groups)):
        members = np.array([name == group for name in groups])
        rows.append({"group": group, "images": members.sum(), **{arch: w[members].sum() for arch, w in wrong.items()}})
    return pd.DataFrame(rows)


def score_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Scores of every model with their intervals, as plain data: one row per score and architecture.

    `served` is the score as the model is served, `value` that at 0.5; so are their ends.
    """
    rows = []
    for model in comparison.models:
        for name, label in SHOWN.items():
            interval = model.assessment.scores.get(name)
            if interval is None:  # there is no specificity with more than two classes
                continue
            served = model.assessment.served[name]
            seeds = model.seeds.get(name, ())
            spread = another_run(seeds) if len(seeds) > 1 else None
            rows.append(
                {
                    "arch": model.arch,
                    "score": label,
                    "served": served.value,
                    "served_low": served.low,
                    "served_high": served.high,
                    "value": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "validation": model.validation.get(name),
                    "seeds": len(seeds),
                    "seeds_mean": float(np.mean(seeds)) if len(seeds) else None,
                    "seeds_sd": float(np.std(seeds, ddof=1)) if spread else None,
                }
            )
    return rows


def cost_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Costs of every model as plain data."""
    return [
        {"arch": model.arch, **vars(model.cost), "seconds_per_point": model.seconds_per_point}
        for model in comparison.models
    ]


def selection_bias(model: ComparedModel) -> tuple[float, float] | None:
    """How far the chosen trial falls from validation to test, and the mean of all trials, in AUROC; None if unknown."""
    if model.search is None:
        return None
    tested = ((trial, trial.test) for trial in model.search.trials)
    gaps = {trial.name: trial.validation["auroc"] - test["auroc"] for trial, test in tested if test is not None}
    if len(gaps) < 2 or model.run not in gaps:
        return None
    return gaps[model.run], float(np.mean(list(gaps.values())))


def _differences(ours: ComparedModel, theirs: ComparedModel) -> tuple[Difference, Difference]:
    """Of two models as they are served."""
    labels, patients = ours.predictions.labels, ours.predictions.patients
    both, cuts = (ours.probabilities, theirs.probabilities), (ours.threshold, theirs.threshold)
    accuracy, auroc = (difference(labels, *both, patients, name, thresholds=cuts) for name in ("accuracy", "auroc"))
    right, theirs_right = (model.predicted() == labels for model in (ours, theirs))
    exact = mcnemar(right, theirs_right, patients)
    return Difference(accuracy.interval, exact), auroc


def _sentence(
    arch: str, reference: str, differences: Mapping[str, Difference], corrected: Mapping[str, float], images: int
) -> str:
    apart = {name: tested.interval.value for name, tested in differences.items() if corrected[name] < SIGNIFICANT}
    gaps = "; ".join(
        f"{LABELS[name]} {format_interval(tested.interval, POINTS_IN_SENTENCE)}" for name, tested in differences.items()
    )
    if not apart:
        return f"{arch} and {reference} do not differ significantly on {images:,} images ({gaps})"
    parts = [f"{'better' if value > 0 else 'worse'} in {LABELS[name]}" for name, value in apart.items()]
    if len(parts) == 2 and len({value > 0 for value in apart.values()}) == 1:
        parts = [f"{'better' if apart['auroc'] > 0 else 'worse'} in accuracy and AUROC"]
    rest = [LABELS[name] for name in differences if name not in apart]
    not_so = f", with no significant difference in {rest[0]}" if rest else ""
    return f"{arch} is {' and '.join(parts)} than {reference}{not_so} ({gaps})"
