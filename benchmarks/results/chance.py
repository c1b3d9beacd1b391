"""How much of RESULTS.md is chance: ways to choose, folds, thresholds, halves of a search, a second search, splits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from benchmarks.results.kept import Results
from benchmarks.results.search_result import SearchResult, configuration, spread, table
from benchmarks.results.searching import HALVINGS, KIND, choices_by_budget, choosers, halves, refolded, ways
from sweep.metrics.bootstrap import Interval
from sweep.metrics.calibration import fit_temperature
from sweep.metrics.scores import all_scores
from sweep.metrics.significance import another_run
from sweep.metrics.threshold import choose_threshold


def choosing(small: Sequence[SearchResult]) -> list[str]:
    """What other ways to choose would have chosen of the searches' trials."""
    by_way = ways([search.study for search in small])
    archs = [search.arch for search in small]
    lines = [
        (
            way.name,
            *(f"{trial.tested['accuracy']:.4f}, {trial.tested['auroc']:.4f}" for trial in way.picks),
            ", ".join(f"{np.mean([trial.tested[name] for trial in way.picks]):.4f}" for name in ("accuracy", "auroc")),
            f"{way.with_accuracy:+.2f}",
            f"{way.with_auroc:+.2f}",
        )
        for way in by_way
    ]
    return [
        "What each way to choose by validation would have chosen of the searches' complete trials: test accuracy and "
        "AUROC of its choice, and how well it orders all of them (Spearman's correlation, a mean over the searches). "
        "*Stressed*: validation images as another machine might have made them (mirrored, turned, moved, zoomed, "
        "stretched, lit otherwise; `data/recipe.py`).",
        "Read it as a hint. The sampler, the pruner and the choice of epochs were all led by the stressed metric, so "
        "the other ways choose among trials that it had made; the augmentation `wide` trains on what it is judged by; "
        "and it is three choices on the same test images.",
        table(("by", *archs, "mean", "orders test accuracy", "orders test AUROC"), lines),
    ]


def folds(results: Results, small: Sequence[SearchResult]) -> list[str]:
    """Compares choosing by all folds of patients with choosing by one split and by one fold, on test."""
    parts = []
    for search in small:
        dealt = sorted(
            (int(fold[2]), int(fold[1]), study)
            for name, study in results.studies.items()
            if (fold := re.fullmatch(rf"{search.study.name}-fold-(\d+)-of-(\d+)", name))
        )
        studies = [study for folds, _, study in dealt if folds == dealt[-1][0]]
        finalists = refolded(search.study, studies)
        if len(studies) < 2 or len(finalists) < 2:
            continue
        count, metric = len(studies), search.study.params["metric"]
        by_chooser = choosers(finalists, search.study.sign)
        own, alone, mean = by_chooser
        gain = {score: mean.mean_score(score) - own.mean_score(score) for score in ("accuracy", "auroc")}
        most = max(finalists, key=lambda other: other.tested("accuracy"))
        validated = ", ".join(study.params["validation_images"] for study in studies)
        parts += [
            "### Cross-validation over patients",
            f"The {len(finalists)} best trials of {search.arch}'s search, each trained once on every one of {count} "
            f"folds of patients ({validated} images validate), all with one seed in a fold: `sweep crossvalidate "
            f"{search.arch} --folds {count} --top {len(finalists)} --audit`. What a configuration is "
            f"worth on test is the mean over its {count} networks here.",
            table(
                ("", f"{metric}, in the search", "over the folds (sd)", "test accuracy (sd)", "test AUROC (sd)"),
                [
                    (
                        finalist.name,
                        f"{finalist.value:.4f}",
                        spread([trial.value or 0.0 for trial in finalist.folds]),
                        *(spread([trial.tested[score] for trial in finalist.folds]) for score in ("accuracy", "auroc")),
                    )
                    for finalist in sorted(finalists, key=lambda other: -search.study.sign * other.mean)
                ],
            ),
            table(
                ("chosen by", "chosen", "test accuracy", "test AUROC", "orders test accuracy", "orders test AUROC"),
                [
                    (
                        way.name,
                        _counts([pick.name for pick in way.picks]),
                        f"{way.mean_score('accuracy'):.4f}",
                        f"{way.mean_score('auroc'):.4f}",
                        *(f"{order:+.2f}" for order in way.orders),
                    )
                    for way in by_chooser
                ],
            ),
            f"Against the search's own split the folds' mean gains {100 * gain['accuracy']:+.1f} points of test "
            f"accuracy and {gain['auroc']:+.4f} of test AUROC, for {count * len(finalists)} trainings more; against "
            f"a single fold {100 * (mean.mean_score('accuracy') - alone.mean_score('accuracy')):+.1f} points "
            f"and {mean.mean_score('auroc') - alone.mean_score('auroc'):+.4f}. The best of them on test is "
            f"{most.name} with {most.tested('accuracy'):.4f}. One search, its best "
            f"{len(finalists)} alone, which are much alike.",
        ]
    return parts


