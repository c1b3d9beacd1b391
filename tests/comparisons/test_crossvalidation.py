"""`sweep crossvalidate`: a search's best trials, each trained on every fold of patients."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from data.faults import InputError
from sweep.comparisons.crossvalidation.analysis import Finalist, choose, gap, rows, sentences, to_markdown
from sweep.comparisons.crossvalidation.run import _configurations, command_of, plans_of_folds
from sweep.comparisons.crossvalidation.run import searched as find
from sweep.comparisons.seed_result import SeedResult
from sweep.metrics.predictions import Predictions
from sweep.metrics.significance import paired_gap
from sweep.orchestrator.run_params import DataDescription, StudyDescription
from sweep.space import Choice
from sweep.stores.attributes import ABOUT
from sweep.stores.conversion import attributes_of
from sweep.stores.study import Pruning, open_study, stored_studies
from sweep.stores.trials import EnqueuedTrial
from tests.helpers.studies import client_of, runs_of, states, sweep, trials_of

# What comes of it ----------------------------------------------------------------------------------------------------


def finalist(name, scores, *, value=0.9, right=None):
    """A finalist with a fold for each score; None is a fold where its training came to nothing."""
    test = None
    if right is not None:
        logits = np.stack([np.zeros(4), np.array([-1, -1, 1, 1 if right else -1.0])], axis=1)
        test = Predictions(list("abcd"), list("abcd"), np.array([0, 0, 1, 1]), logits, ("NORMAL", "PNEUMONIA"))
    folds = {
        number: SeedResult(0, 3, {"auroc": score}, test) for number, score in enumerate(scores, 1) if score is not None
    }
    return Finalist(name, value, folds)


OWN = finalist("cnn1-003", [0.90, 0.92, 0.91])
BETTER = finalist("cnn1-001", [0.94, 0.965, 0.95])


def test_the_mean_over_folds_chooses_and_its_interval_knows_that_folds_overlap():
    found = choose([OWN, BETTER, finalist("cnn1-002", [0.99, 0.50, 0.99])], "auroc", 1, 3)
    assert found.finalist is BETTER
    assert found.alone == {"cnn1-002": 2, "cnn1-001": 1}
    differences = [0.04, 0.045, 0.04]
    assert found.gain.value == pytest.approx(np.mean(differences))
    found, plain = gap(BETTER, OWN, "auroc", 1, 3), paired_gap(differences)
    reach = found.high - found.value
    # Nadeau and Bengio: the variance of a mean of k is s2 (1/k + validation/training) and not s2/k.
    assert reach / (plain.high - plain.value) == pytest.approx(np.sqrt((1 / 3 + 1 / 2) / (1 / 3)))
    assert reach == pytest.approx(4.302653 * np.std(differences, ddof=1) * np.sqrt(1 / 3 + 1 / 2), rel=1e-6)


def test_whoever_is_ahead_of_several_must_be_further_ahead():
    rivals = [finalist(f"cnn1-{number:03d}", [0.80, 0.81, 0.79]) for number in (7, 8, 9)]
    few, many = choose([OWN, BETTER], "auroc", 1, 3), choose([OWN, BETTER, *rivals], "auroc", 1, 3)
    assert few.finalist is many.finalist is BETTER
    assert many.gain.value == few.gain.value
    # Bonferroni: the t of 1 - 0.025 / 4 with two degrees of freedom, and of 0.975.
    assert (many.gain.high - many.gain.value) / (few.gain.high - few.gain.value) == pytest.approx(
        8.860 / 4.303, rel=1e-3
    )


def test_where_the_studys_own_choice_missed_a_fold_nothing_is_said_of_a_gain():
    for scores in ([0.99, None, 0.99], [None, None, None]):
        found = choose([finalist("cnn1-003", scores), BETTER], "auroc", 1, 3)
        assert found.finalist is BETTER
        assert not found.own
        assert found.gain is None
        assert sentences(found, "cnn1-003", "validation AUROC", 3)[0] == (
            "Over 3 folds cnn1-001 is ahead; cnn1-003, the study's own choice, was not trained on all of them."
        )


def test_the_studys_own_choice_can_stay_ahead_and_less_can_be_better():
    found = choose([BETTER, OWN], "auroc", 1, 3)
    assert found.finalist is BETTER
    assert found.own
    assert found.gain is None
    assert "the study's own choice, is ahead" in sentences(found, "cnn1-001", "validation AUROC", 3)[0]
    lowest = choose([BETTER, OWN], "auroc", -1, 3)
    assert lowest.finalist is OWN
    assert lowest.gain.value > 0


def test_who_was_not_trained_on_every_fold_is_shown_and_not_chosen():
    short = finalist("cnn1-009", [0.99, None, 0.99])
    assert choose([OWN, short], "auroc", 1, 3).finalist is OWN
    assert gap(short, OWN, "auroc", 1, 3).value == pytest.approx(0.085)
    assert choose([short], "auroc", 1, 3) is None
    assert "none is chosen" in sentences(None, "cnn1-009", "validation AUROC", 3)[0]
    lines = rows([OWN, short, finalist("cnn1-010", [None] * 3)], "auroc", 1, 3)
    assert [(line["trial"], line["folds"]) for line in lines] == [("cnn1-003", 3), ("cnn1-009", 2), ("cnn1-010", 0)]
    assert "none ended" in to_markdown(lines, ["x"])


def test_it_says_whether_the_gain_is_chance():
    beyond = choose([OWN, BETTER], "auroc", 1, 3)
    assert sentences(beyond, "cnn1-003", "validation AUROC", 3)[0].endswith(": significant.")
    within = choose([OWN, finalist("cnn1-001", [0.99, 0.90, 0.91])], "auroc", 1, 3)
    assert sentences(within, "cnn1-003", "validation AUROC", 3)[0].endswith(": not significant.")
    once = choose([finalist("a", [0.9, 0.9]), finalist("b", [0.95, 0.95])], "auroc", 1, 2)  # no spread tells nothing
    assert sentences(once, "a", "validation AUROC", 2)[0].endswith("by +0.0500: not significant.")


def test_test_scores_are_shown_where_the_test_set_was_opened():
    closed = to_markdown(rows([OWN], "auroc", 1, 3), ["Nothing."])
    assert "test" not in closed
    opened = rows([finalist("a", [0.9, 0.8], right=True), finalist("b", [0.7, 0.6], right=False)], "auroc", 1, 2)
    assert [line["test_accuracy"] for line in opened] == [1.0, 0.75]
    assert "| test accuracy" in to_markdown(opened, ["Nothing."])


# The command ---------------------------------------------------------------------------------------------------------

SEARCH = ("--arch", "cnn3", "--image-size", 24, "--epochs", 2, "--limit", 200, "--workers", 2)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A directory with a search of three trials."""
    folder = tmp_path_factory.mktemp("searched")
    done = sweep(folder, *SEARCH, "--trials", 3, "--pruner", "none", "--search", "batch_size=16,32")
    assert done.returncode == 0, done.stderr
    return folder


