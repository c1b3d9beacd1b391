from dataclasses import replace

import pytest

from data.faults import InputError
from models import ARCHITECTURES
from sweep.comparisons.replication.published import ROWS
from sweep.metrics.names import METRICS
from sweep.plan import make_plan
from sweep.settings import Settings, check
from sweep.space import EXTRA, FIVE, SPACES, Choice, Range, batch_sizes, decided, layout, study_space, value_of
from tests.data.test_sources import medmnist


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
    assert batch_sizes(space)[-1] == 128


def test_extra_hyperparameters_are_fixed_and_searched_like_the_five_and_are_in_no_space_unasked():
    space = study_space(
        "cnn1",
        fix=["pooling=average", "schedule=cosine", "averaging=ema", "warmup_ratio=0.1"],
        search=[
            *("augmentation=own,both", "normalisation=fixed,image,histogram", "label_smoothing=0..0.2"),
            *("first_layer_rate=0.01..1:log", "weight_decay=own,0.05", "mix=none,mixup"),
        ],
    )
    usual = {name: value for name, value in EXTRA.items() if name != "drop_path"}  # which cnn1 does not have
    assert {name: space[name] for name in usual} == {
        "augmentation": Choice(("own", "both")),
        "normalisation": Choice(("fixed", "image", "histogram")),
        "pooling": Choice(("average",)),
        "label_smoothing": Range(0.0, 0.2),
        "averaging": Choice(("ema",)),
        "schedule": Choice(("cosine",)),
        "warmup_ratio": Choice((0.1,)),
        "first_layer_rate": Range(0.01, 1.0, log=True),
        "weight_decay": Choice(("own", 0.05)),
        "mix": Choice(("none", "mixup")),
    }
    fixed = {"pooling": "average", "schedule": "cosine", "averaging": "ema", "warmup_ratio": 0.1}
    assert decided(space) == fixed
    assert not any(SPACES[arch].keys() & EXTRA.keys() for arch in ARCHITECTURES)
    for name, value in usual.items():  # what nobody asks for can be asked for
        assert study_space("cnn1", fix=[f"{name}={value}"])[name] == Choice((value,))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_ready_space_is_changed_as_the_basic_one_is(arch):
    assert study_space(arch, space_name="basic") == SPACES[arch] == study_space(arch)
    scratch, finetune = (study_space(arch, space_name=name) for name in ("scratch", "finetune"))
    assert {name: scratch[name] for name in FIVE} == SPACES[arch]
    assert set(scratch) == {*FIVE, "augmentation", "normalisation", "schedule"}
    assert set(FIVE) < set(finetune) <= {*FIVE, *EXTRA}
    assert all(f"{EXTRA[name]}" in f"{scratch[name]}" for name in set(scratch) - set(FIVE))  # the report's is in it
    for name, domain in finetune.items():  # and all of it can be typed
        values = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
        assert all(value_of(name, str(value)) == value for value in values)

    changed = study_space(arch, ["mix=cutmix"], ["learning_rate=1e-4..1e-3:log"], "finetune")
    assert changed == {**finetune, "mix": Choice(("cutmix",)), "learning_rate": Range(1e-4, 1e-3, log=True)}


def test_a_space_that_there_is_not_is_named_once():
    with pytest.raises(InputError) as caught:
        check(Settings(archs=("cnn1", "cnn2"), space="best"))
    assert caught.value.faults == ("--space best: there is no such space; there are basic, scratch, finetune",)


def test_the_layout_of_a_network_is_what_its_run_says_or_as_usual():
    assert layout({}) == {"normalisation": "fixed", "pooling": "own"}
    assert layout({"pooling": "average", "dropout": "0.1"}) == {"normalisation": "fixed", "pooling": "average"}


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("fix", "colour=red", "there is no hyperparameter 'colour'"),
        ("fix", "activation", "write activation=VALUE"),
        ("fix", "activation=tanh", "'tanh' is none of own, relu, sigmoid"),
        ("fix", "batch_size=0", "no whole number from 1"),
        ("fix", "batch_size=6.5", "no whole number from 1"),
        ("fix", "learning_rate=-1", "not above 0"),
        ("fix", "learning_rate=nan", "not above 0"),
        ("fix", "dropout=1", "not from 0 to below 1"),
        ("fix", "dropout=much", "is no number"),
        ("fix", "augmentation=all", "'all' is none of own, none, position, light, both"),
        ("fix", "normalisation=clahe", "'clahe' is none of fixed, image, histogram"),
        ("fix", "pooling=max", "'max' is none of own, average"),
        ("fix", "averaging=swa", "'swa' is none of none, ema"),
        ("fix", "schedule=step", "'step' is none of constant, cosine"),
        ("fix", "label_smoothing=1", "1 is not from 0 to below 1"),
        ("fix", "label_smoothing=nan", "nan is not from 0 to below 1"),
        ("fix", "warmup_ratio=1", "1 is not from 0 to below 1"),
        ("fix", "first_layer_rate=0", "0 is not above 0 and at most 1"),
        ("fix", "weight_decay=-1", "-1 is not 0 or more"),
        ("fix", "weight_decay=none", "'none' is no number and not own"),
        ("fix", "mix=both", "'both' is none of none, mixup, cutmix"),
        ("search", "weight_decay=own..0.1", "weight_decay has no order; list its values, such as weight_decay=own,0.1"),
        ("search", "pooling=own..average", "pooling has no order; list its values, such as pooling=own,average"),
        ("search", "label_smoothing=-0.1..0.1", "-0.1 is not from 0 to below 1"),
        ("search", "colour=red,blue", "there are activation, .*, dropout, augmentation, .*, schedule, .*, drop_path"),
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


