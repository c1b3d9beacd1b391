"""`sweep ensemble`: several trained networks as one registered version, chosen by validation alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.faults import InputError
from sweep.comparisons.crossvalidation.run import Searched, _configurations
from sweep.comparisons.ensembles.asked import Asked, asked_of
from sweep.comparisons.ensembles.members import select
from sweep.metrics.ensembles import log_mean
from sweep.metrics.predictions import read_predictions
from sweep.metrics.scores import all_scores
from sweep.orchestrator.run_params import DataDescription, StudyDescription, description_of
from sweep.space import Choice
from sweep.stores import registry
from sweep.stores.attributes import ABOUT
from sweep.stores.mlflow_stores import open_client
from sweep.stores.study import Pruning, Study, open_study
from sweep.stores.trials import EnqueuedTrial
from tests.helpers.consistent import consistent
from tests.helpers.studies import artifacts, client_of, runs_of, scores_of, sweep, tiny, trials_of

MODEL = "blob-pictures"

# Which trials --------------------------------------------------------------------------------------------------------


def test_what_is_typed():
    assert asked_of("top:5") == Asked("top", 5)
    assert asked_of("seeds") == Asked("seeds")
    assert asked_of("folds") == Asked("folds")
    assert str(asked_of("folds:3")) == "folds:3"
    for wrong in ("", "top", "top:", "top:x", "seeds:2", "fold", "top:5 "):
        with pytest.raises(InputError, match=r"^--members .*: write top:5"):
            asked_of(wrong)
    for wrong in ("top:1", "folds:0", "top:101"):
        with pytest.raises(InputError, match="give 2 to 100 members"):
            asked_of(wrong)


@pytest.fixture
def study_of(tmp_path: Path):
    """Makes a study without training: values by activation, and the label of each where it was enqueued."""

    def made(name: str, values: list[tuple[str, float]], label: str | None = None) -> Study:
        space = {"activation": Choice(("relu", "gelu", "silu"))}
        given = {"direction": "maximize", "fingerprint": {}, "seed": 0, "pruning": Pruning("none", 0, 1)}
        study = open_study(f"sqlite:///{tmp_path / 'optuna.db'}", f"x/{name}", space, **given)
        about = StudyDescription(name, "x", "val/auroc", {}, {}, DataDescription("x", "x", {}, "{}"), {})
        study.note(ABOUT, about.to_dict())
        for seed, (activation, value) in enumerate(values):
            study.enqueue([EnqueuedTrial(label or "", {"activation": activation}, seed)])
            asked = study.ask()
            history = [{"epoch": 1, "val/auroc": value}]
            study.note_trial(asked.number, result={"history": history, "best_epoch": 1})
            study.complete(asked.number, value)
        return study

    return made


def test_the_winners_seeds_are_those_of_the_best_trial_that_has_some(study_of):
    search = study_of("cnn1", [("relu", 0.8), ("gelu", 0.9), ("silu", 0.7)])
    found = searched_of(search)
    with pytest.raises(InputError, match=r"was trained with other seeds; `sweep compare --seeds 5` does that"):
        select(found, [search], Asked("seeds"), "fold")
    seeds = study_of("cnn1-000-seeds", [("relu", 0.75), ("relu", 0.85)], "cnn1-000")
    single = study_of("cnn1-001-seeds", [("gelu", 0.75)], "cnn1-001")
    chosen = select(found, [search, seeds], Asked("seeds"), "fold")
    assert [one.name for one in chosen.candidates] == ["cnn1-000-seeds-000", "cnn1-000-seeds-001"]
    assert chosen.chosen == "2 trainings of cnn1-000 with other seeds"
    assert not chosen.of_folds
    with pytest.raises(InputError, match=r"1 trials of x/cnn1-001-seeds are complete"):  # of a better trial
        select(found, [search, seeds, single], Asked("seeds"), "fold")


def test_the_folds_are_those_of_the_configuration_that_they_choose(study_of):
    search = study_of("cnn1", [("relu", 0.8), ("gelu", 0.9)])
    found = searched_of(search)
    with pytest.raises(InputError, match=r"there is no study x/cnn1-fold-1-of-5; `sweep crossvalidate cnn1`"):
        select(found, [search], Asked("folds"), "fold")
    folds = [study_of(f"cnn1-fold-{fold}-of-3", [("relu", 0.6 + fold / 10)], "cnn1-000") for fold in (1, 2, 3)]
    chosen = select(found, [search, *folds], Asked("folds"), "fold")
    assert [(one.name, one.validation) for one in chosen.candidates] == [
        ("cnn1-fold-1-of-3-000", "1/3"),
        ("cnn1-fold-2-of-3-000", "2/3"),
        ("cnn1-fold-3-of-3-000", "3/3"),
    ]
    assert chosen.of_folds
    assert chosen.asked == "folds:3"
    with pytest.raises(InputError, match="no configuration was trained on all 3 folds"):
        select(
            found,
            [search, *folds[:2], study_of("cnn1-other-1-of-4", [("relu", 0.6)], "cnn1-000")],
            Asked("folds"),
            "fold",
        )
    others = [study_of(f"cnn1-fold-{fold}-of-2", [("relu", 0.6)], "cnn1-000") for fold in (1, 2)]
    with pytest.raises(InputError, match="say --members folds:2 or --members folds:3"):
        select(found, [search, *folds, *others], Asked("folds"), "fold")
    assert len(select(found, [search, *folds, *others], Asked("folds", 2), "fold").candidates) == 2


def searched_of(search: Study):
    return Searched(search, description_of(search), _configurations(search))


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a search of two trials."""
    folder = tmp_path_factory.mktemp("finished")
    done = sweep(folder, *tiny(pictures, 2), blank_figures=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def made(finished: Path) -> tuple[Path, dict]:
    """The same with an ensemble of both, and what --json printed."""
    done = sweep(finished, "ensemble", "--members", "top:2", "--flip", "--json", blank_figures=True)
    assert done.returncode == 0, done.stderr
    return finished, json.loads(done.stdout)


def ensembles_of(folder: Path) -> list:
    return [run for run in runs_of(folder)[0].values() if run.data.tags.get("sweep.kind") == "ensemble"]


def fetched(folder: Path, run_id: str, path: str):
    return read_predictions(Path(client_of(folder).download_artifacts(run_id, path)))


def test_the_best_two_become_one_version_with_an_alias_of_its_own(made: tuple[Path, dict], monkeypatch):
    folder, answer = made
    monkeypatch.chdir(folder)  # its places are relative
    client = client_of(folder)
    trials = sorted(trials_of(folder, f"{MODEL}/cnn3"), key=lambda trial: (-trial.value, trial.number))[:2]
    assert list(answer["members"]) == [f"cnn3-{trial.number:03d}" for trial in trials]
    assert list(answer["members"].values()) == [trial.value for trial in trials]
    version = client.get_model_version_by_alias(MODEL, "cnn3-ensemble")
    assert str(version.version) == answer["version"]
    assert client.get_model_version_by_alias(MODEL, "cnn3").run_id != version.run_id
    assert {"sweep.arch": "cnn3-ensemble", "sweep.members": "top:2, flip"}.items() <= version.tags.items()
    (run,) = ensembles_of(folder)
    assert (run.info.run_id, run.info.status, run.data.tags["sweep.state"]) == (version.run_id, "FINISHED", "COMPLETE")
    assert "mlflow.parentRunId" not in run.data.tags
    scores = scores_of(client, version)
    assert {name: scores[name] for name in answer["test"]} == pytest.approx(answer["test"])
    tested = fetched(folder, run.info.run_id, "predictions/test.csv")
    likely = tested.probabilities(answer["temperature"])
    assert answer["test"]["test/auroc"] == pytest.approx(all_scores(tested.labels, likely)["auroc"])
    assert "An answer costs 4 times that of one network" in version.description
    assert consistent(folder, f"{MODEL}/cnn3", 2)


def test_what_is_registered_is_the_mean_of_the_members_of_the_images_and_their_mirror_images(
    made: tuple[Path, dict], monkeypatch
):
    folder, answer = made
    monkeypatch.chdir(folder)
    client = open_client(f"sqlite:///{folder}/mlflow.db")
    classifier = registry.load(client, registry.find_version(client, f"{MODEL}@cnn3-ensemble"))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 24), dtype=np.uint8)
    members = classifier.member_probabilities(pixels)
    mirrored = classifier.member_probabilities(np.ascontiguousarray(pixels[:, :, ::-1]))
    np.testing.assert_allclose(members, mirrored, atol=1e-6)  # the mean of both views is the same either way
    np.testing.assert_array_equal(classifier.logits(pixels), log_mean(members))
    table = classifier.classify(pixels)
    np.testing.assert_allclose(table["disagreement"], members[:, :, 1].std(axis=0), atol=1e-6)
    assert [member["name"] for member in classifier.about["members"]] == list(answer["members"])


