"""A network as the rows of a diagram, and what one image costs it.

Nothing here needs weights or memory: networks run on torch's meta device, which computes shapes alone. torch is
imported where it is used, so that a `Layer` costs nothing to whoever only draws it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from models import architecture

if TYPE_CHECKING:
    from torch import Tensor, nn

# What leaves its input's values as they are is not drawn.
_UNSEEN = ("Flatten", "Identity")
_WORDS = {
    "BatchNorm2d": "batch norm",
    "Standardise": "standardised",
    "Equalise": "histogram equalised",
    "ImageNetPixels": "scaled as ImageNet",
}


@dataclass(frozen=True)
class Layer:
    """One block of a diagram.

    Attributes:
        name: `Conv`, `Max pool`, `Linear`, ..., or the name of a stage in its network.
        kind: `input`, `convolution`, `pooling`, `stage` or `linear`.
        detail: What it is and what follows it at once, separated by commas: `12 of 3 x 3, batch norm, ReLU`.
        output: Channels, height and width, or values alone, of one image.
        parameters: Trained or frozen, with those of what follows it at once.
    """

    name: str
    kind: str
    detail: str
    output: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Cost:
    """What a network takes.

    Attributes:
        parameters: Trained or frozen.
        flops: Floating point operations of one image's forward pass, a multiplication and an addition being two:
            twice the MACs of other tables. Convolutions and linear layers alone are counted, the rest is small.
    """

    parameters: int
    flops: int


def sketch(
    arch: str,
    image_size: int,
    classes: int = 2,
    activation: str | None = None,
    dropout: float = 0.0,
    normalisation: str = "fixed",
    pooling: str = "own",
    source_digest: str | None = None,
) -> nn.Module:
    """Builds a network without memory for its weights, so at once.

    Args:
        arch: As `models.architecture` takes it.
        image_size: Side of the input, in pixels.
        classes: Number of logits.
        activation: One of its activations; None takes its usual one.
        dropout: Probability from 0 to 1.
        normalisation: As `Architecture.build` takes it.
        pooling: As `models.layers.gathered` takes it, where the architecture leaves a choice.
        source_digest: Of the file that it comes from, if it has to be that one.

    Returns:
        A network on the meta device, or on the CPU where the user's own reads numbers while it is built.

    Raises:
        InputError: The user's file is gone or another one.
    """
    import torch

    row = architecture(arch)
    # An architecture takes those options that it has.
    options = {"weights": None, "finetune": "all", "source_digest": source_digest}
    layers = (activation or row.activations[0], dropout, classes, image_size, normalisation, pooling)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            # A network that reads its own weights says for each tensor that nothing was copied: it need not be.
            warnings.filterwarnings("ignore", ".*copying from a non-meta parameter", UserWarning)
            return row.build(*layers, **options)
    except (RuntimeError, NotImplementedError):
        if row.digest is None:
            raise
    with torch.random.fork_rng(devices=[]):
        return row.build(*layers, **options)


def cost(network: nn.Module, image_size: int) -> Cost:
    """Counts a network's parameters, and the operations of one image [1, image_size, image_size]."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    twin = _twin(network)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(torch.empty(1, 1, image_size, image_size, device="meta"))
    return Cost(_size(network), counter.get_total_flops())


