"""What failed trials have in common is said while a study runs."""

from __future__ import annotations

from sweep.orchestrator.retries import failures_alike
from sweep.stores.trials import TrialRecord

LOST = "fused is not supported"


def record(number: int, optimizer: str, cause: str = "", batch_size: int = 32, reason: str = LOST) -> TrialRecord:
    params = {"optimizer": optimizer, "batch_size": batch_size, "learning_rate": 0.01 + number}
    failure = {"failure": {"cause": cause, "reason": reason}} if cause else {}
    return TrialRecord(number, "FAIL" if cause else "COMPLETE", params, None, {}, 0.0, float(number), failure)


def said_after(*trials: tuple[str, str] | tuple[str, str, int]) -> list[list[str]]:
    records = [record(number, *trial) for number, trial in enumerate(trials)]
    return [failures_alike(records[: number + 1]) for number, trial in enumerate(records) if trial.state == "FAIL"]


def test_an_optimiser_with_which_every_trial_fails_is_named_at_3_6_and_12_failures():
    said = said_after(*[("adam", ""), ("adagrad", "error")] * 13)
    sentences = [
        f"{count} of {count} trials with optimizer adagrad failed: error: {LOST}" if count in (3, 6, 12) else ""
        for count in range(1, 14)
    ]
    assert ["".join(once) for once in said] == sentences


def test_failures_that_come_with_every_value_are_no_fault_of_one():
    assert not any(said_after(*[("adam", "error"), ("adagrad", "error"), ("sgd", "")] * 6))
    assert not any(said_after(*[("adagrad", "error")] * 6))


def test_other_causes_and_values_that_mostly_end_well_are_left_out():
    assert not any(said_after(*[("adam", ""), ("sgd", "interrupted")] * 6))
    assert not any(said_after(*[("adam", ""), ("sgd", "not in the space")] * 6))
    assert not any(said_after(*[("sgd", "non-finite loss"), ("sgd", ""), ("sgd", ""), ("adam", "")] * 3))
    assert said_after(("adam", ""), ("sgd", "error"), ("sgd", ""), ("sgd", "error"), ("sgd", "error"))[-1] == [
        f"3 of 4 trials with optimizer sgd failed: error: {LOST}"
    ]


def test_numbers_of_a_choice_are_values_too():
    trials = [("adam", "", 32), ("sgd", "out of memory", 512), ("sgd", "", 32), ("adam", "out of memory", 512)]
    assert said_after(*trials, ("adam", "out of memory", 512))[-1] == [
        f"3 of 3 trials with batch_size 512 failed: out of memory: {LOST}"
    ]
