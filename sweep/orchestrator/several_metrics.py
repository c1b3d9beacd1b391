"""What a study by several metrics needs of a trial: what its network costs, and the standard error of its score."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from data.cache import Images
from models.outline import cost, sketch
from sweep.metrics.names import COSTS
from sweep.metrics.predictions import predictions_of
from sweep.orchestrator.progress import RunningTrial
from sweep.plan import Plan
from sweep.space import layout
from sweep.stores.attributes import TIMES
from sweep.stores.study import Study
from sweep.training.config import TrainingConfig

SECONDS, RUNS = 1.0, 20  # a network is timed until either is used up


def costs_of(config: TrainingConfig, metrics: Sequence[str], study: Study) -> dict[str, float]:
    """The costs of a trial's network by name, those that are among a study's metrics.

    Parameters and operations are counted, and are the same everywhere. A time is measured once for each network that
    a study has, and kept with it: trials of the same network have the same time, so that what the machine does beside
    it makes no trial better than another one of the same network.

    Args:
        config: What the trial trains.
        metrics: The study's.
        study: The study, which keeps the times.
    """
    wanted = [name for name in COSTS if name in metrics]
    if not wanted:
        return {}
    layers = {"activation": config.activation, **layout(vars(config))}
    network = sketch(
        config.arch,
        config.image_size,
        config.classes,
        **layers,
        source_digest=config.options.get("source_digest"),
    )
    counted = cost(network, config.image_size)
    costs = {"cost/parameters": float(counted.parameters), "cost/mflops": counted.flops / 1e6}
    if "cost/ms_per_image" in wanted:
        key, times = json.dumps(layers, sort_keys=True), dict(study.noted(TIMES) or {})
        if key not in times:
            times[key] = milliseconds_per_image(config)
            study.note(TIMES, times)
        costs["cost/ms_per_image"] = times[key]
    return {name: costs[name] for name in wanted}


def milliseconds_per_image(config: TrainingConfig) -> float:
    """How long a network takes for one image, by itself, on one thread of this machine's CPU, in float32.

    The shortest of several runs: what else the machine does only ever adds to one, as Python's `timeit` says of its
    own repetitions.
    """
    import torch

    from sweep.training.inference import build_network

    threads = torch.get_num_threads()
    options = {name: None if name == "weights" else value for name, value in config.options.items()}
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            network = build_network(replace(config, options=options)).eval()
            image = torch.rand(1, 1, config.image_size, config.image_size)
            seconds: list[float] = []
            network(image)  # warms up
            while len(seconds) < RUNS and sum(seconds) < SECONDS:
                started = time.perf_counter()
                network(image)
                seconds.append(time.perf_counter() - started)
        return 1000 * min(seconds)
    finally:
        torch.set_num_threads(threads)


def values_and_result(running: RunningTrial, plan: Plan, images: Images) -> tuple[list[float], dict[str, Any]]:
    """What Optuna is told of a complete trial: its metrics at the best epoch, and what its training left.

    With several metrics that includes the standard error of the first one, to choose by.

    Args:
        running: The trial, with an epoch at least.
        plan: The sweep.
        images: The validation images.
    """
    metrics, best = plan.settings.metrics, running.best or {}
    values, result = [best[metric] for metric in metrics], running.result
    logits = running.best_logits if running.best_stressed is None else running.best_stressed
    if len(metrics) > 1 and logits is not None:
        from sweep.metrics.bootstrap import standard_error  # imports scikit-learn

        predictions = predictions_of(images, logits, plan.source.classes)
        result |= {"standard_error": standard_error(metrics[0], predictions)}
    return values, result
