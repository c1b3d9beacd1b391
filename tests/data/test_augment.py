"""Every warp is held to torchvision's, image by image; a wrong sign would rotate the other way and nobody would see."""

import math

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from data.augment import affine_matrix, augment, augmented_batches, batches, draw, warp
from data.recipe import RECIPES, Augmentation
from models import ARCHITECTURES


@pytest.fixture
def images():
    smooth = torch.nn.functional.interpolate(torch.rand(20, 1, 9, 9, generator=torch.Generator().manual_seed(0)), 64)
    return v2.functional.gaussian_blur(smooth, [5, 5])


def matrices(**values):
    count = 20
    given = {"angle": 0.0, "shear": 0.0, "scale": 1.0, "shift": 0.0, "drop": 0.0} | values
    return affine_matrix(**{name: torch.full((count,), value) for name, value in given.items()})


@pytest.mark.parametrize("angle", [-15.0, 3.0, 12.5])
def test_rotation_is_torchvisions(images, angle):
    ours = warp(images, matrices(angle=angle), "zeros")
    # torchvision rotates counter-clockwise, `affine` clockwise.
    theirs = functional.rotate(images, -angle, interpolation=v2.InterpolationMode.BILINEAR)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(
        ours, functional.rotate(images, angle, interpolation=v2.InterpolationMode.BILINEAR), atol=0.01
    )


@pytest.mark.parametrize(
    ("angle", "shear", "scale", "shift", "drop"),
    [
        (0.0, 10.0, 1.0, 0.0, 0.0),
        (0.0, 0.0, 1.3, 0.0, 0.0),
        (0.0, 0.0, 0.7, 0.0, 0.0),
        (0.0, 0.0, 1.0, 7.0, 0.0),
        (0.0, 0.0, 1.0, 0.0, 6.0),
        (-17.0, 8.0, 0.8, -5.0, 0.0),
        (-17.0, 8.0, 0.8, -5.0, 9.0),
    ],
)
def test_the_whole_affine_map_is_torchvisions(images, angle, shear, scale, shift, drop):
    ours = warp(images, matrices(angle=angle, shear=shear, scale=scale, shift=shift, drop=drop), "zeros")
    theirs = functional.affine(
        images, angle, [shift, drop], scale, [shear, 0], interpolation=v2.InterpolationMode.BILINEAR
    )
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_each_image_gets_its_own_draw_and_equals_torchvision_alone(images):
    augmentation = Augmentation(rotation=20, shear=10, zoom=0.3, shift=0.2)
    drawn = draw(augmentation, 20, 64, torch.Generator().manual_seed(3))
    assert len({tuple(matrix.flatten().tolist()) for matrix in drawn.matrix}) == 20
    together = warp(images, drawn.matrix, "border")
    for index in range(20):
        alone = warp(images[index : index + 1], drawn.matrix[index : index + 1], "border")
        assert torch.allclose(together[index], alone[0], atol=1e-6)


def test_border_fills_with_the_nearest_pixel():
    left_bright = torch.zeros(1, 1, 32, 32)
    left_bright[..., :4] = 1
    shifted = {
        fill: warp(left_bright, affine_matrix(*(torch.tensor([value]) for value in (0.0, 0.0, 1.0, 8.0, 0.0))), fill)
        for fill in ("zeros", "border")
    }
    assert shifted["border"][0, 0, 16, 0] == 1
    assert shifted["zeros"][0, 0, 16, 0] == 0


@pytest.mark.parametrize(("axis", "name"), [(3, "horizontal_flip"), (2, "vertical_flip")])
def test_half_of_the_images_are_mirrored_and_with_a_warp_just_as_without(images, axis, name):
    pixels = (images[:, 0] * 255).byte()
    plain, warping = Augmentation(**{name: True}), Augmentation(**{name: True}, rotation=1e-4)
    drawn = draw(plain, 20, 64, torch.Generator().manual_seed(0))
    ours = augment(pixels, plain, drawn)
    straight = pixels.unsqueeze(1).float() / 255
    mirrored = [torch.equal(ours[index], straight[index].flip(axis - 1)) for index in range(20)]
    kept = [torch.equal(ours[index], straight[index]) for index in range(20)]
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))
    assert 3 < sum(mirrored) < 17
    assert torch.allclose(augment(pixels, warping, drawn), ours, atol=1e-3)


def test_brightness_multiplies_and_clips():
    augmentation = Augmentation(brightness=(0.5, 2.0))
    drawn = draw(augmentation, 400, 8, torch.Generator().manual_seed(0))
    assert 0.5 <= drawn.brightness.min() < 0.55
    assert 1.95 < drawn.brightness.max() <= 2.0
    ours = augment(torch.full((400, 8, 8), 150, dtype=torch.uint8), augmentation, drawn)
    assert torch.allclose(ours[:, 0, 0, 0], (drawn.brightness * 150 / 255).clamp(0, 1))