def _counts(names: Sequence[str]) -> str:
    counts = Counter(sorted(names)).most_common()
    return ", ".join(name if len(names) == 1 else f"{name} ({count})" for name, count in counts)


def thresholds(small: Sequence[SearchResult]) -> list[str]:
    """What thresholds and temperatures do on test that validation chose."""
    lines = []
    for search in small:
        if not search.seeds:
            continue
        half, supported, tuned, stressed, before, after = [], [], [], [], [], []
        for trial in search.seeds:
            assert trial.on_test is not None
            assert trial.on_validation is not None
            temperature = fit_temperature(trial.on_validation.labels, trial.on_validation.logits)
            choice = choose_threshold(trial.on_validation.labels, trial.on_validation.probabilities(temperature)[:, 1])
            cuts = [(0.5, half), (choice.value, supported), (choice.tuned, tuned)]
            if trial.on_stressed is not None:
                under = choose_threshold(trial.on_stressed.labels, trial.on_stressed.probabilities(temperature)[:, 1])
                cuts.append((under.value, stressed))
            for cut, into in cuts:
                into.append(all_scores(trial.on_test.labels, trial.on_test.probabilities(temperature), cut)["accuracy"])
            for likely, into in (
                (trial.on_test.probabilities(), before),
                (trial.on_test.probabilities(temperature), after),
            ):
                into.append(all_scores(trial.on_test.labels, likely)["log_loss"])
        columns = (half, tuned, supported, stressed, before, after)
        whole = (f"{np.mean(values):.4f}" if len(values) == len(search.seeds) else "" for values in columns)
        lines.append((search.arch, *whole))
    if not lines:
        return []
    return [
        "### Threshold and temperature",
        "Test accuracy of the winners' other seeds at 0.5, at the best threshold on validation, at one that validation "
        "supports beyond its noise (else 0.5), and at one that the stressed validation images support; and the log "
        "loss on test before and after a temperature fitted on validation. `sweep` takes the one that those images "
        "support which the study chooses by; with a stressed metric it took the plain one until this table was seen.",
        table(("", "at 0.5", "tuned", "supported", "supported under stress", "log loss", "with a temperature"), lines),
    ]


