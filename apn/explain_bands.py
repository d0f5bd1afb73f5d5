"""What the frequency branch did with one tile: its spectrum, the bands it proposed, and the images that they make.

Everything here is read off the network's own functions, not computed a second way. Frequencies are in cycles per pixel:
0 is constant, 0.5 changes at every pixel.
Dimensions: S side of a tile, K bands, M = S // 2 + 1 spectrum columns, N bands shown.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from apn.detection import Tile
from apn.models.apn import APN
from apn.models.bands import AxisBands, ComponentBands, Proposals, hard_axis_mask, settle_bands
from apn.models.fusion import fuse

COLOURS = ("red", "green", "blue")


class Interval(NamedTuple):
    """Frequencies f that a band selects along one axis, in one colour: low <= f <= high, cycles per pixel.

    A band keeps what any of its intervals selects, in amplitude and in phase separately.
    axis:     vertical: patterns that change from row to row; horizontal: from column to column.
    mirrored: -f is selected with f. Otherwise the sign is the one against a horizontal frequency of 0 or more.
    void:     the network proposed an end before the start, so that only frequency 0 is left of the band.
    """

    component: str  # amplitude or phase
    axis: str  # vertical or horizontal
    colour: str  # red, green or blue
    low: float
    high: float
    mirrored: bool
    void: bool


class Band(NamedTuple):
    """One of the K bands.

    index:  its number in the network.
    weight: what the network multiplies its embedding by, in [0, 1]; trained networks give nearly the same to all.
    effect: what the logit, generated less real, loses without it; below 0 where it speaks for real.
    """

    index: int  # type: ignore[assignment]  # (hides tuple.index)
    weight: float
    effect: float
    intervals: tuple[Interval, ...]


class BandEvidence(NamedTuple):
    """The frequency branch on one tile. Arrays are float32; spectra are centred: frequency 0 at [S // 2, S // 2].

    bands:    all K, by effect; the strongest, which speaks most for the target, first.
    spectrum: (S, S), 0 and more: log10(1 + amplitude) of what the network sees of the tile, mean over colours.
    coverage: (2, S, S) in [0, 1], amplitude and phase: share of the band weight that selects a frequency.
    masks:    (N, 2, S, S) in [0, 1]: share of the colours in which a band selects a frequency.
    purified, residual: (N, S, S, 3) RGB, any range: what the N strongest bands keep, and what they leave.
    """

    tile: Tile
    bands: tuple[Band, ...]
    spectrum: np.ndarray
    coverage: np.ndarray
    masks: np.ndarray
    purified: np.ndarray
    residual: np.ndarray


@torch.no_grad()
def band_evidence(model: APN, pixels: Tensor, tile: Tile, shown: int, sign: float = 1.0) -> BandEvidence:
    """What the bands of `model` do with one tile, pixels (3, S, S) in [0, 1] RGB; images of the `shown` strongest.

    sign: 1 where bands that speak for generated come first, -1 for real.
    """
    branch, size = model.frequency, model.config.image_size
    flip = model.config.channel_order == "bgr"
    seen = model.seen(pixels[None])
    image = seen.frequency
    purified, residual, proposals = branch.split(image)  # (1, K, C, S, S)
    assert residual is not None
    embeddings, weights = branch.weigh(purified)
    weights = weights[0, :, 0]  # (K,)
    spatial = model.spatial(seen.spatial).artifact
    effects = band_effects(
        lambda frequency: model.classifier(fuse(frequency, spatial, model.config.frequency_weight)), embeddings
    )[0]  # (K,)
    order = (sign * effects).argsort(descending=True, stable=True)
    masks = torch.stack([branch.mask(bands, size, size // 2 + 1)[0].float() for bands in proposals])  # (2, K, C, S, M)
    masks = centre(masks.mean(dim=2), size)  # (2, K, S, S)
    coverage = (weights[:, None, None] * masks).sum(dim=1) / weights.sum().clamp_min(torch.finfo(torch.float32).tiny)
    colours = COLOURS[::-1] if flip else COLOURS
    bands = (
        Band(int(k), float(weights[k]), float(effects[k]), tuple(_intervals(model, proposals, int(k), colours)))
        for k in order
    )
    strongest = order[:shown]
    return BandEvidence(
        tile=tile,
        bands=tuple(bands),
        spectrum=centre(torch.log10(1 + branch.fourier(image).amplitude)[0].mean(dim=0), size).cpu().numpy(),
        coverage=coverage.cpu().numpy(),
        masks=masks[:, strongest].transpose(0, 1).cpu().numpy(),
        purified=_rgb(purified[0, strongest], flip),
        residual=_rgb(residual[0, strongest], flip),
    )


def band_effects(decide: Callable[[Tensor], Tensor], embeddings: Tensor) -> Tensor:
    """(B, K): what the logit, generated less real, loses where one band's part is left out.

    decide: embeddings of the frequency branch (B, N, D) -> logits (B, N, 2). embeddings: (B, K, D) of
    `FrequencyBranch.weigh`, whose sum over the bands is the branch's.
    """
    whole = embeddings.sum(dim=1, keepdim=True)
    logits = decide(torch.cat([whole, whole - embeddings], dim=1))  # (B, 1 + K, 2)
    margin = logits[..., 1] - logits[..., 0]
    return margin[:, :1] - margin[:, 1:]


def centre(half: Tensor, width: int) -> Tensor:
    """Half spectrum (..., H, M) of a real image, or a mask of one -> all of it (..., H, W), frequency 0 in the centre.

    Column W - m at row r is the conjugate of column m at row H - r: it has the same amplitude and the same mask.
    """
    rows = -torch.arange(half.shape[-2], device=half.device) % half.shape[-2]
    mirrored = half[..., rows, :].flip(-1)  # columns W // 2 .. 0
    missing = width - half.shape[-1]
    first = 1 - width % 2  # of an even width the last column is its own mirror image
    return torch.fft.fftshift(torch.cat([half, mirrored[..., first : first + missing]], dim=-1), dim=(-2, -1))


def _rgb(images: Tensor, flip: bool) -> np.ndarray:  # (N, C, S, S) -> (N, S, S, 3)
    return (images.flip(1) if flip else images).permute(0, 2, 3, 1).cpu().numpy()


def _intervals(model: APN, proposals: Proposals, band: int, colours: tuple[str, ...]) -> Iterator[Interval]:
    for component, bands in zip(Proposals._fields, proposals, strict=True):
        for axis, edges in zip(ComponentBands._fields, bands, strict=True):
            runs, void = axis_runs(model, edges, axis)
            for colour, run in enumerate(runs[band]):
                for low, high in frequencies(run, axis, model):
                    mirrored = axis == "columns" or model.config.band_rows == "symmetric"
                    name = "vertical" if axis == "rows" else "horizontal"
                    yield Interval(component, name, colours[colour], low, high, mirrored, bool(void[band, colour]))


def axis_runs(model: APN, edges: AxisBands, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """First and last position (K, C, 2) that each band selects along an axis of one tile, and (K, C) bool: void."""
    settled = settle_bands(edges, suppress=model.config.band_suppression)
    size = model.config.image_size
    folded = axis == "columns" or model.config.band_rows == "symmetric"
    mask = hard_axis_mask(settled, size // 2 + 1 if folded else size)[0].cpu().numpy()  # (K, C, L), one run each
    runs = np.stack([mask.argmax(axis=-1), mask.shape[-1] - 1 - mask[..., ::-1].argmax(axis=-1)], axis=-1)
    return runs, (settled.end <= settled.start)[0].T.cpu().numpy()


def frequencies(run: np.ndarray, axis: str, model: APN) -> list[tuple[float, float]]:
    """(low, high) in cycles per pixel of positions first..last along an axis; rows as stored can be two intervals."""
    first, last = (int(position) for position in run)
    size = model.config.image_size
    if axis == "columns" or model.config.band_rows == "symmetric":
        return [(first / size, last / size)]
    half = size // 2
    upper = [(first / size, min(last, half) / size)] if first <= half else []
    lower = [((max(first, half + 1) - size) / size, (last - size) / size)] if last > half else []
    return upper + lower
