"""Calibration: predicted probabilities against observed frequencies, and the temperature that improves them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0
LOSS_DIGITS = 4  # of a log loss, as the model card shows it


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities against observed frequencies, in bins of equal width; empty bins are left out.

    Attributes:
        predicted: Mean probability of each bin.
        observed: Share of its images that are of that class.
        images: Number of its images.
    """

    predicted: np.ndarray
    observed: np.ndarray
    images: np.ndarray


def claims(labels: np.ndarray, likely: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability that each prediction states, and whether the image is of that class.

    Args:
        labels: int [N].
        likely: Probabilities, float [N, classes].

    Returns:
        Of each image, the probability of the positive class with two classes, else of the likeliest one; and whether
        it is of that class.
    """
    if likely.shape[1] == 2:
        return likely[:, 1], labels == 1
    return likely.max(axis=1), likely.argmax(axis=1) == labels


def bins_of(probability: np.ndarray) -> np.ndarray:
    """The bin of each probability, from 0 to BINS - 1."""
    return np.minimum((probability * BINS).astype(int), BINS - 1)


def reliability(labels: np.ndarray, likely: np.ndarray) -> Reliability:
    """Compares predicted probabilities with observed frequencies.

    Args:
        labels: int [N].
        likely: Probabilities, float [N, classes].
    """
    probability, true = claims(labels, likely)
    where = bins_of(probability)
    images = np.bincount(where, minlength=BINS)
    kept = images > 0
    predicted = np.bincount(where, probability, BINS)[kept] / images[kept]
    observed = np.bincount(where, true, BINS)[kept] / images[kept]
    return Reliability(predicted, observed, images[kept])


def expected_calibration_error(labels: np.ndarray, likely: np.ndarray) -> float:
    """Mean distance between stated and observed frequency, in BINS bins (Guo et al. 2017, arXiv:1706.04599).

    Args:
        labels: int [N].
        likely: Probabilities, float [N, classes].

    Returns:
        From 0 to 1. With two classes it is about the probability of the positive one.
    """
    bins = reliability(labels, likely)
    return float((bins.images * np.abs(bins.predicted - bins.observed)).sum() / bins.images.sum())


@dataclass(frozen=True)
class Temperature:
    """A temperature that logits are divided by, and what speaks for it.

    Attributes:
        value: The one that the model is served with; 1 where the fitted one does not pay.
        fitted: The result of `fit_temperature`.
        untouched_loss: Log loss on validation at a temperature of 1, without any smoothing.
        fitted_loss: The same at the fitted one.
    """

    value: float
    fitted: float
    untouched_loss: float
    fitted_loss: float

    @property
    def reason(self) -> str:
        """What was fitted, what that changes on validation and what is served, in sentences for people."""
        before, after = f"{self.untouched_loss:.{LOSS_DIGITS}f}", f"{self.fitted_loss:.{LOSS_DIGITS}f}"
        way = "falls" if self.fitted_loss < self.untouched_loss else "rises"
        change = f"stays at {before}" if before == after else f"{way} from {before} to {after}"
        if self.value == self.fitted:
            return f"Logits are divided by {self.value:.3f}, which was fitted on validation: log loss there {change}."
        change = change.replace("stays", "would stay").replace("falls", "would fall").replace("rises", "would rise")
        return (
            f"The temperature is {self.value:g}. One of {self.fitted:.3f} was fitted on validation and is not used: "
            f"log loss there {change}."
        )


def choose_temperature(labels: np.ndarray, logits: np.ndarray) -> Temperature:
    """Chooses a temperature: the fitted one if it lowers the plain log loss by what LOSS_DIGITS show, else 1.

    The fit has smoothed targets, so that few errors do not ask for certainty. Where validation has hardly an error,
    they ask for more doubt than it shows; then the network's own probabilities are the better ones.

    Args:
        labels: int [N], each of a class.
        logits: float [N, classes].

    Raises:
        ValueError: A logit is not finite.
    """
    fitted = fit_temperature(labels, logits)
    untouched, divided = (plain_log_loss(labels, logits, temperature) for temperature in (1.0, fitted))
    pays = round(divided, LOSS_DIGITS) < round(untouched, LOSS_DIGITS)
    return Temperature(fitted if pays else 1.0, fitted, untouched, divided)


def plain_log_loss(labels: np.ndarray, logits: np.ndarray, temperature: float) -> float:
    """Mean log loss of logits, float [N, classes], divided by a temperature: without weights, without smoothing."""
    likely = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return -float(likely[np.arange(len(labels)), labels].mean())


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """Fits the temperature that logits are divided by, so that probabilities match frequencies (Guo et al. 2017).

    The targets are Platt's (1999): not 1 but (n + 1) / (n + 2) for a class with n images. A validation set without a
    single error would otherwise ask for a temperature of zero, which is certainty about everything.

    Args:
        labels: int [N], each of a class.
        logits: float [N, classes].

    Returns:
        From COLDEST to HOTTEST; above 1 where the network was too sure of itself.

    Raises:
        ValueError: A logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("a logit is not finite")
    classes = logits.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sure = ((counts + 1) / (counts + 2))[labels]
    targets = np.repeat(((1 - sure) / (classes - 1))[:, None], classes, axis=1)
    targets[np.arange(len(labels)), labels] = sure
    wide = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return -float((targets * log_softmax(wide / np.exp(log_temperature), axis=1)).sum(axis=1).mean())

    fit = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(fit.x))
