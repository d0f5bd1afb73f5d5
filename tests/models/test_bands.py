"""Frequency bands: void, suppressed, masked, joined, selected; and which of it lets the task teach the proposers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import noise, tiny_config, tiny_model
from torch import Tensor
from torch.nn import functional as F

from apn.losses import bands_loss
from apn.models.bands import (
    AxisBands,
    ComponentBands,
    Spectrum,
    band_order_loss,
    hard_axis_mask,
    join_axes,
    mirror_rows,
    purify,
    remainder,
    soft_axis_mask,
    suppress_bands,
    void_bands,
)
from apn.models.fourier import FFT
from apn.models.frequency import BandWeights, FrequencyBranch

MODES = ["hard", "soft", "straight-through"]
some_bands = st.integers(0, 2**32 - 1).map(lambda seed: random_bands(seed))


def random_bands(seed: int, batch: int = 2, count: int = 6) -> AxisBands:
    """Edges in [0, 1.3], some bands void, some equally confident, as proposers may emit them."""
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 5, (batch, 3, count)) / 4
    start, end = rng.uniform(0, 1.3, (2, batch, 3, count))
    return AxisBands(*(torch.from_numpy(values.astype(np.float32)) for values in (confidence, start, end)))


def axis(start: list[float], end: list[float], confidence: list[float] | None = None) -> AxisBands:
    """Bands of one image, the same for three colours."""
    values = (confidence or [0.5] * len(start), start, end)
    return AxisBands(*(torch.tensor(v).expand(1, 3, len(start)) for v in values))


def overlap(low: float, high: float, other_low: float, other_high: float) -> float:
    return min(high, other_high) - max(low, other_low)


# Which bands stand ---------------------------------------------------------------------------------------------------


@given(some_bands)
@settings(max_examples=30, deadline=None)
def test_void_bands_become_zero_and_the_others_stay(bands: AxisBands) -> None:
    void = bands.end <= bands.start
    for found, given_values in zip(void_bands(bands), bands, strict=True):
        assert torch.equal(found, given_values.masked_fill(void, 0.0))


def test_a_void_band_selects_index_0_only() -> None:
    bands = void_bands(axis([0.5, 0.5, 0.2], [0.5, 0.1, 0.4]))
    mask = hard_axis_mask(bands, 10)[0, :, 0]
    assert [row.nonzero().flatten().tolist() for row in mask] == [[0], [0], [2, 3, 4]]


def suppressed_by_loops(bands: AxisBands) -> AxisBands:
    kept = [part.clone() for part in bands]
    confidence, start, end = (part.numpy() for part in bands)
    for place in np.ndindex(*confidence.shape[:2]):
        standing: list[int] = []
        for k in sorted(range(confidence.shape[2]), key=lambda k: -confidence[place][k]):
            half = np.float32(0.5) * (end[place][k] - start[place][k])
            edges = start[place], end[place]
            if any(overlap(*(e[k] for e in edges), *(e[s] for e in edges)) > half for s in standing):
                for part in kept:
                    part[place][k] = 0.0
            else:
                standing.append(k)
    return AxisBands(*kept)


@given(some_bands)
@settings(max_examples=50, deadline=None)
def test_suppression_equals_plain_loops(bands: AxisBands) -> None:
    bands = void_bands(bands)
    for found, expected in zip(suppress_bands(bands), suppressed_by_loops(bands), strict=True):
        assert torch.equal(found, expected)


def test_suppression_by_hand() -> None:
    """The share counts of the band's own length, and a band that was voided voids no other."""
    bands = axis([0.0, 0.1, 0.4, 0.7], [0.5, 0.6, 0.8, 0.72], [0.9, 0.8, 0.7, 0.6])
    found = suppress_bands(bands)
    # 1: 0.4 of its 0.5 under 0, void. 2: 0.1 of 0.4 under 0, and 1 no longer counts. 3: wholly under 2, void.
    assert found.end[0, 0].tolist() == pytest.approx([0.5, 0.0, 0.8, 0.0])
    assert found.confidence[0, 0].tolist() == pytest.approx([0.9, 0.0, 0.7, 0.0])


