"""Whether a configuration gets another attempt, and after how many failures a study ends.

A trial that ends before its time is failed. Where another attempt may help, its configuration goes back into the queue:
the next attempt is a trial and a run of its own, and goes on from the last checkpoint.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from sweep.engines import Cause
from sweep.stores.study import Study
from sweep.stores.trials import TrialRecord
from sweep.system.errors import TrialEndedElsewhereError

LEFT_RUNNING = "the process that trained it ended"
# So many configurations that fail one after the other are no accident; at the start of a study fewer are enough.
FAILURES_IN_A_ROW, FAILURES_AT_FIRST = 5, 3
# So many failed trials of one cause and one value are said while the study runs, and again at twice as many.
FAILURES_ALIKE = 3
NO_TRAINING = ("interrupted", "not in the space", "not trained here")  # causes that say nothing of hyperparameters


def next_attempt(
    cause: Cause, failures: int, retries: int, at_once: int, fewer: int | None = None
) -> tuple[dict[str, int] | None, str]:
    """Decides whether a configuration whose trial failed gets another attempt.

    Args:
        cause: Why it failed.
        failures: How often it had failed before; interruptions do not count.
        retries: How many failures are forgiven.
        at_once: Images that went through the network at once.
        fewer: So many trials train at once from now on, where the memory was too small for as many as there were;
            None where it was too small for this one.

    Returns:
        What the next attempt does otherwise, as `Study.retry` takes it, None where there is to be none; and a remark
        for people, which may be empty.
    """
    if cause == "disk full":
        return {}, ""
    if cause == "out of memory" and fewer is not None:  # no fault of its own
        return {}, f"again as it is, with {fewer} {'trial' if fewer == 1 else 'trials'} at once from now on"
    if cause not in ("worker lost", "out of memory"):
        return None, ""  # the same seed would end the same way
    if failures >= retries:
        return None, f"given up after {failures + 1} attempts"
    if cause == "worker lost":
        return {"failures": failures + 1}, "again from its last checkpoint"
    if at_once == 1:
        return None, "even one image at once is too many"
    half = math.ceil(at_once / 2)
    again = {"failures": failures + 1, "micro_batch": half}
    return again, f"again with {half} images at once, the batch as large as before"


def fewer_at_once(cause: Cause, at_once: int, alone: int, others: int) -> int | None:
    """Decides whether fewer trials are to train at once, since one failed for memory that it shared.

    Args:
        cause: Why it failed.
        at_once: Trials at once until now.
        alone: As many would share no memory.
        others: Those that still train.

    Returns:
        How many from now on; None for as many as before.
    """
    return max(alone, others) if cause == "out of memory" and at_once > alone and others else None


def too_many_failures(causes: Sequence[Cause], *, any_complete: bool) -> str | None:
    """Decides whether configurations that failed one after the other end their study.

    Args:
        causes: Why each of them failed, since the last trial that ended well.
        any_complete: Whether the study has a complete trial.

    Returns:
        Which of them failed, for people; None where the study goes on.
    """
    all_alike = len(set(causes)) == 1 and not any_complete
    if len(causes) < (FAILURES_AT_FIRST if all_alike else FAILURES_IN_A_ROW):
        return None
    if all_alike:
        return f"the first {len(causes)} configurations all failed"
    return f"the {len(causes)} configurations in a row failed"


def failures_alike(trials: Sequence[TrialRecord]) -> list[str]:
    """Says which value of a hyperparameter the latest failed trial has in common with others that failed like it.

    Args:
        trials: Of a study, by number; the last one that failed has just done so.

    Returns:
        A sentence for each value with which most trials failed for that cause, and of the other trials less than half
        as many; at 3 such failures, 6, 12, ...
    """
    trained = [trial for trial in trials if trial.state in ("COMPLETE", "PRUNED") or _cause(trial)]
    failed = [trial for trial in trained if _cause(trial)]
    if not failed:
        return []
    latest, said = max(failed, key=lambda trial: trial.ended or 0), []
    for name, value in latest.params.items():
        count = Counter((trial.params.get(name) == value, _cause(trial) == _cause(latest)) for trial in trained)
        alike, others = count[True, True], count[False, True]
        of, of_others = alike + count[True, False], others + count[False, False]
        often = alike > of / 2 and of_others and others / of_others < alike / of / 2
        if often and alike % FAILURES_ALIKE == 0 and (alike // FAILURES_ALIKE).bit_count() == 1:
            reason = latest.attributes["failure"]["reason"]
            said.append(f"{alike} of {of} trials with {name} {value} failed: {_cause(latest)}: {reason}")
    return said


def _cause(trial: TrialRecord) -> str:
    """Why a trial failed; empty where it did not, or not in its training."""
    cause = trial.attributes.get("failure", {}).get("cause", "") if trial.state == "FAIL" else ""
    return "" if cause in NO_TRAINING else cause


def requeue(study: Study, reason: str) -> list[str]:
    """Fails every trial that Optuna has as running, and queues its configuration again.

    Args:
        study: One that no other process runs.
        reason: Why the trials did not end.

    Returns:
        A sentence for each trial.
    """
    repaired = []
    for trial in study.trials():
        if trial.state == "RUNNING":
            try:
                study.note_trial(trial.number, failure={"cause": "interrupted", "reason": reason})
                queued = study.retry(trial.number)
                study.fail(trial.number)
            except TrialEndedElsewhereError:
                continue
            repaired.append(
                f"trial {trial.number} of {study.name} was left running; {'queued again' if queued else 'failed'}"
            )
    return repaired
