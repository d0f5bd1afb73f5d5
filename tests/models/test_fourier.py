"""Both transforms are the real 2-D Fourier transform, with its inverse, its exact zeros and its energy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from apn.models.bands import Spectrum, self_conjugate_bins
from apn.models.fourier import FFT, MatrixDFT, MatrixSpectrum

SIZES = [(8, 8), (16, 12), (7, 9), (1, 6), (224, 224)]
TRANSFORMS = [FFT, MatrixDFT]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_forward_is_rfft2(height: int, width: int) -> None:
    image = normal(2, 3, height, width).sigmoid()
    expected = torch.fft.rfft2(image.double())
    for transform in TRANSFORMS:
        found = transform(height, width)(image)
        assert torch.complex(*found).sub(expected).abs().max() < 1e-6 * expected.abs().max()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_inverse_is_irfft2_for_any_spectrum(height: int, width: int) -> None:
    """Also for one that belongs to no real image, as a half-row mask makes."""
    spectrum = Spectrum(*normal(2, 2, 3, height, width // 2 + 1))
    expected = torch.fft.irfft2(torch.complex(*spectrum).to(torch.complex128), s=(height, width))
    for transform in TRANSFORMS:
        found = transform(height, width).inverse(spectrum)
        assert (found - expected).abs().max() < 2e-6 * expected.abs().max()


@given(st.integers(1, 20), st.integers(2, 20), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_inverse_undoes_forward_and_energy_is_kept(height: int, width: int, seed: int) -> None:
    image = normal(3, height, width, seed=seed)
    twice = 2.0 - (torch.arange(width // 2 + 1) * 2 % width == 0).float()  # other columns stand for two
    for transform in (FFT(height, width), MatrixDFT(height, width)):
        spectrum = transform(image)
        torch.testing.assert_close(transform.inverse(spectrum), image, atol=1e-5, rtol=0)
        energy = (spectrum.amplitude.square() * twice).sum() / (height * width)
        torch.testing.assert_close(energy, image.square().sum(), rtol=1e-4, atol=1e-4)


def test_self_conjugate_bins_by_hand() -> None:
    assert self_conjugate_bins(4, 6).nonzero().tolist() == [[0, 0], [0, 3], [2, 0], [2, 3]]
    assert self_conjugate_bins(5, 6).nonzero().tolist() == [[0, 0], [0, 3]]
    assert self_conjugate_bins(4, 5).nonzero().tolist() == [[0, 0], [2, 0]]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_phase_is_plus_zero_or_plus_pi_where_the_spectrum_is_real(transform: type[FFT] | type[MatrixDFT]) -> None:
    """Rounding must not turn +pi into -pi there: the band proposers would see another picture."""
    spectrum = transform(16, 12)(normal(64, 16, 12))
    at = self_conjugate_bins(16, 12)
    imaginary = spectrum.imaginary[:, at]
    assert (imaginary == 0).all()
    assert not imaginary.signbit().any()
    phases = spectrum.phase[:, at].unique()
    torch.testing.assert_close(phases, torch.tensor([0.0, math.pi]))
    assert (spectrum.imaginary[:, ~at] != 0).all()


def test_amplitude_and_phase_are_polar_coordinates() -> None:
    spectrum = FFT(16, 12)(normal(16, 12))
    expected = torch.complex(*spectrum)
    torch.testing.assert_close(torch.polar(spectrum.amplitude, spectrum.phase), expected, rtol=1e-5, atol=1e-5)


def test_phase_without_branches_is_the_phase() -> None:
    """On every pair of signs, at zero, and where a quotient overflows."""
    values = torch.tensor([-3e38, -2.0, -1e-30, 0.0, 1e-30, 2.0, 3e38])
    real, imaginary = torch.cartesian_prod(values, torch.cat([values, torch.tensor([-0.0])])).T
    spectrum = Spectrum(real, imaginary)
    torch.testing.assert_close(MatrixSpectrum(*spectrum).phase, spectrum.phase, rtol=0, atol=1e-6)
    assert isinstance(MatrixDFT(8, 8)(normal(8, 8)), MatrixSpectrum)