def test_made_again_nothing_changes(made: tuple[Path, dict]):
    folder, answer = made
    before = [(run.data.metrics, run.data.tags, run.info.end_time) for run in ensembles_of(folder)]
    done = sweep(folder, "ensemble", "cnn3", "--members", "top:2", "--flip", "--json", blank_figures=True)
    again = json.loads(done.stdout)
    assert again["aliases"].pop("cnn3-ensemble") == f"version {answer['version']} holds it"
    kept = {name: value for name, value in answer.items() if name != "aliases"}
    assert {name: value for name, value in again.items() if name != "aliases"} == kept
    assert [(run.data.metrics, run.data.tags, run.info.end_time) for run in ensembles_of(folder)] == before


def test_evaluate_predict_promote_and_doctor_take_it(made: tuple[Path, dict], pictures: Path, typed, tmp_path: Path):
    folder, answer = made
    code, out, err = typed(folder, "evaluate", f"{MODEL}@cnn3-ensemble", "--json")
    assert code == 0, err
    served = {row["score"]: row["value"] for row in json.loads(out)["scores"]}
    assert served["auroc"] == pytest.approx(answer["test"]["test/auroc"], abs=1e-6)
    code, out, err = typed(
        folder, "predict", f"{MODEL}@cnn3-ensemble", pictures / "test" / "NORMAL", "--heatmap", tmp_path
    )
    assert code == 0, err
    assert "disagreement: standard deviation of the probabilities of its members, 2 networks" in " ".join(out.split())
    assert len(list(tmp_path.iterdir())) == 32
    for arch in ("cnn3", "cnn1"):  # whether a version holds it or not
        code, out, err = typed(folder, "promote", f"{MODEL}@cnn3-ensemble", "--as", arch, "--force")
        assert code == 2
        assert f"that alias is for networks of {arch}" in err
    code, out, err = typed(folder, "promote", f"{MODEL}@cnn3-ensemble", "--as", "trial-run", "--json")
    assert (code, json.loads(out)["moves"]) == (0, True)
    code, out, err = typed(folder, "doctor", "--json")
    assert (code, json.loads(out)["mended"]) == (0, [])
    code, out, err = typed(folder, "replay", answer["run_id"])
    assert code == 2
    assert "is not a trial's" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--members", "best"), "--members best: write top:5"),
        (("--members", "top:9"), "--members top:9: blob-pictures/cnn3 has 2 complete configurations"),
        (("--members", "seeds"), "no configuration of blob-pictures/cnn3 was trained with other seeds"),
        (("cnn9",), "cnn9: there is no such study with a search; there are: blob-pictures/cnn3"),
        (("--members", "top:2", "--tracking-uri", "sqlite:///no.db"), "no.db: there is no such file"),
        (("--members", "top:2"), "MLflow keeps no checkpoint of it"),
    ],
    ids=["members", "few", "seeds", "study", "store", "checkpoint"],
)
def test_what_cannot_be_made_is_said_and_changes_nothing(finished: Path, arguments, said: str, typed, tmp_path: Path):
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    worst = min(trials_of(work, f"{MODEL}/cnn3"), key=lambda trial: trial.value)
    (run,) = [run for name, run in runs_of(work)[1].items() if name == f"cnn3-{worst.number:03d}"]
    (file,) = work.glob(f"mlruns/*/{run.info.run_id}/artifacts/checkpoint/best.safetensors")
    file.unlink()
    before = sorted(runs_of(work)[0]), len(client_of(work).search_model_versions(f"name = '{MODEL}'"))
    code, out, err = typed(work, "ensemble", *arguments)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split()), err
    assert "Traceback" not in err
    assert (sorted(runs_of(work)[0]), len(client_of(work).search_model_versions(f"name = '{MODEL}'"))) == before


