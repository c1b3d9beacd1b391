"""Networks of the user's: a function in a file, or one that an installed package offers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from data.faults import InputError
from models import architecture, short_name
from models.outline import cost, sketch

NETWORK = '''
"""Two convolutions."""
from torch import nn

IMAGE_SIZE, MEAN, STD = 48, 0.5, 0.25
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "sigmoid": nn.Sigmoid}


def build(activation, dropout, classes, image_size):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), ACTIVATIONS[activation](), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(dropout), nn.Linear(4, classes),
    )


def other(activation, dropout, classes, image_size):
    return build(activation, dropout, classes, image_size)


def positional(a, b, c, d):
    return build(a, b, c, d)


def nothing(activation, dropout, classes, image_size):
    return "a network"
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_model.py"
    path.write_text(NETWORK)
    return path


def test_a_function_in_a_file_is_an_architecture(file: Path):
    row = architecture(f"{file}:build")
    assert (row.image_size, row.mean, row.std, row.options) == (48, 0.5, 0.25, ("source_digest",))
    network = row.build("relu", 0.2, 3, 48, source_digest=row.digest)
    assert network(torch.rand(2, 1, 48, 48)).shape == (2, 3)
    assert architecture(str(file)).digest == row.digest  # `build` where no function is named
    assert cost(sketch(f"{file}:other", 48), 48).parameters == 4 * 9 + 4 + 4 * 2 + 2
    assert [short_name(f"{file}{end}") for end in ("", ":build", ":other")] == ["my_model"] * 2 + ["my_model-other"]


def test_a_changed_file_builds_no_network_of_an_older_training(file: Path):
    before = architecture(f"{file}:build").digest
    file.write_text(NETWORK.replace("Conv2d(1, 4, 3", "Conv2d(1, 4, 5"))
    row = architecture(f"{file}:build")
    assert row.digest != before
    with pytest.raises(InputError, match=f"has changed: its SHA-256 begins with {row.digest}, and with {before}"):
        row.build("relu", 0.2, 2, 48, source_digest=before)


def test_a_module_beside_the_file_can_be_imported(file: Path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (file.parent / "beside_it.py").write_text("from my_model_parts import build\n")
    (file.parent / "my_model_parts.py").write_text(NETWORK)
    assert architecture(f"{file.parent / 'beside_it.py'}:build").build("relu", 0, 2, 48)(torch.rand(1, 1, 48, 48)).shape


@pytest.mark.parametrize(
    ("function", "change", "said"),
    [
        ("missing", "", "there is no function missing"),
        ("IMAGE_SIZE", "", "there is no function IMAGE_SIZE"),
        ("positional", "", "positional must take activation, dropout, classes, image_size, by these names"),
        ("build", "import no_such_library", "cannot be imported (ModuleNotFoundError: No module named 'no_such_lib"),
        ("build", "STD = 0", "STD one above 0"),
        ("build", "this is no Python", "cannot be imported (SyntaxError"),
    ],
)
def test_what_is_no_architecture_says_why(file: Path, function: str, change: str, said: str):
    file.write_text(f"{NETWORK}\n{change}\n")
    with pytest.raises(InputError) as caught:
        architecture(f"{file}:{function}")
    assert said in str(caught.value)


def test_a_function_must_return_a_network_and_a_file_must_exist(file: Path):
    with pytest.raises(InputError, match="it returns str, not a torch.nn.Module"):
        architecture(f"{file}:nothing").build("relu", 0, 2, 48)
    with pytest.raises(InputError, match="there is no file nowhere.py"):
        architecture("nowhere.py:build")
    with pytest.raises(
        InputError, match="there is no such architecture; there are cnn1, .*timm:NAME.*FILE.py:FUNCTION"
    ):
        architecture("cnn9")


def test_an_installed_package_offers_architectures(file: Path, monkeypatch):
    folder = file.parent
    (folder / "acme-1.2.dist-info").mkdir()
    (folder / "acme-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.2\n")
    (folder / "acme-1.2.dist-info" / "entry_points.txt").write_text(
        "[sweep.architectures]\nacme-net = my_model:other\nbroken = my_model:missing\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    row = architecture("acme-net")
    assert row.digest == architecture(str(file)).digest
    assert row.build("relu", 0, 2, 48)(torch.rand(1, 1, 48, 48)).shape == (1, 2)
    with pytest.raises(InputError, match="my_model:missing cannot be imported"):
        architecture("broken")