# Masks ---------------------------------------------------------------------------------------------------------------


@given(some_bands, st.integers(3, 40))
@settings(max_examples=50, deadline=None)
def test_hard_mask_is_floor_to_floor_inclusive_and_clamped(bands: AxisBands, length: int) -> None:
    mask = hard_axis_mask(bands, length)
    assert mask.shape == (2, 6, 3, length)
    assert mask.dtype == torch.bool
    for b, c, k in np.ndindex(2, 3, 6):
        first, last = (
            min(int(np.floor(edge[b, c, k].numpy() * np.float32(length))), length - 1)
            for edge in (bands.start, bands.end)
        )
        assert mask[b, k, c].nonzero().flatten().tolist() == list(range(first, last + 1))


def test_soft_mask_tends_to_the_hard_one() -> None:
    length = 20
    rng = np.random.default_rng(0)
    start, end = (
        torch.from_numpy((np.array(places) + rng.uniform(0.1, 0.9, (2, 3, 5))) / length).float()
        for places in ([0, 3, 7, 11, 18], [2, 3, 15, 12, 25])
    )
    bands = AxisBands(start, start, end)
    hard = hard_axis_mask(bands, length).float()
    gaps = [(soft_axis_mask(bands, length, width) - hard).abs().max() for width in (2.0, 0.2, 0.02, 0.002)]
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3]
    assert gaps[3] < 1e-6


def test_soft_mask_grows_with_its_band() -> None:
    """An earlier start or a later end selects more everywhere; `edge_width` positions off an edge it is sigmoid(1)."""
    start, end = torch.tensor([[[0.3]]], requires_grad=True), torch.tensor([[[0.7]]], requires_grad=True)
    mask = soft_axis_mask(AxisBands(start, start, end), 100, 2.0)
    edges = torch.autograd.grad(mask.sum(), (start, end))
    assert edges[0] == pytest.approx(-100, rel=1e-3)  # d (number of selected positions) / d edge
    assert edges[1] == pytest.approx(100, rel=1e-3)
    torch.testing.assert_close(mask[0, 0, 0, [29, 31]], torch.tensor([0.0, 1.0]).sigmoid())


