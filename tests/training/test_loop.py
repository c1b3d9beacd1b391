import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from data import cache
from data.cache import images_of
from data.sources import open_source
from data.splits import split_source
from models import ARCHITECTURES
from sweep import space
from sweep.orchestrator.run_params import config_of
from sweep.training import checkpoint
from sweep.training import loop as training
from sweep.training.config import BEST, LAST, PREVIOUS, ConfigurationError, NonFiniteLossError
from sweep.training.inference import predict, restore
from sweep.training.loop import OPTIMIZERS, train
from tests.helpers.trainings import CONFIG, EXTRA, goes_on_as, interrupted, run, same, state


@pytest.fixture(scope="module")
def images(pictures):
    source = open_source(pictures)
    cache.build(source, 24)
    return images_of(source, split_source(source), 24)


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
    interrupted(config, images, tmp_path / "cut")
    goes_on_as(whole, config, images, tmp_path)


@pytest.mark.parametrize("how", ["died", "stopped"])
@pytest.mark.parametrize(
    ("arch", "changes"),
    [("cnn1", {"averaging": "ema"}), ("cnn2", EXTRA), ("cnn3", {**EXTRA, "normalisation": "histogram"})],
    ids=["averaged", "all", "equalised"],
)
def test_with_extra_hyperparameters_too_it_resumes_bit_for_bit_and_keeps_what_it_validated(
    how, arch, changes, images, tmp_path
):
    config = replace(CONFIG, arch=arch, dropout=0.5, **changes)
    whole = run(config, images, tmp_path / "whole")
    if how == "died":
        interrupted(config, images, tmp_path / "cut")
    else:
        steps = iter(range(99))  # five an epoch
        assert len(run(config, images, tmp_path / "cut", stop=lambda: next(steps) == 7)) == 1
    goes_on_as(whole, config, images, tmp_path)
    best = restore(tmp_path / "cut" / BEST)
    assert best.config == config
    assert np.array_equal(best.validation_logits, whole[best.epoch - 1].validation_logits)
    assert np.allclose(predict(best.network, best.config, images["validation"]), best.validation_logits, atol=1e-5)


