"""What a study searches: the hyperparameters of each architecture, as plain data, and how --fix and --search change it.

--fix activation=sigmoid
--search learning_rate=1e-4..1e-2:log    --search batch_size=64,128    --search dropout=0..0.5
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from data.faults import InputError
from data.recipe import RECIPES
from models import ARCHITECTURES, architecture
from models.architecture import ACTIVATIONS, Architecture

Value = str | int | float


@dataclass(frozen=True)
class Choice:
    """One of some values; a single one is a fixed hyperparameter."""

    values: tuple[Value, ...]

    def __str__(self) -> str:
        return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in self.values)

    def own(self, value: object) -> Value | None:
        """The choice that a value from outside is, such as 16 for 16.0; None where it is none of them."""
        kind = str if isinstance(value, str) else (int, float)
        same = [choice for choice in self.values if choice == value and isinstance(choice, kind)]
        return None if isinstance(value, bool) or not same else same[0]


@dataclass(frozen=True)
class Range:
    """Any number from low to high, both included."""

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"

    def own(self, value: object) -> Value | None:
        """A value from outside as a number of the range; None where it is none."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        return float(value)


Space = Mapping[str, Choice | Range]


def faults_of(params: Mapping[str, object], space: Space) -> list[str]:
    """Says which of some hyperparameters a space does not have, or not with that value.

    >>> faults_of({"activation": "tanh"}, {"activation": Choice(("relu", "gelu"))})
    ["activation 'tanh', which is not one of relu, gelu"]
    """
    faults = []
    for name, value in params.items():
        domain = space.get(name)
        if domain is None:
            faults.append(f"{str(name)[:40]!r}, which the study does not search")
        elif domain.own(value) is None:
            where = "one of" if isinstance(domain, Choice) else "a number from"
            faults.append(f"{name} {str(value)[:40]!r}, which is not {where} {domain}")
    return faults


# Extra hyperparameters beside the five, and their values where they are not given: what the student report did.
EXTRA: Mapping[str, Value] = {
    "augmentation": "own",
    "normalisation": "fixed",
    "pooling": "own",
    "label_smoothing": 0.0,
    "averaging": "none",
    "schedule": "constant",
}
OPTIMIZERS = ("adam", "adamw", "adagrad", "sgd")

_SPACE: Space = {
    "activation": Choice(ACTIVATIONS),
    "optimizer": Choice(OPTIMIZERS),
    "learning_rate": Range(1e-5, 1e-1, log=True),
    "batch_size": Choice((32, 64, 128, 256)),
    "dropout": Range(0.0, 0.6),
}
FIVE = tuple(_SPACE)
# Wide enough for every row of the report's tables (a test holds them to it).
SPACES: dict[str, Space] = dict.fromkeys(ARCHITECTURES, _SPACE)


def space_of(arch: str, *, pretrained: bool = False) -> Space:
    """The space of an architecture where the user asks for no other.

    Args:
        arch: As `models.architecture` takes it.
        pretrained: Whether it starts from weights of ImageNet. Then resnet50 reads pixels as these weights are used to;
            `--fix normalisation=fixed` leaves them from 0 to 1, as the student report did.
    """
    if arch == "resnet50" and pretrained:
        return {**SPACES[arch], "normalisation": Choice(("imagenet",))}
    if arch in SPACES:
        return SPACES[arch]
    row = architecture(arch)
    own = {"activation": Choice(row.activations[:1])} if row.activations[0] == "own" else {}
    return {**_SPACE, **own, **({} if row.drops else {"dropout": Choice((0.0,))})}


def study_space(arch: str, fix: Sequence[str] = (), search: Sequence[str] = (), *, pretrained: bool = False) -> Space:
    """Builds the space of a study: the architecture's own, changed by what the user wrote.

    Args:
        arch: As `models.architecture` takes it.
        fix: Each as `name=value`.
        search: Each as `name=low..high`, `name=low..high:log` or `name=value,value`.
        pretrained: As `space_of` takes it.

    Raises:
        InputError: A text cannot be understood, or names what does not exist; with every fault found.
    """
    row = architecture(arch)
    space, faults, seen = dict(space_of(arch, pretrained=pretrained)), [], set()
    for option, texts in (("--fix", fix), ("--search", search)):
        for text in texts:
            name, _, written = text.partition("=")
            try:
                if name not in (*space, *EXTRA):
                    there = ", ".join(dict.fromkeys((*space, *EXTRA)))
                    raise ValueError(f"there is no hyperparameter {name!r}; there are {there}")
                if not written:
                    raise ValueError(f"write {name}=VALUE")
                if name in seen:
                    raise ValueError(f"{name} is given twice")
                if name == "pooling" and not row.flattens:
                    raise ValueError(f"{arch} gathers its feature maps in its own way")
                seen.add(name)
                space[name] = Choice((_value(name, written),)) if option == "--fix" else _domain(name, written)
                if fault := _fault_of(row, name, space[name]):
                    raise ValueError(fault)
            except ValueError as error:
                faults.append(f"{option} {text}: {error}")
    if faults:
        raise InputError(*faults)
    return space


