"""The optimisers, each in the fastest implementation that torch has for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from sweep.training.config import ConfigurationError

KINDS: Mapping[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}
OPTIONS: Mapping[str, Mapping[str, Any]] = {"sgd": MappingProxyType({"momentum": 0.9})}


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the GPU or of the machine was not enough.

    >>> out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    True
    """
    # Neither the CPU's allocator nor CUDA's libraries have an exception type of their own.
    texts = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in texts)


Group = dict[str, Any]  # as torch's optimisers take it: `params`, and what is different for these


def parameter_groups(
    network: nn.Module, first_layer_rate: float, weight_decay: float | str
) -> Sequence[torch.Tensor] | Sequence[Group]:
    """What an optimiser is to change, with the learning rate of each layer.

    Layers are the modules that hold parameters, in the order in which the network registers them. Their learning rates
    rise in even steps of the logarithm from the first to the last, as in fastai's discriminative fine-tuning (Howard
    and Ruder, arXiv 1801.06146). That needs no name of a layer and no boundary between backbone and head, so it holds
    for every module: a new head has about the full rate, of however many layers it consists. Frozen layers count, so
    that a head that is trained alone has it too.

    Args:
        network: Its parameters that require a gradient are taken.
        first_layer_rate: Share of the learning rate that the first layer has, above 0, at most 1.
        weight_decay: 0 or more, for all; `own` leaves it to the optimiser.

    Returns:
        The parameters alone where all are treated as the optimiser treats them by default; else groups, in the same
        order, whose `rate_share` says what part of the learning rate is theirs.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if first_layer_rate == 1 and weight_decay == "own":
        return trained
    decay = {} if weight_decay == "own" else {"weight_decay": weight_decay}
    if first_layer_rate == 1:
        return [{"params": trained, "rate_share": 1.0, **decay}]
    layers: dict[str, list[torch.Tensor]] = {}
    for name, parameter in network.named_parameters():
        layers.setdefault(name.rpartition(".")[0], []).append(parameter)
    groups = []
    for place, parameters in enumerate(layers.values(), start=1):
        share = first_layer_rate ** (1 - (place - 1) / (len(layers) - 1)) if place < len(layers) else 1.0
        if kept := [parameter for parameter in parameters if parameter.requires_grad]:
            groups.append({"params": kept, "rate_share": share, **decay})
    return groups


def build_optimizer(
    name: str, parameters: Iterable[torch.Tensor] | Iterable[Group], rate: float
) -> torch.optim.Optimizer:
    """Builds an optimiser.

    Args:
        name: A key of KINDS.
        parameters: What it changes, as `parameter_groups` returns it; all on one device.
        rate: The learning rate.

    Raises:
        ConfigurationError: Torch has no such optimiser for the device.
    """
    changed: list[Any] = list(parameters)
    first = changed[0]["params"][0] if isinstance(changed[0], dict) else changed[0]
    device = first.device.type
    if (refusal := _refusal(name, device, fused=True)) is None:
        fused = True
    elif (refusal := _refusal(name, device, fused=None)) is None:
        fused = None  # torch's own choice
    else:
        others = ",".join(other for other in KINDS if other != name)
        raise ConfigurationError(
            f"torch {torch.__version__} has no {name} for the device {device} ({refusal.splitlines()[0]}); "
            f"search without it, such as --search optimizer={others}"
        )
    return _build(name, changed, rate, fused=fused)


OPTIMIZERS: dict[str, Callable[[Any, float], torch.optim.Optimizer]] = {
    name: lambda parameters, rate, name=name: build_optimizer(name, parameters, rate) for name in KINDS
}


@cache
def _refusal(name: str, device: str, *, fused: bool | None) -> str | None:
    """What torch says where an implementation cannot step on a device; None where it can.

    It is tried on one number: which implementations there are differs by optimiser, device and torch's version, and
    torch has no function that tells.
    """
    number = torch.ones(1, device=device, requires_grad=True)
    number.grad = torch.zeros_like(number)
    try:
        _build(name, [number], 0.1, fused=fused).step()
    except RuntimeError as error:
        if out_of_memory(error) or "CUDA error" in str(error):  # the device is in trouble, which says nothing of torch
            raise
        return str(error)
    return None


def _build(name: str, parameters: list[Any], rate: float, *, fused: bool | None) -> torch.optim.Optimizer:
    kind: Any = KINDS[name]
    return kind(parameters, rate, fused=fused, **OPTIONS.get(name, {}))
