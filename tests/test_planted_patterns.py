"""Waves of a known frequency, and the bands of a network that was trained to see them."""

import numpy as np
import pytest

from apn.planted_patterns import AMPLITUDE, SIZE, add_wave, labelled, pattern_test, pictures


def test_pictures_have_the_spectrum_of_photographs() -> None:
    made = pictures(16, np.random.default_rng(0))
    assert (made.shape, made.dtype) == ((16, 3, SIZE, SIZE), np.float32)
    assert 0 <= made.min() <= made.max() <= 1
    amplitude = np.abs(np.fft.rfft2(made[:, 0])).mean(axis=0)
    assert amplitude[0, 1] / amplitude[0, 10] == pytest.approx(10, rel=0.35)


def test_the_wave_lies_at_its_frequency_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    plain = np.full((4, 3, SIZE, SIZE), 0.5, np.float32)
    spectrum = np.abs(np.fft.rfft2(add_wave(plain, 13, rng) - plain))[:, 0] / SIZE**2
    np.testing.assert_allclose(spectrum[:, 13, 13], AMPLITUDE / 2, rtol=1e-4)
    spectrum[:, 13, 13] = 0
    assert spectrum.max() < 1e-6


def test_the_wave_is_all_that_tells_the_classes_apart() -> None:
    images, label = labelled(200, 10, np.random.default_rng(3))
    assert label.tolist() == [0, 1] * 100
    spectrum = np.abs(np.fft.rfft2(images.numpy()[:, 0]))
    ratio = spectrum[1::2].mean(axis=0) / np.maximum(spectrum[0::2].mean(axis=0), 1e-9)
    assert ratio[10, 10] > 3
    assert np.median(ratio) == pytest.approx(1, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("periods", [10, 12])
def test_the_strongest_band_of_a_network_that_was_trained_to_see_a_wave_is_at_its_frequency(periods: int) -> None:
    found = pattern_test(periods)
    assert found.frequency == periods / SIZE
    assert found.auc > 0.95
    assert found.strongest > 0.9
    assert found.some > 0.95
    assert found.some >= found.strongest
    assert found.elsewhere < found.strongest - 0.2  # a band that covers the whole spectrum has found nothing
