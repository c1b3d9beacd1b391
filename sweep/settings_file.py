"""A file that holds a search: every option by its name, read with the line of each, and written so that it reads again.

arch: [cnn1, cnn2]
data: my_folder
trials: 30
fix:
  activation: relu
search:
  learning_rate: 1e-4..1e-2:log
  cnn2/batch_size: [64, 128]        # of one architecture
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import yaml

from data.faults import InputError, did_you_mean
from models import short_name
from sweep.settings import Settings, seconds_of
from sweep.space import Choice, written

LISTS = ("fix", "search")  # a hyperparameter -> its value or its domain
SECRETS = {"tracking_uri": "@", "storage": "@", "notify": "://"}  # what a value with a password or a token has
NAMES = {"archs": "arch", "metrics": "metric"}  # fields that an option calls otherwise


@dataclass(frozen=True)
class SettingsFile:
    """What a file says.

    Attributes:
        path: The file.
        values: Field of `Settings` -> value.
        lines: Field -> the line where it is, from 1; of `fix` and `search` also `fix NAME`, of each hyperparameter.
    """

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)

    def located(self, fault: str, typed: set[str]) -> str:
        """A fault of an option with the file's name and line before it, if the option's value came from the file.

        Args:
            fault: As `sweep.settings.check` has it: it begins with the option.
            typed: Fields that were typed, and so did not come from the file.
        """
        option, _, rest = fault.partition(" ")
        name = option.removeprefix("--").rstrip(":").replace("-", "_")
        name = next((known for known, called in NAMES.items() if called == name), name)
        if not option.startswith("--") or name in typed or name not in self.lines:
            return fault
        line = self.lines.get(f"{name} {rest.partition('=')[0]}", self.lines[name])
        return f"{self.path}, line {line}: {fault.removeprefix('--')}"


def read_settings(path: Path) -> SettingsFile:
    """Reads a file of settings.

    Raises:
        InputError: It cannot be read, names what is no option, or a value has another type; with every fault found.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: is no YAML ({getattr(error, 'problem', error)})") from error
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path}: write one option a line, such as `trials: 30`")
    types, values, lines, faults = get_type_hints(Settings), {}, {}, []
    options = {NAMES.get(one.name, one.name): one.name for one in fields(Settings)}
    for key, node in root.value:
        line, option = key.start_mark.line + 1, str(key.value).replace("-", "_")
        name = options.get(option)
        try:
            if name is None:
                raise ValueError(f"there is no option {key.value!r}{did_you_mean(option, options)}")
            if name in lines:
                raise ValueError(f"{option} is given twice, first in line {lines[name]}")
            lines[name] = line
            if name in LISTS:
                values[name] = _hyperparameters(name, node, lines)
            else:
                values[name] = _value(option, name, node, types[name])
        except ValueError as error:
            faults += [f"{path}, line {line}: {fault}" for fault in getattr(error, "faults", (str(error),))]
    if faults:
        raise InputError(*faults)
    return SettingsFile(path, values, lines)


def write_settings(settings: Settings) -> str:
    """Writes settings with the whole space of each architecture, in a form that `read_settings` reads.

    A hyperparameter with one value is in `fix`. A store whose URL has a password, and a webhook, are
    left out.
    """
    held: dict[str, Any] = {}
    for one in fields(Settings):
        value = getattr(settings, one.name)
        if one.name in LISTS or value is None or SECRETS.get(one.name, "\0") in str(value):
            continue
        plain = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        held[NAMES.get(one.name, one.name)] = plain
    for arch, space in settings.spaces.items():
        prefix = f"{short_name(arch)}/" if len(settings.spaces) > 1 else ""
        for name, domain in space.items():
            single = isinstance(domain, Choice) and len(domain.values) == 1
            held.setdefault("fix" if single else "search", {})[prefix + name] = written(domain)
    return yaml.safe_dump(held, sort_keys=False, allow_unicode=True, width=120)


def _hyperparameters(name: str, node: yaml.Node, lines: dict[str, int]) -> tuple[str, ...]:
    """The texts of `--fix` and `--search` from a mapping; a list is a choice."""
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"{name}: write hyperparameters below it, such as `learning_rate: 1e-4..1e-2:log`")
    texts = []
    for key, value in node.value:
        lines[f"{name} {key.value}"] = key.start_mark.line + 1
        if isinstance(value, yaml.SequenceNode):
            parts = [str(part.value) for part in value.value]
        elif isinstance(value, yaml.ScalarNode):
            parts = [str(value.value)]
        else:
            raise ValueError(f"{name}: {key.value} is neither a value nor a list of values")
        texts.append(f"{key.value}={','.join(parts)}")
    return tuple(texts)


def _text(option: str, node: yaml.Node) -> str:
    """One of several texts; a mapping is written as JSON, which `--enqueue` takes."""
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    held = yaml.SafeLoader("").construct_object(node, deep=True)
    if option != "enqueue" or not isinstance(held, dict):
        raise ValueError(f"{option}: give a value, or a list of values")
    return json.dumps(held)


def _value(option: str, name: str, node: yaml.Node, kind: Any) -> Any:
    """A value of a field, of the type that it has."""
    if kind == tuple[str, ...]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        return tuple(_text(option, part) for part in parts)
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"{option}: give one value")
    value = yaml.SafeLoader("").construct_object(node)
    kinds = [one for one in (get_args(kind) or (kind,)) if one is not NoneType]
    if value is None and kind in kinds:
        raise ValueError(f"{option}: give a value")
    if name == "budget" and isinstance(value, str):
        return seconds_of(value)
    if value is None:
        return None
    (wanted,) = kinds
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    fits = isinstance(value, (int, float) if wanted is float else str if wanted is Path else wanted)
    if wanted is str and isinstance(node, yaml.ScalarNode):  # 2024 may be the name of a study
        return str(node.value)
    if not fits or (isinstance(value, bool) and wanted is not bool):
        raise ValueError(f"{option}: {node.value!r} is not {words[wanted]}")
    return Path(str(value)) if wanted is Path else value
