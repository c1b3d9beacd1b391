"""What an answer of each network costs: parameters, multiplications, and the time of one image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

REPEATS = 30


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        parameters: Trained or frozen.
        macs: Multiplications with an addition, of one image's forward pass, in convolutions and linear layers.
        milliseconds: One image alone, one thread, float32; a median.
    """

    parameters: int
    macs: int
    milliseconds: float


def measure(places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Cost]:
    """Measures networks in turns, so that whatever else the machine does meets all of them.

    Args:
        places: Architecture and image size of each.
    """
    import torch

    from models import architecture
    from models.outline import cost, sketch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        networks = []
        for arch, size in places:
            row = architecture(arch)
            with torch.random.fork_rng(devices=[]):
                network = row.build(row.activations[0], 0.0, 2, size, weights=None, finetune="all")
            networks.append(network.eval().to(memory_format=torch.channels_last))
        seconds: list[list[float]] = [[] for _ in places]
        with torch.inference_mode():
            for turn in range(REPEATS + 3):
                for (_, size), network, taken in zip(places, networks, seconds, strict=True):
                    image = torch.rand(1, 1, size, size)
                    started = time.perf_counter()
                    network(image)
                    if turn >= 3:  # the first ones choose how to compute
                        taken.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    outlined = [cost(sketch(arch, size), size) for arch, size in places]
    return {
        place: Cost(one.parameters, one.flops // 2, 1000 * float(np.median(taken)))
        for place, one, taken in zip(places, outlined, seconds, strict=True)
    }
