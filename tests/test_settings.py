from dataclasses import replace
from pathlib import Path

import pytest

from data.faults import InputError
from models import ARCHITECTURES
from sweep.published import ROWS
from sweep.settings import Settings, check, check_folder
from sweep.space import SPACES, Choice, Range, largest_batch, study_space


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_of_the_report_lies_in_the_space(row):
    space = SPACES[row.arch]
    assert row.params.keys() == space.keys()
    for name, value in row.params.items():
        domain = space[name]
        if isinstance(domain, Choice):
            assert value in domain.values
        else:
            assert domain.low <= value <= domain.high


def test_fixing_and_searching_change_the_space():
    space = study_space(
        "cnn1",
        fix=["activation=sigmoid", "learning_rate=1e-3"],
        search=["dropout=0..0.5", "batch_size=64,128", "optimizer=adam,sgd"],
    )
    assert space == {
        "activation": Choice(("sigmoid",)),
        "optimizer": Choice(("adam", "sgd")),
        "learning_rate": Choice((0.001,)),
        "batch_size": Choice((64, 128)),
        "dropout": Range(0.0, 0.5),
    }
    assert study_space("cnn1", search=["learning_rate=1e-4..1e-2:log"])["learning_rate"] == Range(1e-4, 1e-2, log=True)
    assert largest_batch(space) == 128


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("fix", "colour=red", "there is no hyperparameter 'colour'"),
        ("fix", "activation", "write activation=VALUE"),
        ("fix", "activation=tanh", "'tanh' is none of relu, sigmoid"),
        ("fix", "batch_size=0", "no whole number from 1"),
        ("fix", "batch_size=6.5", "no whole number from 1"),
        ("fix", "learning_rate=-1", "not above 0"),
        ("fix", "learning_rate=nan", "not above 0"),
        ("fix", "dropout=1", "not from 0 to below 1"),
        ("fix", "dropout=much", "is no number"),
        ("search", "learning_rate=2..1", "the lower end 2 is not below the upper end 1"),
        ("search", "dropout=0..0.5:log", "a logarithmic range starts above 0"),
        ("search", "dropout=0..0.5:cubic", "'cubic' is no scale"),
        ("search", "activation=relu..gelu", "has no order"),
        ("search", "batch_size=32..64", "list the values of batch_size"),
        ("search", "batch_size=32,32", "given twice"),
    ],
)
def test_what_cannot_be_searched_says_why(option, text, said):
    with pytest.raises(InputError, match=said) as caught:
        study_space("cnn1", **{option: [text]})
    assert caught.value.faults[0].startswith(f"--{option} {text}: ")


def test_all_faults_come_in_one_message():
    settings = Settings(
        archs=("cnn9", "cnn1", "cnn1"),
        trials=0,
        epochs=0,
        image_size=1,
        metric="val/luck",
        fix=("colour=red",),
        search=("learning_rate=2..1",),
    )
    with pytest.raises(InputError) as caught:
        check(settings)
    said = "\n".join(caught.value.faults)
    for part in ("cnn9", "twice", "--trials 0", "--epochs 0", "--image-size 1", "val/luck", "colour", "2..1"):
        assert part in said
    assert len(set(caught.value.faults)) == len(caught.value.faults)


def test_a_study_name_belongs_to_one_architecture():
    with pytest.raises(InputError, match="name one --arch"):
        check(Settings(archs=("cnn1", "cnn2"), study="wide"))
    with pytest.raises(InputError, match="use letters, digits"):
        check(Settings(archs=("cnn1",), study="a/b"))


def test_the_defaults_are_fine_for_every_architecture():
    check(Settings(archs=tuple(ARCHITECTURES)))
    check(replace(Settings(archs=("cnn1",)), trials=1, patience=0))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    check_folder(tmp_path, 1000)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="/proc: the working directory cannot be written"):
        check_folder(Path("/proc"), 1000)
    with pytest.raises(InputError, match="needs about 1,000,000,000,000 MB here"):
        check_folder(tmp_path, 10**18)
