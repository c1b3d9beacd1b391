"""What both peers train: ImageFolder, transforms and a DataLoader, as PyTorch's tutorials have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from models import ARCHITECTURES

OPTIMIZERS: dict[str, Callable[[Any, float], torch.optim.Optimizer]] = {
    "adam": lambda parameters, rate: torch.optim.Adam(parameters, lr=rate),
    "adamw": lambda parameters, rate: torch.optim.AdamW(parameters, lr=rate),
    "adagrad": lambda parameters, rate: torch.optim.Adagrad(parameters, lr=rate),
    "sgd": lambda parameters, rate: torch.optim.SGD(parameters, lr=rate, momentum=0.9),
}


@dataclass(frozen=True)
class Task:
    """What is trained, whoever searches.

    Attributes:
        images: A folder with `train/<class>/` and `val/<class>/`, of two classes.
        image_size: Side of the images, in pixels.
        epochs: Epochs of a trial at most.
        batch_sizes: Those that are searched.
        seed: Every random draw comes from it.
    """

    images: Path
    image_size: int
    epochs: int
    batch_sizes: list[int]
    seed: int


def build(task: Task, config: dict[str, Any]) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Builds the project's own cnn1, so that the arithmetic is the same, and its optimiser."""
    network = ARCHITECTURES["cnn1"].build(config["activation"], config["dropout"], 2, task.image_size)
    return network, OPTIMIZERS[config["optimizer"]](network.parameters(), config["learning_rate"])


def load(task: Task, batch_size: int) -> tuple[DataLoader, DataLoader]:
    """Opens the training images, augmented as cnn1's are, and the validation images."""
    size = [transforms.Grayscale(), transforms.Resize((task.image_size, task.image_size))]
    augmented = [*size, transforms.RandomHorizontalFlip(), transforms.RandomRotation(15), transforms.ToTensor()]
    training = datasets.ImageFolder(str(task.images / "train"), transforms.Compose(augmented))
    validation = datasets.ImageFolder(str(task.images / "val"), transforms.Compose([*size, transforms.ToTensor()]))
    # No worker processes: on two cores they take more from the network than they give (348 images/s without, 318 with
    # two, in batches of 32; 238 and 199 in batches of 256).
    return DataLoader(training, batch_size, shuffle=True), DataLoader(validation, batch_size=256)


def train_epoch(network: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer) -> float:
    """Trains one epoch and returns its loss."""
    network.train()
    total, count = 0.0, 0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        count += len(labels)
    return total / count


@torch.no_grad()
def validate(network: nn.Module, loader: DataLoader) -> tuple[float, float]:
    """Returns validation loss and AUROC; the second class is the positive one."""
    network.eval()
    batches = [(network(images), labels) for images, labels in loader]
    logits, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    loss = functional.cross_entropy(logits, labels).item()
    return loss, float(roc_auc_score(labels, logits.softmax(1)[:, 1]))
