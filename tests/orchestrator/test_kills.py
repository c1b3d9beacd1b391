"""Kill anything at any moment: the same command goes on, and every trial is accounted for once."""

from __future__ import annotations

import shutil
import signal

import optuna
import pytest

from sweep.stores.conversion import attributes_of
from tests.helpers.consistent import consistent
from tests.helpers.faulty import CONCLUDING, RECOVERY, TRAINING, WORKER
from tests.helpers.studies import STUDY, client_of, sweep, tiny

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")


def places_of(how, places):
    """SIGKILL strikes at every place; SIGTERM and SIGINT share one handler, so each place gets one of the two.

    The handler (`sweep.system.signals`) only notes that somebody asked; which of the two it was nobody reads. What
    differs between places is what the loop does with the note, and at each place that is tried once.
    """
    return {"SIGKILL": list(places), "SIGTERM": list(places)[::2], "SIGINT": list(places)[1::2]}[how]


def killed(done, folder, place, how):
    """Asserts that a fault happened and that the process ended as its signal has it; returns what it said."""
    said = f"--- {place}: exit code {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
    assert (folder / "mark").exists(), f"{place} was not reached\n{said}"
    if how == "SIGKILL":
        assert done.returncode == -signal.SIGKILL, said
    else:
        assert done.returncode in (0, 130), said  # 0 where nothing was left to do but to end well
        assert "Traceback" not in done.stderr, said
        for study in optuna.get_all_study_names(f"sqlite:///{folder / 'optuna.db'}"):
            trials = optuna.load_study(study_name=study, storage=f"sqlite:///{folder / 'optuna.db'}").trials
            assert not [trial for trial in trials if trial.state.name == "RUNNING"], said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("how", SIGNALS)
def test_killed_anywhere_in_training_it_goes_on(how, pictures, tmp_path):
    """One study, killed at every place in turn, each time with one trial more to find; checked when it is done."""
    log, wanted, folder = "", 1, tmp_path / "study"
    folder.mkdir()
    for place in places_of(how, ("run created", "run described")):  # of the study's own run, at its very first start
        first = tmp_path / place.split()[1]
        first.mkdir()
        killed(sweep(first, *tiny(pictures, 1), fault=f"{place}:1:{how}", blank_figures=True), first, place, how)
        done = sweep(first, *tiny(pictures, 1), blank_figures=True)
        assert done.returncode == 0, done.stderr
        consistent(first, STUDY, 1)
    for place in (*places_of(how, TRAINING), *places_of(how, RECOVERY)):
        wanted += 1
        if place in RECOVERY:  # something must have been left behind to be recovered
            died = sweep(folder, *tiny(pictures, wanted), fault="epoch received:1:SIGKILL", blank_figures=True)
            log += killed(died, folder, "epoch received", "SIGKILL")
        done = sweep(folder, *tiny(pictures, wanted), fault=f"{place}:1:{how}", blank_figures=True)
        log += killed(done, folder, place, how)
        if place in ("after telling", *RECOVERY):
            done = sweep(folder, *tiny(pictures, wanted), blank_figures=True)
            assert done.returncode == 0, log + done.stderr
            consistent(folder, STUDY, wanted)
    done = sweep(folder, *tiny(pictures, wanted), blank_figures=True)
    assert done.returncode == 0, log + done.stderr
    trials = consistent(folder, STUDY, wanted)
    assert len(trials) > wanted


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """A study that was killed when all was trained and nothing concluded."""
    folder = tmp_path_factory.mktemp("trained")
    done = sweep(folder, *tiny(pictures, 1), fault="trial over:1:SIGKILL", blank_figures=True)
    killed(done, folder, "trial over", "SIGKILL")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("how", SIGNALS)
def test_killed_anywhere_in_its_conclusion_it_registers_once(how, pictures, trained, tmp_path):
    for place in places_of(how, CONCLUDING):
        folder = shutil.copytree(trained, tmp_path / place.replace(" ", "-"))
        done = sweep(folder, *tiny(pictures, 1), fault=f"{place}:1:{how}", blank_figures=True)
        said = killed(done, folder, place, how)
        done = sweep(folder, *tiny(pictures, 1), blank_figures=True)
        assert done.returncode == 0, said + done.stderr
        consistent(folder, STUDY, 1)


@pytest.mark.slow
@pytest.mark.parametrize("how", SIGNALS)
def test_a_worker_killed_anywhere_costs_nothing_but_its_attempt(how, pictures, tmp_path):
    for wanted, place in enumerate(places_of(how, WORKER), 1):
        done = sweep(tmp_path, *tiny(pictures, wanted), fault=f"{place}:1:{how}", blank_figures=True)
        assert done.returncode == 0, f"{place}: {done.stderr}"
        assert (tmp_path / "mark").exists(), f"{place} was not reached"
        trials = consistent(tmp_path, STUDY, wanted)
        failed = [trial for trial in trials if trial.state.name == "FAIL"]
        if how == "SIGKILL" and place != "worker idle":
            assert "worker lost: its process was killed by SIGKILL" in done.stdout
            assert failed[-1].user_attrs["failure"]["cause"] == "worker lost"
            retry = trials[-1].user_attrs
            assert (retry["retry_of"], retry["failures"]) == (failed[-1].number, 1)
            epochs_before = {"worker after a checkpoint": 1, "worker at its end": 2}.get(place, 0)
            assert retry["result"]["resumed_after"] == epochs_before, place
        elif how != "SIGKILL":  # they may reach the whole process group; the orchestrator decides
            assert not failed


@pytest.mark.slow
def test_killed_between_equal_trials_the_first_stays_the_best_and_nothing_is_registered_twice(pictures, tmp_path):
    """Whether a tie goes to the first by number must not depend on which of them this process saw end."""
    assert sweep(tmp_path, *tiny(pictures, 1), blank_figures=True).returncode == 0
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    (first,) = study.trials
    for _ in range(2):
        study.enqueue_trial(first.params, user_attrs={"seed": attributes_of(first)["run"]["params"]["seed"]})

    done = sweep(tmp_path, *tiny(pictures, 3), fault="after telling:1:SIGKILL", blank_figures=True)
    killed(done, tmp_path, "after telling", "SIGKILL")
    done = sweep(tmp_path, *tiny(pictures, 3), blank_figures=True)

    assert done.returncode == 0, done.stderr
    trials = consistent(tmp_path, STUDY, 3)
    assert [trial.value for trial in trials] == [first.value] * 3
    client = client_of(tmp_path)
    (version,) = client.search_model_versions("name = 'blob-pictures'")
    assert version.tags["sweep.trial"] == "0"
    assert client.get_model_version_by_alias("blob-pictures", "cnn3").version == version.version