def test_from_a_search_to_a_choice_and_back(searched):
    """Each fold is an ordinary study; typed again nothing is trained; its choice can be trained and registered."""
    command = ("crossvalidate", "--folds", 2, "--top", 2, "--workers", 2)
    before = client_of(searched).search_model_versions("name = 'synthetic'")
    done = sweep(searched, *command)
    assert done.returncode == 0, done.stderr
    search = sorted(trials_of(searched, "synthetic/cnn3"), key=lambda trial: -trial.value)
    names = [f"cnn3-{trial.number:03d}" for trial in search]
    kept = {}
    for fold in (1, 2):
        trials = trials_of(searched, f"synthetic/cnn3-fold-{fold}-of-2")
        assert states(trials) == {"COMPLETE": 2}
        assert {trial.user_attrs["label"] for trial in trials} == set(names[:2])
        (seed,) = {trial.user_attrs["seed"] for trial in trials}
        params = {trial.user_attrs["label"]: trial.params for trial in trials}
        assert params == {name: trial.params for name, trial in zip(names[:2], search, strict=False)}
        assert {attributes_of(trial)["run"]["params"]["validation"] for trial in trials} == {f"{fold}/2"}
        kept[fold] = (seed, {trial.user_attrs["label"]: trial.value for trial in trials})
    assert len({seed for seed, _ in kept.values()}) == 2
    runs = runs_of(searched, "synthetic")[1]
    folds = [run for name, run in runs.items() if "-fold-" in name]
    assert len(folds) == 4
    assert not any(name.startswith(("test/", "served_test_", "audit/")) for run in folds for name in run.data.metrics)
    assert client_of(searched).search_model_versions("name = 'synthetic'") == before

    again = sweep(searched, *command, "--audit", "--json")
    assert again.returncode == 0, again.stderr
    answer = json.loads(again.stdout)
    means = {name: np.mean([values[name] for _, values in kept.values()]) for name in names[:2]}
    assert answer["choice"] == max(means, key=means.__getitem__)
    assert {line["trial"]: line["mean"] for line in answer["finalists"]} == pytest.approx(means)
    assert all(0 <= line["test_accuracy"] <= 1 for line in answer["finalists"])
    assert (answer["command"] is None) == (answer["choice"] == names[0])
    assert answer["choice"] in Path(answer["report"]).read_text()
    logged = client_of(searched).get_run(answer["run_id"])
    assert logged.data.params["choice"] == answer["choice"]
    assert logged.data.metrics[f"{names[0]}/auroc"] == pytest.approx(means[names[0]])
    assert runs_of(searched, "synthetic")[1].keys() == runs.keys(), "something was trained again"