@pytest.mark.parametrize("height", [6, 7])
def test_mirrored_rows_agree_with_their_conjugates(height: int) -> None:
    folded = torch.arange(height // 2 + 1)
    rows = mirror_rows(folded, height)
    assert rows.tolist() == [abs(round(f)) for f in np.fft.fftfreq(height) * height]


def test_union_of_rows_and_columns() -> None:
    rng = np.random.default_rng(0)
    rows, columns = (torch.from_numpy(rng.random((2, 4, 3, n)) < 0.5) for n in (6, 5))
    joined = join_axes(rows, columns)
    for place in np.ndindex(2, 4, 3, 6, 5):
        *outer, h, m = place
        assert joined[place] == (rows[(*outer, h)] or columns[(*outer, m)])
    assert torch.equal(join_axes(rows.float(), columns.float()), joined.float())
    soft = join_axes(torch.tensor([0.25]), torch.tensor([0.5, 1.0]))
    assert soft.tolist() == [[0.625, 1.0]]


# Selection -----------------------------------------------------------------------------------------------------------


def random_masks(seed: int = 0) -> tuple[Spectrum, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    spectrum = FFT(8, 8)(torch.from_numpy(rng.standard_normal((2, 1, 3, 8, 8)).astype(np.float32)))
    masks = (torch.from_numpy(rng.random((2, 4, 3, 8, 5)) < 0.5) for _ in range(2))
    return spectrum, *masks


def test_selection_multiplies_amplitude_and_phase() -> None:
    spectrum, amplitude_mask, phase_mask = random_masks()
    amplitude, phase = spectrum.amplitude.double(), spectrum.phase.double()
    for select, a, p in (
        (purify, amplitude_mask, phase_mask),
        (remainder, ~amplitude_mask, ~phase_mask),
    ):
        expected = torch.polar(amplitude * a, phase * p)
        for masks in ((amplitude_mask, phase_mask), (amplitude_mask.float(), phase_mask.float())):
            found = torch.complex(*select(spectrum, *masks))
            torch.testing.assert_close(found, expected.to(torch.complex64), atol=1e-5, rtol=1e-5)


def test_purified_and_remainder_add_up_to_the_image_under_one_mask() -> None:
    spectrum, mask, _ = random_masks()
    total = [a + b for a, b in zip(purify(spectrum, mask, mask), remainder(spectrum, mask, mask), strict=True)]
    for found, expected in zip(total, spectrum, strict=True):
        assert torch.equal(found, expected.expand_as(found))


def test_phase_mask_between_0_and_1_mixes_the_two_ends() -> None:
    spectrum, amplitude_mask, _ = random_masks()
    ones = torch.ones_like(amplitude_mask, dtype=torch.float)
    half, none, full = (torch.complex(*purify(spectrum, ones, ones * share)) for share in (0.5, 0.0, 1.0))
    torch.testing.assert_close(half, (none + full) / 2)


def select_twice(band_rows: str, image: Tensor) -> tuple[Tensor, Tensor]:
    """The image after one and after two selections by the same bands, others for the amplitude than for the phase."""
    branch = FrequencyBranch(tiny_config(band_rows=band_rows))
    bands = [((0.1, 0.3), (0.4, 0.5)), ((0.2, 0.35), (0.3, 0.45))]
    masks = [branch.mask(ComponentBands(*(axis([a], [b]) for a, b in component)), 64, 33) for component in bands]

    def select(image: Tensor) -> Tensor:
        real, imaginary = branch.fourier(image)
        return branch.fourier.inverse(purify(Spectrum(real[:, None], imaginary[:, None]), *masks))[:, 0]

    once = select(image)
    return once, select(once)


def test_selected_twice_is_selected_once_with_symmetric_rows_only() -> None:
    image = noise(1)
    once, twice = select_twice("symmetric", image)
    assert (once - image).abs().max() > 0.1
    assert (twice - once).abs().max() < 1e-5
    once, twice = select_twice("half", image)
    assert (twice - once).abs().max() > 1e-3


# Learning ------------------------------------------------------------------------------------------------------------


def proposer_gradients(mode: str, loss: Callable[..., Tensor]) -> tuple[float, float]:
    """Largest gradient of a loss at the edges head of the proposers, and at the classifier."""
    model = tiny_model(bands=mode).eval()
    loss(model(noise(2))).backward()

    def largest(prefix: str) -> float:
        gradients = [p.grad for name, p in model.named_parameters() if prefix in name]
        assert gradients
        return max(0.0 if g is None else g.abs().max().item() for g in gradients)

    return largest("edges_head"), largest("classifier")


@pytest.mark.parametrize("mode", MODES)
def test_the_task_teaches_the_proposers_unless_bands_are_hard(mode: str) -> None:
    label = torch.tensor([0, 1])
    proposers, classifier = proposer_gradients(mode, lambda output: F.cross_entropy(output.logits, label))
    assert classifier > 0
    assert proposers == 0 if mode == "hard" else proposers > 0


@pytest.mark.parametrize("mode", MODES)
def test_band_order_teaches_the_proposers_always(mode: str) -> None:
    proposers, classifier = proposer_gradients(mode, lambda output: bands_loss(output.proposals))
    assert proposers > 0
    assert classifier == 0


def test_straight_through_computes_what_hard_computes() -> None:
    """With gradients on, where it goes through float masks, and without, where it takes the short way."""
    image = noise(2)
    hard = tiny_model(bands="hard").eval()(image)
    model = tiny_model(bands="straight-through").eval()
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            output = model(image)
        for name in ("logits", "artifact_frequency", "irrelevant_frequency"):
            torch.testing.assert_close(getattr(output, name), getattr(hard, name), atol=1e-5, rtol=1e-5)
    soft = tiny_model(bands="soft").eval()(image)
    assert (soft.artifact_frequency - hard.artifact_frequency).abs().max() > 1e-5


def test_bands_start_their_life_spread_over_the_spectrum() -> None:
    """The prior comes on top of a sigmoid: band k of K lies between k / (K - 1) * 0.9 and one more."""
    with torch.no_grad():
        proposals = tiny_model(band_count=4).eval()(noise(2)).proposals
    prior = torch.tensor([0.0, 0.3, 0.6, 0.9])
    for bands in proposals.axes():
        for edge in (bands.start, bands.end):
            assert (edge > prior).all()
            assert (edge < prior + 1).all()
            assert (edge - prior).sub(0.5).abs().max() < 0.2  # an untrained sigmoid is undecided


@pytest.mark.parametrize("count", [1, 3, 4])
def test_wide_bands_start_next_to_each_other_and_cover_the_axis(count: int) -> None:
    with torch.no_grad():
        proposals = tiny_model(band_count=count, band_start="wide").eval()(noise(2)).proposals
    prior = torch.linspace(0, 0.9, count)
    following = torch.cat([prior[1:], torch.ones(1)])
    for bands in proposals.axes():
        torch.testing.assert_close(bands.start, prior.expand_as(bands.start), atol=0.02, rtol=0)
        torch.testing.assert_close(bands.end, following.expand_as(bands.end), atol=0.1, rtol=0)


def test_band_order_loss_by_hand() -> None:
    bands = axis([0.5, 1.2, 0.1], [0.3, 1.5, 0.105])
    per_colour = (0.2 + 0.01) + (0.2 + 0.5) + (0.01 - 0.005)  # ends first; leaves the spectrum twice; too short
    assert band_order_loss(bands).item() == pytest.approx(3 * per_colour)
    assert band_order_loss(axis([0.1], [0.5])).item() == 0


# Weights of the bands ------------------------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize(("count", "cut"), [(20, 14), (16, 14), (15, 0), (3, 0)])
def test_over_15_bands_the_14_weakest_lose_their_weight(count: int, cut: int) -> None:
    """Official: weights below the 15th smallest become 0."""
    torch.manual_seed(0)
    weights = BandWeights(32, cut_weakest=True).eval()
    features = 5 * torch.randn(3, count, 32)
    found = weights(features)
    weights.cut_weakest = False
    uncut = weights(features)
    assert uncut.min() > 0
    assert uncut.max() < 1
    assert (found == 0).sum(dim=1).flatten().tolist() == [cut] * 3
    expected = torch.where(uncut.argsort(dim=1).argsort(dim=1) < cut, 0.0, uncut)
    assert torch.equal(found, expected)


@torch.inference_mode()
def test_artifact_is_the_weighted_sum_and_irrelevant_the_mean_of_the_bands() -> None:
    branch, image = tiny_model(band_count=3).frequency.eval(), noise(2)
    output = branch(image)
    purified, residual, _ = branch.split(image)
    assert residual is not None
    artifact, irrelevant = torch.zeros(2, 48), torch.zeros(2, 48)
    for k in range(3):
        artifact += output.band_weights[:, k] * branch.artifact_encoder(purified[:, k : k + 1])[1][:, 0]
        irrelevant += branch.irrelevant_encoder(residual[:, k : k + 1])[1][:, 0] / 3
    torch.testing.assert_close(output.artifact, artifact, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output.irrelevant, irrelevant, atol=1e-5, rtol=1e-4)