def test_resnet50_leaves_no_choice_of_pooling():
    with pytest.raises(InputError, match="pooling=average: resnet50 gathers its feature maps in its own way"):
        check(Settings(archs=("cnn1", "resnet50"), fix=("pooling=average",)))
    check(Settings(archs=("cnn1",), fix=("pooling=average",)))


def test_pretrained_resnet50_reads_pixels_as_its_weights_are_used_to():
    assert study_space("resnet50", pretrained=True)["normalisation"] == Choice(("imagenet",))
    report = study_space("resnet50", ["normalisation=fixed"], pretrained=True)
    assert report == study_space("resnet50")  # as in a study of an earlier release
    assert study_space("resnet50", [], ["normalisation=fixed,imagenet"], pretrained=True)["normalisation"] == Choice(
        ("fixed", "imagenet")
    )


def test_weights_and_stages_are_checked_before_anything_else():
    with pytest.raises(InputError, match="--weights w.pth: cnn1 cannot start from a file of weights"):
        check(Settings(archs=("cnn1",), weights="w.pth"))
    with pytest.raises(InputError, match="--finetune last:0: there is no such value; there are all, head and last:N"):
        check(Settings(archs=("resnet50",), finetune="last:0"))


def test_all_faults_come_in_one_message():
    settings = Settings(
        archs=("cnn9", "cnn1", "cnn1"),
        trials=0,
        epochs=0,
        image_size=1,
        metrics=("val/luck",),
        fix=("colour=red",),
        search=("learning_rate=2..1",),
    )
    with pytest.raises(InputError) as caught:
        check(settings)
    said = "\n".join(caught.value.faults)
    for part in ("cnn9", "twice", "--trials 0", "--epochs 0", "--image-size 1", "val/luck", "colour", "2..1"):
        assert part in said
    assert len(set(caught.value.faults)) == len(caught.value.faults)


def test_a_study_chooses_by_any_score_and_other_names_of_it_mean_the_same():
    assert Settings(archs=("cnn1",), metrics=("val/sensitivity",)).metric == "val/recall"
    for metric in METRICS:
        check(Settings(archs=("cnn1",), metrics=(metric,)))
    for typed, meant in (("mcc", "val/mcc"), ("sensitivity", "val/sensitivity"), ("val/specifity", "val/specificity")):
        with pytest.raises(InputError, match=rf"--metric {typed}: there is no such value; .*did you mean {meant}\?"):
            check(Settings(archs=("cnn1",), metrics=(typed,)))


def test_a_metric_of_two_classes_is_refused_where_there_are_more(tmp_path):
    medmnist(tmp_path / "blobs.npz", classes=3)
    settings = Settings(archs=("cnn1",), data=tmp_path / "blobs.npz", fix=("batch_size=16",))
    with pytest.raises(InputError, match=r"--metric val/specificity: exists with two classes alone, and blobs has 3;"):
        make_plan(replace(settings, metrics=("val/auroc", "val/specificity")), fetch=False)
    make_plan(replace(settings, metrics=("val/mcc",)), fetch=False)


def test_what_does_not_go_with_several_metrics_is_refused():
    several = Settings(archs=("cnn1",), metrics=("val/auroc", "cost/parameters", "cost/ms_per_image"))
    for sampler in ("tpe", "random", "gp", "qmc"):
        check(replace(several, sampler=sampler))
    assert (several.metric, several.pruner, several.pruning) == ("val/auroc", "median", "none")
    assert Settings(archs=("cnn1",)).pruning == "median"
    faulty = replace(
        several,
        metrics=("cost/mflops", "val/stressed_auroc", "cost/mflops"),
        pruner="hyperband",
        sampler="cmaes",
        keep="best",
    )
    with pytest.raises(InputError) as caught:
        check(faulty)
    assert [fault.partition(": ")[0] for fault in caught.value.faults] == [
        "--metric cost/mflops", "--metric", "--metric val/stressed_auroc", "--pruner hyperband", "--sampler cmaes", "--keep best",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"did you mean cost/parameters\?"):
        check(replace(several, metrics=("val/auroc", "parameters")))


def test_a_study_name_belongs_to_one_architecture():
    with pytest.raises(InputError, match="name one --arch"):
        check(Settings(archs=("cnn1", "cnn2"), study="wide"))
    with pytest.raises(InputError, match="use letters, digits"):
        check(Settings(archs=("cnn1",), study="a/b"))


def test_the_defaults_are_fine_for_every_architecture():
    check(Settings(archs=tuple(ARCHITECTURES)))
    check(replace(Settings(archs=("cnn1",)), trials=1, patience=0))
