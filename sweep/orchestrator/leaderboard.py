"""A study's trials as a table, the best first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from sweep.metrics.names import METRICS
from sweep.stores.trials import TrialRecord


def leaderboard(
    trials: Sequence[TrialRecord], metric: str, name: Callable[[int], str], *, exact: bool = False
) -> pd.DataFrame:
    """Lists complete trials, the best first, then pruned ones with the best that they had reached.

    Args:
        trials: Of one study.
        metric: What the study chooses by.
        name: Turns a trial's number into its run's name.
        exact: Whether numbers have all of their digits, for other programs, or few, for people.
    """
    rows, scores = [], list(dict.fromkeys((metric, "val/accuracy", "val/loss")))
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
    ordered = table.iloc[order].reset_index(drop=True)
    return ordered if exact else ordered.round(dict.fromkeys(scores, 4))
