"""What must not change while a study lives, since its trials could not be compared otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from data.faults import InputError
from sweep.stores.attributes import FINGERPRINT

WEIGHTS, WEIGHTS_DIGEST = "weights", "SHA-256 of the weights"


def check_fingerprint(study: optuna.Study, fingerprint: Mapping[str, Any]) -> None:
    """Notes on a new study what must not change while it lives; compares it on one that has trials."""
    wanted = json.loads(json.dumps(fingerprint))
    begun_with = study.user_attrs.get(FINGERPRINT)
    if begun_with is not None:  # a file of weights is known by its content; an earlier release knew its place alone
        unknown = WEIGHTS if WEIGHTS_DIGEST in begun_with and WEIGHTS_DIGEST in wanted else WEIGHTS_DIGEST
        begun_with = {key: value for key, value in begun_with.items() if key != unknown}
        compared = {key: value for key, value in wanted.items() if key != unknown}
    else:
        compared = wanted
    # A command that was refused for something else may have left one, but no trials.
    if begun_with is None or not study.get_trials(deepcopy=False):
        study.set_user_attr(FINGERPRINT, wanted)
    elif begun_with != compared:
        keys = sorted(begun_with.keys() | compared.keys())
        pairs = {key: (begun_with.get(key), compared.get(key)) for key in keys}
        differing = [
            f"study {study.study_name} was begun with {key} {_text(before)}, not {_text(now)}"
            for key, (before, now) in pairs.items()
            if before != now
        ]
        raise InputError(*differing, "go on with what it was begun with, or begin another one with --study NAME")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {part}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)
