"""Networks that others wrote: a function in a file of the user's, or one that an installed package offers.

A file is executed as it is, by whoever names it. Its hash is recorded with every run, and a network is built again
only from a file with the same hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from data.faults import InputError
from data.recipe import RECIPES
from models.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn

GROUP = "sweep.architectures"
ARGUMENTS = ("activation", "dropout", "classes", "image_size")
SMALLEST, LARGEST, IMAGE_SIZE, MEAN, STD = 8, 1024, 160, 0.0, 1.0


def architecture_of_file(name: str, path: Path, function: str) -> Architecture:
    """Describes the network of a function in a file.

    Args:
        name: As it was typed.
        path: The file. It may define IMAGE_SIZE, in pixels, and MEAN and STD, of pixels that go from 0 to 1.
        function: The function's name.

    Raises:
        InputError: There is no such file or function, or the function takes other arguments.
    """
    if not path.is_file():
        raise InputError(f"--arch {name}: there is no file {path}")
    digest = _digest(path)
    module = _module(path.resolve(), digest)
    return _described(name, module, getattr(module, function, None), function, digest)


def architecture_of_package(name: str) -> Architecture | None:
    """Describes the network that an installed package offers under a name; None where none does.

    Raises:
        InputError: Several packages offer it, or what one offers is no function that builds a network.
    """
    offered = [point for point in metadata.entry_points(group=GROUP) if point.name == name]
    if not offered:
        return None
    if len(offered) > 1:
        raise InputError(f"--arch {name}: several installed packages offer it: {', '.join(p.value for p in offered)}")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            function = offered[0].load()
    except (Exception, SystemExit) as error:  # a package's module raises whatever goes wrong in it
        raise InputError(f"--arch {name}: {offered[0].value} cannot be imported ({_said(error)})") from error
    module = inspect.getmodule(function)
    source = inspect.getsourcefile(function) if callable(function) else None
    if module is None or source is None:
        raise InputError(f"--arch {name}: {offered[0].value} is no function of a Python file")
    return _described(name, module, function, offered[0].value, _digest(Path(source)))


def offered() -> tuple[str, ...]:
    """The names of the architectures that installed packages offer."""
    return tuple(sorted({point.name for point in metadata.entry_points(group=GROUP)}))


def _described(name: str, module: ModuleType, function: Any, called: str, digest: str) -> Architecture:
    """An architecture whose networks a function makes."""
    if not callable(function):
        raise InputError(f"--arch {name}: there is no function {called}")
    try:
        inspect.signature(function).bind(**dict.fromkeys(ARGUMENTS))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"--arch {name}: {called} must take {', '.join(ARGUMENTS)}, by these names ({error})"
        ) from error
    size, mean, std = (getattr(module, key, usual) for key, usual in _CONSTANTS.items())
    whole = isinstance(size, int) and SMALLEST <= size <= LARGEST
    if not whole or not _number(mean) or not _number(std) or std <= 0:
        raise InputError(
            f"--arch {name}: IMAGE_SIZE is a whole number from {SMALLEST} to {LARGEST}, MEAN a number, STD one above 0"
        )
    return Architecture(
        name,
        "",
        size,
        SMALLEST,
        float(mean),
        float(std),
        RECIPES["both"],
        options=("source_digest",),
        flattens=False,
        make=partial(_build, name, cast("Callable[..., nn.Module]", function), digest),
        digest=digest,
    )


_CONSTANTS = {"IMAGE_SIZE": IMAGE_SIZE, "MEAN": MEAN, "STD": STD}


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _build(
    name: str,
    function: Callable[..., nn.Module],
    digest: str,
    activation: str,
    dropout: float,
    classes: int,
    image_size: int,
    *,
    source_digest: str | None = None,
) -> nn.Module:
    """Calls the user's function. Raises InputError where the file is another one than before, or gives no network."""
    from torch import nn

    if source_digest not in (None, digest):
        raise InputError(
            f"--arch {name}: its file has changed: its SHA-256 begins with {digest}, and with {source_digest} when the "
            "network was trained; put the file back as it was, or begin another study (--study NAME)"
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may belong to one object of JSON
            network = function(activation=activation, dropout=dropout, classes=classes, image_size=image_size)
    except SystemExit as error:
        raise InputError(f"--arch {name}: ends the program ({_said(error)})") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"--arch {name}: it returns {type(network).__name__}, not a torch.nn.Module")
    return network


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"--arch: {path} cannot be read ({error.strerror})") from error


@cache
def _module(path: Path, digest: str) -> ModuleType:
    """Executes a file, once for each content. Modules beside it can be imported; they shadow no others.

    Raises:
        InputError: It cannot be imported, or a module beside it has the name of one beside another file: Python knows
            one module by a name.
    """
    spec = importlib.util.spec_from_file_location(f"sweep_own_{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"--arch {path}: is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles of torch look their module up
    folder = str(path.parent)
    if taken := _taken(path):
        raise InputError(
            f"--arch {path}: beside it is {taken[0].name}, and {taken[1]}, of another architecture, is imported by the "
            "same name; rename one of them, or search the two in commands of their own"
        )
    if folder not in sys.path:
        sys.path.append(folder)
    _folders.add(path.parent)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code raises whatever goes wrong in it
        del sys.modules[spec.name]
        raise InputError(f"--arch {path.name}: cannot be imported ({_said(error)})") from error
    return module


_folders: set[Path] = set()  # of the files that were executed


def _taken(path: Path) -> tuple[Path, Path] | None:
    """A module beside a file whose name is taken, and the imported one of this name, which is beside another file."""
    folder = path.parent
    for place in folder.iterdir():
        module = place != path and (place.suffix == ".py" or place.is_dir())
        loaded = sys.modules.get(place.stem) if module else None
        file = Path(str(getattr(loaded, "__file__", None) or ""))
        beside = file.parent.parent if file.name == "__init__.py" else file.parent
        if loaded is not None and beside != folder and beside in _folders:
            return place, file
    return None


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
