"""Which device trials get, and that what they compute exists on every device; training itself on CUDA: `test_cuda`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data import cache
from data.cache import images_of
from data.faults import InputError
from data.sources import open_source
from data.splits import split_source
from sweep.system import hardware
from sweep.system.hardware import Machine, choose_device, this_machine, usable_cores
from sweep.training.config import TrainingConfig
from sweep.training.loop import OPTIMIZERS, train


def test_apples_gpu_is_taken_where_it_is_asked_for_and_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"--device mps: torch finds no GPU of Apple's here; use --device cpu or auto"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert this_machine("mps", "auto", None) == Machine("mps", "float32", 1, usable_cores())
    assert choose_device("auto") == "cpu"


def test_a_gpu_is_named_as_its_driver_does(tmp_path):
    assert hardware._gpus(tmp_path / "none") == ""
    for place, model in (("0000:01:00.0", "NVIDIA H100 80GB HBM3"), ("0000:02:00.0", "NVIDIA H100 80GB HBM3")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 24\nGPU UUID: \t GPU-1\n")
    assert hardware._gpus(tmp_path) == "2 x NVIDIA H100 80GB HBM3"


class NoDoubles(TorchDispatchMode):
    """Notes the operations that give a tensor of type float64, which Apple's GPUs do not have.

    A tensor that is made of NumPy's numbers (`lift_fresh`) is still on the host, and may become another type there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64 and "lift_fresh" not in str(func):
                self.seen.add(str(func))
        return result


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_computes_nothing_in_float64(optimizer, pictures, tmp_path):
    source = open_source(pictures)
    cache.build(source, 24)
    images = images_of(source, split_source(source), 24)
    config = TrainingConfig("cnn2", "gelu", optimizer, 1e-3, 32, 0.2, 7, 1, 0, 24, 2)
    everything = {"augmentation": "wide", "normalisation": "image", "averaging": "ema", "schedule": "cosine"}
    config = replace(config, **everything, mix="mixup", label_smoothing=0.1, first_layer_rate=0.1, stress=True)
    with NoDoubles() as mode:
        (result,) = train(config, images["train"], images["validation"], tmp_path)
    assert result.epoch == 1
    assert mode.seen == set()
