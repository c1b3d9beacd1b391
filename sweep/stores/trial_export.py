"""Tries out a network of others before anything is trained: built, run, drawn, and exported as to be registered."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.parameter import UninitializedParameter

from data.faults import InputError
from models import architecture
from models.architecture import TIMM
from models.outline import outline, sketch
from sweep.stores.packaging import export_network
from sweep.system.redaction import first_line


def check_network(
    arch: str,
    image_size: int,
    classes: int,
    params: Mapping[str, Any],
    options: Mapping[str, Any],
    lone: Sequence[int] = (),
) -> None:
    """Checks that a network takes images of a size, answers with logits, learns, can be drawn and exported.

    Args:
        arch: As `models.architecture` takes it.
        image_size: Side of its input, in pixels.
        classes: Number of logits.
        params: `activation`, `dropout`, `normalisation` and `pooling`.
        options: Further arguments of the architecture's `build`; weights are not read.
        lone: Batch sizes that leave a last batch of one image, on which some networks cannot be trained.

    Raises:
        InputError: It does not; says what, and which sizes near this one a network of timm takes.
    """
    size = f"{image_size} x {image_size} pixels"
    options = {**options, **({"weights": None} if "weights" in options else {})}
    images = torch.rand(2, 1, image_size, image_size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.random.fork_rng(devices=[]):
            network = architecture(arch).build(classes=classes, image_size=image_size, **params, **options)
            if any(isinstance(parameter, UninitializedParameter) for parameter in network.parameters()):
                raise InputError(f"--arch {arch}: has lazy layers; give them the sizes of their inputs")
            logits = network.train()(images)
            with torch.no_grad():
                answered = network.eval()(images)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # networks raise whatever their layers run into
        near = _sizes(arch, image_size)
        raise InputError(f"--arch {arch}: takes no images of {size} ({_said(error)}){near}") from error
    for answer, when in ((logits, "in training"), (answered, "in evaluation")):
        if not isinstance(answer, torch.Tensor) or tuple(answer.shape) != (2, classes):
            shape = list(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
            raise InputError(f"--arch {arch}: gives {shape} for 2 images of {size} {when}, not logits [2, {classes}]")
    if not logits.requires_grad:
        raise InputError(f"--arch {arch}: has no parameter that could be trained")
    if lone:
        _check_lone(arch, network, images[:1], lone)
    with tempfile.TemporaryDirectory() as folder:
        try:
            export_network(network, image_size, Path(folder) / "network.pt2")
        except Exception as error:  # torch.export raises whatever it cannot follow
            raise InputError(
                f"--arch {arch}: torch cannot export it, so no model of it could be registered ({_said(error)})"
            ) from error
    layout = {name: params[name] for name in ("normalisation", "pooling") if name in params}
    try:
        outline(sketch(arch, image_size, classes, **layout), image_size)
    except Exception as error:
        raise InputError(f"--arch {arch}: its layers cannot be drawn ({_said(error)})") from error


def _check_lone(arch: str, network: torch.nn.Module, image: torch.Tensor, batch_sizes: Sequence[int]) -> None:
    """Batch normalisation of maps of a single value has nothing to normalise in a single image."""
    try:
        network.train()(image)
    except ValueError as error:
        raise InputError(
            f"--arch {arch}: cannot be trained on a batch of one image ({_said(error)}), and the training images leave "
            f"one over with batch_size {', '.join(map(str, batch_sizes))}; search other ones, or a larger --image-size"
        ) from error


def _sizes(arch: str, image_size: int) -> str:
    if not arch.startswith(TIMM):
        return ""
    from models.timm_models import sizes_near

    near = sizes_near(arch.removeprefix(TIMM), image_size)
    return f"; it takes --image-size {' or '.join(map(str, near))}" if near else ""


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
