"""Answers of a reporting checklist on the data: source, preparation, partitions."""

from __future__ import annotations

from models import ARCHITECTURES
from sweep.comparisons.architectures.analysis import ComparedModel
from sweep.comparisons.architectures.checklist.facts import NOT_REPORTED, Answer, Facts
from sweep.comparisons.architectures.stored import ABOUT, CARD, StoredModel
from sweep.stores import tags as tag

OWN_STATISTICS = {
    "image": ", each image standardised by its own mean and standard deviation",
    "histogram": ", the histogram of each image equalised",
}  # by the param `normalisation`


def data_answers(facts: Facts) -> dict[str, Answer | None]:
    """Where the images and labels come from and how they were divided: topic -> answer."""
    comparison, first, params = facts.comparison, facts.first, facts.champion.params
    name, digest = first.tags.get(tag.DATA, comparison.name), first.tags.get(tag.DATA_DIGEST, "unknown")
    setting = next(
        (limit for limit in first.limits if limit.startswith(("All images are of", "It learned from synth"))), ""
    )
    drawn = "Every image was drawn by a program, which chose its class."
    classes = comparison.models[0].predictions.classes
    positive = f" The positive class is {classes[1]}." if len(classes) == 2 else ""
    data = Answer(f"Data set {name}, digest {digest}.", ("provenance",), (facts.tags(tag.DATA, tag.DATA_DIGEST),))
    labels = f"The labels are the data set's own ({', '.join(classes)}); how they were obtained is not stored."
    return {
        "source": Answer(f"{data.text} {setting}".strip(), ("data", *data.sections), data.places),
        "data": data,
        "setting": Answer(setting, (), (facts.files(CARD),)) if setting else None,
        "preprocessing": _preprocessing(facts),
        "subset": Answer(
            _capital(facts.each(lambda model, stored: _subset(model))) + ".",
            ("data",),
            (facts.params("limit", "train_images"),),
        )
        if "train_images" in params
        else None,
        "reference": Answer(drawn) if facts.synthetic else Answer(labels, status=NOT_REPORTED),
        "outcome": Answer(f"The class of an image: {', '.join(classes)}.{positive}", ("data",), (facts.files(ABOUT),)),
        "sample": Answer(
            f"{comparison.images:,} test images of {comparison.patients:,} patients; the stores hold no planned size.",
            ("data",),
            status=NOT_REPORTED,
        ),
        **_partitions(facts),
    }


def _capital(text: str) -> str:
    """A sentence's first letter as a capital, unless it is an architecture's name."""
    return text if text.startswith(tuple(ARCHITECTURES)) else text[:1].upper() + text[1:]


def _subset(model: ComparedModel) -> str:
    limit = model.params.get("limit")
    if limit is None:
        return "all training images (no param `limit`)"
    return f"at most {int(limit):,} training images, by whole patients"


def _preprocessing(facts: Facts) -> Answer | None:
    def text(model: ComparedModel, stored: StoredModel) -> str | None:
        about = stored.about
        if "image_size" not in about:
            return None
        side, mean, std = about["image_size"], about.get("mean"), about.get("std")
        scaled = "" if (mean, std) == (0, 1) else f", from which {mean:g} is subtracted and which {std:g} divides"
        own = OWN_STATISTICS.get(model.params.get("normalisation", ""), "")
        return f"{side} x {side} pixels{scaled}{own}"

    sizes = facts.lines(text)
    if not sizes:
        return None
    places = (facts.params("normalisation"), facts.files(ABOUT, "artifacts/decode.py"))
    return Answer(f"Each image becomes gray, with values from 0 to 1.\n{sizes}", (), places)


def _partitions(facts: Facts) -> dict[str, Answer | None]:
    comparison, first, champion = facts.comparison, facts.first, facts.champion
    alike = len({stored.tags.get(tag.SPLIT_DIGEST) for stored in facts.stored.values()}) == 1
    whose = "" if alike else f" These are the numbers of {champion.arch}; not all learned from the same split."
    counts, patients = comparison.counts, first.patients
    parts = [
        f"{part}: {sum(images.values()):,} images"
        + (f" of {patients[part]:,} patients" if part in patients else "")
        + f" ({', '.join(f'{count:,} {name}' for name, count in images.items())})"
        for part, images in counts.items()
    ]
    numbers = f"{_capital('; '.join(parts))}.{whose}" if parts else ""
    split = f" Validation: {first.split_sentence}" if first.split_sentence else ""
    shares = [
        f"{part} {100 * images.get(champion.predictions.classes[1], 0) / max(1, sum(images.values())):.1f} %"
        for part, images in counts.items()
    ]
    places = (facts.params("validation", "split_seed"), facts.tags(tag.SPLIT_DIGEST))
    return {
        "partition": Answer(numbers + split, ("data",), (*places, facts.files(CARD))) if numbers else None,
        "numbers": Answer(numbers, ("data",), (facts.files(CARD),) if patients else ()) if numbers else None,
        "characteristics": Answer(f"Images by class. {numbers}", ("data", "errors")) if numbers else None,
        "mix": Answer(f"Share of {champion.predictions.classes[1]}: {', '.join(shares)}.{whose}", ("data",))
        if shares
        else None,
        "disjoint": _disjoint(facts),
    }


def _disjoint(facts: Facts) -> Answer | None:
    first, tested = facts.first, set(facts.champion.predictions.patients)
    sentences, places = [], []
    if first.split_sentence:
        sentences.append(f"Patients. Validation: {first.split_sentence}")
        places.append(facts.files(CARD))
    if first.validation_patients is not None:
        shared = len(first.validation_patients & tested)
        none = f"{shared:,}" if shared else "None"
        sentences.append(
            f"{none} of the {len(tested):,} patient names of test {'are' if shared > 1 else 'is'} among the "
            f"{len(first.validation_patients):,} of validation."
        )
        places.append(f"`predictions/validation.csv`, `predictions/test.csv` of run {facts.champion.run}")
    if leakage := first.tags.get(tag.LEAKAGE) or first.version_tags.get(tag.LEAKAGE):
        sentences.append(f"What the study found to be shared when it began: {leakage}.")
        places.append(facts.version_tags(tag.LEAKAGE) or facts.tags(tag.LEAKAGE))
    if not first.split_sentence and not first.validation_patients:
        return None
    return Answer(" ".join(sentences), ("known",), tuple(places))
