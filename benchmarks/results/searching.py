"""What a search gains: curves over reshuffled studies, halves of a study, and other ways to choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.results.kept import KeptStudy, Trial

BUDGETS = (5, 10, 20, 30)  # trials
SHUFFLES = 5
HALVINGS = 200
KIND = ("activation", "optimizer", "augmentation", "normalisation", "schedule")


@dataclass(frozen=True)
class BudgetChoice:
    """What a number of trials gains: means over reshuffled studies.

    Attributes:
        trials: How many.
        value: The chosen trial's, in the study's metric.
        accuracy: Its test accuracy at a threshold of 0.5.
        auroc: Its test AUROC.
        within: The best test AUROC among the complete trials so far, which validation cannot know.
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


def shuffled(study: KeptStudy) -> list[list[Trial]]:
    """The study's trials in other orders; those that count towards `--trials` alone."""
    counted = _counted(study)
    return [[counted[row] for row in np.random.default_rng(seed).permutation(len(counted))] for seed in range(SHUFFLES)]


def chosen(study: KeptStudy, trials: Sequence[Trial]) -> Trial | None:
    """Returns the trial that the study would choose among some; None while none is complete."""
    complete = [trial for trial in trials if trial.value is not None and trial.on_test is not None]
    return max(complete, key=lambda trial: study.sign * (trial.value or 0.0), default=None)


def choices_by_budget(study: KeptStudy, budgets: Sequence[int] = BUDGETS) -> list[BudgetChoice]:
    """Returns, for each number of trials, the validation and test scores of what would have been chosen."""
    orders, choices = shuffled(study), []
    for budget in budgets:
        if budget > len(orders[0]):
            continue
        picks = [(order[:budget], chosen(study, order[:budget])) for order in orders]
        complete = [(seen, pick) for seen, pick in picks if pick is not None]
        if len(complete) < len(picks):
            continue  # of some orders none of so few trials was complete
        accuracies = [pick.tested["accuracy"] for _, pick in complete]
        best = [max(trial.tested["auroc"] for trial in seen if trial.on_test is not None) for seen, _ in complete]
        choices.append(
            BudgetChoice(
                budget,
                float(np.mean([pick.value for _, pick in complete])),
                float(np.mean(accuracies)),
                float(np.mean([pick.tested["auroc"] for _, pick in complete])),
                float(np.mean(best)),
                min(accuracies),
                max(accuracies),
            )
        )
    return choices


@dataclass(frozen=True)
class Halves:
    """What two halves of a study's trials, drawn at random, choose: means over HALVINGS.

    Attributes:
        alike: How often both choose the same value, by hyperparameter of KIND.
        value: How far the chosen trials are apart in the study's metric.
        accuracy: In test accuracy.
        auroc: In test AUROC.
    """

    alike: dict[str, float]
    value: float
    accuracy: float
    auroc: float


def halves(study: KeptStudy) -> Halves:
    """How far the choices of two halves of a study are apart: smaller searches, with no trial in common."""
    counted, random = _counted(study), np.random.default_rng(0)
    pairs = []
    for _ in range(HALVINGS):
        order = [counted[row] for row in random.permutation(len(counted))]
        middle = len(order) // 2
        first_choice, second_choice = chosen(study, order[:middle]), chosen(study, order[middle:])
        if first_choice is not None and second_choice is not None:
            pairs.append((first_choice, second_choice))

    def apart(score: Callable[[Trial], float]) -> float:
        return float(np.mean([abs(score(left) - score(right)) for left, right in pairs]))

    return Halves(
        {
            name: float(np.mean([left.params[name] == right.params[name] for left, right in pairs]))
            for name in KIND
            if name in counted[0].params
        },
        apart(lambda trial: trial.value or 0.0),
        apart(lambda trial: trial.tested["accuracy"]),
        apart(lambda trial: trial.tested["auroc"]),
    )


def first(study: KeptStudy, count: int) -> Trial | None:
    """What the study itself would have chosen after so many trials."""
    return chosen(study, _counted(study)[:count])


