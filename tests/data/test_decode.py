import io

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from data import decode as module
from data.decode import UnreadableImageError, decode


def saved(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def gradient(size=(70, 50)) -> Image.Image:
    width, height = size
    return Image.fromarray(np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8))


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_gives_the_pixels_of_the_usual_image_folder_path(mode):
    content = saved(gradient().convert(mode), "JPEG", quality=85)
    usual = transforms.Compose([transforms.Grayscale(), transforms.Resize((32, 32))])
    image = Image.open(io.BytesIO(content)).convert("RGB")
    assert np.array_equal(decode(content, 32), np.asarray(usual(image)))


def test_sixteen_bits_are_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = decode(saved(Image.fromarray(ramp)), 64)
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert abs(float(pixels.mean()) - 127.5) < 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_comes_out_as_gray_of_the_asked_size(mode):
    image = Image.fromarray(np.full((20, 30), 40000, np.uint16)) if mode == "I;16" else gradient((30, 20)).convert(mode)
    pixels = decode(saved(image, "TIFF" if mode == "CMYK" else "PNG"), 24)
    assert pixels.shape == (24, 24)
    assert pixels.dtype == np.uint8
    assert pixels.max() > 0


def test_transparency_lies_on_black():
    clear = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    assert decode(saved(clear), 8).max() == 0


def test_a_rotated_photograph_is_turned_upright():
    image = Image.new("L", (20, 20), 0)
    image.paste(255, (0, 0, 20, 10))  # bright on top
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me clockwise by 90 degrees"
    pixels = decode(saved(turned, "PNG", exif=exif), 20)
    assert pixels[:8].min() == 255
    assert pixels[12:].max() == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"not an image at all", "not an image"),
        (saved(noise(), "JPEG")[:3000], "truncated"),
        (saved(noise())[:3000], "truncated"),
    ],
    ids=["empty", "text", "half a JPEG", "half a PNG"],
)
def test_what_is_no_image_is_refused_in_one_sentence(content, reason):
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        decode(content, 16)
    assert "\n" not in str(caught.value)


def test_a_picture_over_the_limits_is_refused_before_it_is_decoded(monkeypatch):
    content = saved(noise())
    monkeypatch.setattr(module, "MAX_PIXELS", 3000)
    with pytest.raises(UnreadableImageError, match="80 x 80 pixels"):
        decode(content, 16)
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    with pytest.raises(UnreadableImageError, match="more than the 100 allowed"):
        decode(content, 16)
