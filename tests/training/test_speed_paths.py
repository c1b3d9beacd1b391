"""What makes training fast changes none of its numbers: held to the loop that everyone writes, and to itself."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import _functional_tensor
from torchvision.transforms.functional import to_tensor

from data import cache
from data.augment import draw
from data.cache import images_of
from data.sources import open_source, read_synthetic
from data.splits import split_source
from models import ARCHITECTURES
from models.layers import NORMALISATIONS, Dropout, hastened
from sweep.system.hardware import choose_precision
from sweep.training import checkpoint
from sweep.training import loop as training
from sweep.training.config import LAST, TrainingConfig
from sweep.training.inference import build_network
from sweep.training.loop import OPTIMIZERS, train

SIZE = 24
CONFIG = TrainingConfig("cnn1", "relu", "adam", 1e-3, 32, 0.0, seed=3, epochs=1, patience=0, image_size=SIZE, classes=2)
SMALL = ("cnn1", "cnn2", "cnn3")
PLAIN = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "sgd": lambda parameters, rate: torch.optim.SGD(parameters, rate, momentum=0.9),
}
# What reads a number of the device, for which the host waits until all work before it is done.
READS = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "bincount"}


@pytest.fixture(scope="module")
def images(pictures):
    source = open_source(pictures)
    cache.build(source, SIZE)
    return images_of(source, split_source(source), SIZE)


def decoded(path, architecture, matrix):
    """One training image as torchvision prepares it, warped by a matrix."""
    image = to_tensor(Image.open(path).convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    if architecture.augmentation.warps:
        image = _functional_tensor.affine(image, matrix.flatten().tolist(), interpolation="bilinear")
    elif matrix[0, 0] < 0:
        image = image.flip(2)
    return (image - architecture.mean) / architecture.std


def flat(weights):
    """All trained weights in one vector."""
    kept = [tensor for name, tensor in weights.items() if name.endswith((".weight", ".bias"))]
    return torch.cat([tensor.detach().flatten() for tensor in kept])


def plainly(config, images, folder):
    """One epoch as everyone writes it, with the draws of ours; returns its loss and the weights after it."""
    architecture = ARCHITECTURES[config.arch]
    training._seed_torch(config.seed, 0)
    network = build_network(config).train()
    optimizer = PLAIN[config.optimizer](network.parameters(), config.learning_rate)
    labels = torch.from_numpy(images.labels)
    weights = len(labels) / (2 * torch.bincount(labels))
    criterion = nn.CrossEntropyLoss(weights)
    draws = training._seed_torch(config.seed, 1)
    order = torch.randperm(len(images), generator=draws)
    drawn = draw(architecture.augmentation, len(images), SIZE, draws)
    total = 0.0
    for batch, matrices in zip(order.split(config.batch_size), drawn.matrix.split(config.batch_size), strict=True):
        pixels = [
            decoded(folder / images.names[row], architecture, matrix)
            for row, matrix in zip(batch, matrices, strict=True)
        ]
        optimizer.zero_grad()
        loss = criterion(network(torch.stack(pixels)), labels[batch])
        loss.backward()
        optimizer.step()
        total += loss.item() * weights[labels[batch]].sum().item()
    return total / weights[labels].sum().item(), network.state_dict()


def how_far_apart(config, images, folder, pictures):
    """Relative difference of the losses, and of the weights in units of the way that they went."""
    (result,) = train(config, images["train"], images["validation"], folder)
    loss, weights = plainly(config, images["train"], pictures)
    ours = {name.removeprefix("network."): tensor for name, tensor in checkpoint.read(folder / LAST)[0].items()}
    training._seed_torch(config.seed, 0)
    start = build_network(config).state_dict()
    theirs, mine, before = (flat({name: tensors[name] for name in start}) for tensors in (weights, ours, start))
    return abs(result.train_loss / loss - 1), ((mine - theirs).norm() / (theirs - before).norm()).item()


@pytest.mark.parametrize("arch", SMALL)
def test_a_step_is_that_of_the_loop_that_everyone_writes(arch, images, pictures, tmp_path):
    """The loss within 1e-6, the gradient (one step of gradient descent is nothing else) within 1 % of its length.

    A pixel at the kink of a ReLU or at the tie of a pooling falls on either side: in float64 the plain loop's own
    gradient moves by up to 0.5 %.
    """
    config = replace(CONFIG, arch=arch, optimizer="sgd", batch_size=len(images["train"]))
    loss, weights = how_far_apart(config, images, tmp_path, pictures)
    assert loss < 1e-6
    assert weights < 1e-2


# The first three divide a gradient by its own size: where it is rounding noise alone they go a whole step by it.
TOLERANCES = {"adam": 0.1, "adamw": 0.1, "adagrad": 0.25, "sgd": 0.03}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("arch", SMALL)
def test_an_epoch_is_that_of_the_loop_that_everyone_writes(arch, optimizer, images, pictures, tmp_path):
    """The loss within 0.5 %, the weights within a tenth, a quarter or 3 % of the way that they went in five steps."""
    loss, weights = how_far_apart(replace(CONFIG, arch=arch, optimizer=optimizer), images, tmp_path, pictures)
    assert loss < 5e-3
    assert weights < TOLERANCES[optimizer]


@pytest.mark.parametrize("recipe", [{}, {"first_layer_rate": 0.1, "weight_decay": 0.1}], ids=["plain", "layers"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_fused_optimiser_goes_where_the_plain_one_goes(optimizer, recipe, images, tmp_path, monkeypatch):
    """All else being equal, within a thousandth of the way; a twentieth of that is seen."""
    config, networks = replace(CONFIG, arch="cnn2", optimizer=optimizer, **recipe), []
    training._seed_torch(config.seed, 0)
    networks.append(flat(build_network(config).state_dict()))
    for folder in (tmp_path / "fused", tmp_path / "plain"):
        list(train(config, images["train"], images["validation"], folder))
        monkeypatch.setitem(OPTIMIZERS, optimizer, PLAIN[optimizer])
        names = build_network(config).state_dict()
        networks.append(flat({name: checkpoint.read(folder / LAST)[0][f"network.{name}"] for name in names}))
    start, fused, plain = networks
    assert (fused - plain).norm() < 1e-3 * (plain - start).norm()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", SMALL)
def test_pooling_before_rectifying_gives_the_same_bits(arch, precision):
    torch.manual_seed(0)
    straight = ARCHITECTURES[arch].build("relu", 0.0, 2, 32).to(memory_format=torch.channels_last)
    twin = copy.deepcopy(straight)
    quick = hastened(twin)
    assert sorted(type(layer).__name__ for layer in quick) == sorted(type(layer).__name__ for layer in straight)
    pixels = torch.randint(0, 4, (8, 1, 32, 32)) / 3  # few values: many windows have no single largest one
    losses = []
    for run in (straight, quick):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            losses.append(run(pixels).float().square().sum())
        losses[-1].backward()
    assert torch.equal(*losses)
    for one, other in zip(straight.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("activation", ["sigmoid", "gelu", "silu"])
def test_what_is_no_rectifier_stays_before_its_pooling(activation):
    network = ARCHITECTURES["cnn3"].build(activation, 0.0, 2, 32)
    assert list(hastened(network)) == list(network)


class Watch(TorchDispatchMode):
    """Notes what waits for the device; by a boolean index too, whose result has as many rows as it finds."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.overloadpacket.__name__
        indices = [part for part in arguments[1] if part is not None] if name in ("index", "index_put_") else []
        if name in READS or any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            self.waits.append(name)
        return function(*arguments, **(options or {}))


