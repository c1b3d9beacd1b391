"""Optimisers are built from what torch has for the device; `meta` stands for a GPU on which none is fused."""

from __future__ import annotations

import pytest
import torch

from sweep.training import optimizers
from sweep.training.config import ConfigurationError
from sweep.training.optimizers import KINDS, OPTIMIZERS, build_optimizer


@pytest.fixture(autouse=True)
def torch_is_asked_anew():
    optimizers._refusal.cache_clear()
    yield
    optimizers._refusal.cache_clear()


def parameter(device: str) -> torch.Tensor:
    made = torch.ones(3, device=device, requires_grad=True)
    made.grad = torch.ones_like(made)
    return made


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_fused_one_where_torch_has_it_else_its_own_choice(name):
    for device, fused in (("cpu", True), ("meta", None)):
        optimizer = OPTIMIZERS[name]([parameter(device)], 0.01)
        assert (type(optimizer), optimizer.defaults["fused"]) == (KINDS[name], fused)
        optimizer.step()
    assert optimizer.defaults.get("momentum", 0) == (0.9 if name == "sgd" else 0)


def refuse(monkeypatch, refused, error):
    """Torch's Adagrad as it is on another device: a step is refused."""

    def step(self, closure=None):
        if self.defaults["fused"] in refused:
            raise RuntimeError(error)

    monkeypatch.setattr(torch.optim.Adagrad, "step", step)


def test_an_optimiser_whose_fused_form_is_refused_at_its_first_step_is_built_plain(monkeypatch):
    refuse(
        monkeypatch, (True,), "`fused=True` requires all the params to be floating point Tensors of devices: ['cpu']"
    )
    assert build_optimizer("adagrad", [parameter("cpu")], 0.01).defaults["fused"] is None
    assert build_optimizer("adam", [parameter("cpu")], 0.01).defaults["fused"] is True


def test_an_optimiser_that_torch_does_not_have_is_a_fault_of_the_configuration(monkeypatch):
    refuse(monkeypatch, (True, None), "no kernel for the 'CUDA' backend\nmore lines")
    says = (
        r"has no adagrad for the device cpu \(no kernel for the 'CUDA' backend\); .*--search optimizer=adam,adamw,sgd$"
    )
    with pytest.raises(ConfigurationError, match=says):
        build_optimizer("adagrad", [parameter("cpu")], 0.01)


def test_a_device_in_trouble_is_no_fault_of_the_optimiser(monkeypatch):
    for error in ("CUDA error: an illegal memory access was encountered", "CUDA out of memory"):
        refuse(monkeypatch, (True,), error)
        with pytest.raises(RuntimeError, match=error):
            build_optimizer("adagrad", [parameter("cpu")], 0.01)
