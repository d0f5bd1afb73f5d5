"""Frequency bands as pure tensor functions: propose -> void -> mask -> purified and residual spectra.

Source: Meng et al., "Artifact feature purification ...", CVIU 2024, explicit purification in the frequency domain.
Dimensions: B batch, K bands, C = 3 colours, H x W pixels, M = W // 2 + 1 spectrum columns, L positions on one axis.

A mask is 1 where a band selects a frequency and 0 elsewhere. Masks are laid out (B, K, C, ...).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class AxisBands(NamedTuple):
    """K bands along one axis of the spectrum, each tensor (B, C, K). Edges are fractions of the axis, 0 and more."""

    confidence: Tensor
    start: Tensor
    end: Tensor


class ComponentBands(NamedTuple):
    """The bands of one component (amplitude or phase): intervals of rows and of columns."""

    rows: AxisBands
    columns: AxisBands


class Proposals(NamedTuple):
    """Bands as the proposers emit them, before any band is voided."""

    amplitude: ComponentBands
    phase: ComponentBands

    def axes(self) -> tuple[AxisBands, AxisBands, AxisBands, AxisBands]:
        """The four axis proposals, amplitude before phase, rows before columns."""
        return (*self.amplitude, *self.phase)


class Spectrum(NamedTuple):
    """Half spectrum of a real image, each tensor (..., H, M); imaginary is exactly +0 at the self-conjugate bins."""

    real: Tensor
    imaginary: Tensor

    @property
    def amplitude(self) -> Tensor:
        return torch.sqrt(self.real**2 + self.imaginary**2)

    @property
    def phase(self) -> Tensor:
        """Angle in (-pi, pi]; a negative real value has +pi, which the ONNX form of atan2 would make -pi."""
        negative = (self.imaginary == 0) & (self.real < 0)
        return torch.where(negative, math.pi, torch.atan2(self.imaginary, self.real))


def self_conjugate_bins(height: int, width: int) -> Tensor:
    """(H, M) bool, true at the bins whose imaginary part is zero for every real image (rows 0, H/2; columns 0, W/2)."""
    rows = torch.arange(height) * 2 % height == 0
    columns = torch.arange(width // 2 + 1) * 2 % width == 0
    return rows[:, None] & columns


def void_bands(bands: AxisBands) -> AxisBands:
    """A band that ends at or before its start selects nothing by intent: it becomes (0, 0, 0), which keeps index 0."""
    valid = bands.end > bands.start
    return AxisBands(*(torch.where(valid, values, 0.0) for values in bands))


def suppress_bands(bands: AxisBands) -> AxisBands:
    """Non-maximum suppression: voids a band more than half of whose own length lies under one stronger, kept band."""
    confidence, length = bands.confidence, bands.end - bands.start
    one, other = confidence[..., :, None], confidence[..., None, :]
    place = torch.arange(confidence.shape[-1], device=confidence.device)
    stronger = (other > one) | (
        (other == one) & (place < place[:, None])
    )  # (B, C, K, K): other than one; ties in order
    overlap = torch.minimum(bands.end[..., :, None], bands.end[..., None, :]) - torch.maximum(
        bands.start[..., :, None], bands.start[..., None, :]
    )
    covers = stronger & (overlap > 0.5 * length[..., :, None])  # (B, C, K, K): band of column covers band of row
    rank = stronger.sum(dim=-1)  # comparisons rather than a stable sort, which has no ONNX operator
    kept = torch.ones_like(length, dtype=torch.bool)
    for judged in range(len(place)):  # strongest first: a band is judged after all that may suppress it
        covered = (covers & kept[..., None, :]).any(dim=-1)
        kept = kept & ~(covered & (rank == judged))
    return AxisBands(*(torch.where(kept, values, 0.0) for values in bands))


def settle_bands(bands: AxisBands, *, suppress: bool) -> AxisBands:
    """The bands that a network uses, of those it proposed: voided, and suppressed where it is told to."""
    settled = void_bands(bands)
    return suppress_bands(settled) if suppress else settled


def hard_axis_mask(bands: AxisBands, length: int) -> Tensor:
    """(B, K, C, L) bool: positions floor(start L) .. floor(end L) inclusive, clamped to the axis. No gradient."""
    first, last = ((edge.detach() * length).floor().clamp(0, length - 1) for edge in (bands.start, bands.end))
    position = torch.arange(length, device=first.device, dtype=first.dtype)
    mask = (position >= first[..., None]) & (position <= last[..., None])  # (B, C, K, L)
    return mask.transpose(1, 2)


def soft_axis_mask(bands: AxisBands, length: int, edge_width: float) -> Tensor:
    """(B, K, C, L) in [0, 1]: the same interval with sigmoid edges `edge_width` positions wide, which can learn.

    `hard_axis_mask` starts between start L - 1.5 and start L - 0.5 and ends between end L - 0.5 and end L + 0.5, as
    floor() falls; the sigmoids are centred in these intervals. A band that ends before it starts is nearly 0 here.
    """
    position = torch.arange(length, device=bands.start.device, dtype=bands.start.dtype)
    rise = torch.sigmoid((position - (bands.start[..., None] * length - 1)) / edge_width)
    fall = torch.sigmoid((bands.end[..., None] * length - position) / edge_width)
    return (rise * fall).transpose(1, 2)


def mirror_rows(mask: Tensor, height: int) -> Tensor:
    """Folded row mask (..., H // 2 + 1), indexed by |frequency|, to all rows (..., H): row r and row H - r agree."""
    rows = torch.arange(height, device=mask.device)
    return mask[..., torch.minimum(rows, height - rows)]


def join_axes(rows: Tensor, columns: Tensor) -> Tensor:
    """Union of a row mask (..., H) and a column mask (..., M): (..., H, M), bool or probabilistic OR."""
    if rows.dtype == torch.bool:
        return rows[..., :, None] | columns[..., None, :]
    return 1 - (1 - rows[..., :, None]) * (1 - columns[..., None, :])


def select(spectrum: Spectrum, amplitude_mask: Tensor, phase_mask: Tensor) -> Spectrum:
    """The spectrum (B, 1, C, H, M) under masks (B, K, C, H, M): amplitude * mask, phase * mask, each (B, K, C, H, M).

    Where the amplitude is kept and the phase is not, the phase is 0: the bin becomes its amplitude, a positive real.
    Between 0 and 1 a phase mask mixes these two values linearly: the same ends as phase * mask, without its sines, and
    with a gradient that does not vanish where the phase is small.
    """
    amplitude = spectrum.amplitude
    if amplitude_mask.dtype == torch.bool:
        return Spectrum(
            torch.where(amplitude_mask, torch.where(phase_mask, spectrum.real, amplitude), 0.0),
            torch.where(amplitude_mask & phase_mask, spectrum.imaginary, 0.0),
        )
    both = amplitude_mask * phase_mask
    return Spectrum(amplitude_mask * amplitude + both * (spectrum.real - amplitude), both * spectrum.imaginary)


def purify(spectrum: Spectrum, amplitude_mask: Tensor, phase_mask: Tensor) -> Spectrum:
    """What the bands keep."""
    return select(spectrum, amplitude_mask, phase_mask)


def remainder(spectrum: Spectrum, amplitude_mask: Tensor, phase_mask: Tensor) -> Spectrum:
    """What the bands leave, the counterpart of `purify`."""
    if amplitude_mask.dtype == torch.bool:
        return select(spectrum, ~amplitude_mask, ~phase_mask)
    return select(spectrum, 1 - amplitude_mask, 1 - phase_mask)


def band_order_loss(bands: AxisBands, margin: float = 0.01) -> Tensor:
    """Scalar: a band should end at least `margin` after its start, and neither edge should leave the spectrum.

    sum over C, K of relu(start - end + margin) + relu(start - 1) + relu(end - 1), mean over B.
    """
    wrong = F.relu(bands.start - bands.end + margin) + F.relu(bands.start - 1) + F.relu(bands.end - 1)
    return wrong.sum(dim=(1, 2)).mean()
