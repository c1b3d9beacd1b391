"""Reads the weights that a training starts from: tensors alone, never code."""

from __future__ import annotations

import pickle
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from data.faults import InputError


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads a `.safetensors` file, or one that `torch.save` wrote of a dictionary of tensors.

    Raises:
        InputError: It cannot be read as tensors.
    """
    if not path.stat().st_size:
        raise InputError(f"--weights {path}: the file is empty")
    try:
        # weights_only reads tensors and nothing that could run.
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError as error:  # torch's own sentence advises to execute the file
        raise InputError(
            f"--weights {path}: holds more than tensors, or is damaged; nothing else is ever read. Save the network's "
            "state_dict() alone, best as .safetensors"
        ) from error
    except Exception as error:  # both readers raise whatever the damage runs into
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"--weights {path}: cannot be read as tensors ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        kind = type(state).__name__
        raise InputError(f"--weights {path}: holds {kind if kind != 'dict' else 'more'}, not a dictionary of tensors")
    return dict(state)


def downloaded(option: str, url: str, path: Path, hash_prefix: str | None = None) -> Path:
    """Downloads a file on first use.

    Args:
        option: What the user typed, for the error: `--weights pretrained`.
        url: Where it is.
        path: Where it goes.
        hash_prefix: How its SHA-256 begins; None does not check.

    Raises:
        InputError: It cannot be downloaded; says what to fetch and where to put it.
    """
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=hash_prefix, progress=False)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise InputError(
                f"{option}: {url} cannot be downloaded ({error}). Fetch it where there is a network and put it at "
                f"{path}, or give --weights FILE; --weights none starts from random weights"
            ) from error
    return path


def file_of(choice: str) -> Path:
    """The file that `--weights FILE` names. Raises InputError where there is none."""
    path = Path(choice)
    if not path.is_file():
        raise InputError(f"--weights {choice}: no such file; give pretrained, none or a .safetensors or .pth file")
    return path.resolve()


def cache_folder() -> Path:
    """Where torch keeps weights that it downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def fitted(
    path: Path,
    state: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
    whose: str,
    *,
    head: Sequence[str] = (),
) -> tuple[dict[str, torch.Tensor], str]:
    """Gives tensors of a file the names that a network has for them.

    Args:
        path: The file, for the error.
        state: Its tensors.
        wanted: The network's, in order.
        whose: The network's name, for the error.
        head: How the names of its last layers begin; those may be missing or of another shape.

    Returns:
        The tensors by the network's names, and a sentence where they were matched by order alone, or where some were
        left out; else empty.

    Raises:
        InputError: Tensors are missing or of another shape.
    """
    heads = tuple(f"{name}." for name in head)
    body = {name: tensor for name, tensor in wanted.items() if not name.startswith(heads)}
    missing = [
        name
        for name, tensor in body.items()
        # Older files lack the counters of batch normalisation.
        if not name.endswith("num_batches_tracked") and (name not in state or state[name].shape != tensor.shape)
    ]
    if not missing:
        kept = {name: state[name] for name in wanted if name in state and state[name].shape == wanted[name].shape}
        over = [name for name in state if name not in wanted and not name.startswith(heads)]
        note = (
            f"{path.name}: {len(over)} of {len(state)} tensors are left out, since {whose} has none of their names; "
            f"the first is {over[0]}: are these the weights of another network?"
            if over
            else ""
        )
        return kept, note
    if [tensor.shape for tensor in state.values()] == [tensor.shape for tensor in wanted.values()]:
        named = dict(zip(wanted, state.values(), strict=True))
        return named, f"{path.name}: {len(state)} tensors matched by order, since their names are not those of {whose}"
    raise InputError(
        f"--weights {path}: not the weights of {whose}: {len(missing)} of its {len(body)} tensors are missing or of "
        f"another shape, the first is {missing[0]}; nor do number and shapes agree in order: {len(state)} tensors in "
        f"the file, {len(wanted)} in the network"
    )