@pytest.mark.parametrize("averaging", ["none", "ema"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_patience_counts_across_an_interruption(epochs, averaging, images, tmp_path, monkeypatch):
    losses = iter([0.5, 0.6, 0.7, 0.8])
    script_validation_losses(monkeypatch, losses)
    config = replace(CONFIG, epochs=6, patience=2, averaging=averaging)
    interrupted(config, images, tmp_path, epochs=epochs)
    results = run(config, images, tmp_path)
    assert [result.epoch for result in results] == [1, 2, 3]
    best = restore(tmp_path / BEST)
    assert best.epoch == 1
    assert np.array_equal(best.validation_logits, results[0].validation_logits)
    assert np.allclose(predict(best.network, best.config, images["validation"]), best.validation_logits, atol=1e-5)


def test_a_training_that_had_ended_only_repeats_itself(images, tmp_path):
    first = run(CONFIG, images, tmp_path)
    (tmp_path / BEST).unlink()  # killed between its last epoch and its end
    again = run(CONFIG, images, tmp_path)
    assert all(result.repeated and same(result, other) for result, other in zip(again, first, strict=True))
    assert restore(tmp_path / BEST).epoch in (1, 2, 3)


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[-100] ^= 1  # within the last tensor, which safetensors itself would read as it is
    path.write_bytes(content[: len(content) // 2] if how == "cut" else content)


@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(how, images, tmp_path):
    whole = run(CONFIG, images, tmp_path / "whole")
    interrupted(CONFIG, images, tmp_path / "cut", epochs=2)
    damage(tmp_path / "cut" / LAST, how)
    rest = run(CONFIG, images, tmp_path / "cut")
    assert [result.repeated for result in rest] == [True, False, False]
    assert all(same(ours, theirs) for ours, theirs in zip(rest, whole, strict=True))


def test_with_no_checkpoint_left_whole_it_starts_anew(images, tmp_path):
    interrupted(CONFIG, images, tmp_path, epochs=2)
    for name in (LAST, PREVIOUS):
        damage(tmp_path / name, "flipped")
    assert [result.repeated for result in run(CONFIG, images, tmp_path)] == [False] * 3


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(images, tmp_path, monkeypatch):
    cut = train(CONFIG, images["train"], images["validation"], tmp_path)
    next(cut)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            next(cut)
    rest = run(CONFIG, images, tmp_path)
    assert [result.repeated for result in rest] == [True, False, False]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_gradients_of_a_batch_add_up_over_its_parts(label_smoothing, images, tmp_path, monkeypatch):
    # Batch normalisation sees the parts; without it nothing but rounding may differ.
    layers = lambda config: torch.nn.Sequential(torch.nn.Conv2d(1, 4, 5, 5), torch.nn.Flatten(), torch.nn.Linear(64, 2))  # noqa: E731
    monkeypatch.setattr(training, "build_network", layers)
    config = replace(CONFIG, optimizer="sgd", learning_rate=1e-2, label_smoothing=label_smoothing)
    whole = run(config, images, tmp_path / "whole")
    parts = run(replace(config, micro_batch=7), images, tmp_path / "parts")
    for ours, theirs in zip(parts, whole, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-5)
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-5)


def test_what_cannot_begin_says_so(images, tmp_path):
    lost = {**images, "train": replace(images["train"], path=tmp_path / "gone.npy")}
    with pytest.raises(ConfigurationError, match=r"gone\.npy"):
        run(CONFIG, lost, tmp_path)


def test_another_configuration_does_not_go_on_from_the_checkpoint(images, tmp_path):
    run(replace(CONFIG, epochs=1), images, tmp_path)
    (result,) = run(replace(CONFIG, epochs=1, learning_rate=2e-3), images, tmp_path)
    assert not result.repeated


def test_it_stops_before_the_next_step_when_told(images, tmp_path):
    asked = []

    def stop():
        asked.append(None)
        return len(asked) > 7  # five steps an epoch

    results = run(CONFIG, images, tmp_path, stop=stop)
    assert [result.epoch for result in results] == [1]
    assert len(asked) == 8


def script_validation_losses(monkeypatch, losses):
    real = torch.nn.functional.cross_entropy

    def scripted(logits, labels, weight, **options):
        value = real(logits, labels, weight, **options)
        return value if logits.requires_grad else value * 0 + next(losses)

    monkeypatch.setattr(training.functional, "cross_entropy", scripted)


def test_patience_ends_it_and_the_best_weights_are_kept(images, tmp_path, monkeypatch):
    script_validation_losses(monkeypatch, iter([0.9, 0.5, 0.6, 0.7, 0.8, 0.1]))
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


def test_a_training_of_which_nobody_asks_more_is_the_reports():
    assert replace(CONFIG, **space.EXTRA) == CONFIG


@pytest.mark.parametrize(
    ("name", "value"), [*EXTRA.items(), ("normalisation", "histogram"), ("augmentation", "none")], ids=str
)
def test_no_extra_hyperparameter_is_without_effect(name, value, images, tmp_path):
    usual, changed = (
        run(replace(CONFIG, epochs=1, **change), images, tmp_path / str(len(change)))[0]
        for change in ({}, {name: value})
    )
    assert not np.array_equal(usual.validation_logits, changed.validation_logits)
    assert (usual.train_loss == changed.train_loss) == (name == "averaging")  # which leaves the steps as they are


def test_an_average_of_weights_is_the_one_computed_by_hand(images, tmp_path):
    """With a step an epoch, so that every checkpoint shows what a step made of the weights."""
    config = replace(CONFIG, batch_size=len(images["train"]), epochs=11, learning_rate=1e-2, averaging="ema")
    averages = []
    for done, _ in enumerate(train(config, images["train"], images["validation"], tmp_path)):
        tensors = state(tmp_path)
        now = {key.removeprefix("network."): tensors[key].double() for key in tensors if key.startswith("network.")}
        before = averages[-1] if averages else now
        kept = min(0.5, (1 + done) / (10 + done))  # a half where an epoch has one step; less at the start
        averages.append({name: kept * before[name] + (1 - kept) * tensor for name, tensor in now.items()})
        for name, tensor in now.items():  # statistics of batches too, of which only the counter is no mean
            expected = tensor if name.endswith("num_batches_tracked") else averages[-1][name]
            assert torch.allclose(tensors[f"averaged.{name}"].double(), expected, atol=1e-6), name
    assert len(averages) == 11
    assert not torch.allclose(now["0.weight"], averages[-1]["0.weight"], atol=1e-3)
    best = restore(tmp_path / BEST)
    for name, parameter in best.network.named_parameters():
        assert torch.allclose(parameter.double(), averages[best.epoch - 1][name], atol=1e-6), name


def rates_of(config, images, folder, monkeypatch):
    """The learning rate of every step."""
    rates = []

    class Noting(torch.optim.SGD):
        def step(self, closure=None):
            rates.extend(group["lr"] for group in self.param_groups)
            return super().step(closure)

    monkeypatch.setitem(OPTIMIZERS, "sgd", Noting)
    run(replace(config, optimizer="sgd"), images, folder)
    return rates


def test_a_rate_is_constant_or_rises_for_half_an_epoch_and_falls_to_nothing(images, tmp_path, monkeypatch):
    config = replace(CONFIG, batch_size=8, epochs=4)
    assert rates_of(config, images, tmp_path / "constant", monkeypatch) == [1e-3] * 4 * 17
    rates = rates_of(replace(config, schedule="cosine"), images, tmp_path / "cosine", monkeypatch)
    assert len(rates) == 4 * 17
    risen = rates.index(max(rates))
    assert 8 <= risen <= 9  # of the 17 steps of an epoch
    assert rates[: risen + 1] == sorted(rates[: risen + 1])
    assert rates[risen:] == sorted(rates[risen:], reverse=True)
    assert 0 < rates[0] < 0.05e-3
    assert 0.9e-3 < rates[risen] <= 1e-3
    assert rates[2 * 17] == pytest.approx(0.5e-3)  # half of it at half-time
    assert 0 < rates[-1] < 0.01e-3


def test_smoothed_labels_are_for_training_alone(images, tmp_path):
    (result,) = run(replace(CONFIG, epochs=1, label_smoothing=0.3), images, tmp_path)
    weights = training._class_weights(images["train"].labels, 2)
    logits, labels = torch.from_numpy(result.validation_logits), torch.from_numpy(images["validation"].labels)
    assert result.validation_loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels, weights).item())


LEFT_OUT = ("options", "micro_batch", "stress")  # which a run says in a way of its own


@pytest.mark.parametrize("changes", [{}, EXTRA], ids=["usual", "extra"])
def test_what_a_run_says_of_itself_is_its_training_again(changes):
    config = replace(CONFIG, **changes)
    params = {name: str(value) for name, value in asdict(config).items() if name not in LEFT_OUT}
    assert config_of(params, 2) == config
    older = {name: text for name, text in params.items() if name not in space.EXTRA}  # of before there were any
    assert config_of(older, 2) == CONFIG


def test_bfloat16_trains_to_about_the_same_place(images, tmp_path):
    exact = run(CONFIG, images, tmp_path / "exact")
    short = run(replace(CONFIG, precision="bfloat16"), images, tmp_path / "short")
    assert exact[-1].train_loss != short[-1].train_loss
    assert short[-1].validation_loss == pytest.approx(exact[-1].validation_loss, rel=0.25)


def test_the_space_offers_the_optimisers_there_are():
    assert set(space.OPTIMIZERS) == set(OPTIMIZERS)
    assert set(space.SPACES) == set(ARCHITECTURES)


def full(descriptor):
    raise OSError(28, "No space left on device")


def test_a_checkpoint_is_whole_or_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "x.safetensors"
    checkpoint.write(path, {"a": torch.ones(2)}, {"epoch": 1})

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
    checkpoint.write(tmp_path / "flipped", {"a": torch.ones(99)}, {})
    damage(tmp_path / "flipped", "flipped")
    with pytest.raises(ValueError, match="checksum"):
        checkpoint.read(tmp_path / "flipped")
