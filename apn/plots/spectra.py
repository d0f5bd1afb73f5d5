"""The average spectrum of each group of images, and what sets it apart from that of the real ones.

Periodic traces of up-sampling are points of light in it (Zhang, Karaman, Chang, "Detecting and simulating artifacts in
GAN fake images", 2019). Dimensions: S side of a crop, G groups.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from apn.crops import center_crop
from apn.image import ImageError, load_image
from apn.report.canvas import new_figure, shorten, styled
from apn.threads import ahead

WIDTH = 7.2  # inches
PANELS = 6  # a row
EACH = 100  # images of a group that are averaged
_AXIS = (-0.5, 0.5, 0.5, -0.5)
_LARGEST = 0.5  # difference of log10 amplitudes at which its colours end


class AverageSpectrum(NamedTuple):
    """values: (S, S), mean of log10(1 + amplitude), frequency 0 at [S // 2, S // 2]; of so many images."""

    name: str
    values: np.ndarray
    images: int


def log_spectrum(pixels: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 -> (S, S): log10(1 + amplitude) of the picture in [0, 1], mean over colours, centred."""
    amplitude = np.abs(np.fft.fft2(pixels / 255, axes=(0, 1)))
    return np.fft.fftshift(np.log10(1 + amplitude).mean(axis=2))


def average_spectrum(name: str, paths: Iterable[Path], size: int) -> tuple[AverageSpectrum, list[str]]:
    """Of the centre crops of files as they are; also, in words, the files that could not be read."""
    total, count, failed = np.zeros((size, size)), 0, []
    for found in ahead(lambda path: _open(path, size), paths, workers=2):
        if isinstance(found, str):
            failed.append(found)
        else:
            total, count = total + found, count + 1
    return AverageSpectrum(name, total / max(count, 1), count), failed


def _open(path: Path, size: int) -> np.ndarray | str:
    try:
        return log_spectrum(center_crop(load_image(path).pixels, size))
    except ImageError as error:
        return f"{path}: {error}"


def spectra_figure(spectra: Sequence[AverageSpectrum], real: AverageSpectrum | None) -> Figure:
    """A panel a group that has images, of which there is one at least; below it, where there is `real`, how its mean
    differs from that of the real images."""
    shown = [one for one in spectra if one.images]
    blocks = 1 if real is None else 2
    with styled():
        rows = -(-len(shown) // PANELS)
        figure = new_figure(width=WIDTH, height=blocks * rows * WIDTH / (PANELS + 1) + 0.35 * rows + 0.35)
        grid = figure.subplots(blocks * rows, PANELS, squeeze=False)
        level: dict[str, Any] = {"cmap": "magma", "vmin": 0, "vmax": max(float(one.values.max()) for one in shown)}
        apart: dict[str, Any] = {"cmap": "PuOr_r", "vmin": -_LARGEST, "vmax": _LARGEST}
        for place, one in enumerate(shown):
            row, column = divmod(place, PANELS)
            axes = grid[row * blocks, column]
            _panel(axes, one.values, level)
            axes.set_title(f"{shorten(one.name, 15)}\n{one.images} images", fontsize=6.8)
            if real is not None:
                _panel(grid[row * blocks + 1, column], one.values - real.values, apart)
        for number, axes in enumerate(grid[:, 0]):
            axes.set_ylabel("minus real" if blocks == 2 and number % 2 else "mean", fontsize=7.5)
        for axes in grid.ravel():
            if not axes.images:
                axes.set_axis_off()
        bars = [(level, "log10(1 + amplitude)"), (apart, "difference from real")][:blocks]
        for limits, label in bars:
            colours = ScalarMappable(Normalize(limits["vmin"], limits["vmax"]), limits["cmap"])
            bar = figure.colorbar(colours, ax=grid.ravel().tolist(), label=label, shrink=0.6, aspect=30)
            bar.outline.set_visible(False)
        title = "Average spectrum of centre crops; frequency 0 in the middle, 0.5 cycles per pixel at the edge"
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure


def _panel(axes: Axes, values: np.ndarray, limits: dict[str, Any]) -> None:
    axes.imshow(values, extent=_AXIS, interpolation="nearest", **limits)
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