def chance(results: Results, small: Sequence[SearchResult]) -> list[str]:
    """How far two halves of a search, two searches, seeds and splits are apart."""
    lines, kinds = [], []
    for search in small:
        apart = halves(search.study)
        kinds.append((search.arch, apart.alike))
        gaps = [trial.validated["auroc"] - trial.tested["auroc"] for trial in search.study.tested]
        few = choices_by_budget(search.study, (5,))
        gained = f"{(search.best.value or 0.0) - few[0].value:+.4f}" if few else ""
        carried = f"{search.best.tested['auroc'] - few[0].auroc:+.4f}" if few else ""
        seeds = search.test("accuracy")
        expected = another_run(seeds) if len(seeds) > 1 else None
        lines.append(
            (
                search.arch,
                f"{apart.value:.4f}",
                f"{100 * apart.accuracy:.1f} points",
                f"{apart.auroc:.4f}",
                f"{np.mean(gaps):+.3f}",
                gained,
                carried,
                f"{expected.low:.3f} to {expected.high:.3f}" if expected else "",
                _inside(expected, search.best.tested["accuracy"]),
            )
        )
    names = list(kinds[0][1])
    parts = [
        f"Two halves of a search's trials, drawn at random {HALVINGS} times: how far their choices are apart, in the "
        "study's metric and on test. Overtuning: how much better the choice of all trials is than the choice of 5 "
        "(means over the orders above), in the study's metric, and how much of it is left on test. The last two "
        "columns: where a further seed of the winner is expected (95 %, Student's t), and whether the winner itself is "
        "there.",
        table(
            (
                "",
                "apart, metric",
                "test accuracy",
                "test AUROC",
                "validation AUROC less test's, mean of trials",
                "from 5 trials to all: metric",
                "test AUROC",
                "one more seed, test accuracy",
                "winner in it",
            ),
            lines,
        ),
        "How often both halves choose the same:",
        table(("", *names), [(arch, *(f"{100 * alike[name]:.0f} %" for name in names)) for arch, alike in kinds]),
    ]
    parts += _again(results, small)
    splits = [study for name, study in results.studies.items() if "-split-" in name and study.tested]
    if splits:
        accuracies = [study.tested[0].tested["accuracy"] for study in splits]
        areas = [study.tested[0].tested["auroc"] for study in splits]
        arch = splits[0].params["arch"]
        seeds = next((search.test("accuracy") for search in small if search.arch == arch), [])
        beside = f"; over seeds on one split it is {np.std(seeds, ddof=1):.4f}" if len(seeds) > 1 else ""
        parts.append(
            f"Other splits: the winner of {arch} trained with one seed on {len(splits)} other draws of validation "
            f"patients: test accuracy {spread(accuracies)}, AUROC {spread(areas)}. The standard deviation of "
            f"accuracy over splits holds that of the order of images too{beside}."
        )
    return parts


def _again(results: Results, small: Sequence[SearchResult]) -> list[str]:
    """The same search once more, with another seed."""
    parts = []
    for search in small:
        other = results.studies.get(f"{search.study.name}-again")
        if other is None or not other.tested:
            continue
        both = [(search.study, search.best), (other, other.best)]
        names = [name for name in KIND if name in search.best.params]
        alike = [name for name in names if search.best.params[name] == other.best.params[name]]
        seeds = search.test("accuracy")
        expected = another_run(seeds) if len(seeds) > 1 else None
        apart = f"{100 * abs(other.best.tested['accuracy'] - search.best.tested['accuracy']):.1f}"
        parts += [
            f"A second search of {search.arch} with the same space and another seed:",
            table(
                ("seed", "trials", "winner", "hyperparameters", "the metric", "test accuracy", "test AUROC"),
                [
                    (
                        study.params["study_seed"],
                        f"{[trial.state for trial in study.trials].count('COMPLETE')} + "
                        f"{[trial.state for trial in study.trials].count('PRUNED')} pruned",
                        f"{study.name}-{best.number:03d}",
                        configuration(best.params),
                        f"{best.value:.4f}",
                        f"{best.tested['accuracy']:.4f}",
                        f"{best.tested['auroc']:.4f}",
                    )
                    for study, best in both
                ],
            ),
            f"Of {', '.join(names)} they choose {len(alike)} of {len(names)} alike"
            f"{' (' + ', '.join(alike) + ')' if alike else ''}; their choices are {apart} points of test accuracy "
            "apart"
            + (
                f", and a further seed of the first is expected from {expected.low:.3f} to {expected.high:.3f}."
                if expected
                else "."
            ),
        ]
    return parts


def _inside(expected: Interval | None, value: float) -> str:
    if expected is None:
        return ""
    return "yes" if expected.low <= value <= expected.high else "no"