@pytest.mark.slow
def test_more_finalists_follow_and_a_fold_is_trained_again_to_the_same_numbers(searched):
    command = ("crossvalidate", "cnn3", "--folds", 3, "--study", "later", "--workers", 2)
    done = sweep(searched, *command, "--top", 2)
    assert done.returncode == 0, done.stderr
    runs = runs_of(searched, "synthetic")[1]
    replayed = sweep(searched, "replay", runs["cnn3-later-2-of-3-001"].info.run_id)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    # The search goes on, and so do the folds, with those that are its best now.
    grown = sweep(searched, *SEARCH, "--trials", 5, "--pruner", "none", "--search", "batch_size=16,32")
    assert grown.returncode == 0, grown.stderr
    more = sweep(searched, *command, "--top", 3, "--json")
    assert more.returncode == 0, more.stderr
    best = sorted(trials_of(searched, "synthetic/cnn3"), key=lambda trial: -trial.value)[:3]
    answer = json.loads(more.stdout)
    assert {line["trial"] for line in answer["finalists"]} == {f"cnn3-{trial.number:03d}" for trial in best}
    assert all(line["folds"] == 3 for line in answer["finalists"])


@pytest.mark.slow
def test_the_command_that_it_names_trains_what_it_chose_as_the_search_did(tmp_path, pictures):
    asked = ("--arch", "cnn3", "--image-size", 24, "--epochs", 2, "--workers", 2, "--fix", "batch_size=64")
    other = ("--split-seed", 3, "--limit", 100, "--metric", "val/loss", "--patient-pattern", r"(person\d+|IM-\d+)")
    done = sweep(tmp_path, *asked, *other, "--data", pictures, "--trials", 3, "--pruner", "none")
    assert done.returncode == 0, done.stderr
    found = searched_in(tmp_path, "cnn3")
    last = found.complete[-1]
    machine = {"tracking_uri": None, "storage": None, "workers": 2}
    whole, folds = plans_of_folds(found, [], None, 5, 3, "fold", machine)
    assert len(folds) == 5
    with pytest.raises(InputError, match=r"^--folds 2: cnn3-00\d has batches of 64, and \d\d images train"):
        plans_of_folds(found, [], None, 2, 3, "fold", machine)
    arguments = shlex.split(command_of(found, whole, found.run_name(last)))
    assert arguments[:3] == ["python", "-m", "sweep"]
    done = sweep(tmp_path, *arguments[3:])
    assert done.returncode == 0, done.stderr
    (trial,) = trials_of(tmp_path, "blob-pictures/cnn3-chosen")
    assert trial.params == last.params
    ours, theirs = (one["run"]["params"] for one in (attributes_of(trial), last.attributes))
    assert {key: value for key, value in ours.items() if key != "seed"} == {
        key: value for key, value in theirs.items() if key != "seed"
    }
    assert (
        attributes_of(trial)["run"]["tags"]["sweep.split_digest"]
        == last.attributes["run"]["tags"]["sweep.split_digest"]
    )
    # It was trained once and is no search; the one that is need not be named.
    assert searched_in(tmp_path, None).study.name == "blob-pictures/cnn3"


def searched_in(folder, name):
    return find(stored_studies(f"sqlite:///{folder / 'optuna.db'}"), name)


def test_of_trials_with_the_same_hyperparameters_the_best_alone_is_a_finalist(tmp_path):
    space = {"activation": Choice(("relu", "gelu", "silu")), "dropout": Choice((0.0,))}
    given = {"direction": "maximize", "fingerprint": {}, "seed": 0, "pruning": Pruning("none", 0, 1)}
    study = open_study(f"sqlite:///{tmp_path / 'optuna.db'}", "x/cnn1", space, **given)
    data = DataDescription("x", "x", {}, "{}")
    study.note(ABOUT, StudyDescription("cnn1", "x", "val/auroc", {}, {}, data, {}).to_dict())
    worth = [("relu", 0.90), ("gelu", 0.93), ("relu", 0.95), ("silu", 0.80), ("gelu", 0.91)]
    study.enqueue(EnqueuedTrial("", {"activation": name, "dropout": 0.0}, seed) for seed, (name, _) in enumerate(worth))
    for _, value in worth:
        study.complete(study.ask().number, value)
    assert study.space() == space
    values = [trial.value for trial in _configurations(study)]
    assert values == [0.95, 0.93, 0.80]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--folds", "1", "--top", "0"), "--folds 1: give 2 to 100 error: --top 0: give 1 or more"),
        (("--study", "a/b"), "--study 'a/b': use letters"),
        (("cnn7",), "cnn7: there is no such study with a search; there are: synthetic/cnn3"),
        (("cnn3", "--folds", "99"), "--folds 99: class NORMAL has only"),
        (
            ("cnn3", "--data", "nowhere"),
            "--data nowhere: the study learned from the built-in synthetic images; leave --data out",
        ),
    ],
    ids=["counts", "name", "study", "patients", "data"],
)
def test_bad_input_gets_one_message_and_exit_2_and_changes_nothing(typed, searched, arguments, said):
    before = [trial.number for trial in trials_of(searched, "synthetic/cnn3")], len(runs_of(searched, "synthetic")[1])
    code, out, err = typed(searched, "crossvalidate", *arguments)
    assert code == 2
    assert said in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""
    after = [trial.number for trial in trials_of(searched, "synthetic/cnn3")], len(runs_of(searched, "synthetic")[1])
    assert after == before


def test_where_nothing_was_searched_it_says_so(typed, tmp_path):
    code, _, err = typed(tmp_path, "crossvalidate")
    assert code == 2
    assert "optuna.db: there is no such file" in err
    assert not list(tmp_path.iterdir())
