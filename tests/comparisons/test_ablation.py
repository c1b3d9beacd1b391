"""`sweep ablate`: one configuration and its changes, all with the same seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.faults import InputError
from sweep.comparisons.ablation.analysis import Variant, effects, verdict
from sweep.comparisons.ablation.run import BASE, Change, changes_of, plan_of_changes
from sweep.comparisons.seed_result import SeedResult
from sweep.metrics.bootstrap import Interval
from sweep.metrics.predictions import Predictions
from sweep.plan import make_plan
from sweep.settings import Settings
from sweep.space import FIVE, Choice
from tests.helpers.studies import client_of, runs_of, states, sweep, trials_of

CONFIGURATION = ("activation=relu", "optimizer=adam", "learning_rate=0.001", "batch_size=32", "dropout=0.2")
FIXED = tuple(f"--fix={text}" for text in CONFIGURATION)
CHANGE = "pooling=average+averaging=ema"

# What is asked for ---------------------------------------------------------------------------------------------------


def test_changes_are_read_as_they_are_written_several_at_once_too():
    assert changes_of("cnn3", ["augmentation=both+label_smoothing=0.1", "batch_size=16"]) == (
        Change("augmentation=both+label_smoothing=0.1", {"augmentation": "both", "label_smoothing": 0.1}),
        Change("batch_size=16", {"batch_size": 16}),
    )
    assert changes_of("cnn3", []) == ()


def test_all_that_is_wrong_with_changes_is_said_at_once():
    with pytest.raises(InputError) as caught:
        changes_of("cnn3", ["dropout=0.1", "colour=red", "schedule=step+pooling=max", "dropout=0.1", "pooling"])
    said = list(caught.value.faults)
    assert [fault.partition(":")[0] for fault in said] == [
        "--change", "--change colour=red", "--change schedule=step", "--change pooling=max", "--change pooling",
    ]  # fmt: skip
    for fault, reason in zip(said, ("given twice", "no hyperparameter", "'step'", "'max'", "=VALUE"), strict=True):
        assert reason in fault
    with pytest.raises(InputError, match="pooling is given twice"):
        changes_of("cnn3", ["pooling=average+pooling=own"])


def test_a_change_that_is_none_or_has_too_large_batches_is_refused(pictures):
    def said(*changes):
        with pytest.raises(InputError) as caught:
            planned(pictures, *CONFIGURATION, changes=changes)
        return list(caught.value.faults)

    assert said("pooling=own", "averaging=ema+pooling=average", "pooling=average+averaging=ema", "batch_size=9999") == [
        "--change pooling=own: that is the configuration itself",
        "--change pooling=average+averaging=ema: that is averaging=ema+pooling=average",
        "--change batch_size=9999: the training set has 136 images",
    ]
    assert changes_of("cnn3", ["learning_rate=1e+0"])[0].params == {"learning_rate": 1.0}


# What comes of it ----------------------------------------------------------------------------------------------------


def variant(label, losses, gaps):
    """An variant with a seed for each validation loss, whose logits of four test images differ by `gaps`."""
    logits = np.stack([np.zeros(4), np.array(gaps, dtype=float)], axis=1)
    said = Predictions(list("abcd"), list("abcd"), np.array([0, 0, 1, 1]), logits, ("NORMAL", "PNEUMONIA"))
    return Variant(label, tuple(SeedResult(seed, 3, {"loss": loss}, said) for seed, loss in enumerate(losses)))


RIGHT, WRONG = (-1, -1, 1, 1), (1, 1, -1, -1)


def test_a_change_pays_if_validation_says_so_beyond_chance_and_test_does_not_object():
    base = variant(BASE, [0.50, 0.60, 0.55], RIGHT)
    better, worse = [0.40, 0.49, 0.46], [0.60, 0.71, 0.66]
    found = effects(
        [base, variant("good", better, RIGHT), variant("bad", worse, RIGHT), variant("noise", [0.9, 0.1, 0.6], RIGHT)],
        "loss",
        -1,
    )
    assert [effect.verdict for effect in found] == ["pays", "harms", "undecided"]
    good = found[0]
    assert good.chosen.value == pytest.approx(0.1)
    assert good.loss.value == pytest.approx(-0.1)
    assert 0 < good.chosen.low < 0.1 < good.chosen.high
    # Seeds are paired, not pooled: the same losses in another order say nothing.
    assert effects([base, variant("shuffled", better[::-1], RIGHT)], "loss", -1)[0].verdict == "undecided"
    assert effects([base, variant("nobody", [], RIGHT)], "loss", -1) == []


def test_test_can_only_object():
    gain = Interval(0.1, 0.05, 0.15)
    assert verdict(gain, [Interval(-0.1, -0.2, 0.01)]) == "pays"
    assert verdict(gain, [Interval(0.1, 0.0, 0.2), Interval(-0.1, -0.2, -0.01)]) == "validation only"
    assert verdict(Interval(-0.1, -0.2, 0.1), [Interval(0.3, 0.2, 0.4)]) == "undecided"
    assert verdict(Interval(-0.1, -0.2, -0.01), [Interval(0.3, 0.2, 0.4)]) == "harms"


def planned(pictures, *fix, seeds=3, changes=(CHANGE, "schedule=cosine"), **settings):
    """The one study of an ablation."""
    asked = Settings(("cnn3",), trials=seeds, data=pictures, image_size=24, workers=1, fix=fix, **settings)
    plan = plan_of_changes(make_plan(asked, fetch=False), changes_of("cnn3", changes), seeds, "ablation")
    (study,) = plan.studies
    return study


def test_every_change_is_trained_with_the_same_seeds_each_once_before_any_twice(pictures):
    study = planned(pictures, *CONFIGURATION)
    labels, seeds = [BASE, CHANGE, "schedule=cosine"], [trial.seed for trial in study.enqueued[::3]]
    assert len(set(seeds)) == 3
    assert [(trial.label, trial.seed) for trial in study.enqueued] == [
        (label, seed) for seed in seeds for label in labels
    ]
    assert study.trials == 9
    assert study.name == "cnn3-ablation"
    # More seeds go on from there, and another --seed has others.
    assert planned(pictures, *CONFIGURATION, seeds=4).enqueued[:9] == study.enqueued
    assert not {trial.seed for trial in planned(pictures, *CONFIGURATION, seed=1).enqueued} & set(seeds)


def test_a_trial_says_every_value_that_differs_anywhere_and_what_was_fixed(pictures):
    study = planned(pictures, *CONFIGURATION, "normalisation=image")
    base, both, cosine = (trial.params for trial in study.enqueued[:3])
    assert base == {
        "activation": "relu",
        "optimizer": "adam",
        "learning_rate": 0.001,
        "batch_size": 32,
        "dropout": 0.2,
        "normalisation": "image",
        "pooling": "own",
        "averaging": "none",
        "schedule": "constant",
    }
    assert both == {**base, "pooling": "average", "averaging": "ema"}
    assert cosine == {**base, "schedule": "cosine"}
    assert study.space == {
        **{name: Choice((value,)) for name, value in base.items()},
        "pooling": Choice(("own", "average")),
        "averaging": Choice(("none", "ema")),
        "schedule": Choice(("constant", "cosine")),
    }


def test_a_hyperparameter_of_a_search_can_be_changed_too(pictures):
    study = planned(pictures, *CONFIGURATION, changes=["dropout=0.5"])
    assert [trial.params["dropout"] for trial in study.enqueued] == [0.2, 0.5] * 3
    assert study.space.keys() == set(FIVE)


def test_a_base_that_leaves_a_choice_is_refused(pictures):
    with pytest.raises(InputError, match="fix learning_rate, dropout too, such as --fix learning_rate="):
        planned(pictures, "activation=relu", "batch_size=32", "optimizer=adam")
    with pytest.raises(InputError, match="fix activation too, such as --fix activation=relu"):
        planned(pictures, *CONFIGURATION[1:])


# The command ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--arch", "vgg", *FIXED), "--arch vgg: there is no such architecture"),
        (("--arch", "cnn3", *FIXED, "--seeds", "1"), "--seeds 1: give 2 or more"),
        (("--arch", "cnn3", *FIXED, "--study", "a/b"), "--study 'a/b': use letters"),
        (("--arch", "cnn3", *FIXED, "--change", "colour=red"), "--change colour=red: there is no hyperparameter"),
        (("--arch", "cnn3", *FIXED, "--fix", "pooling=max"), "--fix pooling=max: 'max' is none of own, average"),
        (("--arch", "cnn3", *FIXED[1:]), "--fix: an ablation changes one configuration; fix activation too"),
        (("--arch", "cnn3"), "--fix"),
    ],
    ids=["architecture", "one seed", "name", "change", "value", "incomplete", "nothing fixed"],
)
def test_bad_input_gets_one_message_and_exit_2_and_changes_nothing(typed, tmp_path, arguments, said):
    code, out, err = typed(tmp_path, "ablate", "--change", "pooling=average", *arguments)
    assert code == 2
    assert said in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_from_a_command_to_stores_and_back(tmp_path):
    """Trials, labels and runs; typed again nothing is trained; a run with levers replays, every number equal."""
    arguments = ("--arch", "cnn3", "--image-size", 24, "--epochs", 2, "--limit", 200, "--workers", 2, *FIXED)
    command = ("ablate", *arguments, "--change", CHANGE, "--seeds", 2)
    done = sweep(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    trials = trials_of(tmp_path, "synthetic/cnn3-ablation")
    assert states(trials) == {"COMPLETE": 4}
    assert sorted(trial.user_attrs["label"] for trial in trials) == sorted([BASE, CHANGE] * 2)
    seeds = {
        label: {trial.user_attrs["seed"] for trial in trials if trial.user_attrs["label"] == label}
        for label in (BASE, CHANGE)
    }
    assert seeds[BASE] == seeds[CHANGE]
    assert len(seeds[BASE]) == 2
    runs = runs_of(tmp_path, "synthetic")[1]
    for trial in trials:
        run, changed = runs[f"cnn3-ablation-{trial.number:03d}"], trial.user_attrs["label"] == CHANGE
        assert run.data.tags["sweep.label"] == trial.user_attrs["label"]
        levers = {name: run.data.params[name] for name in ("pooling", "averaging")}
        assert levers == (
            {"pooling": "average", "averaging": "ema"} if changed else {"pooling": "own", "averaging": "none"}
        )
        assert "audit/auroc" in run.data.metrics

    again = sweep(tmp_path, *command, "--json")
    assert again.returncode == 0, again.stderr
    answer = json.loads(again.stdout)
    assert [line["change"] for line in answer["changes"]] == [BASE, CHANGE]
    for line in answer["changes"]:
        label = line["change"]
        known = [trial.value for trial in trials if trial.user_attrs["label"] == label]
        assert line["validation"] == pytest.approx(sum(known) / 2)
    logged = client_of(tmp_path).get_run(answer["run_id"])
    assert logged.data.tags["sweep.kind"] == "ablation"
    assert logged.data.metrics["as_it_is/validation"] == pytest.approx(answer["changes"][0]["validation"])
    assert CHANGE in Path(answer["report"]).read_text()
    before = [(trial.number, trial.datetime_complete) for trial in trials]
    after = [(trial.number, trial.datetime_complete) for trial in trials_of(tmp_path, "synthetic/cnn3-ablation")]
    assert after == before
    assert runs_of(tmp_path, "synthetic")[1].keys() == runs.keys()

    changed = next(run for run in runs.values() if run.data.tags["sweep.label"] == CHANGE)
    replayed = sweep(tmp_path, "replay", changed.info.run_id)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
