"""Checkpoints: tensors and a little JSON in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

_KEY, _SUM = "sweep", "crc32"


def write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes a checkpoint: to a temporary file, then fsync, then rename.

    The JSON is in the file's header, so tensors and metadata can never be of different moments. A checksum of both is
    beside it, because safetensors itself would read flipped bits as weights.

    Args:
        path: The file; its folder is made if it is missing.
        tensors: By name; copied to the CPU.
        metadata: Anything that JSON holds.

    Raises:
        OSError: The disk is full or cannot be written; an older file at `path` is untouched.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder) / "last.safetensors", {"weight": torch.ones(2)}, {"epoch": 3})
    ...     read(Path(folder) / "last.safetensors")
    ({'weight': tensor([1., 1.])}, {'epoch': 3})
    """
    on_cpu = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    text = json.dumps(metadata, allow_nan=False)
    write_bytes(path, save(on_cpu, {_KEY: text, _SUM: str(_checksum(on_cpu, text))}))


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, each with memory of its own: layers may share their weights, which the format does not know."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Writes a file as a whole or not at all; makes its folder if it is missing.

    Raises:
        OSError: As `write`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else the rename itself may be lost in a power failure
    finally:
        os.close(folder)


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Reads a checkpoint.

    Returns:
        The tensors, on the CPU, and the metadata.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file was not written by `write`, or was damaged since.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            text, checksum = header[_KEY], header[_SUM]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        metadata = json.loads(text)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a checkpoint of this project: {error}") from error
    if str(_checksum(tensors, text)) != checksum:
        raise ValueError(f"{path} is damaged: its checksum does not match")
    return tensors, metadata


def with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a prefix, by the rest of their names.

    >>> with_prefix({"network.weight": torch.ones(1), "logits": torch.zeros(1)}, "network.")
    {'weight': tensor([1.])}
    """
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _checksum(tensors: Mapping[str, torch.Tensor], text: str) -> int:
    total = zlib.crc32(text.encode())
    for name in sorted(tensors):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return total
