"""A study's trials as a table, the best first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from sweep.metrics.names import METRICS
from sweep.stores.trials import TrialRecord


def leaderboard(trials: Sequence[TrialRecord], metric: str, name: Callable[[int], str]) -> pd.DataFrame:
    """Lists complete trials, the best first, then pruned ones with the best that they had reached.

    Args:
        trials: Of one study.
        metric: What the study chooses by.
        name: Turns a trial's number into its run's name.
    """
    rows = []
    for trial in trials:
        history = trial.history
        if trial.state not in ("COMPLETE", "PRUNED") or not history:
            continue
        at = history[(trial.best_epoch or len(history)) - 1]
        params = {
            key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in trial.params.items()
        }
        rows.append(
            {
                "trial": name(trial.number),
                "state": trial.state,
                **{key: round(at[key], 4) for key in dict.fromkeys((metric, "val/accuracy", "val/loss"))},
                **params,
                "epochs": len(history),
                "seconds": round(trial.seconds or 0, 1),
            }
        )
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    sign = -1 if METRICS[metric] == "maximize" else 1
    order = np.lexsort((sign * table[metric], table["state"] == "PRUNED"))
    return table.iloc[order].reset_index(drop=True)
