"""RESULTS.md is what the kept figures give, and they are what the stores hold."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.results.costs import Cost, measure
from benchmarks.results.kept import (
    COSTS,
    PAGES,
    PLACE,
    STUDIES,
    TRIALS,
    Images,
    KeptStudy,
    Results,
    Trial,
    collect,
    keep_costs,
    read,
)  # fmt: skip
from benchmarks.results.page import page
from benchmarks.results.pretrained import GIVEN, LITE, SCRATCH, SEARCHED, SHORT, pretrained
from benchmarks.results.search_result import SearchResult
from benchmarks.results.searching import choices_by_budget, choosers, chosen, first, halves, refolded, ways
from benchmarks.tables import ROOT
from tests.helpers.studies import runs_of, sweep

IMAGES = Images(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]))


PARAMS = {"activation": "relu", "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 32, "dropout": 0.2}


def trial(number, value, gaps, state="COMPLETE", **kept):
    """A trial of the value `value`, whose logits of the test images differ by `gaps`."""
    logits = np.stack([np.zeros(4), np.array(gaps, dtype=float)], axis=1)
    predictions = IMAGES.predictions(logits) if state == "COMPLETE" else None
    history = ({"epoch": 1, "epoch_seconds": 1.0, "val/auroc": value or 0.0, "val/loss": 1 - (value or 0.0), **kept},)
    complete_value = value if state == "COMPLETE" else None
    return Trial(number, state, "", PARAMS, number, complete_value, 1, history, 1.0, predictions, None, predictions)


def study(*trials, metric="val/auroc"):
    return KeptStudy("cnn1", {"metric": metric, "arch": "cnn1"}, {}, trials)


GOOD, FAIR, BAD = (-1, -1, 1, 1), (-1, 1, 1, 1), (1, 1, -1, -1)


def test_the_choice_is_validations_the_first_of_equals_and_never_a_pruned_one():
    trials = [trial(0, 0.9, GOOD), trial(1, 0.95, BAD), trial(2, 0.95, GOOD), trial(3, 0.99, GOOD, "PRUNED")]
    assert study(*trials).best.number == 1
    assert chosen(study(*trials), trials[:1]).number == 0
    assert chosen(study(*trials), trials[3:]) is None
    assert study(*trials, metric="val/loss").best.number == 0


def test_more_trials_never_choose_worse_on_validation_and_test_may_say_otherwise():
    trials = [trial(number, 0.5 + number / 100, BAD if number == 9 else GOOD) for number in range(10)]
    few, many = choices_by_budget(study(*trials), (5, 10))
    assert few.value < many.value == pytest.approx(0.59)
    assert (many.accuracy, many.auroc, many.within) == (0.0, 0.0, 1.0)
    assert few.accuracy > 0
    assert choices_by_budget(study(*trials), (11,)) == []


def test_halves_of_a_search_have_no_trial_in_common_and_are_as_far_apart_as_their_choices():
    def of(gaps_of_the_best):
        trials = [trial(number, 0.5, GOOD) for number in range(8)]
        return study(*trials, trial(8, 0.7, GOOD), trial(9, 0.6, gaps_of_the_best))

    alike, apart = halves(of(GOOD)), halves(of(BAD))
    assert alike.accuracy == alike.auroc == 0.0
    # The best is in one half; the other has the second best in five of nine halvings, and a trial of 0.5 else.
    assert alike.value == pytest.approx(0.1 * 5 / 9 + 0.2 * 4 / 9, abs=0.02)
    assert apart.accuracy == pytest.approx(5 / 9, abs=0.1)


def test_so_many_trials_of_a_search_are_its_first_pruned_ones_too():
    trials = [trial(0, 0.6, GOOD), trial(1, 0.9, GOOD, "PRUNED"), trial(2, 0.7, BAD)]
    assert [first(study(*trials), count).number for count in (1, 2, 3)] == [0, 0, 2]


def test_a_way_to_choose_is_judged_by_how_it_orders_trials():
    trials = [
        trial(number, value, gaps, **{"val/balanced_accuracy": 1 - value})
        for number, (value, gaps) in enumerate([(0.9, GOOD), (0.8, FAIR), (0.7, BAD)])
    ]
    found = {way.name: way for way in ways([study(*trials)])}
    assert found.keys() == {"AUROC", "loss", "balanced accuracy"}  # these trials were not stressed
    assert found["AUROC"].with_accuracy == pytest.approx(1.0)
    assert found["balanced accuracy"].with_accuracy == pytest.approx(-1.0)
    assert found["loss"].picks[0].number == 0
    assert found["balanced accuracy"].picks[0].number == 2


def test_finalists_are_those_that_every_fold_has_and_folds_choose_by_their_mean():
    def fold(*values):
        found = [trial(number, value, gaps) for number, (value, gaps) in enumerate(values)]
        labelled = [replace(one, label=f"cnn1-{number:03d}") for number, one in enumerate(found)]
        return study(*labelled)

    search = study(trial(0, 0.90, BAD), trial(1, 0.85, GOOD), trial(2, 0.95, GOOD, "PRUNED"), trial(3, 0.7, GOOD))
    folds = [fold((0.90, BAD), (0.80, GOOD)), fold((0.60, BAD), (0.95, GOOD)), fold((0.60, BAD), (0.62, FAIR))]
    finalists = refolded(search, folds)
    assert [(one.name, len(one.folds)) for one in finalists] == [("cnn1-000", 3), ("cnn1-001", 3)]
    assert finalists[1].mean == pytest.approx((0.80 + 0.95 + 0.62) / 3)
    own, alone, mean = choosers(finalists, 1)
    assert [pick.name for pick in own.picks] == ["cnn1-000"]
    assert [pick.name for pick in alone.picks] == ["cnn1-000", "cnn1-001", "cnn1-001"]
    assert [pick.name for pick in mean.picks] == ["cnn1-001"]
    assert own.mean_score("accuracy") == 0.0
    assert mean.mean_score("accuracy") == pytest.approx((1 + 1 + 0.75) / 3)
    assert alone.mean_score("accuracy") == pytest.approx(2 / 3 * (1 + 1 + 0.75) / 3)
    assert own.orders == pytest.approx((-1, -1))
    assert mean.orders == pytest.approx((1, 1))
    assert [pick.name for pick in choosers(finalists, -1)[0].picks] == ["cnn1-001"]


def seeded(name, arch, size, *gaps):
    """A study of several seeds, whose test logits differ by the gaps."""
    further = {"val/specificity": 0.9, "val/stressed_auroc": 0.8}
    seeds = [trial(number, 0.9, of, **further) for number, of in enumerate(gaps)]
    return KeptStudy(
        name,
        {"metric": "val/auroc", "arch": arch, "image_size": str(size), "epochs": "5", "precision": "float32"},
        {},
        tuple(seeds),
    )


def test_a_pretrained_start_is_set_beside_what_began_with_random_weights():
    tuned = seeded(f"{SHORT}-{SEARCHED}", LITE, 128, GOOD, (-3, 1, 2, 2), (-1, -1, -2, 9))
    given = seeded(f"{SHORT}-{GIVEN}", LITE, 128, BAD)
    given = replace(given, trials=tuple(replace(one, value=0.89) for one in given.trials))  # of validation
    scratch = seeded(f"{SHORT}-{SCRATCH}", LITE, 128, BAD, FAIR)
    small, fresh = seeded("cnn2", "cnn2", 64, FAIR, FAIR), seeded("cnn2-further", "cnn2", 64, FAIR, GOOD)
    found = SearchResult(small, small.best, small.trials)
    studies = {study.name: study for study in (tuned, given, scratch, small, fresh)}
    written = pretrained(Results(studies, {}, {(LITE, 128): Cost(3, 2_000_000, 1.5)}, "a machine"), [found], found)
    text = "\n".join(written)
    # Accuracies 1, 0.75 and 0.75; AUROC 1, 1 and 0.5: the last has both negatives above a positive.
    assert "| efficientnet_lite0, as its search chose, fine-tuned | 128 | 3 |" in text
    assert "| efficientnet_lite0, by a given recipe, fine-tuned | 128 | 1 |" in text
    assert "validation prefers that of *efficientnet_lite0, as its search chose, fine-tuned*" in text
    assert "| 0.8333 (0.1443) | 0.8333 (0.2887) |" in text
    assert "| 3 | 2 M | 1.5 |" in text
    # The ensemble's probabilities: each image is on the side of two of the three.
    assert "| fine-tuned, mean of 3 seeds | accuracy | 0.935 | 0.8333 | **no** |" in text
    assert "| their ensemble | AUROC | 0.988 | 1.0000 | yes |" in text
    assert "| the best small CNN's ensemble, fresh seeds | AUROC | 0.976 | 1.0000 | yes |" in text
    assert "+45.8 (" in text  # of accuracy, to random weights: 0.8333 less 0.375
    assert "the seeds reach an accuracy from 0.7500 to 1.0000" in text
    assert pretrained(Results({"cnn2": small}, {}), [found], found) == []


def test_costs_are_of_the_network_and_are_read_as_they_were_kept(tmp_path):
    costs = measure([("cnn3", 24), ("cnn1", 32)])
    assert costs[("cnn3", 24)].parameters > 1000
    assert costs[("cnn1", 32)].macs > 10_000
    assert all(0 < cost.milliseconds < 1000 for cost in costs.values())
    keep_costs(costs, "a machine", tmp_path)
    (tmp_path / STUDIES).write_text('{"studies": {}, "validation": {}, "test": {}}')
    pd.DataFrame([]).to_parquet(tmp_path / TRIALS)
    found = read(tmp_path)
    assert found.costs == costs
    assert found.machine == "a machine"


@pytest.mark.slow
def test_the_page_is_what_the_kept_figures_give():
    assert (ROOT / "RESULTS.md").read_text() == page(read())


def test_what_is_kept_is_small_and_names_no_image_and_no_place():
    content = (PLACE / STUDIES).read_text()
    assert sum(path.stat().st_size for path in PLACE.iterdir()) < 4_000_000
    assert {path.name for path in PLACE.iterdir()} - {COSTS} == {TRIALS, STUDIES, *PAGES.values()}
    for text in (content, (PLACE / TRIALS).read_bytes().decode("latin-1")):
        assert not re.search(r"\.jpe?g|person\d|/(?:home|root|tmp|work|Users)/", text)


@pytest.mark.slow
def test_what_is_kept_is_what_the_stores_hold(pictures, tmp_path):
    asked = ("--arch", "cnn3", "--data", pictures, "--trials", 2, "--epochs", 1, "--image-size", 24, "--workers", 2)
    for arguments in ((*asked, "--search", "batch_size=16,32"), ("compare",)):
        done = sweep(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
    collect([tmp_path], "blob-pictures", tmp_path / "kept")
    found = read(tmp_path / "kept")
    (kept,) = found.studies.values()
    assert kept.name == "cnn3"
    assert len(kept.trials) == 2
    studies, runs = runs_of(tmp_path)
    for one in kept.trials:
        # All test scores of the chosen trial are in the run of the study.
        run, prefix = (studies["cnn3"], "test") if one is kept.best else (runs[f"cnn3-{one.number:03d}"], "audit")
        for name in ("accuracy", "auroc"):
            assert one.tested[name] == pytest.approx(run.data.metrics[f"{prefix}/{name}"], abs=1e-9)
            assert one.validated[name] == run.data.metrics[f"val/{name}"]
    assert found.pages["comparison"].startswith("# ")
    # What is copied from other stores later stays beside it; what is copied again takes the place of what was there.
    about = json.loads((tmp_path / "kept" / STUDIES).read_text())
    about["studies"]["earlier"] = about["studies"].pop("cnn3")
    (tmp_path / "kept" / STUDIES).write_text(json.dumps(about))
    rows = pd.read_parquet(tmp_path / "kept" / TRIALS)
    rows.assign(study="earlier").to_parquet(tmp_path / "kept" / TRIALS, index=False)
    for _ in range(2):
        collect([tmp_path], "blob-pictures", tmp_path / "kept")
    both = read(tmp_path / "kept").studies
    assert both.keys() == {"earlier", "cnn3"}
    for study in both.values():
        assert [one.tested for one in study.trials] == [one.tested for one in kept.trials]