def test_contrast_and_gamma_are_torchvisions_with_a_draw_for_each_image(images):
    augmentation = Augmentation(contrast=(0.5, 6.0), gamma=(0.6, 1.5))  # far enough to be clipped
    drawn = draw(augmentation, 20, 64, torch.Generator().manual_seed(0))
    pixels = (images[:, 0] * 255).byte()
    ours = augment(pixels, augmentation, drawn)
    theirs = [
        functional.adjust_gamma(functional.adjust_contrast(image, contrast), gamma)
        for image, contrast, gamma in zip(
            pixels.unsqueeze(1).float() / 255, drawn.contrast.tolist(), drawn.gamma.tolist(), strict=True
        )
    ]
    assert torch.allclose(ours, torch.stack(theirs), atol=1e-4)
    assert ours.min() == 0
    assert ours.max() == 1
    for draws, (low, high) in ((drawn.contrast, augmentation.contrast), (drawn.gamma, augmentation.gamma)):
        assert len(set(draws.tolist())) == 20
        assert low <= draws.min() < draws.max() <= high


@pytest.mark.parametrize("recipe", [ARCHITECTURES["resnet50"].augmentation, RECIPES["both"]], ids=["resnet50", "both"])
def test_what_came_later_is_drawn_last(recipe):
    """So a recipe without it draws the numbers that it drew before there was any: trials of then can be replayed."""
    drawn, generator = draw(recipe, 50, 64, torch.Generator().manual_seed(5)), torch.Generator().manual_seed(5)

    def uniform(low, high):
        return torch.rand(50, generator=generator) * (high - low) + low

    angle, shear = uniform(-recipe.rotation, recipe.rotation), uniform(-recipe.shear, recipe.shear)
    scale, shift = uniform(1 - recipe.zoom, 1 + recipe.zoom), 64 * uniform(-recipe.shift, recipe.shift)
    brightness = uniform(*recipe.brightness)
    across, along = (torch.rand(50, generator=generator) < 0.5 for _ in range(2))
    drop, contrast, gamma = 64 * uniform(-recipe.drop, recipe.drop), uniform(*recipe.contrast), uniform(*recipe.gamma)
    matrix = affine_matrix(angle, shear, scale, shift, drop)
    matrix[across & recipe.horizontal_flip, 0] *= -1
    matrix[along & recipe.vertical_flip, 1] *= -1
    assert torch.equal(drawn.matrix, matrix)
    assert torch.equal(drawn.brightness, brightness)
    assert torch.equal(drawn.contrast, contrast)
    assert torch.equal(drawn.gamma, gamma)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_changes_images_and_leaves_them_pixels(images, name):
    recipe = RECIPES[name]
    pixels = (images[:, 0] * 500 - 100).clamp(0, 255).byte()  # black and white in each
    ours = augment(pixels, recipe, draw(recipe, 20, 64, torch.Generator().manual_seed(0)))
    assert 0 <= ours.min() < ours.max() <= 1
    assert ours.isfinite().all()
    changed = (ours != pixels.unsqueeze(1) / 255).flatten(1).any(1)
    assert set(changed.tolist()) == {name != "none"}


def test_draws_stay_in_their_ranges():
    augmentation = ARCHITECTURES["resnet50"].augmentation
    matrix = draw(augmentation, 2000, 100, torch.Generator().manual_seed(1)).matrix
    scale = torch.linalg.det(matrix[:, :, :2]).abs().rsqrt()
    assert 0.7 <= scale.min() < 0.72
    assert 1.28 < scale.max() <= 1.3 + 1e-6
    flat = draw(Augmentation(rotation=15), 2000, 100, torch.Generator().manual_seed(1)).matrix
    angle = torch.atan2(flat[:, 0, 1], flat[:, 0, 0]) * 180 / math.pi
    assert -15 <= angle.min() < -14.8
    assert 14.8 < angle.max() <= 15


def test_an_epoch_holds_every_image_once_and_is_the_seeds(images):
    pixels = (images[:, 0] * 255).byte()
    rows, labels = torch.arange(2, 20), torch.arange(18)

    def epoch(seed):
        generator = torch.Generator().manual_seed(seed)
        return list(augmented_batches(pixels, rows, labels, 8, Augmentation(rotation=10), generator))

    first, again, other = epoch(0), epoch(0), epoch(1)
    assert [len(label) for _, label in first] == [8, 8, 2]
    assert sorted(torch.cat([label for _, label in first]).tolist()) == list(range(18))
    assert all(torch.equal(one, two) for (one, _), (two, _) in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], other[0][0])


def test_a_batch_has_the_draws_of_its_own_images(images):
    pixels, rows = (images[:, 0] * 255).byte(), torch.arange(20)

    def epoch(batch_size):
        generator = torch.Generator().manual_seed(0)
        parts = augmented_batches(pixels, rows, rows, batch_size, RECIPES["both"], generator)
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    (whole, order), (parts, same) = epoch(20), epoch(8)
    assert torch.equal(order, same)
    assert torch.allclose(whole, parts, atol=1e-6)


def test_plain_batches_are_the_pixels_in_order(images):
    pixels = (images[:, 0] * 255).byte()
    rows = torch.tensor([5, 1, 7])
    got = list(batches(pixels, rows, 2))
    assert torch.equal(torch.cat(got)[:, 0], pixels[rows].float() / 255)
    assert [len(batch) for batch in got] == [2, 1]
