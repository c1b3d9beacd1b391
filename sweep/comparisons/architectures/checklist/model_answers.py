"""Answers of a reporting checklist on the model and its training."""

from __future__ import annotations

from data.recipe import Augmentation
from models import recipe_of
from sweep.comparisons.architectures.analysis import ComparedModel
from sweep.comparisons.architectures.checklist.facts import NOT_APPLICABLE, Answer, Facts
from sweep.comparisons.architectures.stored import ABOUT, StoredModel
from sweep.metrics.formatting import counted
from sweep.stores import tags as tag


def model_answers(facts: Facts) -> dict[str, Answer | None]:
    """What the model is, what goes in and what comes out: topic -> answer."""
    name = facts.comparison.name
    classes = ", ".join(facts.models[0].predictions.classes)
    size = facts.each(lambda model, stored: f"{model.params['image_size']} x {model.params['image_size']}")
    weights = facts.each(lambda model, stored: f"{model.cost.parameters:,} parameters")
    threshold = facts.lines(lambda model, stored: _threshold(stored))
    temperature = facts.each(
        lambda model, stored: f"{float(stored.about['temperature']):.3g}" if "temperature" in stored.about else None
    )
    scale = f"Probabilities of {classes}: softmax of the logits divided by a temperature ({temperature})."
    return {
        "model": Answer(
            f"{weights}; input: one gray image of {size} pixels; output: a probability of each of {classes}.",
            ("diagrams", "configurations"),
            (facts.files("artifacts/network.pt2", ABOUT),),
        ),
        "specification": Answer(
            f"The network as a program, with preprocessing, threshold and temperature: registered model {name}.",
            ("diagrams", "configurations"),
            (facts.files("artifacts/network.pt2", ABOUT, "serving_model.py"),),
        ),
        "calculated": Answer(
            "The trained network on each test image; the logits are stored.",
            (),
            (f"`predictions/test.csv` of runs {', '.join(model.run for model in facts.models)}",),
        ),
        "output": Answer(
            f"{scale}\nThreshold: {threshold or 'none, the likeliest class is the answer.'}",
            ("configurations", "curves"),
            (facts.tags(tag.TEMPERATURE, tag.THRESHOLD, tag.THRESHOLD_REASON), facts.files(ABOUT)),
        )
        if temperature
        else None,
        "ensemble": Answer("None: one network gives each answer.", (), (facts.files("artifacts/network.pt2"),)),
        "predictors": Answer("One: the image. No other data of the patient are used."),
        "pixels": Answer(
            "The gray values of the image, as a file or an array.", (), (facts.files("artifacts/decode.py"),)
        ),
        "measured": Answer("No judgement: pixels are read by a program.", status=NOT_APPLICABLE),
    }


def _threshold(stored: StoredModel) -> str | None:
    value = stored.about.get("threshold")
    if value is None:
        return None
    reason = stored.tags.get(tag.THRESHOLD_REASON)
    return f"{value:.3g}" + (f" ({reason})" if reason else "")


def training_answers(facts: Facts) -> dict[str, Answer | None]:
    """How it was trained, chosen and updated: topic -> answer."""
    versions = {
        key.removeprefix("sweep.version."): value
        for key, value in facts.first.tags.items()
        if key.startswith("sweep.version.")
    }
    own, commit = facts.first.tags.get("sweep.version"), facts.first.tags.get("mlflow.source.git.commit")
    software = ", ".join(f"{name} {value}" for name, value in {**({"sweep": own} if own else {}), **versions}.items())
    how, selection = _how_trained(facts), _selection(facts)
    building = Answer(
        f"{how.text}\n{selection.text}", (*how.sections, *selection.sections), (*how.places, *selection.places)
    )
    return {
        "software": Answer(
            f"{software}.",
            ("provenance",),
            (facts.tags(*(f"sweep.version.{name}" for name in versions if name in ("torch", "optuna", "mlflow"))),),
        )
        if versions
        else None,
        "code": Answer(f"Commit {commit}.", ("provenance",), (facts.tags("mlflow.source.git.commit", "sweep.dirty"),))
        if commit
        else None,
        "initialisation": Answer(
            facts.each(lambda model, stored: _initialisation(model)) + ".",
            ("configurations",),
            (facts.params("weights", "finetune", "seed"),),
        ),
        "training": how,
        "selection": selection,
        "building": building,
        "imbalance": Answer(
            "The loss weights each class by the inverse of its frequency; then a temperature was fitted on validation.",
            ("learning", "curves"),
            (facts.tags(tag.TEMPERATURE),),
        ),
        "updating": Answer(
            "None. Threshold and temperature were chosen on validation, before the test set was opened.",
            (),
            (facts.tags(tag.TEST_OPENED, tag.THRESHOLD_REASON),),
        ),
        "updated": Answer("The model was not updated.", status=NOT_APPLICABLE),
    }


def _initialisation(model: ComparedModel) -> str:
    weights = model.params.get("weights")
    if weights in (None, "none"):
        return f"random, from seed {model.params.get('seed', 'unknown')}"
    return f"weights {weights}, fine-tuned: {model.params.get('finetune', 'all')}"


def _how_trained(facts: Facts) -> Answer:
    def text(model: ComparedModel, stored: StoredModel) -> str:
        params = model.params
        augmentation = params.get("augmentation", "own")
        recipe = recipe_of(model.params["arch"], augmentation)
        named = [
            f"{name.replace('_', ' ')} {params[name]}"
            for name in ("optimizer", "activation", "batch_size")
            if name in params
        ]
        rates = [
            f"{name.replace('_', ' ')} {float(params[name]):.3g}"
            for name in ("learning_rate", "dropout")
            if name in params
        ]
        length = f"at most {params['epochs']} epochs, " if "epochs" in params else ""
        return f"{', '.join([*named, *rates])}; {length}weights of epoch {model.epoch}; augmentation {_recipe(recipe)}"

    trials = sum(len(model.search.trials) for model in facts.models if model.search)
    count = f"\n{trials} trainings in all." if trials else ""
    places = facts.params(
        "optimizer", "learning_rate", "batch_size", "dropout", "activation", "epochs", "patience", "augmentation"
    )
    return Answer(f"{facts.lines(text)}{count}", ("configurations", "learning", "search"), (places,))


def _recipe(recipe: Augmentation) -> str:
    """An augmentation in words: what differs from leaving images as they are."""
    usual, words = vars(Augmentation()), []
    for name, value in vars(recipe).items():
        if value != usual[name]:
            amount = " to ".join(map(str, value)) if isinstance(value, tuple) else "" if value is True else str(value)
            words.append(f"{name.replace('_', ' ')} {amount}".strip())
    return ", ".join(words) or "none"


def _selection(facts: Facts) -> Answer:
    metric = facts.metric or "an unknown metric"

    def text(model: ComparedModel, stored: StoredModel) -> str | None:
        if model.search is None:
            return None
        complete = sum(trial.state == "COMPLETE" for trial in model.search.trials)
        return f"{counted(len(model.search.trials), 'trial')}, {complete} complete"

    trials = facts.each(text)
    among = f" ({trials})" if trials else ""
    comparison = facts.comparison
    chosen = comparison.chosen.format(arch=comparison.champion)
    champion = f" Of the architectures {chosen}." if len(facts.models) > 1 else ""
    return Answer(
        f"Trials by {metric} alone{among}.{champion}",
        ("search", "top"),
        (
            facts.study_params("metric", "sampler", "pruner", "study_seed"),
            facts.version_tags(f"{tag.PROMOTION}.champion"),
            facts.tags(tag.TEST_OPENED),
        ),
    )
