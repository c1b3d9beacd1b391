"""How attributes of a trial are stored in Optuna: what its dashboard shows on one line, and the rest beside it.

The page of a trial in optuna-dashboard shows every user attribute on one line that is never broken: a learning curve
as JSON makes it thousands of pixels wide. So what is long goes to the trial's system attributes, which no page shows.
Trials of version 0.1.0 have all of it among their user attributes; both are read alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "sweep:"  # of the names of system attributes
# Attribute -> those of its entries that are long; None for all.
LONG: dict[str, tuple[str, ...] | None] = {"run": None, "result": ("history",), "failure": ("details",)}


def split_attribute(name: str, value: Any) -> tuple[Any, dict[str, Any] | None]:
    """Splits an attribute of a trial into what is shown and what is not.

    >>> split_attribute("result", {"history": [{"epoch": 1}], "best_epoch": 1})
    ({'best_epoch': 1}, {'history': [{'epoch': 1}]})
    >>> split_attribute("seed", 7)
    (7, None)

    Returns:
        The user attribute and the system attribute, each None where there is to be none.
    """
    if name not in LONG or not isinstance(value, Mapping):
        return value, None
    entries = LONG[name]
    if entries is None:
        return None, dict(value)
    hidden = {key: value[key] for key in entries if key in value}
    return {key: inner for key, inner in value.items() if key not in hidden}, hidden or None


def joined_attributes(user: Mapping[str, Any], system: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's attributes, from its user and system attributes; the inverse of `split_attribute`.

    >>> joined_attributes({"seed": 7, "result": {"best_epoch": 1}}, {"sweep:result": {"history": []}})
    {'seed': 7, 'result': {'history': [], 'best_epoch': 1}}
    """
    joined = dict(user)
    for name in LONG:
        hidden, shown = system.get(f"{PREFIX}{name}"), user.get(name, {})
        if isinstance(hidden, dict) and isinstance(shown, dict):
            joined[name] = {**hidden, **shown}
    return joined
