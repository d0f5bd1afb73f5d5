"""Averages over the images of a group: heat maps, and the frequencies that bands select.

Dimensions: N images, G groups, L frequencies, h x w cells of a heat map, R resamples.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apn.bootstrap import interval
from apn.embeddings import COVERAGES, Embeddings
from apn.plots.groups import Groups
from apn.report.canvas import GENERATED, REAL, new_figure, shorten, styled

WIDTH = 7.2  # inches: across both columns of a paper
PANELS = 6  # a row
RESAMPLES = 500


class AverageMap(NamedTuple):
    """The mean of heat maps that each were divided by their sum, (h, w), and how far evidence is spread.

    spread_of_mean, spread_of_one: the share of cells over which evidence is spread, exp(entropy) / (h w) in (0, 1], of
    the mean and of a single image (median). Global evidence: the first is near 1. Diverse: the second is far below it.
    images: those with any evidence.
    """

    values: np.ndarray
    spread_of_mean: float
    spread_of_one: float
    images: int


def average_map(heat: np.ndarray) -> AverageMap:
    """Of heat maps (N, h, w), 0 and more; those without evidence are left out, all nan where none is left."""
    sums = heat.sum(axis=(1, 2))
    shares = heat[sums > 0] / sums[sums > 0, None, None]
    if not len(shares):
        return AverageMap(np.full(heat.shape[1:], np.nan), np.nan, np.nan, 0)
    mean = shares.mean(axis=0)
    return AverageMap(mean, float(spread(mean[None])[0]), float(np.median(spread(shares))), len(shares))


def spread(shares: np.ndarray) -> np.ndarray:
    """exp(entropy) / (h w) of each map (N, h, w) that sums to 1: 1 / (h w) for one cell, 1 for all alike."""
    flat = shares.reshape(len(shares), -1)
    entropy = -(flat * np.log(np.where(flat > 0, flat, 1))).sum(axis=1)
    return np.exp(entropy) / flat.shape[1]


def heat_figure(embeddings: Embeddings, groups: Groups) -> Figure:
    """The average heat map of each group, both branches. ValueError for a table without heat maps."""
    if embeddings.heat_spatial is None or embeddings.heat_frequency is None:
        raise ValueError("the table has no heat maps: make it with `apn embed --heat-maps`")
    branches = {"spatial": embeddings.heat_spatial, "frequency": embeddings.heat_frequency}
    shown = _present(groups)
    with styled():
        rows = -(-len(shown) // PANELS)
        height = 2 * rows * (WIDTH / PANELS + 0.42) + 0.5
        figure = new_figure(width=WIDTH, height=height)
        grid = figure.subplots(2 * rows, PANELS, squeeze=False)
        for block, (branch, heat) in enumerate(branches.items()):
            panels = grid[block * rows : (block + 1) * rows].ravel()
            for axes, code in zip(panels, shown, strict=False):
                found = average_map(heat[groups.codes == code])
                _map(axes, found, shorten(groups.names[code], 17))
            panels[0].set_ylabel(f"{branch} branch", fontsize=8)
            for axes in panels[len(shown) :]:
                axes.set_axis_off()
        title = "Average heat map of each group (evidence for generated). Below: spread of the mean / of one image, n"
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure


def _map(axes: Axes, found: AverageMap, title: str) -> None:
    axes.imshow(found.values, cmap="magma", vmin=0, vmax=float(np.nanmax(found.values, initial=1e-9)))
    axes.set_title(title, fontsize=7.5)
    axes.set_xlabel(f"{found.spread_of_mean:.2f} / {found.spread_of_one:.2f}, {found.images}", fontsize=7)
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def coverage_figure(embeddings: Embeddings, groups: Groups) -> Figure:
    """A row a group: share of the band weight that selects each frequency, component by axis."""
    shown = _present(groups)
    means = np.stack([embeddings.coverage[groups.codes == code].mean(axis=0) for code in shown])  # (G, 4, L)
    names = [f"{shorten(groups.names[code], 22)} ({(groups.codes == code).sum()})" for code in shown]
    with styled():
        figure = new_figure(width=WIDTH, height=1.3 + 0.18 * len(shown) * 2)
        grid = figure.subplots(2, 2, sharex=True, sharey=True)
        for place, axes in enumerate(grid.ravel()):
            extent = (0, 0.5, len(shown) - 0.5, -0.5)
            image = axes.imshow(
                means[:, place], cmap="viridis", vmin=0, vmax=1, aspect="auto", extent=extent, interpolation="nearest"
            )
            axes.set_title(COVERAGES[place].replace("_", ", "), fontsize=8)
            axes.set_yticks(range(len(shown)), names, fontsize=6.5)
            axes.grid(False)
            axes.spines[:].set_visible(False)
        for axes in grid[1]:
            axes.set_xlabel("cycles per pixel")
        bar = figure.colorbar(image, ax=grid.ravel().tolist(), label="share of band weight", shrink=0.6)
        bar.outline.set_visible(False)
        figure.suptitle("Frequencies that the bands select, average of each group", x=0.01, ha="left", fontsize=9)
    return figure


def real_generated_figure(embeddings: Embeddings, seed: int = 0) -> Figure:
    """Average coverage of real and of generated images, with 95 % intervals over split groups."""
    scores = embeddings.scores
    with styled():
        figure = new_figure(width=WIDTH, height=4.2)
        grid = figure.subplots(2, 2, sharex=True, sharey=True)
        for place, axes in enumerate(grid.ravel()):
            for label, (name, colour, dash) in enumerate((("real", REAL, "-"), ("generated", GENERATED, "--"))):
                own = scores.labels == label
                if not own.any():
                    continue
                values = embeddings.coverage[own, place]
                low, high = mean_interval(values, scores.groups[own], seed=seed)
                axes.fill_between(embeddings.frequencies, low, high, color=colour, alpha=0.25, linewidth=0)
                style = {"color": colour, "linestyle": dash, "label": f"{name} ({own.sum()})"}
                axes.plot(embeddings.frequencies, values.mean(axis=0), **style)
            axes.set_title(COVERAGES[place].replace("_", ", "))
            axes.set_ylim(-0.03, 1.03)
        for axes in grid[1]:
            axes.set_xlabel("cycles per pixel")
        for axes in grid[:, 0]:
            axes.set_ylabel("share of band weight")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        figure.suptitle("Frequencies that the bands select", x=0.01, ha="left", fontsize=9)
    return figure


def mean_interval(
    values: np.ndarray, groups: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile interval (L,), (L,) of the mean of values (N, L); whole groups (N,), any values, are drawn."""
    names, codes = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, codes, values)
    counts = np.bincount(codes)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return interval((drawn @ sums) / (drawn @ counts)[:, None])


def _present(groups: Groups) -> list[int]:
    return [int(code) for code in np.unique(groups.codes)]