def _counted(study: KeptStudy) -> list[Trial]:
    return [trial for trial in study.trials if trial.state in ("COMPLETE", "PRUNED")]


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
        picks: The trials that it chooses, one per study.
        with_accuracy: Spearman's correlation with test accuracy, a mean over the studies.
        with_auroc: With test AUROC.
    """

    name: str
    picks: tuple[Trial, ...]
    with_accuracy: float
    with_auroc: float


def ways(studies: Sequence[KeptStudy]) -> list[Way]:
    """Returns what each way to choose would have chosen, and how well it orders trials by their test scores."""
    by_way = []
    for name, score_of in WAYS.items():
        picks, accuracies, areas = [], [], []
        for study in studies:
            values = np.array([score_of(trial) for trial in study.tested])
            if np.isnan(values).any():
                break
            picks.append(study.tested[int(values.argmax())])
            for score, into in (("accuracy", accuracies), ("auroc", areas)):
                tested = [trial.tested[score] for trial in study.tested]
                into.append(float(stats.spearmanr(values, tested).statistic))
        else:
            by_way.append(Way(name, tuple(picks), float(np.mean(accuracies)), float(np.mean(areas))))
    return by_way


@dataclass(frozen=True)
class Refolded:
    """One of a search's best trials, trained again on every fold of patients.

    Attributes:
        name: Of its run.
        value: Its metric in the search.
        folds: Its training on each fold, in their order.
    """

    name: str
    value: float
    folds: tuple[Trial, ...]

    @property
    def mean(self) -> float:
        """The search's metric, a mean over the folds."""
        return float(np.mean([trial.value for trial in self.folds]))

    def tested(self, score: str) -> float:
        """A test score, a mean over the folds' networks."""
        return float(np.mean([trial.tested[score] for trial in self.folds]))


def refolded(search: KeptStudy, folds: Sequence[KeptStudy]) -> list[Refolded]:
    """The finalists of `sweep crossvalidate`, the search's own choice first.

    Args:
        search: The search.
        folds: The folds' studies, in their order.
    """
    finalists = []
    for trial in sorted(search.tested, key=lambda trial: (-search.sign * (trial.value or 0.0), trial.number)):
        name = f"{search.name}-{trial.number:03d}"
        trainings = tuple(next((again for again in fold.tested if again.label == name), None) for fold in folds)
        complete = tuple(training for training in trainings if training is not None)
        if len(complete) == len(folds):
            finalists.append(Refolded(name, trial.value or 0.0, complete))
    return finalists


@dataclass(frozen=True)
class Chooser:
    """A way to choose among a search's finalists.

    Attributes:
        name: The way, in words.
        picks: The finalist of each of its choices.
        orders: Spearman's correlation of what it goes by with test accuracy, and with test AUROC; means over choices.
    """

    name: str
    picks: tuple[Refolded, ...]
    orders: tuple[float, float]

    def mean_score(self, score: str) -> float:
        """Returns a test score of its choices: the mean over the folds' networks and over choices."""
        return float(np.mean([pick.tested(score) for pick in self.picks]))


def choosers(finalists: Sequence[Refolded], sign: int) -> list[Chooser]:
    """The search's own split, each fold alone and the mean over folds, as ways to choose.

    Args:
        finalists: As `refolded` gives them.
        sign: 1 where more of the search's metric is better, else -1.
    """
    alone = [[finalist.folds[fold].value or 0.0 for finalist in finalists] for fold in range(len(finalists[0].folds))]
    ways = {
        "the search's one split": [[finalist.value for finalist in finalists]],
        "one fold (means of as many choices)": alone,
        "the mean over all folds": [[finalist.mean for finalist in finalists]],
    }
    tested = [[finalist.tested(score) for finalist in finalists] for score in ("accuracy", "auroc")]
    return [
        Chooser(
            name,
            tuple(finalists[int(np.argmax(sign * np.array(values)))] for values in choices),
            (
                float(np.mean([stats.spearmanr(sign * np.array(values), tested[0]).statistic for values in choices])),
                float(np.mean([stats.spearmanr(sign * np.array(values), tested[1]).statistic for values in choices])),
            ),
        )
        for name, choices in ways.items()
    ]
