"""Answers of a reporting checklist on the study, its evaluation and its use."""

from __future__ import annotations

from sweep.comparisons.architectures.analysis import SHOWN, Comparison, errors_by_group
from sweep.comparisons.architectures.checklist.facts import NOT_REPORTED, Answer, Facts
from sweep.comparisons.architectures.stored import CARD
from sweep.metrics.bootstrap import CONFIDENCE
from sweep.metrics.formatting import SCORE_IN_PRINT, format_interval
from sweep.metrics.names import NOT_A_DEVICE, label_of
from sweep.stores import tags as tag


def study_answers(facts: Facts) -> dict[str, Answer | None]:
    """What the study is and what it is for: topic -> answer."""
    comparison, classes = facts.comparison, " or ".join(facts.models[0].predictions.classes)
    archs = ", ".join(model.arch for model in facts.models)
    metric, chosen_by = facts.metric, (facts.version_tags(tag.METRIC), facts.study_params("metric"))
    aims = f"Development of classifiers by a search by {metric}, and their comparison on the same test images."
    return {
        "kind": Answer(
            f"Development and evaluation of convolutional neural networks ({archs}) that tell images apart: {classes}.",
            ("top", "diagrams"),
            (facts.tags(tag.ARCH),),
        ),
        "summary": Answer("The first lines of the report: result, intervals and tests.", ("top",)),
        "purpose": Answer(NOT_A_DEVICE.strip("*"), ("known",), (facts.files(CARD),)),
        "aims": Answer(aims, ("top", "search"), chosen_by) if metric else None,
        "details": Answer(
            "The params and tags of each run are enough to train it again (`sweep replay RUN_ID`).",
            ("provenance", "configurations"),
            (", ".join(f"{model.run} ({model.run_id})" for model in facts.models),),
        ),
        "availability": Answer(
            f"Registered model {comparison.name}, versions {', '.join(model.version for model in facts.models)}; "
            "software and data as named by commit and digest.",
            ("provenance",),
            (facts.tags("mlflow.source.git.commit", tag.DATA_DIGEST),),
        ),
    }


def evaluation_answers(facts: Facts) -> dict[str, Answer | None]:
    """How the models were evaluated, and the result: topic -> answer."""
    comparison, champion = facts.comparison, facts.champion
    two = len(champion.predictions.classes) == 2
    names = [label_of(name, two=two) for name in SHOWN if name in champion.assessment.scores]
    clinical = (
        " PPV, NPV, specificity at 95 % sensitivity and sensitivity at 95 % specificity; decision curves."
        if champion.assessment.clinical is not None
        else ""
    )
    curves = "ROC and calibration curves, confusion matrices."
    tests = (
        f" Differences {_differences(comparison)}: McNemar's exact test and a paired bootstrap, by whole patients, "
        "corrected (Holm)."
        if comparison.paired_tests
        else ""
    )
    seeds = facts.each(lambda model, stored: len(model.seeds.get("accuracy", ())) or None)
    shown = champion.assessment.at_threshold or champion.assessment.scores
    scores = {
        name: format_interval(shown[name], SCORE_IN_PRINT)
        for name in ("accuracy", "recall", "specificity")
        if name in shown
    }
    auroc = format_interval(champion.assessment.scores["auroc"], SCORE_IN_PRINT)
    explained = [key for key in facts.sections if "heat" in key or "explain" in key]
    logged = "`scores.json` of this comparison's run"
    return {
        "measures": Answer(
            f"{names[0].capitalize()}, {', '.join(names[1:])}; {curves}{clinical}",
            ("top", "clinical", "curves", "confusion"),
        ),
        "uncertainty": Answer(
            f"{100 * CONFIDENCE:g} % intervals by drawing whole patients anew (bootstrap).{tests}", ("top", "tests")
        ),
        "robustness": Answer(f"Trained again with other seeds: {seeds}.", ("seeds",))
        if seeds
        else Answer("Further seeds were not trained (`sweep compare --seeds 5`).", status=NOT_REPORTED),
        "explainability": Answer("Heat maps, and how far they can be trusted.", tuple(explained))
        if explained
        else Answer("Heat maps can be drawn (`sweep predict --heatmap`); none is in the stores.", status=NOT_REPORTED),
        "internal": Answer(
            f"{comparison.images:,} test images of {comparison.patients:,} patients, of the same data set, "
            "opened for the chosen trial alone.",
            ("top", "confusion"),
            (facts.tags(tag.TEST_OPENED), f"`predictions/test.csv` of run {champion.run}"),
        ),
        "external": _external(facts),
        "performance": Answer(
            f"{champion.arch} on test: accuracy {scores['accuracy']}, AUROC {auroc}; the others in the table.",
            ("top", "curves"),
            (logged,),
        ),
        "diagnostic": Answer(
            f"{champion.arch} on test: sensitivity {scores['recall']}, specificity {scores['specificity']}.",
            ("top", "confusion"),
            (logged,),
        )
        if "specificity" in scores
        else None,
        "failures": _failures(facts),
    }


def _differences(comparison: Comparison) -> str:
    """Of which models differences are tested."""
    rivals = f"of {comparison.champion} from each of its rivals, and " if comparison.champion_tests else ""
    return f"{rivals}from {comparison.reference}"


def _external(facts: Facts) -> Answer:
    runs = [f"{run} on {data}" for stored in facts.stored.values() for run, data in stored.elsewhere]
    if not runs:
        return Answer(
            "No evaluation on other images is in the stores (`sweep evaluate --data FOLDER`).", status=NOT_REPORTED
        )
    return Answer(
        f"Evaluated on other images: {', '.join(runs)}.",
        (),
        (f"runs {', '.join(run.split(' on ')[0] for run in runs)}",),
    )


def _failures(facts: Facts) -> Answer:
    arch, table = facts.champion.arch, errors_by_group(facts.models)
    groups = [
        f"{group} {wrong:,} of {images:,}"
        for group, wrong, images in zip(table["group"], table[arch], table["images"], strict=True)
    ]
    return Answer(f"Errors of {arch} by group: {'; '.join(groups)}.", ("errors", "confusion"))


def use_answers(facts: Facts) -> dict[str, Answer | None]:
    """What is to be known by whoever uses the models: topic -> answer."""
    limits = facts.first.limits or facts.comparison.notes
    any_picture = next((limit for limit in facts.first.limits if "to any picture" in limit), "")
    text = " ".join(f"{limit[:1].upper()}{limit[1:].removesuffix('.')}." for limit in limits)
    return {
        "limits": Answer(text, ("known",), (facts.files(CARD),) if facts.first.limits else ()) if limits else None,
        "input": Answer(f"{any_picture} What is no image is refused.", (), (facts.files(CARD),))
        if any_picture
        else None,
    }
