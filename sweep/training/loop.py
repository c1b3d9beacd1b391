"""Train one network. Knows torch and nothing of Optuna, MLflow or processes: the same call in a test and in a worker.

    for result in train(config, images["train"], images["validation"], folder):
        print(result.epoch, result.validation_loss)

Every random draw of epoch k comes from (seed, k), never from what ran before it. A training that goes on from its
last checkpoint therefore gives the numbers that it would have given without the interruption, bit for bit on a CPU;
it yields the epochs before the interruption once more, from the checkpoint, so that whoever listens misses none.

A folder holds `last.safetensors` (network, optimiser, best weights and every epoch's result), the one before it as
`previous.safetensors`, and, once the training has ended, `best.safetensors`.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from data.augment import augmented_batches, batches, stress
from data.cache import Images
from data.recipe import STRESS
from models import ARCHITECTURES
from models.layers import hastened
from sweep.training import checkpoint

OPTIMIZERS: dict[str, Callable[[Any, float], torch.optim.Optimizer]] = {
    "adam": lambda parameters, rate: torch.optim.Adam(parameters, rate, fused=True),
    "adamw": lambda parameters, rate: torch.optim.AdamW(parameters, rate, fused=True),
    "adagrad": lambda parameters, rate: torch.optim.Adagrad(parameters, rate, fused=True),
    "sgd": lambda parameters, rate: torch.optim.SGD(parameters, rate, momentum=0.9, fused=True),
}
PREDICTION_BATCH = 64
WARM_UP = 0.5  # epochs in which a schedule's learning rate rises
BEST, LAST, PREVIOUS = "best.safetensors", "last.safetensors", "previous.safetensors"


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number: this configuration cannot be trained."""


class ConfigurationError(ValueError):
    """A training cannot even begin: its images are not there, its network cannot be built."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides one training's numbers, on a given kind of device.

    Attributes:
        arch: A key of ARCHITECTURES.
        activation: A key of models.layers.ACTIVATIONS.
        optimizer: A key of OPTIMIZERS.
        learning_rate: Above 0.
        batch_size: Images a step.
        dropout: Probability from 0 to 1.
        seed: Every random draw comes from it.
        epochs: Epochs at most.
        patience: Epochs without a lower `EpochResult.judged_by` before the training stops; 0 trains all epochs.
        image_size: Side of the images, in pixels.
        classes: Number of logits.
        precision: `float32` or `bfloat16` for training steps; validation is always float32, as serving is.
        device: `cpu`, `cuda` or `cuda:N`.
        options: Further arguments of the architecture's `build`.
        micro_batch: Images that pass through the network at once; gradients of a batch add up over its parts. None
            takes the whole batch. Only where memory is short: dropout and batch statistics are drawn part by part.
        augmentation: `own` is the architecture's; else a key of `data.recipe.RECIPES`.
        normalisation: `fixed`, or what each image is given before the network, as `Architecture.build` takes it.
        pooling: `own` or `average`, as `Architecture.build` takes it.
        label_smoothing: Share of each label that all classes have in equal parts, from 0 to below 1.
        averaging: `none`, or `ema`: what is validated, kept and served is a moving average of the weights.
        stress: Whether validation images are scored as another machine might have made them, too, by
            `data.recipe.STRESS`; the loss on these then decides which weights are kept.
        schedule: `constant`, or `cosine`: the learning rate rises in the first half epoch and then falls to 0.
    """

    arch: str
    activation: str
    optimizer: str
    learning_rate: float
    batch_size: int
    dropout: float
    seed: int
    epochs: int
    patience: int
    image_size: int
    classes: int
    precision: str = "float32"
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
    micro_batch: int | None = None
    augmentation: str = "own"
    normalisation: str = "fixed"
    pooling: str = "own"
    label_smoothing: float = 0.0
    averaging: str = "none"
    schedule: str = "constant"
    stress: bool = False


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to.

    Attributes:
        epoch: From 1.
        train_loss: Weighted cross entropy over the epoch, in training mode, while the weights moved; with smoothed
            labels, where they are.
        train_accuracy: Likewise, from 0 to 1.
        validation_loss: Weighted cross entropy after the epoch.
        validation_logits: float32 [N, classes], after the epoch.
        improved: Whether `judged_by` is the lowest so far; then these weights are the best ones.
        seconds: The whole epoch but for writing its checkpoint.
        images_per_second: Training images over the seconds of training alone.
        ended: When, in seconds since 1970.
        repeated: Whether it was trained before and is read from the checkpoint.
        stressed_loss: As `validation_loss`, of the stressed validation images; None without them.
        stressed_logits: float32 [N, classes], likewise.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_logits: np.ndarray
    improved: bool
    seconds: float
    images_per_second: float
    ended: float
    repeated: bool = False
    stressed_loss: float | None = None
    stressed_logits: np.ndarray | None = None

    @property
    def judged_by(self) -> float:
        """The loss that decides: of the stressed images, where there are such."""
        return self.validation_loss if self.stressed_loss is None else self.stressed_loss