def _fault_of(row: Architecture, name: str, domain: Choice | Range) -> str:
    """Why an architecture cannot have these values; empty where it can."""
    if name == "activation" and isinstance(domain, Choice):
        others = [str(value) for value in domain.values if value not in row.activations]
        if others:
            return f"{row.name} has not {', '.join(others)}; it has {', '.join(row.activations)}"
    if name == "dropout" and not row.drops and domain != Choice((0.0,)):
        return f"{row.name} has no dropout"
    return ""


class Layout(TypedDict):
    """The hyperparameters that decide which layers a network has, as `models.outline.sketch` takes them."""

    normalisation: str
    pooling: str


def layout(params: Mapping[str, object]) -> Layout:
    """Picks the layout from hyperparameters or from params of a run; what is missing has its default."""
    normalisation, pooling = (str(params.get(name, EXTRA[name])) for name in ("normalisation", "pooling"))
    return {"normalisation": normalisation, "pooling": pooling}


def decided(space: Space) -> dict[str, Value]:
    """The hyperparameters that have a single value in a space."""
    return {
        name: domain.values[0]
        for name, domain in space.items()
        if isinstance(domain, Choice) and len(domain.values) == 1
    }


def largest_batch(space: Space) -> int:
    """The largest batch size that a space may ask for."""
    batches = space["batch_size"]
    return int(max(batches.values) if isinstance(batches, Choice) else batches.high)


def _domain(name: str, written: str) -> Choice | Range:
    if ".." not in written:
        values = tuple(_value(name, part.strip()) for part in written.split(","))
        if len(set(values)) < len(values):
            raise ValueError("a value is given twice")
        return Choice(values)
    ends, _, scale = written.partition(":")
    if scale not in ("", "log", "linear"):
        raise ValueError(f"{scale!r} is no scale; write :log or nothing")
    low, high = (_value(name, part) for part in ends.split("..", 1))
    if isinstance(low, str) or isinstance(high, str):
        raise ValueError(f"{name} has no order; list its values, such as {name}={','.join(_WORDS[name][:2])}")
    if low >= high:
        raise ValueError(f"the lower end {low:g} is not below the upper end {high:g}")
    if scale == "log" and low <= 0:
        raise ValueError(f"a logarithmic range starts above 0, not at {low:g}")
    if isinstance(low, int):
        raise ValueError(f"list the values of {name}, such as {name}={low},{high}")
    return Range(float(low), float(high), scale == "log")


_WORDS = {
    "activation": ("own", *ACTIVATIONS),
    "optimizer": OPTIMIZERS,
    "augmentation": ("own", *RECIPES),
    "normalisation": ("fixed", "image", "histogram", "imagenet"),
    "pooling": ("own", "average"),
    "averaging": ("none", "ema"),
    "schedule": ("constant", "cosine"),
}


def _value(name: str, written: str) -> Value:
    if name in _WORDS:
        if written not in _WORDS[name]:
            raise ValueError(f"{written!r} is none of {', '.join(_WORDS[name])}")
        return written
    if name == "batch_size":
        if not written.isascii() or not written.isdigit() or int(written) < 1:
            raise ValueError(f"{written!r} is no whole number from 1")
        return int(written)
    try:
        number = float(written)
    except ValueError:
        raise ValueError(f"{written!r} is no number") from None
    if name == "learning_rate" and not 0 < number < float("inf"):
        raise ValueError(f"{written} is not above 0")
    if name in ("dropout", "label_smoothing") and not 0 <= number < 1:
        raise ValueError(f"{written} is not from 0 to below 1")
    return number
