"""Networks: the table of the project's own architectures (report sections 2.1 and 3), and how others are found.

The table imports no torch, so that a command line can ask it for names and sizes at no cost.

    cnn1, cnn2, cnn3, resnet50    this table
    timm:NAME                     an image classifier of timm                                   models/timm_models.py
    FILE.py:FUNCTION              a function of the user's                                      models/own.py
    NAME                          one that an installed package offers as `sweep.architectures`  models/own.py
"""

from __future__ import annotations

import re
from pathlib import Path

from data.faults import InputError, did_you_mean
from data.recipe import RECIPES, Augmentation
from models.architecture import TIMM, Architecture

_FLIP_AND_ROTATE = Augmentation(rotation=15, horizontal_flip=True)

ARCHITECTURES: dict[str, Architecture] = {
    row.name: row
    for row in (
        Architecture("cnn1", "3.1", 160, 2, 0.0, 1.0, _FLIP_AND_ROTATE),
        Architecture("cnn2", "3.2", 160, 4, 0.0, 1.0, _FLIP_AND_ROTATE),
        Architecture("cnn3", "3.3", 150, 8, 0.5, 0.5, Augmentation(horizontal_flip=True)),
        Architecture(
            "resnet50",
            "3.4",
            224,
            33,  # at 32 a last batch of one image leaves batch normalisation a single value
            0.0,
            1.0,
            Augmentation(
                rotation=20,
                shear=10,
                zoom=0.3,
                shift=0.2,
                brightness=(0.5, 2.0),
                horizontal_flip=True,
                vertical_flip=True,
                fill="border",
            ),
            options=("weights", "finetune"),
            flattens=False,
        ),
    )
}


def architecture(name: str) -> Architecture:
    """Describes an architecture.

    Args:
        name: A key of ARCHITECTURES, `timm:NAME`, `FILE.py:FUNCTION`, or the name of an entry point.

    Raises:
        InputError: There is no such architecture.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name.startswith(TIMM):
        from models.timm_models import architecture_of

        return architecture_of(name.removeprefix(TIMM))
    from models.own import architecture_of_file, architecture_of_package

    file = file_of(name)
    if file is not None:
        return architecture_of_file(name, *file)
    found = architecture_of_package(name)
    if found is None:
        several = name.replace(",", " ").split()
        repeated = f"; for several repeat the option: {' '.join(f'--arch {one}' for one in several)}"
        near = repeated if len(several) > 1 else did_you_mean(name, ARCHITECTURES)
        raise InputError(
            f"--arch {name}: there is no such architecture; there are {', '.join(ARCHITECTURES)}, timm:NAME (any image "
            f"classifier of timm) and FILE.py:FUNCTION (your own){near}"
        )
    return found


def weights_of(name: str, choice: str) -> tuple[Path | None, str]:
    """Finds the file behind `--weights` of an architecture that has this option; downloads published ones on first use.

    Args:
        name: Its name.
        choice: `pretrained` or `imagenet`, `none` or a path.

    Returns:
        An existing file, or None for `none`; and a sentence for people, empty where there is nothing to say.

    Raises:
        InputError: The file is missing or not this network's, or the published weights cannot be downloaded.
    """
    if name.startswith(TIMM):
        from models import timm_models

        return timm_models.weights_file(name.removeprefix(TIMM), choice)
    from models import resnet50

    return resnet50.weights_file(choice)


def recipe_of(name: str, augmentation: str) -> Augmentation:
    """What happened to the training images of an architecture, whose file may be gone: as `Architecture.recipe`."""
    if name in ARCHITECTURES:
        return ARCHITECTURES[name].recipe(augmentation)
    return RECIPES["both" if augmentation == "own" else augmentation]  # as timm's and the user's have it


def file_of(name: str) -> tuple[Path, str] | None:
    """The file and the function that an architecture's name means; None where it is of no file.

    >>> file_of("nets.py/my_model.py:other"), file_of("my_model.py"), file_of("cnn1")
    ((PosixPath('nets.py/my_model.py'), 'other'), (PosixPath('my_model.py'), 'build'), None)
    """
    written = re.fullmatch(r"(.+\.py)(?::(\w+))?", name)
    return None if written is None else (Path(written[1]), written[2] or "build")


def absolute(name: str) -> str:
    """An architecture's name that means the same in another directory: a file's becomes its whole path."""
    file = file_of(name)
    return name if file is None else f"{file[0].resolve()}:{file[1]}"


def short_name(name: str) -> str:
    """What studies, runs and the registry's alias of an architecture are called; an alias has no `:`, `.` or `/`.

    >>> [short_name(name) for name in ("cnn1", "timm:vit_tiny_patch16_224.augreg_in21k", "/home/ann/net.py:build")]
    ['cnn1', 'timm-vit_tiny_patch16_224-augreg_in21k', 'net']
    """
    file = file_of(name)
    if file is not None:
        path, function = file
        name = path.stem if function == "build" else f"{path.stem}-{function}"
    return re.sub(r"[^\w-]", "-", name, flags=re.ASCII).lower().lstrip("-") or "network"  # no option begins a command
