"""Maps of points: artifact beside irrelevant embeddings, and generator by generator.

Dimensions: N images. Points are (N, 2), any range: axes have no ticks, because only what lies near what can be read.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apn.plots.groups import Groups
from apn.report.canvas import GENERATED, LINE, REAL, new_figure, shorten, styled

WIDTH = 7.2  # inches: across both columns of a paper
PANELS = 4  # a row
_DOT: dict[str, Any] = {"s": 9, "linewidths": 0, "alpha": 0.75, "rasterized": True}


def sides_figure(points: Mapping[str, np.ndarray], groups: Groups, title: str) -> Figure:
    """A panel a part of the embedding, its name above, all in the same colours."""
    with styled():
        rows = -(-len(groups.names) // PANELS)
        figure = new_figure(width=WIDTH, height=WIDTH / len(points) + 0.35 + 0.2 * rows)
        for axes, (name, places) in zip(figure.subplots(1, len(points), squeeze=False)[0], points.items(), strict=True):
            _bare(axes, name)
            _dots(axes, places, groups)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        columns = min(PANELS, len(labels))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7, markerscale=1.5)
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure


def apart_figure(points: np.ndarray, labels: np.ndarray, groups: Groups, title: str) -> Figure:
    """A panel a generator: its images, the real ones, and in grey those of all other generators."""
    shown = np.unique(groups.codes[labels == 1])
    with styled():
        rows = -(-len(shown) // PANELS)
        figure = new_figure(width=WIDTH, height=WIDTH / PANELS * rows + 0.2 * rows + 0.6)
        grid = figure.subplots(rows, PANELS, squeeze=False).ravel()
        for axes, code in zip(grid, shown, strict=False):
            own = (groups.codes == code) & (labels == 1)
            _bare(axes, f"{shorten(groups.names[code], 24)} ({own.sum()})")
            for rows_of, name, colour in (
                (labels == 1, "other generators", LINE),
                (labels == 0, "real", REAL),
                (own, "this generator", GENERATED),
            ):
                axes.scatter(points[rows_of, 0], points[rows_of, 1], color=colour, label=name, **_DOT)
            axes.title.set_fontsize(7.5)
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3, markerscale=1.6)
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure


def _dots(axes: Axes, points: np.ndarray, groups: Groups) -> None:
    """Group by group, the one that stands for many first: it lies beneath."""
    present = [code for code in range(len(groups.names)) if (groups.codes == code).any()]
    for code in sorted(present, key=lambda code: code != groups.other):
        own = groups.codes == code
        label = f"{shorten(groups.names[code], 22)} ({own.sum()})"
        axes.scatter(points[own, 0], points[own, 1], label=label, **groups.style(code), **_DOT)


def _bare(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(LINE)
