"""How fast a network trains on this machine, measured before a study to estimate how long it will take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from models import architecture
from sweep.training.config import TrainingConfig
from sweep.training.inference import build_network

SECONDS = 0.5


def measure_speed(
    arch: str, image_size: int, classes: int, precision: str, device: str, threads: int, options: Mapping[str, Any]
) -> float:
    """Measures how many random images per second one training process takes, in about half a second of work.

    Forward and backward alone: the first step of an optimiser imports torch's compiler, which takes longer than the
    measurement, and the time that an optimiser adds to these networks is lost in the noise.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        usual = architecture(arch).activations[0]
        options = {**options, "weights": None} if "weights" in options else dict(options)
        config = TrainingConfig(
            arch, usual, "adam", 1e-3, 16, 0.2, 0, 1, 0, image_size, classes, precision, device, options
        )
        with torch.random.fork_rng(devices=[]):
            network = build_network(config).to(device=device).to(memory_format=torch.channels_last).train()
        images = torch.rand(config.batch_size, 1, image_size, image_size, device=device)
        labels = torch.arange(config.batch_size, device=device) % classes
        steps, started = -1, time.perf_counter()  # the first step warms up and does not count
        while steps < 1 or time.perf_counter() - started < SECONDS:
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16"):
                loss = functional.cross_entropy(network(images).float(), labels)
            network.zero_grad(set_to_none=True)
            loss.backward()
            loss.item()
            steps += 1
            if steps == 0:
                started = time.perf_counter()
        return steps * config.batch_size / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads_before)
