"""Recipes of fine-tuning: each does what it says, alone and with what else a training has."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

import models
from data import cache
from data.augment import augmented_batches
from data.cache import images_of
from data.faults import InputError
from data.mixing import mixed_batches
from data.recipe import Augmentation
from data.sources import open_source
from data.splits import split_source
from models import ARCHITECTURES, Architecture
from sweep.space import SPACES, Choice, study_space
from sweep.training import checkpoint
from sweep.training import loop as training
from sweep.training.config import BEST, LAST, TrainingConfig
from sweep.training.inference import build_network, predict, restore
from sweep.training.loop import train
from sweep.training.optimizers import parameter_groups

SIZE = 24
CONFIG = TrainingConfig("cnn1", "relu", "sgd", 1e-2, 32, 0.0, seed=7, epochs=1, patience=0, image_size=SIZE, classes=2)


@pytest.fixture(scope="module")
def images(pictures):
    source = open_source(pictures)
    cache.build(source, SIZE)
    return images_of(source, split_source(source), SIZE)


def run(config, images, folder):
    return list(train(config, images["train"], images["validation"], folder))


def weights(folder):
    return checkpoint.with_prefix(checkpoint.read(folder / LAST)[0], "network.")


def goes_on_as(whole, config, images, folder):
    """Trains in `cut` what was trained in `whole`, but ends after the first epoch and goes on; all is the same."""
    cut = train(config, images["train"], images["validation"], folder / "cut")
    next(cut)
    cut.close()
    torch.manual_seed(12345)
    resumed = run(config, images, folder / "cut")
    assert [result.repeated for result in resumed] == [True, False]
    assert [result.train_loss for result in resumed] == [result.train_loss for result in whole]
    ours, theirs = (checkpoint.read(folder / name / LAST)[0] for name in ("cut", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())


def initial(config):
    training._seed_torch(config.seed, 0)
    return build_network(config).state_dict()


# Rates of layers, and weight decay ------------------------------------------------------------------------------------


def test_without_a_recipe_an_optimiser_gets_the_parameters_alone():
    network = ARCHITECTURES["cnn2"].build("relu", 0.1, 2, SIZE)
    assert all(
        one is other for one, other in zip(parameter_groups(network, 1, "own"), network.parameters(), strict=True)
    )


def test_rates_rise_in_even_steps_of_the_logarithm_to_the_last_layer():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    groups = parameter_groups(network, 0.01, 0.05)

    assert [group["rate_share"] for group in groups] == pytest.approx([0.01, 0.1, 1])
    assert {group["weight_decay"] for group in groups} == {0.05}
    listed = [parameter for group in groups for parameter in group["params"]]
    assert all(one is other for one, other in zip(listed, network.parameters(), strict=True))
    assert [group["rate_share"] for group in parameter_groups(nn.Linear(2, 2), 0.01, "own")] == [1]
    (all_alike,) = parameter_groups(network, 1, 0.05)
    assert (all_alike["rate_share"], all_alike["weight_decay"], len(all_alike["params"])) == (1, 0.05, 6)


@pytest.mark.parametrize("finetune", ["all", "layer4", "head"])
def test_a_new_head_has_about_the_full_rate_however_much_of_the_network_is_trained(finetune):
    with torch.device("meta"):
        network = ARCHITECTURES["resnet50"].build("relu", 0.1, 2, 64, weights=None, finetune=finetune)
    groups = parameter_groups(network, 0.1, "own")
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    shares = {names[id(parameter)]: group["rate_share"] for group in groups for parameter in group["params"]}

    assert shares.keys() == {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert shares["backbone.fc.3.weight"] == 1
    assert shares["backbone.fc.0.weight"] > 0.97
    if finetune == "all":
        assert shares["backbone.conv1.weight"] == pytest.approx(0.1)
        assert 0.1 < shares["backbone.layer1.0.conv1.weight"] < shares["backbone.layer4.0.conv1.weight"] < 1


def test_a_step_moves_each_layer_by_its_share_and_decays_the_weights(images, tmp_path):
    """One step of gradient descent over all images, so that what it did can be computed."""
    config = replace(CONFIG, batch_size=len(images["train"]))
    run(config, images, tmp_path / "plain")
    run(replace(config, first_layer_rate=0.01, weight_decay=0.1), images, tmp_path / "recipe")
    start, plain, recipe = initial(config), weights(tmp_path / "plain"), weights(tmp_path / "recipe")
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in build_network(config).named_parameters()))

    for name, _ in build_network(config).named_parameters():
        share = 0.01 ** (1 - layers.index(name.rpartition(".")[0]) / (len(layers) - 1))
        gradient = (start[name] - plain[name]) / config.learning_rate
        expected = start[name] - config.learning_rate * share * (gradient + 0.1 * start[name])
        assert torch.allclose(recipe[name], expected, rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize(("optimizer", "own"), [("adamw", 0.01), ("adam", 0.0), ("adagrad", 0.0), ("sgd", 0.0)])
def test_the_optimisers_own_decay_is_what_it_was_and_can_be_asked_for(optimizer, own, images, tmp_path):
    config = replace(CONFIG, optimizer=optimizer, learning_rate=1e-3)
    results = [
        run(replace(config, weight_decay=decay), images, tmp_path / str(decay))[0] for decay in ("own", own, 0.3)
    ]
    usual, same, more = (result.validation_logits for result in results)
    assert np.array_equal(usual, same)
    assert not np.array_equal(usual, more)


# Warm-up --------------------------------------------------------------------------------------------------------------


def rates(epochs=10, steps=20, **changes):
    """The learning rate at every step of a training."""
    config = replace(CONFIG, learning_rate=1.0, epochs=epochs, **changes)
    optimizer = torch.optim.SGD([torch.zeros(1)], 1.0)
    found = []
    for step in range(epochs * steps):
        training._set_learning_rate(optimizer, config, step / steps)
        found.append(optimizer.param_groups[0]["lr"])
    return np.array(found)


def test_the_rate_rises_over_the_share_of_the_epochs_that_is_asked_for():
    constant = rates(warmup_ratio=0.3)  # three epochs
    assert constant[0] == pytest.approx(0.01 / 3)
    assert constant[30] == pytest.approx(1.51 / 3)
    assert (np.diff(constant[:60]) > 0).all()
    assert (constant[60:] == 1).all()
    cosine = rates(schedule="cosine", warmup_ratio=0.3)
    assert cosine == pytest.approx(constant * rates(schedule="cosine", warmup_ratio=0.0))
    assert rates(schedule="cosine", warmup_ratio=0.0)[0] == 1


def test_without_a_warm_up_that_is_asked_for_the_schedules_are_as_they_were():
    assert (rates() == 1).all()
    assert (rates(warmup_ratio=0.0) == 1).all()
    assert (rates(schedule="cosine") == rates(schedule="cosine", warmup_ratio=0.05)).all()  # half of ten epochs' tenth


# Mixed images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_mixed_labels_is_that_of_their_shares(smoothing):
    torch.manual_seed(0)
    logits, class_weights = torch.randn(6, 3), torch.tensor([0.5, 1.0, 2.5])
    labels, others = torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([1, 1, 0, 2, 0, 2])
    shares = 0.7 * nn.functional.one_hot(labels, 3) + 0.3 * nn.functional.one_hot(others, 3)
    expected = nn.functional.cross_entropy(logits, shares, class_weights, reduction="sum", label_smoothing=smoothing)
    assert training._loss(logits, labels, others, 0.7, class_weights, smoothing).item() == pytest.approx(
        expected.item()
    )


def plain_layers(config):
    """Without batch normalisation, which would see the parts of a batch."""
    return nn.Sequential(nn.Conv2d(1, 4, 5, 5), nn.Flatten(), nn.Linear(64, 2))


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_a_batch_is_mixed_before_it_is_parted_and_the_loss_and_accuracy_are_those_of_all(
    mix, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "build_network", plain_layers)
    monkeypatch.setitem(ARCHITECTURES, "cnn1", replace(ARCHITECTURES["cnn1"], augmentation=Augmentation()))
    config = replace(CONFIG, mix=mix, learning_rate=1e-30)  # so that the network is the same one at every step
    (whole,) = run(config, images, tmp_path / "whole")
    (parts,) = run(replace(config, micro_batch=7), images, tmp_path / "parts")
    assert parts.train_loss == pytest.approx(whole.train_loss, rel=1e-5)
    assert parts.train_accuracy == whole.train_accuracy

    network = plain_layers(config)
    network.load_state_dict(weights(tmp_path / "whole"))
    generator = training._seed_torch(config.seed, 1)
    data = training.to_device(images["train"], torch.device("cpu"))
    class_weights = training._class_weights(images["train"].labels, 2)
    batches = augmented_batches(*data, config.batch_size, Augmentation(), generator)
    loss, weight, correct = 0.0, 0.0, 0
    for mixed, labels, others, share in mixed_batches(batches, mix, generator.initial_seed()):
        with torch.no_grad():
            surprise = -network(mixed).log_softmax(1)
        for part, target in ((share, labels), (1 - share, others)):
            loss += part * (class_weights[target] * surprise.gather(1, target[:, None])[:, 0]).sum().item()
            weight += part * class_weights[target].sum().item()
        correct += (surprise.argmin(1) == (labels if share >= 0.5 else others)).sum().item()
    assert whole.train_loss == pytest.approx(loss / weight, rel=1e-5)
    assert whole.train_accuracy == correct / len(images["train"])


# Stochastic depth -----------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, drop_path: float) -> None:
        super().__init__()
        self.inner, self.drop = nn.Conv2d(4, 4, 3, padding=1), StochasticDepth(drop_path, "row")

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + self.drop(self.inner(maps).relu())


@pytest.fixture
def residual(monkeypatch):
    """A small architecture with stochastic depth."""
    module = ModuleType("models.residual")

    def build(activation, dropout, classes, image_size, *, drop_path):
        return nn.Sequential(nn.Conv2d(1, 4, 4, 4), Residual(drop_path), nn.Flatten(), nn.Linear(4 * 36, classes))

    module.build = build  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "models.residual", module)
    row = Architecture("residual", "", SIZE, 4, 0.0, 1.0, Augmentation(), ("drop_path",), flattens=False)
    monkeypatch.setitem(models.ARCHITECTURES, "residual", row)
    monkeypatch.setitem(SPACES, "residual", SPACES["cnn1"])
    return replace(CONFIG, arch="residual", epochs=2)


def test_an_architecture_that_has_no_stochastic_depth_says_so(residual):
    with pytest.raises(InputError, match="--fix drop_path=0.1: cnn1 has no residual blocks that can be left out"):
        study_space("cnn1", fix=["drop_path=0.1"])
    assert study_space("residual", fix=["drop_path=0.1"])["drop_path"] == Choice((0.1,))
    assert study_space("residual", space_name="finetune")["drop_path"] == Choice((0.0, 0.1))
    assert "drop_path" not in study_space("cnn1", space_name="finetune")
    assert "drop_path" not in study_space("residual")


def test_blocks_are_left_out_while_it_trains_alone_and_a_resumed_training_draws_the_same(residual, images, tmp_path):
    config = replace(residual, drop_path=0.5)
    usual, whole = run(residual, images, tmp_path / "usual"), run(config, images, tmp_path / "whole")
    assert usual[-1].train_loss != whole[-1].train_loss
    goes_on_as(whole, config, images, tmp_path)
    best = restore(tmp_path / "whole" / BEST)
    assert np.allclose(predict(best.network, best.config, images["validation"]), best.validation_logits, atol=1e-5)


# Together -------------------------------------------------------------------------------------------------------------

RECIPE = {
    "schedule": "cosine",
    "averaging": "ema",
    "label_smoothing": 0.1,
    "warmup_ratio": 0.3,
    "first_layer_rate": 0.1,
    "weight_decay": 0.05,
}


@pytest.mark.parametrize(
    ("optimizer", "mix", "precision"),
    [
        ("adam", "mixup", "float32"),
        ("adamw", "cutmix", "bfloat16"),
        ("adagrad", "cutmix", "float32"),
        ("sgd", "mixup", "float32"),
    ],
)
def test_with_a_whole_recipe_and_small_parts_it_resumes_bit_for_bit(optimizer, mix, precision, images, tmp_path):
    changes = {"optimizer": optimizer, "mix": mix, "precision": precision, **RECIPE}
    config = replace(CONFIG, learning_rate=1e-3, dropout=0.3, epochs=2, micro_batch=20, **changes)
    whole = run(config, images, tmp_path / "whole")
    goes_on_as(whole, config, images, tmp_path)


# timm -----------------------------------------------------------------------------------------------------------------


def test_a_network_of_timm_has_its_stochastic_depth_and_keeps_its_activation():
    space = study_space("timm:convnext_atto", space_name="finetune", pretrained=True)
    assert (space["activation"], space["drop_path"]) == (Choice(("own",)), Choice((0.0, 0.1)))
    assert study_space("resnet50", space_name="finetune", pretrained=True)["normalisation"] == Choice(("imagenet",))
    options = {"weights": None, "finetune": "all"}
    config = replace(CONFIG, arch="timm:convnext_atto", activation="own", image_size=32, options=options)
    with torch.device("meta"):
        usual, dropping = (build_network(replace(config, drop_path=drop_path)) for drop_path in (0.0, 0.2))
    dropped = [module.drop_prob for module in dropping.modules() if type(module).__name__ == "DropPath"]
    assert dropped[-1] == pytest.approx(0.2)
    assert not any(type(module).__name__ == "DropPath" for module in usual.modules())
    shares = [group["rate_share"] for group in parameter_groups(usual, 0.1, "own")]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (pytest.approx(0.1), 1)
