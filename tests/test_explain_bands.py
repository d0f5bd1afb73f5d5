"""Bands in cycles per pixel: the same as the masks that the network uses, and where a planted pattern lies."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny import noise, tiny_model
from torch import nn

from apn.detection import Tile
from apn.explain_bands import Band, BandEvidence, band_effects, band_evidence, centre, frequencies
from apn.models.apn import APN

SIZE = 64
TILE = Tile(0, 0, SIZE, 0.5)


def evidence(model: APN, pixels: torch.Tensor, shown: int = 2) -> BandEvidence:
    return band_evidence(model.eval(), pixels, TILE, shown)


def force(model: APN, axis: str, start: float, end: float) -> None:
    """Band 0 of amplitude and phase becomes start..end (fractions of the axis), whatever the image."""
    for component in (model.frequency.amplitude_proposer, model.frequency.phase_proposer):
        last = component.get_submodule(axis).edges_head[-2]  # type: ignore[index]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.logit(torch.tensor([start, end])))


def pattern(columns: int, rows: int) -> torch.Tensor:
    """A wave with so many periods across the tile and down it, (3, S, S)."""
    place = torch.arange(SIZE) * 2 * torch.pi / SIZE
    return (0.5 + 0.4 * torch.sin(columns * place + rows * place[:, None])).expand(3, SIZE, SIZE)


@pytest.mark.parametrize("rows", ["half", "symmetric"])
@pytest.mark.parametrize(("axis", "name"), [("columns", "horizontal"), ("rows", "vertical")])
def test_a_forced_band_is_told_in_cycles_per_pixel_and_keeps_the_pattern_planted_there(
    rows: str, axis: str, name: str
) -> None:
    model = tiny_model(band_count=1, band_rows=rows)
    length = SIZE if (axis, rows) == ("rows", "half") else SIZE // 2 + 1
    for each in ("rows", "columns"):
        force(model, each, 0.6, 0.4)  # void
    force(model, axis, 9.5 / length, 11.5 / length)  # positions 9, 10 and 11
    planted = pattern(10, 5) if axis == "columns" else pattern(5, 10)
    found = evidence(model, planted)
    (band,) = found.bands
    for interval in band.intervals:
        if interval.axis == name:
            assert (interval.low, interval.high, interval.void) == (9 / SIZE, 11 / SIZE, False)
            assert interval.low <= 10 / SIZE <= interval.high
            assert interval.mirrored == ((axis, rows) != ("rows", "half"))
        else:
            assert (interval.low, interval.high, interval.void) == (0, 0, True)
    assert len({(i.component, i.axis, i.colour) for i in band.intervals}) == len(band.intervals) == 12
    assert found.purified[0].std() == pytest.approx(float(planted.std()), rel=1e-3)
    missed = pattern(20, 5) if axis == "columns" else pattern(5, 20)
    assert evidence(model, missed).purified[0].std() < 1e-3


def selected(band: Band, component: str, colour: str) -> np.ndarray:
    """(S, M) bool of the half spectrum, from the intervals alone."""
    vertical = np.fft.fftfreq(SIZE)[:, None]
    vertical[SIZE // 2] = 0.5
    horizontal = np.fft.rfftfreq(SIZE)[None]
    kept = np.zeros((SIZE, SIZE // 2 + 1), bool)
    for one in band.intervals:
        if (one.component, one.colour) == (component, colour):
            frequency = vertical if one.axis == "vertical" else horizontal
            frequency = np.abs(frequency) if one.mirrored else frequency
            kept |= (frequency >= one.low) & (frequency <= one.high)
    return kept


@pytest.mark.parametrize("changes", [{}, {"band_rows": "symmetric"}, {"band_suppression": True}])
@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_are_the_masks_that_the_network_uses(changes: dict[str, Any], seed: int) -> None:
    model = tiny_model(seed, band_count=3, **changes).eval()
    for proposer in (model.frequency.amplitude_proposer, model.frequency.phase_proposer):
        for axis in (proposer.rows, proposer.columns):
            nn.init.normal_(axis.edges_head[-2].weight, std=20)  # type: ignore[arg-type]  # so that images differ
    pixels = noise(1, seed=seed)[0]
    found = evidence(model, pixels, shown=3)
    with torch.no_grad():
        proposals = model.frequency.split(pixels[None])[2]
        masks = [model.frequency.mask(bands, SIZE, SIZE // 2 + 1)[0].numpy() for bands in proposals]  # (K, C, S, M)
    for band in found.bands:
        for component, mask in zip(("amplitude", "phase"), masks, strict=True):
            for number, colour in enumerate(("red", "green", "blue")):
                np.testing.assert_array_equal(selected(band, component, colour), mask[band.index, number])


def test_colours_are_named_after_the_picture_whatever_the_order_of_the_network() -> None:
    pixels = noise(1)[0]
    rgb, bgr = (
        evidence(tiny_model(channel_order=order), turned)
        for order, turned in (("rgb", pixels), ("bgr", pixels.flip(0)))
    )
    turn = {"red": "blue", "green": "green", "blue": "red"}
    for one, other in zip(rgb.bands, bgr.bands, strict=True):
        assert {i._replace(colour=turn[i.colour]) for i in one.intervals} == set(other.intervals)
    np.testing.assert_allclose(rgb.purified, bgr.purified[..., ::-1], atol=1e-6)


@pytest.mark.parametrize("mode", ["half", "symmetric"])
def test_rows_as_stored_become_signed_frequencies(mode: str) -> None:
    model = tiny_model(band_rows=mode)
    stored = np.fft.fftfreq(SIZE)
    stored[SIZE // 2] = 0.5
    for first, last in [(0, 0), (0, 63), (3, 9), (32, 32), (30, 33), (33, 40), (63, 63)]:
        if mode == "symmetric" and last > SIZE // 2:
            continue
        pairs = frequencies(np.array([first, last]), "rows", model)
        inside = [
            any(low <= frequency <= high for low, high in pairs) for frequency in stored[: 64 if mode == "half" else 33]
        ]
        assert inside == [first <= place <= last for place in range(len(inside))]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 10), (7, 9), (5, 4)])
def test_centring_gives_the_whole_spectrum(height: int, width: int) -> None:
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    expected = torch.fft.fftshift(torch.fft.fft2(image).abs(), dim=(-2, -1))
    torch.testing.assert_close(centre(torch.fft.rfft2(image).abs(), width), expected)


def test_coverage_is_the_weighted_share() -> None:
    found = evidence(tiny_model(band_count=3), noise(1)[0], shown=3)
    weights = np.array([band.weight for band in found.bands])
    expected = np.einsum("n,nchw->chw", weights, found.masks) / weights.sum()
    np.testing.assert_allclose(found.coverage, expected, atol=1e-6)
    assert found.spectrum[SIZE // 2, SIZE // 2] == found.spectrum.max()
    assert found.purified.shape == found.residual.shape == (3, SIZE, SIZE, 3)


def test_the_effect_of_a_band_is_what_a_linear_decision_gives_it() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings, decide = torch.randn(2, 4, 8, generator=generator), nn.Linear(8, 2)
    with torch.no_grad():
        found = band_effects(decide, embeddings)
        expected = embeddings @ (decide.weight[1] - decide.weight[0])
    torch.testing.assert_close(found, expected)


@torch.no_grad()
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_effect_is_what_the_logit_loses_and_the_strongest_come_first(sign: float) -> None:
    model, pixels = tiny_model(band_count=3, frequency_weight=0.8).eval(), noise(1)[0]
    for layer in model.classifier[::2]:
        layer.weight *= 3  # so that bands differ by more than rounding

    def margin() -> float:
        logits = model(pixels[None]).logits[0]
        return float(logits[1] - logits[0])

    found = band_evidence(model, pixels, TILE, 3, sign)
    effects = np.array([band.effect for band in found.bands])
    assert (np.diff(sign * effects) <= 0).all()
    assert np.ptp(effects) > 1e-4
    whole, weigh = margin(), model.frequency.weigh
    for band in found.bands:

        def without(purified: torch.Tensor, index: int = band.index) -> tuple[torch.Tensor, torch.Tensor]:
            embeddings, weights = weigh(purified)
            embeddings[:, index] = 0
            return embeddings, weights

        model.frequency.weigh = without  # type: ignore[method-assign]
        assert whole - margin() == pytest.approx(band.effect, abs=1e-5)
