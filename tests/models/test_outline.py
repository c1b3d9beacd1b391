import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from models import ARCHITECTURES
from models.outline import Cost, Layer, cost, outline, sketch
from models.resnet50 import build

SIZES = {name: row.image_size for name, row in ARCHITECTURES.items()}

OUTPUTS = {
    "cnn1": [(1, 160, 160), (12, 160, 160), (20, 160, 160), (20, 80, 80), (32, 80, 80), (2,)],
    "cnn2": [
        (1, 160, 160), (16, 160, 160), (16, 160, 160), (16, 80, 80), (32, 80, 80), (32, 80, 80), (32, 40, 40),
        (64, 40, 40), (2,),
    ],
    "cnn3": [
        (1, 150, 150), (32, 150, 150), (32, 75, 75), (64, 75, 75), (64, 37, 37), (128, 37, 37), (128, 18, 18),
        (128,), (2,),
    ],
    "resnet50": [
        (1, 224, 224), (64, 56, 56), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7), (2048, 1, 1),
        (256,), (2,),
    ],
}  # fmt: skip

# By hand: weights without a bias and two numbers a channel of batch normalisation, or weights with a bias.
PARAMETERS = {
    "cnn1": [0, 12 * 9 + 24, 20 * 12 * 9 + 40, 0, 32 * 20 * 9 + 64, 2 * 32 * 80 * 80 + 2],
    "cnn3": [0, 320, 0, 64 * 32 * 9 + 64, 0, 128 * 64 * 9 + 128, 0, 128 * 128 * 18 * 18 + 128, 258],
}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_rows_have_known_sizes_and_all_parameters(arch):
    network = sketch(arch, SIZES[arch])
    rows = outline(network, SIZES[arch])
    assert [row.output for row in rows] == OUTPUTS[arch]
    counts = [row.parameters for row in rows]
    assert counts == PARAMETERS.get(arch, counts)
    assert sum(counts) == sum(parameter.numel() for parameter in network.parameters())
    assert cost(network, SIZES[arch]).parameters == sum(counts)


def test_what_follows_a_layer_is_part_of_it():
    assert outline(sketch("cnn1", 64, classes=3, activation="gelu", dropout=0.25), 64) == (
        Layer("Input", "input", "", (1, 64, 64), 0),
        Layer("Conv", "convolution", "12 of 3 x 3, batch norm, GELU", (12, 64, 64), 132),
        Layer("Conv", "convolution", "20 of 3 x 3, batch norm", (20, 64, 64), 2200),
        Layer("Max pool", "pooling", "2 x 2, GELU", (20, 32, 32), 0),
        Layer("Conv", "convolution", "32 of 3 x 3, batch norm, GELU, dropout 0.25", (32, 32, 32), 5824),
        Layer("Linear", "linear", "", (3,), 3 * 32 * 32 * 32 + 3),
    )
    assert not any("dropout" in row.detail for row in outline(sketch("cnn1", 64), 64))


@pytest.mark.parametrize(("normalisation", "said"), [("image", "standardised"), ("histogram", "histogram equalised")])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_normalisation_is_said_of_the_input_and_changes_no_other_row(arch, normalisation, said):
    first, *others = outline(sketch(arch, 64, normalisation=normalisation), 64)
    assert first == Layer("Input", "input", said, (1, 64, 64), 0)
    assert others == list(outline(sketch(arch, 64), 64)[1:])


@pytest.mark.parametrize(("arch", "maps", "after"), [("cnn1", 32, [2]), ("cnn2", 64, [2]), ("cnn3", 128, [128, 2])])
def test_a_global_average_has_a_row_between_maps_and_vectors(arch, maps, after):
    rows, network = outline(sketch(arch, 64, pooling="average"), 64), sketch(arch, 64, pooling="average")
    shapes = [row.output for row in rows]
    place = shapes.index((maps,))
    assert (rows[place].name, rows[place].kind, rows[place].parameters) == ("Global average", "pooling", 0)
    assert [len(shape) for shape in shapes[:place]] == [3] * place
    assert shapes[place + 1 :] == [(length,) for length in after]
    assert sum(row.parameters for row in rows) == sum(parameter.numel() for parameter in network.parameters())


def test_resnet50_averages_anyway():
    assert outline(sketch("resnet50", 64, pooling="average"), 64) == outline(sketch("resnet50", 64), 64)


def test_resnet50_is_drawn_in_stages():
    rows = outline(sketch("resnet50", 224, activation="silu"), 224)
    stem = "conv 64 of 7 x 7, stride 2, batch norm, ReLU, max pool 3 x 3, stride 2"
    assert [(row.name, row.kind, row.detail) for row in rows] == [
        ("Input", "input", ""),
        ("stem", "convolution", stem),
        ("layer1", "stage", "3 bottlenecks"),
        ("layer2", "stage", "4 bottlenecks"),
        ("layer3", "stage", "6 bottlenecks"),
        ("layer4", "stage", "3 bottlenecks"),
        ("Average pool", "pooling", ""),
        ("Linear", "linear", "SiLU"),
        ("Linear", "linear", ""),
    ]


def tiny():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 2))


def test_operations_of_a_tiny_network_are_those_counted_by_hand():
    multiplications = 8 * 8 * 4 * 9 + 4 * 8 * 8 * 2
    assert cost(tiny(), 8) == Cost(parameters=40 + 514, flops=2 * multiplications)


def test_resnet50_costs_what_torchvision_publishes():
    assert cost(sketch("resnet50", 224), 224).flops == pytest.approx(2 * 4.09e9, rel=0.02)


def test_the_network_stays_as_it_was():
    network = build("relu", 0.2, 2, 64, weights=None, finetune="layer4").train()
    modes = [module.training for module in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert set(modes) == {True, False}  # frozen stages stay in evaluation
    outline(network, 64)
    cost(network, 64)
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks for module in network.modules())
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


def test_a_real_network_and_its_sketch_have_one_outline():
    assert outline(ARCHITECTURES["cnn2"].build("relu", 0.0, 2, 64), 64) == outline(sketch("cnn2", 64), 64)


def test_networks_of_others_have_an_outline_too():
    network = resnet18()
    network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    network.layer4 = network.layer4[:1]
    rows = outline(network, 64)
    assert [row.detail for row in rows if row.kind == "stage"] == ["2 basicblocks"] * 3 + ["1 basicblock"]
    assert sum(row.parameters for row in rows) == cost(network, 64).parameters
