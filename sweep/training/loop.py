"""Trains one network. Knows torch, and nothing of Optuna, MLflow or processes: the same call in a test and in a worker.

    for result in train(config, images["train"], images["validation"], folder):
        print(result.epoch, result.validation_loss)

Every random draw of epoch k comes from (seed, k), never from what ran before it. A training that is resumed from its
last checkpoint therefore gives the numbers that it would have given without the interruption, bit for bit on a CPU.
It first yields the epochs before the interruption once more, from the checkpoint, so that the caller misses none.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from data.augment import augmented_batches, stress
from data.cache import Images
from data.recipe import STRESS
from models import architecture
from models.layers import hastened
from sweep.training.config import BEST, ConfigurationError, EpochResult, NonFiniteLossError, TrainingConfig
from sweep.training.inference import build_network, compute_logits, normalise, to_device
from sweep.training.optimizers import OPTIMIZERS, out_of_memory
from sweep.training.state import resume, save_best, save_last

WARM_UP = 0.5  # epochs in which the learning rate of a schedule rises


# Long on purpose: a recipe, to be read from top to bottom.
def train(
    config: TrainingConfig,
    training: Images,
    validation: Images,
    folder: Path,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[EpochResult]:
    """Trains a network, one epoch per step of the iterator; resumes from the last checkpoint of the folder.

    The lowest validation loss, or that of the stressed images, decides which weights are kept and, with patience, when
    to stop (report section 1.2).
    Classes are weighted as in report section 2.3: images / (classes * images of the class), of the training labels.

    Args:
        config: What to train and how.
        training: Images to learn from.
        validation: Images to choose the best epoch by.
        folder: Where the checkpoints are.
        stop: Called before every step; once it returns True the training ends without a further result.

    Yields:
        One result per epoch, those of the checkpoint first. After the last one `best.safetensors` is written.

    Raises:
        ConfigurationError: The training cannot begin, and could not at another attempt either.
        NonFiniteLossError: The loss of an epoch is infinite or not a number.
    """
    device = torch.device(config.device)
    with _as_configuration_errors():
        described = architecture(config.arch)
        train_data, validation_data = to_device(training, device), to_device(validation, device)
        class_weights = _class_weights(training.labels, config.classes).to(device)
        stressed_data = _stressed(*validation_data) if config.stress else None
        _seed_torch(config.seed, 0)
        network = build_network(config).to(device=device).to(memory_format=torch.channels_last)
        optimizer = OPTIMIZERS[config.optimizer](
            [parameter for parameter in network.parameters() if parameter.requires_grad], config.learning_rate
        )
    augmentation = described.recipe(config.augmentation)
    forward = hastened(network)
    averaged = copy.deepcopy(network) if config.averaging == "ema" else None
    validated = network if averaged is None else averaged
    micro_batch = config.micro_batch or config.batch_size
    steps_per_epoch = math.ceil(len(training) / config.batch_size)
    progress = resume(folder, config, network, optimizer, averaged)
    yield from progress.results

    while len(progress.results) < config.epochs and not progress.out_of_patience(config.patience):
        started = time.perf_counter()
        epoch = len(progress.results) + 1
        generator = _seed_torch(config.seed, epoch)
        network.train()
        # Sums stay on the device: reading a number here would wait for it at every step.
        total_loss, total_weight = torch.zeros((), device=device), torch.zeros((), device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        batches = augmented_batches(*train_data, config.batch_size, augmentation, generator)
        for step, (images, labels) in enumerate(batches):
            if stop():
                return
            _set_learning_rate(optimizer, config, epoch - 1 + step * config.batch_size / len(training))
            optimizer.zero_grad(set_to_none=True)
            weight = class_weights[labels].sum()
            for part, part_labels in zip(images.split(micro_batch), labels.split(micro_batch), strict=True):
                with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                    logits = forward(normalise(part, described.mean, described.std))
                loss = functional.cross_entropy(
                    logits.float(), part_labels, class_weights, reduction="sum", label_smoothing=config.label_smoothing
                )
                (loss / weight).backward()
                total_loss += loss.detach()
                correct += (logits.detach().argmax(1) == part_labels).sum()
            total_weight += weight
            optimizer.step()
            if averaged is not None:
                _update_average(averaged, network, (epoch - 1) * steps_per_epoch + step, steps_per_epoch)
        train_loss = (total_loss / total_weight).item()
        trained = time.perf_counter()

        validation_logits, validation_loss = _validate(validated, config, *validation_data, class_weights)
        stressed_logits, stressed_loss = (
            _validate(validated, config, *stressed_data, class_weights) if stressed_data else (None, None)
        )
        _check_finite(epoch, train=train_loss, validation=validation_loss, stressed=stressed_loss)

        result = EpochResult(
            epoch=epoch,
            train_loss=train_loss,
            train_accuracy=correct.item() / len(training),
            validation_loss=validation_loss,
            validation_logits=validation_logits,
            improved=(validation_loss if stressed_loss is None else stressed_loss) < progress.best_loss,
            seconds=time.perf_counter() - started,
            images_per_second=len(training) / (trained - started),
            ended=time.time(),
            stressed_loss=stressed_loss,
            stressed_logits=stressed_logits,
        )
        progress = progress.after(result, validated)
        save_last(folder, config, network, optimizer, averaged, progress)
        yield result
    save_best(folder / BEST, config, progress)


@contextmanager
def _as_configuration_errors() -> Iterator[None]:
    """Raises every error as a ConfigurationError, unless a GPU is in trouble."""
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        # No fault of the configuration: another attempt may succeed.
        if out_of_memory(error) or "CUDA" in str(error):
            raise
        raise ConfigurationError(f"{type(error).__name__}: {error}") from error


def _stressed(
    pixels: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images as another machine might have made them, in the form of `to_device`."""
    return stress(pixels, rows, STRESS), torch.arange(len(rows), device=rows.device), labels


