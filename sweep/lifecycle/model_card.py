"""The model card: what a registered model is, what it learned from, how good it is and where it is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.metrics.assessment import Assessment
from sweep.metrics.bootstrap import CONFIDENCE
from sweep.metrics.clinical import clinical_table
from sweep.metrics.markdown import table
from sweep.metrics.names import CALIBRATED, NOT_A_DEVICE, THRESHOLD_FREE, label_of

DESCRIPTION_LENGTH = 5000  # what MLflow's registry takes
MOST_EPOCHS = 24
FIRST = ("auroc", "accuracy", "balanced_accuracy", "recall", "specificity", "precision", "f1", "ece")


@dataclass(frozen=True)
class EnsembleFacts:
    """What the card of an ensemble says of its members.

    Attributes:
        members: One row each, with the same columns.
        chosen: How they were chosen, a sentence without its subject and its end.
        flip: Whether each answers the mean of an image and its mirror image.
        validation: Which predictions its validation scores, temperature and threshold come from, whole sentences.
    """

    members: Sequence[Mapping[str, Any]]
    chosen: str
    flip: bool
    validation: str

    @property
    def cost(self) -> int:
        """How many times a network looks at an image."""
        return len(self.members) * (2 if self.flip else 1)


@dataclass(frozen=True)
class CardData:
    """Everything that a model card says.

    Attributes:
        name: The registered model.
        arch: The architecture.
        parameters: How many weights it has.
        image_size: Side of its input, in pixels.
        classes: In logit order.
        study: The study's full name.
        trial: The chosen trial; -1 of an ensemble.
        run: Its run's name.
        metric: The metric that it was chosen by.
        searched: Hyperparameters that the search chose.
        fixed: The other settings of its training.
        history: One row of metrics per epoch; of an ensemble none.
        epoch: The one whose weights these are.
        counts: part -> class -> images.
        patients: part -> how many.
        split: How validation was cut, a sentence without its end.
        validation: Its scores there.
        test: Its scores there.
        threshold: Why the threshold is what it is, a sentence without its end.
        opened: For how many of the study's trials the test set was opened so far.
        limits: What is known to limit the data, a sentence each.
        provenance: How it was made: digests, seed, commit, versions.
        warnings: What speaks against trusting its scores or answers, a sentence each without its end.
        temperature: What was fitted, what it changes and what is served, whole sentences.
        choice: How it was chosen by several metrics, a sentence without its end; empty with one.
        ensemble: Of an ensemble, its members; `parameters` are then those of one of them.
    """

    name: str
    arch: str
    parameters: int
    image_size: int
    classes: tuple[str, ...]
    study: str
    trial: int
    run: str
    metric: str
    searched: Mapping[str, Any]
    fixed: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    epoch: int
    counts: Mapping[str, Mapping[str, int]]
    patients: Mapping[str, int]
    split: str
    validation: Assessment
    test: Assessment
    threshold: str
    opened: int
    limits: tuple[str, ...]
    provenance: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    temperature: str = ""
    choice: str = ""
    ensemble: EnsembleFacts | None = None


def card_markdown(facts: CardData, figures: Sequence[str] = ()) -> str:
    """Writes the whole card.

    Args:
        facts: The facts.
        figures: Paths of pictures beside it.

    Returns:
        Markdown.
    """
    pictures = "\n\n".join(f"![{path.rpartition('/')[2].removesuffix('.png')}]({path})" for path in figures)
    parts = (
        _what(facts),
        ("Data", _data(facts)),
        ("Configuration", _configuration(facts)),
        ("Members", _members(facts)) if facts.ensemble else ("Training", _training(facts)),
        ("Scores", _scores(facts, facts.test.scores)),
        ("Clinical use", _clinical(facts)),
        ("Calibration", _calibration(facts)),
        ("Limits", _limits(facts)),
        ("Provenance", table(("what", "value"), facts.provenance.items())),
        ("Figures", pictures),
    )
    return _join(parts)


def card_summary(facts: CardData) -> str:
    """Writes the main parts of the card, short enough for the registry.

    Returns:
        Markdown of at most DESCRIPTION_LENGTH characters.
    """
    parts = (
        _what(facts),
        ("Scores", _scores(facts, FIRST)),
        ("Clinical use", _clinical(facts)),
        ("Calibration", _calibration(facts)),
        ("Limits", _limits(facts)),
    )
    written = _join(parts) + "\n\nThe whole card is `model_card.md` among the model's files."
    return written if len(written) <= DESCRIPTION_LENGTH else written[: DESCRIPTION_LENGTH - 2] + " …"


def _what(facts: CardData) -> str:
    if facts.ensemble is not None:
        return _what_ensemble(facts, facts.ensemble)
    named = ", ".join(f"{name} {_number(value)}" for name, value in facts.searched.items())
    warnings = "".join(f"**Warning:** {sentence}.\n\n" for sentence in facts.warnings)
    how = f"chosen by {facts.metric}" if not facts.choice else f"{facts.choice};"
    return (
        f"# {facts.name}: {facts.arch}\n\n{NOT_A_DEVICE}\n\n{warnings}"
        f"A network of {facts.parameters:,} parameters that takes one image of {facts.image_size} x "
        f"{facts.image_size} gray pixels and gives a probability for each of {', '.join(facts.classes)}: {named}. "
        f"Trial {facts.trial} of study {facts.study}, {how} on validation images alone. The test "
        f"set was opened for {facts.opened} of the study's trials so far, each when it was chosen."
    )


def _what_ensemble(facts: CardData, ensemble: EnsembleFacts) -> str:
    warnings = "".join(f"**Warning:** {sentence}.\n\n" for sentence in facts.warnings)
    views = ", each over the image and its mirror image" if ensemble.flip else ""
    return (
        f"# {facts.name}: {facts.arch}\n\n{NOT_A_DEVICE}\n\n{warnings}"
        f"An ensemble of {len(ensemble.members)} networks of {facts.parameters:,} parameters each. It takes one image "
        f"of {facts.image_size} x {facts.image_size} gray pixels and gives a probability for each of "
        f"{', '.join(facts.classes)}: the mean of its members' probabilities{views}. Beside it stands their "
        "disagreement, the standard deviation of the members' probabilities before the temperature. An answer costs "
        f"{ensemble.cost} times that of one network. The members are {ensemble.chosen}. The test set was opened once "
        "for this ensemble, when members, temperature and threshold were fixed; it is number "
        f"{facts.opened} of the ensembles of study {facts.study}."
    )


def _members(facts: CardData) -> str:
    members = facts.ensemble.members if facts.ensemble else ()
    rows = [[_number(value) for value in member.values()] for member in members]
    return table(list(members[0]), rows) if members else ""


def _data(facts: CardData) -> str:
    rows = [
        (part, *(f"{counts.get(name, 0):,}" for name in facts.classes), f"{facts.patients[part]:,}")
        for part, counts in facts.counts.items()
    ]
    return f"{table(('images', *facts.classes, 'patients'), rows)}\n\nValidation: {facts.split}."


def _configuration(facts: CardData) -> str:
    rows = [(name, _number(value), "searched") for name, value in facts.searched.items()]
    rows += [(name, _number(value), "fixed") for name, value in facts.fixed.items() if name not in facts.searched]
    return table(("setting", "value", ""), rows)


def _training(facts: CardData) -> str:
    columns = ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/auroc"]
    lowest = "validation loss"
    if "val/stressed_loss" in facts.history[0]:
        columns.insert(3, "val/stressed_loss")
        lowest = "loss on the stressed validation images"
    step = -(-len(facts.history) // MOST_EPOCHS)
    shown = [row for row in facts.history if int(row["epoch"]) % step == 0 or int(row["epoch"]) in (1, facts.epoch)]
    rows = []
    for row in shown:
        kept = " (kept)" if row["epoch"] == facts.epoch else ""
        rows.append((f"{row['epoch']:.0f}{kept}", *(f"{row[name]:.4f}" for name in columns)))
    epochs = table(("epoch", *columns), rows)
    return f"{epochs}\n\nThe weights are those of epoch {facts.epoch}, which has the lowest {lowest}."


def _scores(facts: CardData, names: Iterable[str]) -> str:
    test, own = facts.test, facts.test.at_threshold is not None
    at = f" at {test.threshold:.3g}" if own else ""
    heads = ["score", f"validation{at}", f"test{at}", *(["test at 0.5"] if own else []), f"all {test.always}"]
    rows = []
    for name in names:
        if name in test.scores:
            half = ["" if name in THRESHOLD_FREE else str(test.scores[name])] if own else []
            base = f"{test.baseline[name]:.3f}" if name in test.baseline else ""
            label = label_of(name, two=len(facts.classes) == 2)
            rows.append([label, str(facts.validation.served[name]), str(test.served[name]), *half, base])
    return (
        f"{table(heads, rows)}\n\nIn brackets {100 * CONFIDENCE:g} % intervals, from a bootstrap of patients: "
        f"{facts.validation.patients:,} of validation, {test.patients:,} of test. They do not include the variation "
        f"between training seeds. {_validation(facts)} "
        f"The threshold is {_threshold(facts)}."
    )


def _validation(facts: CardData) -> str:
    if facts.ensemble is not None:
        return facts.ensemble.validation
    return "Validation scores are optimistic, since the trial was chosen by them."


def _clinical(facts: CardData) -> str:
    clinical = facts.test.clinical
    return "" if clinical is None else f"On the test images:\n\n{clinical_table(clinical)}"


def _threshold(facts: CardData) -> str:
    value = facts.test.threshold
    return "not used: the likeliest class is the answer" if value is None else f"{value:.4g}: {facts.threshold}"


def _calibration(facts: CardData) -> str:
    """What the temperature changes: its sentences have the figures of its table, whichever way they go."""
    divided = facts.test.temperature != 1
    rows = []
    for part, assessment in (("validation", facts.validation), ("test", facts.test)):
        for name in CALIBRATED:
            before, after = f"{assessment.uncalibrated[name]:.4f}", f"{assessment.scores[name].value:.4f}"
            rows.append((part, label_of(name, two=True), *([before] if divided else []), after))
    changes = " ".join(
        f"On {part} the temperature {_change(assessment, 'log_loss', 'log loss')} and "
        f"{_change(assessment, 'ece', 'the calibration error')}."
        for part, assessment in (("validation", facts.validation), ("test", facts.test))
        if divided
    )
    validation, test = (assessment.scores["ece"].value for assessment in (facts.validation, facts.test))
    gap = (
        f"On test the calibration error is {test:.3f} and not {validation:.3f} as on validation: test differs from it. "
        "Do not read its probabilities as frequencies elsewhere."
        if test > 1.5 * validation
        else f"On test the calibration error is {test:.3f}, on validation {validation:.3f}."
    )
    weighted = (
        "The training loss gives each class the same weight, so probabilities are those of a population in "
        "which all classes are equally frequent; a temperature does not change that."
    )
    scores = table(("images", "score", *(["as trained"] if divided else []), "as served"), rows)
    after = " ".join(text for text in (changes, gap, weighted) if text)
    return f"{facts.temperature}\n\n{scores}\n\n{after}".strip()


def _change(assessment: Assessment, name: str, score: str) -> str:
    """What a temperature does to a score, as far as the card's four digits show it."""
    before, after = f"{assessment.uncalibrated[name]:.4f}", f"{assessment.scores[name].value:.4f}"
    if before == after:
        return f"leaves {score} at {after}"
    return f"{'lowers' if float(after) < float(before) else 'raises'} {score} from {before} to {after}"


def _limits(facts: CardData) -> str:
    return "\n".join(f"- {sentence}." for sentence in facts.limits)


def _join(parts: Iterable[str | tuple[str, str]]) -> str:
    return "\n\n".join(
        part if isinstance(part, str) else f"## {part[0]}\n\n{part[1]}"
        for part in parts
        if isinstance(part, str) or part[1]
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