@pytest.mark.slow
@pytest.mark.parametrize("place", ["run created:1", "files logged:1", "model filled:1", "decision logged:1"])
def test_killed_anywhere_the_same_command_goes_on(finished: Path, tmp_path: Path, place: str):
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    versions = {version.version for version in client_of(work).search_model_versions(f"name = '{MODEL}'")}
    command = ("ensemble", "--members", "top:2", "--json")
    killed = sweep(work, *command, fault=f"{place}:SIGKILL", blank_figures=True)
    assert killed.returncode == -9
    assert (work / "mark").exists()
    mended = json.loads(sweep(work, "doctor", "--json").stdout)["mended"]
    assert [line for line in mended if re.match(r"ensemble-cnn3-top-2: its run had not ended; ended", line)]
    done = sweep(work, *command, blank_figures=True)
    assert done.returncode == 0, done.stderr
    (run,) = [run for run in ensembles_of(work) if run.info.run_name == "ensemble-cnn3-top-2"]
    assert (run.info.status, run.data.tags["sweep.state"]) == ("FINISHED", "COMPLETE")
    after = client_of(work).search_model_versions(f"name = '{MODEL}'")
    (new,) = [version for version in after if version.version not in versions]
    assert new.run_id == run.info.run_id
    assert {"predictions/validation.csv", "predictions/test.csv", "promotions.jsonl"} <= set(
        artifacts(client_of(work), run.info.run_id)
    )


@pytest.mark.slow
def test_the_seeds_of_the_winner_and_the_folds_become_ensembles_and_compare_goes_on(finished: Path, tmp_path: Path):
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    for command in (
        ("compare", "--seeds", 2),
        ("crossvalidate", "--folds", 2, "--top", 1, "--workers", 1),
        ("ensemble", "--members", "seeds"),
        ("promote", f"{MODEL}@cnn3-ensemble", "--as", "champion", "--force"),
    ):
        done = sweep(work, *command)
        assert done.returncode == 0, done.stderr
    done = sweep(work, "ensemble", "--members", "folds", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["out_of_fold"]
    assert all("-fold-" in name for name in answer["members"])
    validation = fetched(work, answer["run_id"], "predictions/validation.csv")
    assert len(set(validation.images)) == len(validation.images) == 160  # each training image, once
    version = client_of(work).get_model_version_by_alias(MODEL, "champion")
    compared = json.loads(sweep(work, "compare", "--json").stdout)
    assert f"the champion is an ensemble (version {version.version}, cnn3-ensemble of " in " ".join(compared["notes"])
