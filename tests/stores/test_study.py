"""The study in Optuna's own store."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from dataclasses import replace

import matplotlib as mpl
import optuna
import pytest

from data.faults import InputError
from sweep.space import SPACES, study_space
from sweep.stores.attributes import OWNER
from sweep.stores.databases import open_whole
from sweep.stores.fingerprint import WEIGHTS_DIGEST, check_fingerprint
from sweep.stores.study import Pruning, open_study
from sweep.stores.trials import EnqueuedTrial, TrialCounts
from sweep.system.errors import StudyFailedError
from sweep.system.processes import myself, start_time


def test_a_retry_has_the_parameters_and_the_seed_of_the_first_attempt(open_it):
    study = open_it()
    first = study.ask()
    study.note_trial(first.number, run={"params": {"seed": 17}})
    for _ in range(2):  # killed after the first time, the next start tries again
        assert study.retry(first.number, failures=1, micro_batch=16)
    study.fail(first.number)
    again = study.ask()
    assert (again.params, again.seed, again.retry_of) == (first.params, 17, 0)
    assert (again.origin, again.failures, again.micro_batch) == (0, 1, 16)
    study.retry(again.number)
    study.fail(again.number)
    third = study.ask()
    assert (third.params, third.seed, third.retry_of) == (first.params, 17, 1)
    assert (third.origin, third.failures, third.micro_batch) == (0, 1, 16)
    assert len(study.trials()) == 3


def test_a_retry_that_ended_before_it_got_its_parameters_is_still_the_same(open_it):
    study = open_it()
    first = study.ask()
    study.retry(first.number)
    study.fail(first.number)
    popped = study._study.ask()  # as a process killed between taking a trial from the queue and its parameters
    assert popped.params == {}
    later = open_it()
    assert later.retry(popped.number)
    later.fail(popped.number)
    assert later.ask().params == first.params


def test_a_trial_cut_short_among_its_hyperparameters_keeps_those_it_had(open_it):
    study = open_it()
    name, choices = next(iter(study._distributions.items()))
    cut = study._study.ask({name: choices})  # Optuna writes them down one by one
    later = open_it()
    assert later.retry(cut.number)
    later.fail(cut.number)
    again = later.ask()
    assert again.params.keys() == study._distributions.keys()
    assert cut.params.items() <= again.params.items()
    assert again.retry_of == cut.number


def test_given_trials_are_asked_once_each_and_keep_what_they_were_given(open_it):
    params = {
        "activation": "sigmoid",
        "optimizer": "adagrad",
        "learning_rate": 0.001,
        "batch_size": 128,
        "dropout": 0.0,
    }
    enqueued = [
        EnqueuedTrial("row 1", params, 7),
        EnqueuedTrial("row 2", {**params, "batch_size": 64}, 8, patience=0),
        EnqueuedTrial("row 1", params, 9),
    ]
    study = open_it()
    for _ in range(2):  # the same command typed again
        study.enqueue(enqueued)
    asked = [study.ask() for _ in enqueued]
    assert [(trial.label, trial.seed, trial.patience) for trial in asked] == [
        ("row 1", 7, None),
        ("row 2", 8, 0),
        ("row 1", 9, None),
    ]
    assert asked[1].params == enqueued[1].params
    study.retry(asked[1].number, failures=1)
    study.fail(asked[1].number)
    study.enqueue(enqueued)  # it was enqueued already, however it ended
    again = study.ask()
    assert (again.label, again.seed, again.patience, again.params) == ("row 2", 8, 0, enqueued[1].params)
    assert len(study.trials()) == 4


def test_importance_needs_values_that_differ(open_it):
    study = open_it()
    for value in (0.5, 0.5):
        study.complete(study.ask().number, value)
    assert study.importances() == {}
    for index in range(6):
        study.complete(study.ask().number, 0.5 + index / 20)
    shares = study.importances()
    assert shares.keys() == SPACES["cnn1"].keys()
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("warmup", [1, 3])
def test_no_trial_is_pruned_within_the_warm_up(open_it, warmup):
    study = open_it(pruning=Pruning("median", warmup, epochs=9))
    for _ in range(6):
        trial = study.ask()
        for epoch in range(1, 9):
            study.report(trial.number, epoch, 0.9)
        study.complete(trial.number, 0.9)
    bad = study.ask()
    verdicts = []
    for epoch in range(1, warmup + 2):
        study.report(bad.number, epoch, 0.1)
        verdicts.append(study.should_prune(bad.number))
    assert verdicts == [False] * warmup + [True]


def test_a_study_says_what_differs(open_it):
    open_it().ask()
    with pytest.raises(InputError) as caught:
        open_it(fingerprint={"image size": 32}, space=study_space("cnn1", fix=["dropout=0"]))
    faults = "\n".join(caught.value.faults)
    assert "image size 64, not 32" in faults
    assert "begun with space" in faults


def test_a_resumed_study_does_not_draw_the_same_again(open_it):
    study = open_it()
    first = [study.ask().params for _ in range(3)]
    more = open_it()
    assert all(more.ask().params not in first for _ in range(3))


def test_a_store_that_cannot_be_opened_is_named():
    with pytest.raises(InputError, match="--storage bogus://x: cannot be opened"):
        open_study(
            "bogus://x", "a", SPACES["cnn1"],
            direction="maximize", fingerprint={}, seed=0, pruning=Pruning("none", warmup=0, epochs=1),
        )  # fmt: skip


def test_a_trial_without_hyperparameters_has_nothing_to_repeat(open_it):
    study = open_it()
    study._study.ask()  # as a process killed before it drew any
    assert not study.retry(0)


def test_a_study_has_one_writer_at_a_time(open_it):
    holder = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        study = open_it()
        owner = {**myself(), "pid": holder.pid, "born": start_time(holder.pid), "seen": 0.0}
        study.note(OWNER, owner)
        with pytest.raises(InputError, match=rf"is run by process {holder.pid} on {platform.node()}, since "):
            open_it().claim(shared=True)
    finally:
        holder.kill()
    time.sleep(0.2)  # it is a zombie now: nobody has waited for it
    open_it().claim(shared=True)
    holder.wait()
    study.claim(shared=True)  # our own
    study.release()
    assert study.noted(OWNER) is None


def test_a_writer_on_another_machine_holds_a_study_as_long_as_it_says_so(open_it, monkeypatch):
    study = open_it()
    other = {**myself(), "host": "elsewhere", "pid": 1}
    study.note(OWNER, other)
    with pytest.raises(InputError, match="process 1 on elsewhere"):
        study.claim(shared=True)
    study.claim(shared=False)  # the lock on the directory has decided
    study.note(OWNER, {**other, "seen": time.time() - 200})
    study.claim(shared=True)
    study._owner["seen"] -= 100
    study.renew()
    assert time.time() - study.noted(OWNER)["seen"] < 10


def test_a_writer_that_was_silent_for_too_long_does_not_go_on_beside_another(open_it):
    study = open_it()
    study.claim(shared=True)
    study.note(OWNER, {**myself(), "host": "elsewhere", "pid": 1})
    study.renew()  # not yet time to look
    study._owner["seen"] -= 100
    with pytest.raises(StudyFailedError, match="was taken over by process 1 on elsewhere"):
        study.renew()
    study.release()
    assert study.noted(OWNER)["host"] == "elsewhere"


def test_two_machines_of_one_name_are_two(open_it):
    study = open_it()
    study.note(OWNER, {**myself(), "machine": "another boot, another namespace"})
    with pytest.raises(InputError, match="is run by process"):
        study.claim(shared=True)


def test_what_a_refused_command_asked_for_binds_nobody(open_it):
    open_it(fingerprint={"image size": 32})
    open_it(fingerprint={"image size": 64}).ask()
    with pytest.raises(InputError, match="image size 64, not 32"):
        open_it(fingerprint={"image size": 32})


def test_of_two_that_claim_at_the_same_moment_one_goes_on(open_it, monkeypatch):
    study, real = open_it(), time.sleep
    other = {**myself(), "host": "elsewhere", "pid": 1}
    monkeypatch.setattr(time, "sleep", lambda seconds: (real(seconds), study.note(OWNER, other)))
    with pytest.raises(InputError, match="process 1 on elsewhere"):
        study.claim(shared=True)


@pytest.mark.parametrize("kept", [0, 0.4, 0.9])
def test_a_study_that_was_cut_short_is_named(open_sqlite, tmp_path, kept):
    for _ in range(3):
        open_sqlite().ask()
    path = tmp_path / "optuna.db"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(InputError, match=r"optuna\.db is (empty|damaged)"):
        open_sqlite()


def test_what_is_no_database_is_named(open_sqlite, tmp_path):
    (tmp_path / "optuna.db").write_bytes(b"rubbish" * 999)
    with pytest.raises(InputError, match="is damaged"):
        open_sqlite()


def test_a_new_database_is_there_whole_or_not_at_all(tmp_path):
    def dies(url):
        (tmp_path / "half").write_text(url)
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="cannot be made.*No space left"):
        open_whole("--storage", f"sqlite:///{tmp_path / 'optuna.db'}", dies)
    assert [path.name for path in tmp_path.iterdir()] == ["half"]


# What grows with a study, and what must not ---------------------------------------------------------------------------


def test_live_counts_are_those_of_counting_again(open_it):
    study = open_it(direction="minimize")
    assert study.counts() == TrialCounts()
    for value in (0.5, 0.2, 0.2, 0.9):
        study.complete(study.ask().number, value)
    study.prune(report(study, 0.7))
    failed = study.ask().number
    study.retry(failed)
    study.fail(failed)
    again, running = study.ask(), study.ask()

    counts = study.counts()

    assert again.retry_of == failed
    assert running.retry_of is None
    assert (counts.complete, counts.pruned, counts.failed, counts.running, counts.waiting) == (4, 1, 1, 2, 0)
    assert counts.best is not None
    assert (counts.best.number, counts.best.value) == (1, 0.2)  # the first of equals
    counted_again = open_it(direction="minimize").counts()
    assert counted_again == replace(counts, seconds=pytest.approx(counts.seconds))


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_of_equal_trials_the_first_by_number_is_the_best_whichever_ended_first(open_it, direction):
    study = open_it(direction=direction)
    numbers = [study.ask().number for _ in range(4)]
    assert study.best() is None  # counted live from here
    worse = {"maximize": 0.1, "minimize": 0.9}[direction]
    for number, value in zip((2, 3, 1, 0), (0.5, 0.5, 0.5, worse), strict=True):
        study.complete(numbers[number], value)

    best = study.best()

    assert (best.number, best.value) == (numbers[1], 0.5)
    assert open_it(direction=direction).best() == best  # the same command typed again


def test_a_claim_counts_again_since_others_may_have_written(open_it):
    study, other = open_it(), open_it()
    assert study.counts().complete == 0
    other.complete(other.ask().number, 0.5)
    study.claim(shared=False)
    assert study.counts().complete == 1


def report(study, value: float, number: int | None = None) -> int:
    """Reports an epoch of a trial, a new one unless it is given, and returns its number."""
    number = study.ask().number if number is None else number
    study.report(number, 1, value)
    return number


def test_optunas_plots_leave_their_style_to_nobody(open_sqlite):
    study = open_sqlite()
    for value in (0.7, 0.8, 0.9):
        study.complete(study.ask().number, value)
    mpl.use("agg")  # as it does itself, for good
    before = dict(mpl.rcParams)
    assert study.figures("val/auroc").keys() == {"history", "timeline", "importance", "parallel_coordinate"}
    assert {name: value for name, value in mpl.rcParams.items() if value != before[name]} == {}


def test_weights_are_known_by_their_content_and_by_their_place_where_that_alone_was_kept():
    def check(study, place, digest):
        check_fingerprint(study, {"weights": place, WEIGHTS_DIGEST: digest})

    study = optuna.create_study()
    check(study, "/home/ann/w.pth", "1234")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    check(study, "./w.pth", "1234")
    with pytest.raises(InputError, match="was begun with SHA-256 of the weights 1234, not 5678"):
        check(study, "/home/ann/w.pth", "5678")
    older = optuna.create_study()
    check_fingerprint(older, {"weights": "/home/ann/w.pth"})
    older.add_trial(optuna.trial.create_trial(value=1.0))
    check(older, "/home/ann/w.pth", "1234")
    with pytest.raises(InputError, match=r"was begun with weights /home/ann/w.pth, not \./w.pth"):
        check(older, "./w.pth", "1234")
