import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from data import cache
from data.cache import images_of
from data.sources import open_source
from data.splits import split_source
from models import ARCHITECTURES
from sweep import checkpoint, space, training
from sweep.training import BEST, LAST, OPTIMIZERS, NonFiniteLossError, TrainingConfig, predict, restore, train

CONFIG = TrainingConfig("cnn1", "relu", "adam", 1e-3, 32, 0.2, seed=7, epochs=3, patience=0, image_size=24, classes=2)


@pytest.fixture(scope="module")
def images(pictures):
    source = open_source(pictures)
    cache.build(source, 24)
    return images_of(source, split_source(source), 24)


def run(config, images, folder, **options):
    return list(train(config, images["train"], images["validation"], folder, **options))


def state(folder, name=LAST):
    return checkpoint.read(folder / name)[0]


@pytest.mark.parametrize("arch", ["cnn1", "cnn2", "cnn3"])
def test_every_small_network_learns(arch, images, tmp_path):
    results = run(replace(CONFIG, arch=arch, epochs=15), images, tmp_path)
    assert [result.epoch for result in results] == list(range(1, 16))
    assert results[-1].train_loss < 0.75 * results[0].train_loss
    best = restore(tmp_path / BEST)
    predicted = predict(best.network, best.config, images["test"]).argmax(1)
    assert (predicted == images["test"].labels).mean() > 0.75


def test_resnet50_trains_one_epoch(images, tmp_path):
    options = {"weights": None, "finetune": "all"}
    config = replace(CONFIG, arch="resnet50", image_size=24, epochs=1, options=options)
    few = {name: replace(part, rows=part.rows[::6], labels=part.labels[::6]) for name, part in images.items()}
    (result,) = run(config, few, tmp_path)
    assert math.isfinite(result.train_loss)
    assert restore(tmp_path / BEST).config.options["finetune"] == "all"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(optimizer, images, tmp_path):
    config = replace(CONFIG, optimizer=optimizer, epochs=2)
    first, again = run(config, images, tmp_path / "a"), run(config, images, tmp_path / "b")
    other = run(replace(config, seed=8), images, tmp_path / "c")
    assert [r.train_loss for r in first] == [r.train_loss for r in again] != [r.train_loss for r in other]
    assert np.array_equal(first[-1].validation_logits, again[-1].validation_logits)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(optimizer, precision, images, tmp_path):
    config = replace(CONFIG, arch="cnn2", optimizer=optimizer, dropout=0.5, precision=precision)
    whole = run(config, images, tmp_path / "whole")
    cut = train(config, images["train"], images["validation"], tmp_path / "cut")
    next(cut)
    cut.close()  # as a process that died after its first epoch
    torch.manual_seed(12345)
    rest = run(config, images, tmp_path / "cut")
    assert [result.epoch for result in rest] == [2, 3]
    for ours, theirs in zip(rest, whole[1:], strict=True):
        assert ours.train_loss == theirs.train_loss
        assert np.array_equal(ours.validation_logits, theirs.validation_logits)
    for name, tensor in state(tmp_path / "whole").items():
        assert torch.equal(tensor, state(tmp_path / "cut")[name]), name


def test_another_configuration_does_not_go_on_from_the_checkpoint(images, tmp_path):
    run(replace(CONFIG, epochs=1), images, tmp_path)
    assert len(run(replace(CONFIG, epochs=1, learning_rate=2e-3), images, tmp_path)) == 1


def test_it_stops_before_the_next_step_when_told(images, tmp_path):
    asked = []

    def stop():
        asked.append(None)
        return len(asked) > 7  # five steps an epoch

    results = run(CONFIG, images, tmp_path, stop=stop)
    assert [result.epoch for result in results] == [1]
    assert len(asked) == 8


def test_patience_ends_it_and_the_best_weights_are_kept(images, tmp_path, monkeypatch):
    losses = iter([0.9, 0.5, 0.6, 0.7, 0.8, 0.1])
    real = torch.nn.functional.cross_entropy

    def scripted(logits, labels, weight):
        value = real(logits, labels, weight)
        return value if logits.requires_grad else value * 0 + next(losses)

    monkeypatch.setattr(training.functional, "cross_entropy", scripted)
    results = run(replace(CONFIG, epochs=6, patience=2), images, tmp_path)
    assert [result.improved for result in results] == [True, True, False, False]
    best = restore(tmp_path / BEST)
    assert best.epoch == 2
    assert np.array_equal(best.validation_logits, results[1].validation_logits)
    assert np.allclose(predict(best.network, best.config, images["validation"]), best.validation_logits, atol=1e-5)


def test_a_loss_that_is_not_finite_ends_it_with_a_sentence(images, tmp_path):
    with pytest.raises(NonFiniteLossError, match="not finite in epoch 1"):
        run(replace(CONFIG, arch="cnn3", optimizer="sgd", learning_rate=1e9), images, tmp_path)


def test_classes_weigh_as_in_section_2_3_of_the_report():
    labels = np.repeat([0, 1], [1341, 3875])
    weights = training._class_weights(labels, 2)
    assert weights.tolist() == pytest.approx([5216 / (1341 * 2), 5216 / (3875 * 2)])


def test_bfloat16_trains_to_about_the_same_place(images, tmp_path):
    exact = run(CONFIG, images, tmp_path / "exact")
    short = run(replace(CONFIG, precision="bfloat16"), images, tmp_path / "short")
    assert exact[-1].train_loss != short[-1].train_loss
    assert short[-1].validation_loss == pytest.approx(exact[-1].validation_loss, rel=0.25)


def test_the_space_offers_the_optimisers_there_are():
    assert set(space.OPTIMIZERS) == set(OPTIMIZERS)
    assert set(space.SPACES) == set(ARCHITECTURES)


def test_a_checkpoint_is_whole_or_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "x.safetensors"
    checkpoint.write(path, {"a": torch.ones(2)}, {"epoch": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write(path, {"a": torch.zeros(2)}, {"epoch": 2})
    tensors, metadata = checkpoint.read(path)
    assert tensors["a"].tolist() == [1, 1]
    assert metadata == {"epoch": 1}
    assert [file.name for file in path.parent.iterdir()] == ["x.safetensors"]


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.read(tmp_path / "none")
    (tmp_path / "rubbish").write_bytes(b"rubbish" * 9)
    with pytest.raises(ValueError, match="not a checkpoint"):
        checkpoint.read(tmp_path / "rubbish")
