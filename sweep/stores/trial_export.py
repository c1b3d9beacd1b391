"""Tries out a network of others before anything is trained: built, run, and exported as it would be registered."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from data.faults import InputError
from models import architecture
from models.architecture import TIMM
from sweep.stores.packaging import export_network
from sweep.system.redaction import first_line


def check_network(
    arch: str, image_size: int, classes: int, params: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Checks that a network takes images of a size, answers with logits, learns, and can be exported.

    Args:
        arch: As `models.architecture` takes it.
        image_size: Side of its input, in pixels.
        classes: Number of logits.
        params: `activation`, `dropout`, `normalisation` and `pooling`.
        options: Further arguments of the architecture's `build`; weights are not read.

    Raises:
        InputError: It does not; says what, and which sizes near this one a network of timm takes.
    """
    size = f"{image_size} x {image_size} pixels"
    options = {**options, **({"weights": None} if "weights" in options else {})}
    images = torch.rand(2, 1, image_size, image_size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.random.fork_rng(devices=[]):
            network = architecture(arch).build(classes=classes, image_size=image_size, **params, **options)
            logits = network.train()(images)
    except InputError:
        raise
    except Exception as error:  # networks raise whatever their layers run into
        near = _sizes(arch, image_size)
        raise InputError(f"--arch {arch}: takes no images of {size} ({_said(error)}){near}") from error
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (2, classes):
        shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(f"--arch {arch}: gives {shape} for 2 images of {size}, not logits [2, {classes}]")
    if not logits.requires_grad:
        raise InputError(f"--arch {arch}: has no parameter that could be trained")
    with tempfile.TemporaryDirectory() as folder:
        try:
            export_network(network, image_size, Path(folder) / "network.pt2")
        except Exception as error:  # torch.export raises whatever it cannot follow
            raise InputError(
                f"--arch {arch}: torch cannot export it, so no model of it could be registered ({_said(error)})"
            ) from error


def _sizes(arch: str, image_size: int) -> str:
    if not arch.startswith(TIMM):
        return ""
    from models.timm_models import sizes_near

    near = sizes_near(arch.removeprefix(TIMM), image_size)
    return f"; it takes --image-size {' or '.join(map(str, near))}" if near else ""


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
