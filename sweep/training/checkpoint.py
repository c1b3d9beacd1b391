"""Tensors and a little JSON in one safetensors file, written so that a reader sees the old file or the new one."""

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

    The JSON travels in the file's header, so tensors and metadata can never belong to different moments, and a
    checksum of both beside it, since safetensors itself would read flipped bits as weights.

    Args:
        path: The file; its folder is made if it is missing.
        tensors: By name; copied to the CPU.
        metadata: Anything that JSON holds.

    Raises:
        OSError: The disk is full or cannot be written; an older file at `path` is untouched.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(metadata, allow_nan=False)
    put(path, save(plain, {_KEY: text, _SUM: str(_checksum(plain, text))}))


def put(path: Path, content: bytes | memoryview) -> None:
    """Puts the bytes of a file in its place, all of them or none; makes its folder if it is missing.

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
        os.fsync(folder)  # else the rename itself may be lost with the power
    finally:
        os.close(folder)


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Reads a checkpoint.

    Returns:
        The tensors, on the CPU, and the metadata.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is not one of `write`'s, or was damaged since.
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


def _checksum(tensors: Mapping[str, torch.Tensor], text: str) -> int:
    total = zlib.crc32(text.encode())
    for name in sorted(tensors):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return total
