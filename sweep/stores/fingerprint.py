"""What must not change while a study lives, since its trials could not be compared otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from data.faults import InputError
from sweep.stores.attributes import FINGERPRINT


def check_fingerprint(study: optuna.Study, fingerprint: Mapping[str, Any]) -> None:
    """Notes on a new study what must not change while it lives; compares it on one that has trials."""
    wanted = json.loads(json.dumps(fingerprint))
    begun_with = study.user_attrs.get(FINGERPRINT)
    # A command that was refused for something else may have left one, but no trials.
    if begun_with is None or not study.get_trials(deepcopy=False):
        study.set_user_attr(FINGERPRINT, wanted)
    elif begun_with != wanted:
        differing = [
            f"study {study.study_name} was begun with {key} {_text(begun_with.get(key))}, not {_text(wanted.get(key))}"
            for key in sorted(begun_with.keys() | wanted.keys())
            if begun_with.get(key) != wanted.get(key)
        ]
        raise InputError(*differing, "go on with what it was begun with, or begin another one with --study NAME")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {part}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)
