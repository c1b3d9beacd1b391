"""The result of one training of a configuration: what every comparison of seeds or folds is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweep.metrics.predictions import Predictions
from sweep.metrics.scores import all_scores


@dataclass(frozen=True)
class SeedResult:
    """One training of a configuration.

    Attributes:
        seed: The seed.
        epochs: How many epochs it trained.
        validation: Validation scores at the epoch whose weights were kept, as `auroc` and `loss`.
        test: Predictions of the test images; None where the test set stayed closed.
    """

    seed: int
    epochs: int
    validation: Mapping[str, float]
    test: Predictions | None

    def test_score(self, name: str) -> float:
        """A test score at a threshold of 0.5; NaN where the test set stayed closed."""
        if self.test is None:
            return float("nan")
        return all_scores(self.test.labels, self.test.probabilities())[name]