def test_the_watch_sees_what_waits():
    with Watch() as watch:
        values = torch.arange(4)
        values[values > 1].sum().item()
        values.nonzero()
        values[torch.tensor([1, 2])] = 0
    assert watch.waits == ["index", "_local_scalar_dense", "nonzero"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("arch", SMALL)
def test_no_step_of_an_epoch_waits_for_the_device(arch, optimizer, precision, images, tmp_path):
    config = replace(CONFIG, arch=arch, optimizer=optimizer, precision=precision, dropout=0.5)
    assert_nothing_waits(config, images, tmp_path)


@pytest.mark.parametrize("averaging", ["none", "ema"])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_no_step_waits_for_what_was_asked_for_beside_the_five(normalisation, averaging, images, tmp_path):
    extra = {"augmentation": "both", "pooling": "average", "label_smoothing": 0.1, "schedule": "cosine"}
    extra |= {"warmup_ratio": 0.3, "first_layer_rate": 0.1, "weight_decay": 0.05}
    extra |= {"mix": "mixup" if averaging == "none" else "cutmix"}
    config = replace(CONFIG, arch="cnn3", normalisation=normalisation, averaging=averaging, **extra)
    assert_nothing_waits(config, images, tmp_path)


def assert_nothing_waits(config, images, folder):
    waits = []  # what has waited when each step begins
    with Watch() as watch:

        def stop():
            waits.append(list(watch.waits))
            return False

        list(train(config, images["train"], images["validation"], folder, stop))
    assert len(waits) == 5
    assert waits[-1] == waits[0]  # from the first step's beginning to the last one's
    assert watch.waits.count("_local_scalar_dense") - waits[-1].count("_local_scalar_dense") <= 4  # the epoch's sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(64, 8192), (64, 32, 16, 16), (61, 8191)])
def test_dropout_drops_as_often_as_torch_does_and_keeps_the_mean(probability, shape, dtype):
    torch.manual_seed(0)
    ones = torch.ones(shape, dtype=dtype)
    if len(shape) == 4:
        ones = ones.contiguous(memory_format=torch.channels_last)
    layer, theirs = Dropout(probability).train(), nn.Dropout(probability).train()
    ours, plain = layer(ones.requires_grad_()), theirs(ones.detach())
    assert ours.stride() == plain.stride()
    assert ours.unique().tolist() == pytest.approx(plain.unique().tolist(), rel=1e-4 if dtype == torch.float32 else 0)
    count = ones.numel()
    spread = (probability * (1 - probability) / count) ** 0.5
    assert abs((ours == 0).double().mean().item() - probability) < 4 * spread + 1 / 65_536
    # Numbers that share one draw of the generator are as independent as all others.
    for lane in (ours == 0).double().as_strided((count // 4, 4), (4, 1)).T:
        assert abs(lane.mean().item() - probability) < 5 * 2 * spread
    lanes = torch.corrcoef((ours == 0).double().as_strided((count // 4, 4), (4, 1)).T)
    assert (lanes - torch.eye(4)).abs().max() < 5 / (count // 4) ** 0.5
    ours.backward(torch.full_like(ours, 2))
    assert torch.equal(ones.grad, 2 * ours.detach())  # what was kept gets its gradient, scaled alike


def test_dropout_comes_from_the_seed_and_ends_with_training():
    numbers, layer = torch.randn(32, 100), Dropout(0.5).train()
    torch.manual_seed(1)
    first, second = layer(numbers), layer(numbers)
    torch.manual_seed(1)
    assert torch.equal(layer(numbers), first)
    assert not torch.equal(second, first)
    assert torch.equal(layer.eval()(numbers), numbers)
    assert torch.equal(Dropout(0.0).train()(numbers), numbers)
    assert not Dropout(1.0).train()(numbers).any()
    every_other = numbers[:, ::2]  # whose memory has gaps
    assert 0.3 < (layer.train()(every_other) == 0).double().mean() < 0.7


@pytest.mark.slow
@pytest.mark.skipif(
    choose_precision("auto", "cpu") == "float32",
    reason="this CPU emulates bfloat16: slow, and not what a sweep chooses here",
)
@pytest.mark.parametrize("arch", SMALL)
def test_bfloat16_is_as_good_as_float32_within_what_a_seed_decides(arch, tmp_path):
    """The means over five seeds differ by less than the seeds of one precision do, and by less than 0.02."""
    source = read_synthetic()
    cache.build(source, 32)
    images = images_of(source, split_source(source), 32)
    scores = {}
    for precision in ("float32", "bfloat16"):
        for seed in range(5):
            config = replace(CONFIG, arch=arch, seed=seed, precision=precision, image_size=32, dropout=0.2, epochs=6)
            results = list(train(config, images["train"], images["validation"], tmp_path / f"{precision}-{seed}"))
            logits = results[-1].validation_logits
            score = roc_auc_score(images["validation"].labels, logits[:, 1] - logits[:, 0])
            scores.setdefault(precision, []).append(score)
    exact, short = (np.array(scores[precision]) for precision in ("float32", "bfloat16"))
    assert abs(short.mean() - exact.mean()) < min(max(np.ptp(exact), np.ptp(short)), 0.02), (exact, short)