def served_cost(network: nn.Module, image_size: int) -> Cost:
    """Counts the same of an exported network, which runs once: needs nothing of what built it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, image_size, image_size))
    return Cost(_size(network), counter.get_total_flops())


def outline(network: nn.Module, image_size: int) -> tuple[Layer, ...]:
    """Lists what a person would draw of a network.

    Activations, normalisation and dropout belong to the layer that they follow; a stage of like blocks is one row,
    and so is all that comes before the first stage.

    Args:
        network: Takes float [N, 1, image_size, image_size]; a copy of it runs.
        image_size: Side of the input, in pixels.

    Returns:
        The input, then layers in the order in which they run.
    """
    import torch

    ran: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def note(name: str, module: nn.Module, images: tuple[Tensor, ...], result: Tensor | tuple[Tensor, ...]) -> None:
        # A recurrent layer, for example, gives its state, too.
        first = next(part for part in result if isinstance(part, torch.Tensor)) if isinstance(result, tuple) else result
        ran.append((name, module, tuple(first.shape[1:])))

    twin = _twin(network)
    for name, part in _parts("", twin):
        part.register_forward_hook(partial(note, name))
    with torch.no_grad():
        twin(torch.empty(2, 1, image_size, image_size, device="meta"))

    rows = [Layer("Input", "input", "", (1, image_size, image_size), 0)]
    for name, module, output in ran:
        drawn = _drawn(name, module)
        if drawn:
            rows.append(Layer(*drawn, output, _size(module)))
        elif type(module).__name__ not in _UNSEEN:
            rows[-1] = _followed(rows[-1], module)
    return tuple(_with_stem(rows))


def _twin(network: nn.Module) -> nn.Module:
    """A copy that computes shapes alone, as in evaluation; hooks and modes of the network itself stay as they are."""
    return copy.deepcopy(network).to("meta").eval()


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _parts(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that run as one, with their own names: stages, and what has no modules inside."""
    if _is_stage(module) or not list(module.children()):
        yield name, module
        return
    for inner, child in module.named_children():
        yield from _parts(inner, child)


def _is_stage(module: nn.Module) -> bool:
    """Whether it is a sequence of like blocks, such as ResNet's bottlenecks."""
    from torch import nn

    blocks = list(module.children())
    alike = len({type(block) for block in blocks}) == 1
    return (
        isinstance(module, nn.Sequential | nn.ModuleDict) and alike and all(list(block.children()) for block in blocks)
    )


def _drawn(name: str, module: nn.Module) -> tuple[str, str, str] | None:
    """Name, kind and detail of the row that a module begins; None if it belongs to the row before."""
    from torch import nn

    from models.layers import GlobalAverage

    if _is_stage(module):
        blocks = list(module.children())
        plural = "s" if len(blocks) > 1 else ""
        return name, "stage", f"{len(blocks)} {type(blocks[0]).__name__.lower()}{plural}"
    match module:
        case nn.Conv2d():
            return "Conv", "convolution", f"{module.out_channels} of {_window(module.kernel_size, module.stride, 1)}"
        case nn.MaxPool2d():
            return "Max pool", "pooling", _window(module.kernel_size, module.stride, module.kernel_size)
        case nn.AdaptiveAvgPool2d():
            return "Average pool", "pooling", ""
        case GlobalAverage():
            return "Global average", "pooling", ""
        case nn.Linear():
            return "Linear", "linear", ""
    return None


def _window(kernel: int | tuple[int, ...], stride: int | tuple[int, ...], usual: int | tuple[int, ...]) -> str:
    """Says what slides over the image: `3 x 3, stride 2`; the usual stride goes without saying."""
    sides = [side if isinstance(side, tuple) else (side, side) for side in (kernel, stride, usual)]
    steps = f", stride {sides[1][0]}" if sides[1] != sides[2] else ""
    return f"{sides[0][0]} x {sides[0][1]}{steps}"


def _followed(row: Layer, module: nn.Module) -> Layer:
    """The row with what comes right after it; a dropout of nothing is none."""
    from torch import nn

    word = _WORDS.get(type(module).__name__, type(module).__name__)
    if isinstance(module, nn.Dropout):
        word = f"dropout {module.p:.2g}" if module.p else ""
    detail = ", ".join(filter(None, (row.detail, word)))
    return replace(row, detail=detail, parameters=row.parameters + _size(module))


def _with_stem(rows: Sequence[Layer]) -> list[Layer]:
    """Rows with all between the input and the first stage in one; networks without stages stay as they are."""
    first = next((index for index, row in enumerate(rows) if row.kind == "stage"), 1)
    if first == 1:
        return list(rows)
    stem = rows[1:first]
    detail = ", ".join(f"{row.name.lower()} {row.detail}".strip() for row in stem)
    merged = Layer("stem", stem[0].kind, detail, stem[-1].output, sum(row.parameters for row in stem))
    return [rows[0], merged, *rows[first:]]