@dataclass(frozen=True)
class Trained:
    """A network as its best epoch left it.

    Attributes:
        network: On the CPU, in evaluation mode.
        config: How it was trained.
        epoch: The best epoch, from 1.
        validation_logits: float32 [N, classes] of that epoch.
    """

    network: nn.Module
    config: TrainingConfig
    epoch: int
    validation_logits: np.ndarray


def train(
    config: TrainingConfig,
    training: Images,
    validation: Images,
    folder: Path,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[EpochResult]:
    """Trains a network, an epoch for each step of the iterator; goes on from the folder's last checkpoint.

    The lowest validation loss, or that of the stressed images, decides which weights are kept and, with patience, when
    to stop (report section 1.2).
    Classes weigh as in report section 2.3: images / (classes * images of the class), from the training labels.

    Args:
        config: What to train and how.
        training: Images to learn from.
        validation: Images to stop by.
        folder: Where the checkpoints are.
        stop: AskedTrial before every step; once it says yes the training ends without a further result.

    Yields:
        One result for each epoch, those of the checkpoint first. After the last one `best.safetensors` is there.

    Raises:
        ConfigurationError: It cannot begin, and would not begin the next time either.
        NonFiniteLossError: The loss of an epoch is infinite or not a number.
    """
    device = torch.device(config.device)
    architecture = ARCHITECTURES[config.arch]
    micro_batch = config.micro_batch or config.batch_size
    try:
        train_pixels, train_rows, train_labels = _on_device(training, device)
        validation_pixels, validation_rows, validation_labels = _on_device(validation, device)
        class_weights = _class_weights(training.labels, config.classes).to(device)
        stressed_pixels = stress(validation_pixels, validation_rows, STRESS) if config.stress else None
        _seed_torch(config.seed, 0)
        network = build_network(config).to(device=device).to(memory_format=torch.channels_last)
        optimizer = OPTIMIZERS[config.optimizer](
            [parameter for parameter in network.parameters() if parameter.requires_grad], config.learning_rate
        )
    except Exception as error:
        if out_of_memory(error) or "CUDA" in str(error):  # a GPU in trouble is no fault of the configuration
            raise
        raise ConfigurationError(f"{type(error).__name__}: {error}") from error
    steps = hastened(network)
    epoch_steps = math.ceil(len(training) / config.batch_size)
    averaged = copy.deepcopy(network) if config.averaging == "ema" else None
    judged = network if averaged is None else averaged
    progress = _resume(folder, config, network, optimizer, averaged)
    yield from progress.results

    while len(progress.results) < config.epochs and not progress.out_of_patience(config.patience):
        started = time.perf_counter()
        epoch = len(progress.results) + 1
        draws = _seed_torch(config.seed, epoch)
        network.train()
        total_loss = torch.zeros((), device=device)
        total_weight = torch.zeros((), device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        recipe = architecture.recipe(config.augmentation)
        for step, (images, labels) in enumerate(
            augmented_batches(train_pixels, train_rows, train_labels, config.batch_size, recipe, draws)
        ):
            if stop():
                return
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(config, epoch - 1 + step * config.batch_size / len(training))
            optimizer.zero_grad(set_to_none=True)
            weight = class_weights[labels].sum()
            # Sums stay on the device: reading a number here would wait for it at every step.
            for part, part_labels in zip(images.split(micro_batch), labels.split(micro_batch), strict=True):
                with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                    logits = steps(_normalise(part, architecture.mean, architecture.std))
                loss = functional.cross_entropy(
                    logits.float(), part_labels, class_weights, reduction="sum", label_smoothing=config.label_smoothing
                )
                (loss / weight).backward()
                total_loss += loss.detach()
                correct += (logits.detach().argmax(1) == part_labels).sum()
            total_weight += weight
            optimizer.step()
            if averaged is not None:
                _average(averaged, network, (epoch - 1) * epoch_steps + step, epoch_steps)
        train_loss = (total_loss / total_weight).item()
        trained = time.perf_counter()

        validation_logits = _logits(judged, validation_pixels, validation_rows, config)
        validation_loss = functional.cross_entropy(validation_logits, validation_labels, class_weights).item()
        stressed_logits, stressed_loss = None, None
        if stressed_pixels is not None:
            stressed_logits = _logits(
                judged, stressed_pixels, torch.arange(len(stressed_pixels), device=device), config
            )
            stressed_loss = functional.cross_entropy(stressed_logits, validation_labels, class_weights).item()
        if not all(math.isfinite(loss) for loss in (train_loss, validation_loss, stressed_loss or 0.0)):
            stressed = "" if stressed_loss is None else f", stressed {stressed_loss}"
            raise NonFiniteLossError(
                f"the loss is not finite in epoch {epoch} (train {train_loss}, validation {validation_loss}{stressed})"
            )
        result = EpochResult(
            epoch=epoch,
            train_loss=train_loss,
            train_accuracy=correct.item() / len(training),
            validation_loss=validation_loss,
            validation_logits=validation_logits.cpu().numpy(),
            improved=(validation_loss if stressed_loss is None else stressed_loss) < progress.best_loss,
            seconds=time.perf_counter() - started,
            images_per_second=len(training) / (trained - started),
            ended=time.time(),
            stressed_loss=stressed_loss,
            stressed_logits=None if stressed_logits is None else stressed_logits.cpu().numpy(),
        )
        progress = progress.after(result, judged)
        _save_last(folder, config, network, optimizer, averaged, progress)
        yield result
    _save_best(folder / BEST, config, progress)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, the GPU's or the machine's, was not enough."""
    # Neither the CPU's allocator nor CUDA's libraries have an exception type of their own.
    texts = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in texts)


def build_network(config: TrainingConfig) -> nn.Module:
    """Builds a freshly initialised network; its random start comes from torch's global generator."""
    return ARCHITECTURES[config.arch].build(
        config.activation,
        config.dropout,
        config.classes,
        config.image_size,
        config.normalisation,
        config.pooling,
        **config.options,
    )


def restore(path: Path) -> Trained:
    """Reads a network from its `best.safetensors`.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is not a best checkpoint.
    """
    tensors, metadata = checkpoint.read(path)
    config = TrainingConfig(**metadata["config"])
    # The weights come from the file; those that the training once started from need not be there any more.
    blank = {**config.options, "weights": None} if "weights" in config.options else config.options
    with torch.random.fork_rng(devices=[]):
        network = build_network(TrainingConfig(**{**metadata["config"], "options": blank}))
    network.load_state_dict(_with_prefix(tensors, "network."))
    return Trained(network.eval(), config, metadata["epoch"], tensors["validation.logits"].numpy())


def predict(network: nn.Module, config: TrainingConfig, images: Images, *, stressed: bool = False) -> np.ndarray:
    """Computes a network's logits in float32.

    Args:
        network: As `restore` gives it; stays on its device.
        config: How it was trained; decides how images are prepared.
        images: N images.
        stressed: Whether the images are seen as another machine might have made them, as while training.

    Returns:
        float32 [N, classes].
    """
    device = next(network.parameters()).device
    pixels, rows, _ = _on_device(images, device)
    if stressed:
        pixels, rows = stress(pixels, rows, STRESS), torch.arange(len(rows), device=device)
    return _logits(network, pixels, rows, config).cpu().numpy()


@dataclass(frozen=True)
class _Progress:
    """How far a training has come: the results of its epochs, and the weights of the best one, on the CPU."""

    results: tuple[EpochResult, ...] = ()
    best_epoch: int = 0
    best_weights: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def best_loss(self) -> float:
        return self.results[self.best_epoch - 1].judged_by if self.best_epoch else math.inf

    def after(self, result: EpochResult, network: nn.Module) -> _Progress:
        results = (*self.results, result)
        if not result.improved:
            return _Progress(results, self.best_epoch, self.best_weights)
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
        return _Progress(results, result.epoch, weights)

    def out_of_patience(self, patience: int) -> bool:
        return 0 < patience <= len(self.results) - self.best_epoch


def _on_device(images: Images, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels, rows and labels for `batches`: on a CPU the shared memory map itself, on a GPU a copy of these rows."""
    pixels = images.pixels()
    labels = torch.from_numpy(images.labels).to(device)
    if device.type == "cpu":
        return torch.from_numpy(pixels), torch.from_numpy(images.rows), labels
    return torch.from_numpy(pixels[images.rows]).to(device), torch.arange(len(images), device=device), labels


def _class_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    counts = np.bincount(labels, minlength=classes)
    return torch.tensor(len(labels) / (classes * counts), dtype=torch.float32)


def _seed_torch(seed: int, epoch: int) -> torch.Generator:
    """Seeds torch (initial weights in epoch 0, dropout later) and returns a generator for the order and the warps."""
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.Generator().manual_seed(int.from_bytes(digest[8:16], "big") >> 1)


def _learning_rate(config: TrainingConfig, epochs: float) -> float:
    """The learning rate after so many epochs, parts of one too."""
    if config.schedule == "constant":
        return config.learning_rate
    # A little above 0 at the very first step, which would otherwise be none.
    risen = min(1.0, (epochs + 0.01) / WARM_UP)
    return config.learning_rate * risen * (1 + math.cos(math.pi * epochs / config.epochs)) / 2


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, count: int, steps: int) -> None:
    """Takes a network after a step into its moving average, batch statistics too.

    Args:
        averaged: The average; changed in place.
        network: The network.
        count: Steps before this one.
        steps: Of an epoch. The average reaches back about two of them, and less at the start, where weights change
            most: a tenth of the steps so far.
    """
    kept = min(1 - 1 / (2 * steps), (1 + count) / (10 + count)) if count else 0.0
    now = network.state_dict()
    for name, before in averaged.state_dict().items():
        # A counter of batches has no mean. Nothing here waits for the device.
        before.copy_(torch.lerp(now[name], before, kept) if before.is_floating_point() and count else now[name])


def _normalise(images: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    images = images if (mean, std) == (0.0, 1.0) else (images - mean) / std
    return images.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def _logits(network: nn.Module, pixels: torch.Tensor, rows: torch.Tensor, config: TrainingConfig) -> torch.Tensor:
    architecture = ARCHITECTURES[config.arch]
    network.eval()
    return torch.cat(
        [
            network(_normalise(images, architecture.mean, architecture.std))
            for images in batches(pixels, rows, min(PREDICTION_BATCH, config.micro_batch or PREDICTION_BATCH))
        ]
    )


# What of a result is JSON in a checkpoint; its logits are a tensor there, and `repeated` says how it was read.
_NUMBERS = [
    column.name
    for column in fields(EpochResult)
    if column.name not in ("validation_logits", "stressed_logits", "repeated")
]


def _save_best(path: Path, config: TrainingConfig, progress: _Progress) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in progress.best_weights.items()}
    logits = torch.from_numpy(progress.results[progress.best_epoch - 1].validation_logits)
    checkpoint.write(
        path, {**tensors, "validation.logits": logits}, {"config": plain(config), "epoch": progress.best_epoch}
    )


def _save_last(
    folder: Path,
    config: TrainingConfig,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: nn.Module | None,
    progress: _Progress,
) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    if averaged is not None:
        tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.state_dict().items()}
    if progress.best_epoch != len(progress.results):  # else they are those that were judged just now
        tensors |= {f"best.{name}": tensor for name, tensor in progress.best_weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items() if value is not None}
    tensors["logits"] = torch.from_numpy(np.stack([result.validation_logits for result in progress.results]))
    if stressed := [result.stressed_logits for result in progress.results if result.stressed_logits is not None]:
        tensors["stressed"] = torch.from_numpy(np.stack(stressed))
    rows = [{name: getattr(result, name) for name in _NUMBERS} for result in progress.results]
    set_aside(folder)
    checkpoint.write(folder / LAST, tensors, {"config": plain(config), "results": rows})


def set_aside(folder: Path) -> None:
    """Makes room for a folder's next last checkpoint: the one there is becomes the one before."""
    with suppress(FileNotFoundError):  # it is the first, or a worker that was given up wrote at this very moment
        (folder / LAST).replace(folder / PREVIOUS)


_USUAL = {column.name: column.default for column in fields(TrainingConfig) if column.default is not MISSING}


def _resume(
    folder: Path,
    config: TrainingConfig,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: nn.Module | None,
) -> _Progress:
    """Loads the newest checkpoint of this very configuration that can be read; without one nothing has been done."""
    for name in (LAST, PREVIOUS):
        with suppress(FileNotFoundError, ValueError):
            tensors, metadata = checkpoint.read(folder / name)
            # One that was written before there was a field is of a training that had its usual value.
            if {**_USUAL, **metadata["config"]} == plain(config):
                return _load(tensors, metadata["results"], network, optimizer, averaged)
    return _Progress()


def _load(
    tensors: Mapping[str, torch.Tensor],
    rows: list[dict[str, Any]],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: nn.Module | None,
) -> _Progress:
    network.load_state_dict(_with_prefix(tensors, "network."))
    if averaged is not None:
        averaged.load_state_dict(_with_prefix(tensors, "averaged."))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in _with_prefix(tensors, "optimizer.").items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # Fused optimisers walk through memory: moments must lie there as their parameter does (channels last).
            tensor = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    known = tensors["stressed"].numpy() if "stressed" in tensors else [None] * len(rows)
    results = tuple(
        EpochResult(**row, validation_logits=logits, stressed_logits=other, repeated=True)
        for row, logits, other in zip(rows, tensors["logits"].numpy(), known, strict=True)
    )
    best_epoch = max(result.epoch for result in results if result.improved)
    judged = "network." if averaged is None else "averaged."
    best = _with_prefix(tensors, judged if best_epoch == len(results) else "best.")
    return _Progress(results, best_epoch, best)


def _with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def plain(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as JSON has it, so that one read back compares equal, on another machine too."""
    values = asdict(config)
    if config.options.get("weights"):  # each machine may have the file in a place of its own
        values["options"] = {**config.options, "weights": Path(config.options["weights"]).name}
    return values


def measure_speed(
    arch: str, image_size: int, classes: int, precision: str, device: str, threads: int, options: Mapping[str, Any]
) -> float:
    """Measures how many random images a second one training process takes, in about half a second of work.

    Forward and backward alone: the first step of an optimiser imports torch's compiler, which takes longer than the
    measurement, and what an optimiser adds to these networks is lost in its noise.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        blank = {**options, "weights": None} if "weights" in options else dict(options)
        config = TrainingConfig(
            arch, "relu", "adam", 1e-3, 16, 0.2, 0, 1, 0, image_size, classes, precision, device, blank
        )
        with torch.random.fork_rng(devices=[]):
            network = build_network(config).to(device=device).to(memory_format=torch.channels_last).train()
        images = torch.rand(config.batch_size, 1, image_size, image_size, device=device)
        labels = torch.arange(config.batch_size, device=device) % classes
        steps, started = -1, time.perf_counter()  # the first step warms up and does not count
        while steps < 1 or time.perf_counter() - started < 0.5:
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
        torch.set_num_threads(before)
