"""Params as people read them in MLflow, and the way back: training again takes every digit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sweep.stores import tags as tag


def rounded(value: Any) -> Any:
    """A param as people read it: a float of 4 significant digits; anything else as it is.

    >>> rounded(0.00036471234), rounded(32)
    (0.0003647, 32)
    """
    return float(f"{value:.4g}") if isinstance(value, float) else value


def exact_params(params: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """The params of a run as they were given to `Tracking.log_params`; those of earlier releases are exact anyway.

    Args:
        params: As the run has them.
        tags: Of the same run.
    """
    return {**params, **json.loads(tags.get(tag.EXACT, "{}"))}
