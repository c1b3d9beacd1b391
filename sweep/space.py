"""What a study searches: the hyperparameters of each architecture, as plain data, and how --fix and --search change it.

--fix activation=sigmoid
--search learning_rate=1e-4..1e-2:log    --search batch_size=64,128    --search dropout=0..0.5

A study begins from a ready space: `basic`, `scratch` or `finetune` (`--space`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from data.faults import InputError, did_you_mean
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
    "warmup_ratio": "own",
    "first_layer_rate": 1.0,
    "weight_decay": "own",
    "mix": "none",
    "drop_path": 0.0,
}
OPTIMIZERS = ("adam", "adamw", "adagrad", "sgd")
# What somebody would take who does not search: the usual rate of Adam, and a usual batch and dropout.
_USUAL: Mapping[str, Value] = {
    "activation": "relu",
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "batch_size": 64,
    "dropout": 0.2,
    **EXTRA,
}
_USUAL_PRETRAINED = 3e-4  # trained weights are not to be lost in the first steps

_BASIC: Space = {
    "activation": Choice(ACTIVATIONS),
    "optimizer": Choice(OPTIMIZERS),
    "learning_rate": Range(1e-5, 1e-1, log=True),
    "batch_size": Choice((32, 64, 128, 256)),
    "dropout": Range(0.0, 0.6),
}
FIVE = tuple(_BASIC)
# Wide enough for every row of the report's tables (a test holds them to it).
SPACES: dict[str, Space] = dict.fromkeys(ARCHITECTURES, _BASIC)
# What a ready space has beside or instead of the architecture's own.
READY: Mapping[str, Space] = {
    "basic": {},
    # A cosine schedule pays in the ablation of RESULTS.md; the winners of its three searches augment more than the
    # report does and standardise each image. Averaging and smoothing stay undecided there.
    "scratch": {
        "augmentation": Choice(("own", "both", "wide")),
        "normalisation": Choice(("fixed", "image")),
        "schedule": Choice(("constant", "cosine")),
    },
    # AdamW, warm-up and cosine, decay of .05 to .1, mixup, stochastic depth and lower rates for early layers are what
    # published recipes share (ULMFiT, arXiv 1801.06146; BEiT, 2106.08254; MAE, 2111.06377; ConvNeXt, 2201.03545). The
    # range of rates is theirs, for smaller batches. An activation is no choice once the weights are trained.
    "finetune": {
        "activation": Choice(("relu",)),
        "optimizer": Choice(("adamw",)),
        "learning_rate": Range(3e-5, 3e-3, log=True),
        "batch_size": Choice((32, 64)),
        "dropout": Range(0.0, 0.4),
        "augmentation": Choice(("light", "both", "wide")),
        "normalisation": Choice(("fixed", "image")),
        "schedule": Choice(("cosine",)),
        "warmup_ratio": Choice((0.1,)),
        "first_layer_rate": Range(0.01, 1.0, log=True),
        "weight_decay": Range(1e-3, 0.1, log=True),
        "mix": Choice(("none", "mixup")),
        "drop_path": Choice((0.0, 0.1)),
    },
}


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
    return {**_BASIC, **own, **({} if row.drops else {"dropout": Choice((0.0,))})}


def ready_space(arch: str, name: str = "basic", *, pretrained: bool = False) -> Space:
    """The space of a study before `--fix` and `--search` change it.

    Args:
        arch: As `models.architecture` takes it. What it leaves no choice of is as it is in every ready space.
        name: A key of READY.
        pretrained: As `space_of` takes it.

    Raises:
        InputError: There is no ready space of that name.
    """
    if name not in READY:
        near = did_you_mean(name, READY)
        raise InputError(f"--space {name}: there is no such space; there are {', '.join(READY)}{near}")
    own = space_of(arch, pretrained=pretrained)
    left_out = {*decided(own), *(() if "drop_path" in architecture(arch).options else ("drop_path",))}
    return {**own, **{key: domain for key, domain in READY[name].items() if key not in left_out}}


def default_configuration(arch: str, space: Space, *, pretrained: bool = False) -> dict[str, Value]:
    """The configuration of an architecture without a search, as far as a space has it.

    Args:
        arch: As `models.architecture` takes it.
        space: What is searched. Where it does not have a usual value, the nearest number stands for a number; for a
            word the first value of a choice, or the lower end of a range.
        pretrained: Whether networks that can start from trained weights do.

    >>> default_configuration("cnn1", {"activation": Choice(("gelu", "silu")), "learning_rate": Range(1e-5, 5e-4)})
    {'activation': 'gelu', 'learning_rate': 0.0005}
    """
    usual = dict(_USUAL)
    if pretrained and "weights" in architecture(arch).options:
        usual["learning_rate"] = _USUAL_PRETRAINED
    return {name: _nearest(domain, usual[name]) for name, domain in space.items()}


def _nearest(domain: Choice | Range, value: Value) -> Value:
    own = domain.own(value)
    if own is not None:
        return own
    if isinstance(domain, Choice):
        numbers = [other for other in domain.values if not isinstance(other, str)]
        return domain.values[0] if isinstance(value, str) or not numbers else min(numbers, key=lambda n: abs(n - value))
    return domain.low if isinstance(value, str) or value < domain.low else domain.high


def written(domain: Choice | Range) -> str:
    """A domain as `--search` takes it, every digit of its numbers.

    >>> written(Range(1e-4, 0.01, log=True)), written(Choice((16, 32)))
    ('0.0001..0.01:log', '16,32')
    """
    if isinstance(domain, Range):
        return f"{domain.low!r}..{domain.high!r}{':log' if domain.log else ''}"
    return ",".join(map(str, domain.values))


def study_space(
    arch: str,
    fix: Sequence[str] = (),
    search: Sequence[str] = (),
    space_name: str = "basic",
    *,
    pretrained: bool = False,
) -> Space:
    """Builds the space of a study: a ready one, changed by what the user wrote.

    Args:
        arch: As `models.architecture` takes it.
        fix: Each as `name=value`.
        search: Each as `name=low..high`, `name=low..high:log` or `name=value,value`.
        space_name: A key of READY.
        pretrained: As `space_of` takes it.

    Raises:
        InputError: A text cannot be understood, or names what does not exist; with every fault found.
    """
    row = architecture(arch)
    space, faults, seen = dict(ready_space(arch, space_name, pretrained=pretrained)), [], set()
    for option, texts in (("--fix", fix), ("--search", search)):
        for text in texts:
            name, _, domain = text.partition("=")
            try:
                if name not in (*space, *EXTRA):
                    there = ", ".join(dict.fromkeys((*space, *EXTRA)))
                    near = did_you_mean(name, (*space, *EXTRA))
                    raise ValueError(f"there is no hyperparameter {name!r}; there are {there}{near}")
                if not domain:
                    raise ValueError(f"write {name}=VALUE")
                if name in seen:
                    raise ValueError(f"{name} is given twice")
                seen.add(name)
                space[name] = Choice((value_of(name, domain),)) if option == "--fix" else _domain(name, domain)
                if fault := _fault_of(row, name, space[name]):
                    raise ValueError(fault)
            except ValueError as error:
                faults.append(f"{option} {text}: {error}")
    if faults:
        raise InputError(*faults)
    if arch == "resnet50" and pretrained and space["normalisation"] == Choice(("fixed",)):
        del space["normalisation"]  # as in studies of earlier releases, which can go on then
    return space


def _fault_of(row: Architecture, name: str, domain: Choice | Range) -> str:
    """Why an architecture cannot have these values; empty where it can."""
    if name == "pooling" and not row.flattens:
        return f"{row.name} gathers its feature maps in its own way"
    if name == "activation" and isinstance(domain, Choice):
        others = [str(value) for value in domain.values if value not in row.activations]
        if others:
            return f"{row.name} has not {', '.join(others)}; it has {', '.join(row.activations)}"
    if name == "dropout" and not row.drops and domain != Choice((0.0,)):
        return f"{row.name} has no dropout"
    if name == "drop_path" and name not in row.options:
        return f"{row.name} has no residual blocks that can be left out (stochastic depth)"
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


def batch_sizes(space: Space) -> list[int]:
    """The batch sizes that a space may ask for, the smallest first."""
    batches = space["batch_size"]
    return sorted(map(int, batches.values if isinstance(batches, Choice) else (batches.high,)))


def _domain(name: str, written: str) -> Choice | Range:
    if ".." not in written:
        values = tuple(value_of(name, part.strip()) for part in written.split(","))
        if len(set(values)) < len(values):
            raise ValueError("a value is given twice")
        return Choice(values)
    ends, _, scale = written.partition(":")
    if scale not in ("", "log", "linear"):
        raise ValueError(f"{scale!r} is no scale; write :log or nothing")
    low, high = (value_of(name, part) for part in ends.split("..", 1))
    if isinstance(low, str) or isinstance(high, str):
        examples = _WORDS.get(name, ("own", "0.1"))[:2]
        raise ValueError(f"{name} has no order; list its values, such as {name}={','.join(examples)}")
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
    "mix": ("none", "mixup", "cutmix"),
}
_OWN = ("weight_decay", "warmup_ratio")  # numbers, or the word `own`


def value_of(name: str, written: str) -> Value:
    """Reads a value of a hyperparameter.

    Raises:
        ValueError: It cannot have that value.

    >>> value_of("weight_decay", "own"), value_of("weight_decay", "0.05"), value_of("batch_size", "64")
    ('own', 0.05, 64)
    """
    if name in _WORDS:
        if written not in _WORDS[name]:
            known = _WORDS[name]
            raise ValueError(f"{written!r} is none of {', '.join(known)}{did_you_mean(written, known)}")
        return written
    if name == "batch_size":
        if not written.isascii() or not written.isdigit() or int(written) < 1:
            raise ValueError(f"{written!r} is no whole number from 1")
        return int(written)
    if name in _OWN and written == "own":
        return written
    try:
        number = float(written)
    except ValueError:
        raise ValueError(f"{written!r} is no number" + (" and not own" if name in _OWN else "")) from None
    good, fault = _LIMITS[name]
    if not good(number):
        raise ValueError(f"{written} is not {fault}")
    return number


_SHARE = (lambda number: 0 <= number < 1, "from 0 to below 1")
_LIMITS: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "learning_rate": (lambda number: 0 < number < math.inf, "above 0"),
    "dropout": _SHARE,
    "label_smoothing": _SHARE,
    "warmup_ratio": _SHARE,
    "first_layer_rate": (lambda number: 0 < number <= 1, "above 0 and at most 1"),
    "weight_decay": (lambda number: 0 <= number < math.inf, "0 or more"),
    "drop_path": _SHARE,
}
