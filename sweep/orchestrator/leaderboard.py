"""A study's trials as a table, the best first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from sweep.metrics.names import sign_of
from sweep.stores.trials import TrialRecord, chosen_of


def leaderboard(
    trials: Sequence[TrialRecord], metrics: Sequence[str], name: Callable[[int], str], *, exact: bool = False
) -> pd.DataFrame:
    """Lists complete trials, the best first, then pruned ones with the best that they had reached.

    With several metrics the order is by the first one, and a column `front` says which trials no other one beats, and
    which of them was chosen.

    Args:
        trials: Of one study.
        metrics: What the study chooses by.
        name: Turns a trial's number into its run's name.
        exact: Whether numbers have all of their digits, for other programs, or few, for people.
    """
    choice = chosen_of(metrics, trials) if len(metrics) > 1 else None
    front = {} if choice is None else {point.number: "yes" for point in choice.front}
    if choice is not None:
        front[choice.chosen.number] = "chosen"
    rows, scores = [], list(dict.fromkeys((*metrics, "val/accuracy", "val/loss")))
    for trial in trials:
        history = trial.history
        if trial.state not in ("COMPLETE", "PRUNED") or not history:
            continue
        at = history[(trial.best_epoch or len(history)) - 1]
        params = {
            key: value if exact or not isinstance(value, float) else float(f"{value:.4g}")
            for key, value in trial.params.items()
        }
        rows.append(
            {
                "trial": name(trial.number),
                "state": trial.state,
                **{key: at[key] for key in scores},
                **({} if choice is None else {"front": front.get(trial.number, "")}),
                **params,
                "epochs": len(history),
                "seconds": round(trial.seconds or 0, 1),
            }
        )
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    order = np.lexsort((-sign_of(metrics[0]) * table[metrics[0]], table["state"] == "PRUNED"))
    ordered = table.iloc[order].reset_index(drop=True)
    return ordered if exact else ordered.round(dict.fromkeys(scores, 4))
