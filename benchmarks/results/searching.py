"""What searching was worth: curves over reshuffled studies, who wins, what other ways to choose would have chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from benchmarks.results.kept import Kept, Trial

BUDGETS = (5, 10, 20, 30)  # trials
SHUFFLES = 5
HALVES = 100


@dataclass(frozen=True)
class Bought:
    """What so many trials buy: means over reshuffled studies.

    Attributes:
        trials: How many.
        value: The chosen trial's, in the study's metric.
        accuracy: Its test accuracy at a threshold of 0.5.
        auroc: Its test AUROC.
        within: The best test AUROC among the complete trials so far: what nobody could have known.
        lowest: The lowest test accuracy of the shuffles.
        highest: The highest.
    """

    trials: int
    value: float
    accuracy: float
    auroc: float
    within: float
    lowest: float
    highest: float


def shuffled(study: Kept) -> list[list[Trial]]:
    """The study's trials in other orders; those that count towards `--trials` alone."""
    counted = [trial for trial in study.trials if trial.state in ("COMPLETE", "PRUNED")]
    return [[counted[row] for row in np.random.default_rng(seed).permutation(len(counted))] for seed in range(SHUFFLES)]


def chosen(study: Kept, trials: Sequence[Trial]) -> Trial | None:
    """Who is chosen of some trials; None while none is complete."""
    complete = [trial for trial in trials if trial.value is not None and trial.on_test is not None]
    return max(complete, key=lambda trial: study.sign * (trial.value or 0.0), default=None)


def bought(study: Kept, budgets: Sequence[int] = BUDGETS) -> list[Bought]:
    """The best-so-far curve: what each number of trials would have chosen, and what that is worth on test."""
    orders, found = shuffled(study), []
    for budget in budgets:
        if budget > len(orders[0]):
            continue
        picks = [(order[:budget], chosen(study, order[:budget])) for order in orders]
        known = [(seen, pick) for seen, pick in picks if pick is not None]
        accuracies = [pick.tested["accuracy"] for _, pick in known]
        best = [max(trial.tested["auroc"] for trial in seen if trial.on_test is not None) for seen, _ in known]
        found.append(
            Bought(
                budget,
                float(np.mean([pick.value for _, pick in known])),
                float(np.mean(accuracies)),
                float(np.mean([pick.tested["auroc"] for _, pick in known])),
                float(np.mean(best)),
                min(accuracies),
                max(accuracies),
            )
        )
    return found


def agreement(study: Kept, budget: int) -> tuple[float, float]:
    """How alike two searches of so many trials are, drawn from the study's own without looking at the order.

    Returns:
        How often both choose the same trial, and how far their choices' test accuracies are apart, on average.
    """
    counted = [trial for trial in study.trials if trial.state in ("COMPLETE", "PRUNED")]
    random = np.random.default_rng(0)
    picks = []
    for _ in range(HALVES):
        pick = chosen(study, [counted[row] for row in random.permutation(len(counted))[:budget]])
        if pick is not None:
            picks.append(pick)
    pairs = list(combinations(picks, 2))
    same = float(np.mean([one.number == other.number for one, other in pairs]))
    apart = float(np.mean([abs(one.tested["accuracy"] - other.tested["accuracy"]) for one, other in pairs]))
    return same, apart


WAYS: dict[str, Callable[[Trial], float]] = {
    "AUROC": lambda trial: trial.kept["val/auroc"],
    "loss": lambda trial: -trial.kept["val/loss"],
    "balanced accuracy": lambda trial: trial.kept["val/balanced_accuracy"],
    "stressed AUROC": lambda trial: trial.kept.get("val/stressed_auroc", float("nan")),
    "stressed loss": lambda trial: -trial.kept.get("val/stressed_loss", float("nan")),
}


@dataclass(frozen=True)
class Way:
    """A way to choose, on the complete trials of some studies.

    Attributes:
        name: A key of WAYS.
        picks: Whom it chooses, a trial a study.
        with_accuracy: Spearman's correlation with test accuracy, a mean over the studies.
        with_auroc: With test AUROC.
    """

    name: str
    picks: tuple[Trial, ...]
    with_accuracy: float
    with_auroc: float


def ways(studies: Sequence[Kept]) -> list[Way]:
    """What each way to choose would have chosen, and how well it orders trials by what they are worth on test."""
    found = []
    for name, worth in WAYS.items():
        picks, accuracies, areas = [], [], []
        for study in studies:
            values = np.array([worth(trial) for trial in study.tested])
            if np.isnan(values).any():
                break
            picks.append(study.tested[int(values.argmax())])
            for score, into in (("accuracy", accuracies), ("auroc", areas)):
                tested = [trial.tested[score] for trial in study.tested]
                into.append(float(stats.spearmanr(values, tested).statistic))
        else:
            found.append(Way(name, tuple(picks), float(np.mean(accuracies)), float(np.mean(areas))))
    return found
