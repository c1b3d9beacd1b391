"""The optimisers, each in the fastest implementation that torch has for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import torch

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


def build_optimizer(name: str, parameters: Iterable[torch.Tensor], rate: float) -> torch.optim.Optimizer:
    """Builds an optimiser.

    Args:
        name: A key of KINDS.
        parameters: What it changes; all on one device.
        rate: The learning rate.

    Raises:
        ConfigurationError: Torch has no such optimiser for the device.
    """
    parameters = list(parameters)
    device = parameters[0].device.type
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
    return _build(name, parameters, rate, fused=fused)


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


def _build(name: str, parameters: list[torch.Tensor], rate: float, *, fused: bool | None) -> torch.optim.Optimizer:
    kind: Any = KINDS[name]
    return kind(parameters, rate, fused=fused, **OPTIONS.get(name, {}))