def _validate(
    network: nn.Module,
    config: TrainingConfig,
    pixels: torch.Tensor,
    rows: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor,
) -> tuple[np.ndarray, float]:
    """Returns logits, float32 [N, classes], and their weighted cross entropy."""
    logits = compute_logits(network, config, pixels, rows)
    return logits.cpu().numpy(), functional.cross_entropy(logits, labels, class_weights).item()


def _check_finite(epoch: int, **losses: float | None) -> None:
    """Raises NonFiniteLossError if a loss is infinite or not a number; None stands for one that there is not."""
    computed = {name: loss for name, loss in losses.items() if loss is not None}
    if not all(map(math.isfinite, computed.values())):
        values = ", ".join(f"{name} {loss}" for name, loss in computed.items())
        raise NonFiniteLossError(f"the loss is not finite in epoch {epoch} ({values})")


def _class_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    counts = np.bincount(labels, minlength=classes)
    return torch.tensor(len(labels) / (classes * counts), dtype=torch.float32)


def _seed_torch(seed: int, epoch: int) -> torch.Generator:
    """Seeds torch (initial weights in epoch 0, dropout later); returns a generator for order and augmentation."""
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.Generator().manual_seed(int.from_bytes(digest[8:16], "big") >> 1)


def _set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainingConfig, epochs: float) -> None:
    """Sets the learning rate of the schedule after a number of epochs, which need not be whole."""
    rate = config.learning_rate
    if config.schedule == "cosine":
        # A little above 0 at the very first step, which would otherwise change nothing.
        warm_up = min(1.0, (epochs + 0.01) / WARM_UP)
        rate = rate * warm_up * (1 + math.cos(math.pi * epochs / config.epochs)) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def _update_average(averaged: nn.Module, network: nn.Module, step: int, steps_per_epoch: int) -> None:
    """Updates the moving average of a network's weights, and of its batch statistics, after a step.

    Args:
        averaged: The average; changed in place.
        network: The network.
        step: From 0, over all epochs.
        steps_per_epoch: The average reaches back about two epochs. At the start, where weights change most, it
            reaches back less: a tenth of the steps so far.
    """
    decay = min(1 - 1 / (2 * steps_per_epoch), (1 + step) / (10 + step)) if step else 0.0
    now = network.state_dict()
    for name, before in averaged.state_dict().items():
        # A counter of batches has no mean. Nothing here waits for the device.
        before.copy_(torch.lerp(now[name], before, decay) if before.is_floating_point() and step else now[name])
