"""JPEG inside a network: Pillow's tables, scipy's transform, and pictures that come out as Pillow saves them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn

from apn.models.codec import Jpeg, block_transform, quantisation


def saved(pixels: np.ndarray, quality: int) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return Image.open(file)


def through(pixels: np.ndarray, quality: int) -> np.ndarray:
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    return (255 * Jpeg(quality)(image))[0].permute(1, 2, 0).numpy()


def smooth(height: int, width: int) -> np.ndarray:
    """A picture with edges, slopes and colours."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(rows / 7) + np.cos(columns / 9),
        np.sin((rows + columns) / 11),
        (columns > width / 2) + rows / height,
    ]
    return np.stack([128 + 50 * wave for wave in waves], axis=2).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [1, 30, 50, 75, 90, 100])
def test_steps_are_those_of_a_file(quality: int) -> None:
    tables = saved(smooth(16, 16), quality).quantization
    for mine, theirs in zip(quantisation(quality), tables.values(), strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs)


def test_the_transform_is_the_orthonormal_cosine_transform() -> None:
    block = np.random.default_rng(0).normal(size=(8, 8))
    found = block_transform().double() @ torch.from_numpy(block.ravel())
    np.testing.assert_allclose(found.reshape(8, 8), dctn(block, norm="ortho"), atol=1e-6)


@pytest.mark.parametrize("quality", [50, 75, 90])
@pytest.mark.parametrize("shape", [(160, 160), (80, 64), (37, 51)])
def test_a_picture_comes_out_as_pillow_saves_it(quality: int, shape: tuple[int, int]) -> None:
    pixels = smooth(*shape)
    grey = np.repeat(pixels[..., :1], 3, axis=2)
    for one, most in ((grey, 0.2), (pixels, 1.0)):  # grey values; libjpeg rounds halved colour another way
        error = through(one, quality) - np.asarray(saved(one, quality).convert("RGB")).astype(float)
        assert np.abs(error).mean() < most
        assert np.abs(error.mean(axis=(0, 1))).max() < 0.15


def test_what_was_saved_before_hardly_changes() -> None:
    fresh = smooth(64, 64)
    once = np.array(saved(fresh, 75).convert("RGB"))
    assert np.abs(through(once, 75) - once).mean() < 0.5 * np.abs(through(fresh, 75) - fresh).mean()


def test_grey_stays_grey_and_values_stay_in_range() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    found = through(grey, 90)
    assert np.ptp(found, axis=2).max() == 0
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert 0 <= through(noise, 10).min() <= through(noise, 10).max() <= 255
