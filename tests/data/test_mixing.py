"""Images and labels mixed in pairs: what the two papers say, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.mixing import ALPHAS, Mix, draw_mix, mixed_batches, partners

SIZE = 16


def batch(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def test_mixup_blends_each_image_with_the_one_before_it():
    images = batch()
    before, mixed = images.clone(), Mix(0.7).images(images)

    for row in range(5):
        assert torch.allclose(mixed[row], 0.7 * images[row] + 0.3 * images[row - 1], atol=1e-6)
    assert torch.equal(images, before)
    assert partners(torch.arange(5)).tolist() == [4, 0, 1, 2, 3]


def test_cutmix_takes_a_box_from_the_one_before_it():
    images = batch()
    before, mixed = images.clone(), Mix(1 - 3 * 5 / SIZE**2, (2, 5, 4, 9)).images(images)

    inside = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    inside[2:5, 4:9] = True
    for row in range(5):
        assert torch.equal(mixed[row, 0][inside], images[row - 1, 0][inside])
        assert torch.equal(mixed[row, 0][~inside], images[row, 0][~inside])
    assert torch.equal(images, before)


def test_shares_are_drawn_as_the_papers_say():
    random = np.random.default_rng(0)
    mixup = np.array([draw_mix("mixup", SIZE, random).share for _ in range(2000)])
    alpha = ALPHAS["mixup"]
    assert mixup.mean() == pytest.approx(0.5, abs=0.04)
    assert mixup.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)  # of Beta(alpha, alpha)

    shares = []
    for _ in range(2000):
        cut = draw_mix("cutmix", SIZE, random)
        assert cut.box is not None
        top, bottom, left, right = cut.box
        assert 0 <= top <= bottom <= SIZE
        assert 0 <= left <= right <= SIZE
        assert cut.share == pytest.approx(1 - (bottom - top) * (right - left) / SIZE**2)
        shares.append(cut.share)
    assert np.mean(shares) > 0.5  # a box that reaches beyond the image takes less of it
    assert min(shares) < 0.3 < 0.95 < max(shares)


@pytest.mark.parametrize("kind", ALPHAS)
def test_an_epoch_is_mixed_by_its_seed_alone(kind):
    whole = [(batch(), torch.arange(5)), (batch(3), torch.arange(3))]
    first, again, other = (list(mixed_batches(whole, kind, seed)) for seed in (1, 1, 2))

    for (images, labels, others, share), (images_again, *_, share_again) in zip(first, again, strict=True):
        assert torch.equal(images, images_again)
        assert torch.equal(others, labels.roll(1))
        assert share == share_again
    assert [share for *_, share in first] != [share for *_, share in other]


def test_unmixed_batches_are_the_ones_that_came():
    images, labels = batch(), torch.arange(5)
    ((same, own, others, share),) = mixed_batches([(images, labels)], "none", 1)
    assert same is images
    assert own is labels
    assert others is labels
    assert share == 1
