"""Networks of the user's: a function in a file, or one that an installed package offers."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch

from data.faults import InputError
from models import architecture, short_name
from models.outline import cost, sketch
from sweep.settings import Settings, check
from sweep.stores.trial_export import check_network
from sweep.training import checkpoint

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


OWN = """
import torch
from torch import nn


class Sequence(nn.Sequential):
    def __init__(self, classes):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, classes))
        self.scale = nn.Parameter(torch.full((), 3.0))

    def forward(self, images):
        return self.scale * super().forward(images)


class Tied(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, classes)
        self.again = self.first

    def forward(self, images):
        return self.last(self.again(self.first(images.flatten(1)[:, :8])))


class Recurrent(nn.Module):
    def __init__(self, classes, size):
        super().__init__()
        self.rows, self.last = nn.GRU(size, 4, batch_first=True), nn.Linear(4, classes)

    def forward(self, images):
        return self.last(self.rows(images[:, 0])[0][:, -1])


class Halved(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.last = nn.Linear(4, classes)

    def forward(self, images):
        logits = self.last(images.flatten(1)[:, :4])
        return logits if self.training else logits[:1]


def sequence(activation, dropout, classes, image_size):
    return Sequence(classes)


def tied(activation, dropout, classes, image_size):
    return Tied(classes)


def recurrent(activation, dropout, classes, image_size):
    return Recurrent(classes, image_size)


def halved(activation, dropout, classes, image_size):
    return Halved(classes)


def reading(activation, dropout, classes, image_size):
    rates = [rate.item() for rate in torch.linspace(0, dropout, 3)]
    return nn.Sequential(nn.Flatten(), nn.Dropout(rates[-1]), nn.Linear(image_size**2, classes))


def loaded(activation, dropout, classes, image_size):
    network = nn.Sequential(nn.Flatten(), nn.Linear(image_size**2, classes))
    network.load_state_dict({name: torch.ones(tensor.shape, device="cpu") for name, tensor in network.state_dict().items()})
    return network


def lazy(activation, dropout, classes, image_size):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))


def normalised(activation, dropout, classes, image_size):
    layers = (nn.Flatten(), nn.Linear(image_size**2, 4), nn.BatchNorm1d(4), nn.Linear(4, classes))
    return nn.Sequential(*layers)


def leaving(activation, dropout, classes, image_size):
    raise SystemExit("bye")


def talking(activation, dropout, classes, image_size):
    print("hello from build")
    return nn.Sequential(nn.Flatten(), nn.Linear(image_size**2, classes))


print("hello from import")
"""
PARAMS = {"activation": "relu", "dropout": 0.2, "normalisation": "fixed", "pooling": "own"}


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def test_a_subclass_of_a_sequence_stays_itself_behind_a_normalisation(own: str):
    row, images = architecture(f"{own}:sequence"), torch.rand(2, 1, 16, 16)
    plain = row.build("relu", 0.0, 2, 16)
    first, network = row.build("relu", 0.0, 2, 16, normalisation="image").children()
    assert [type(first).__name__, type(network).__name__] == ["Standardise", "Sequence"]
    network.load_state_dict(plain.state_dict())
    torch.testing.assert_close(network(first(images)), plain(first(images)))


@pytest.mark.parametrize("function", ["sequence", "tied", "recurrent", "reading", "loaded", "talking"])
def test_networks_of_many_forms_pass_their_trial_and_are_kept(own: str, function: str, capsys, tmp_path: Path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*non-meta")  # a network with its own weights had one a tensor
        check_network(f"{own}:{function}", 16, 2, PARAMS, {})
    assert capsys.readouterr().out == ""  # which is for the one object of --json
    network = architecture(f"{own}:{function}").build("relu", 0.2, 2, 16)
    checkpoint.write(tmp_path / "own.safetensors", network.state_dict(), {})
    network.load_state_dict(checkpoint.read(tmp_path / "own.safetensors")[0])


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("halved", r"gives \[1, 2\] for 2 images of 16 x 16 pixels in evaluation, not logits \[2, 2\]"),
        ("lazy", "has lazy layers; give them the sizes of their inputs"),
        ("leaving", r"ends the program \(SystemExit: bye\)"),
        ("normalised", r"cannot be trained on a batch of one image .* leave one over with batch_size 7, 9"),
    ],
)
def test_what_would_fail_later_is_refused_before_training(own: str, function: str, said: str):
    with pytest.raises(InputError, match=said):
        check_network(f"{own}:{function}", 16, 2, PARAMS, {}, lone=[7, 9] if function == "normalised" else [])


def test_two_files_may_not_have_modules_of_one_name_beside_them(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for place, width in (("a", 8), ("b", 16)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "blocks_of_two.py").write_text(f"WIDTH = {width}\n")
        text = NETWORK.replace("from torch import nn", "from torch import nn\nfrom blocks_of_two import WIDTH", 1)
        (tmp_path / place / f"net_{place}.py").write_text(text)
    architecture(str(tmp_path / "a" / "net_a.py"))
    with pytest.raises(InputError, match=r"beside it is blocks_of_two\.py, and .*a/blocks_of_two\.py, of another arch"):
        architecture(str(tmp_path / "b" / "net_b.py"))


def test_names_are_those_that_a_command_and_an_alias_take(tmp_path: Path):
    assert short_name(f"{tmp_path}/Ärzte.py") == "rzte"
    for name in ("cnn1-ensemble.py", "one.py"):
        (tmp_path / name).write_text(NETWORK)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.py").write_text(NETWORK)
    with pytest.raises(InputError, match="its study would be called cnn1-ensemble, which is taken"):
        check(Settings(archs=(f"{tmp_path}/cnn1-ensemble.py",)))
    with pytest.raises(InputError, match=r"one\.py and .*b/one\.py would both be called one; give one of them another"):
        check(Settings(archs=(f"{tmp_path}/one.py", f"{tmp_path}/b/one.py")))


@pytest.mark.parametrize("constants", ["5000, 0.5, 0.25", "48, float('nan'), 0.25", "48, 0.5, 0"])
def test_constants_out_of_range_are_refused(file: Path, constants: str):
    file.write_text(NETWORK.replace("48, 0.5, 0.25", constants))
    with pytest.raises(InputError, match="IMAGE_SIZE is a whole number from 8 to 1024, MEAN a number, STD one above 0"):
        architecture(f"{file}:build")
