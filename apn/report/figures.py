"""The figures of a report: each takes numbers and gives a Matplotlib figure; apn.report.canvas says how they look.

Dimensions: N images, G generators, B bins. Labels: 0 real, 1 generated.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from apn.report.canvas import (
    GENERATED,
    INK,
    LINE,
    QUIET,
    REAL,
    WIDTH,
    new_figure,
    series_style,
    share_axis,
    shorten,
    shorten_apart,
    styled,
)
from apn.report.results import Estimate
from apn.report.tables import cell

Floats = NDArray[np.floating]


class RocCurve(NamedTuple):
    """False and true positive rates (P,) from (0, 0) to (1, 1); auc for the legend."""

    label: str
    fpr: Floats
    tpr: Floats
    auc: Estimate


class Reliability(NamedTuple):
    """Bins of predicted probability that hold images: (B,) mean probability, share generated with interval, images."""

    label: str
    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    images: NDArray[np.integer]


class Group(NamedTuple):
    """Probabilities (N,) of one row of the histograms."""

    label: str
    generated: bool
    probabilities: Floats


class Dots(NamedTuple):
    """One series of a dot plot: an estimate a row, nan where there is none."""

    label: str
    estimates: Sequence[Estimate]


class Line(NamedTuple):
    """One line of a robustness panel: an estimate a level."""

    label: str
    estimates: Sequence[Estimate]


class Panel(NamedTuple):
    """One degradation: what stands at the ticks, the clean image first, and the lines over them."""

    title: str
    unit: str
    ticks: Sequence[str]
    lines: Sequence[Line]


def roc_figure(curves: Sequence[RocCurve], title: str) -> Figure:
    """ROC curves over the diagonal of chance, with AUC and interval in the legend below."""
    with styled():
        figure = new_figure(height=WIDTH * 0.95 + 0.19 * len(curves))
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":", label="chance: AUC 0.5")
        for index, curve in enumerate(curves):
            style = series_style(index) | {"marker": ""}
            axes.plot(curve.fpr, curve.tpr, label=f"{shorten(curve.label)}: AUC {cell(curve.auc)}", **style)
        share_axis(axes, "x", "false positive rate (real images called generated)")
        share_axis(axes, "y", "true positive rate")
        axes.set_aspect("equal")
        _finish(figure, axes, title)
    return figure


def reliability_figure(curves: Sequence[Reliability], title: str) -> Figure:
    """Share generated over predicted probability, with intervals; on the diagonal a probability means what it says."""
    with styled():
        figure = new_figure(height=WIDTH * 0.95 + 0.19 * len(curves))
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":", label="perfectly calibrated")
        for index, curve in enumerate(curves):
            _bars(axes, curve.predicted, curve.observed, curve.low, curve.high, curve.label, index)
        share_axis(axes, "x", "predicted probability of generated")
        share_axis(axes, "y", "share generated among these images")
        axes.set_aspect("equal")
        _finish(figure, axes, title)
    return figure


def histogram_figure(groups: Sequence[Group], threshold: float | None, title: str, bins: int = 25) -> Figure:
    """A row a group: how its probabilities spread over [0, 1]; each row is scaled to its own peak.

    threshold: a line through all rows, where probabilities have one.
    """
    with styled():
        figure = new_figure(height=0.9 + 0.3 * len(groups))
        axes = figure.add_subplot()
        edges = np.linspace(0, 1, bins + 1)
        for row, group in enumerate(groups):
            counts = np.histogram(group.probabilities, edges)[0]
            heights = 0.86 * counts / max(counts.max(), 1)
            base = len(groups) - 1 - row
            colour = GENERATED if group.generated else REAL
            axes.stairs(base + heights, edges, baseline=base, fill=True, color=colour, alpha=0.75, linewidth=0)
            axes.axhline(base, color=LINE, linewidth=0.6)
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1, linestyle="--")
        labels = [
            f"{name} ({len(group.probabilities)})"
            for name, group in zip(shorten_apart([group.label for group in groups]), groups, strict=True)
        ]
        axes.set_yticks(np.arange(len(groups))[::-1] + 0.4, labels)
        axes.set_ylim(-0.1, len(groups))
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        share_axis(axes, "x", "probability (dashed: threshold)" if threshold is not None else "probability")
        _entitle(figure, title)
    return figure


def dot_figure(rows: Sequence[str], series: Sequence[Dots], title: str, label: str = "AUC") -> Figure:
    """A row a generator, a marker with its interval a series; the dotted line is chance."""
    with styled():
        pitch = 0.16 + 0.1 * len(series)
        figure = new_figure(height=1.1 + pitch * len(rows) + 0.19 * len(series))
        axes = figure.add_subplot()
        places = np.arange(len(rows))[::-1].astype(float)
        for index, dots in enumerate(series):
            style = series_style(index) | {"linestyle": ""}
            offset = (0.5 * (len(series) - 1) - index) * 0.5 / max(len(series), 1)
            values, low, high = np.array(dots.estimates, float).reshape(-1, 3).T
            axes.errorbar(
                values,
                places + offset,
                xerr=_spread(values, low, high),
                label=shorten(dots.label, 48),
                elinewidth=1,
                **style,
            )
        axes.axvline(0.5, color=QUIET, linewidth=0.8, linestyle=":")
        axes.set_yticks(places, shorten_apart(rows))
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.tick_params(axis="y", length=0)
        share_axis(axes, "x", f"{label}, 95 % interval")
        _finish(figure, axes, title)
    return figure


def panel_figure(panel: Panel) -> Figure:
    """One degradation by itself, without a legend, for a page that lays out its panels."""
    with styled():
        figure = new_figure(width=3.3, height=2.5)
        axes = figure.add_subplot()
        _draw_panel(axes, panel)
        _entitle(figure, panel.title)
    return figure


def panels_figure(panels: Sequence[Panel], title: str, columns: int = 4) -> Figure:
    """All degradations on one sheet, with one legend."""
    with styled():
        rows = -(-len(panels) // columns)
        figure = new_figure(width=2.4 * columns, height=2.1 * rows + 0.8)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            _draw_panel(axes, panel)
            axes.set_title(shorten(panel.title, 26))
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        if panels:
            handles, labels = grid[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        _entitle(figure, title, characters=120)
    return figure


def matrix_figure(
    values: Floats,
    intervals: Floats | None,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    *,
    label: str = "AUC",
    darkest: float = 0.5,
    row_axis: str = "trained on",
    column_axis: str = "tested on",
) -> Figure:
    """A heat map with its numbers in the cells.

    values: (R, C) in [0, 1], nan for a cell without a number. intervals: (R, C, 2), low and high, or None.
    darkest: the value, chance, from which on downwards all cells are alike.
    ValueError where the shapes disagree.
    """
    values = np.asarray(values, float)
    shape = len(rows), len(columns)
    if values.shape != shape or (intervals is not None and np.shape(intervals) != (*shape, 2)):
        found = values.shape, None if intervals is None else np.shape(intervals)
        raise ValueError(f"expected values {shape} and intervals {(*shape, 2)}, found {found[0]} and {found[1]}")
    with styled():
        pitch = 0.72 if intervals is not None else 0.5
        figure = new_figure(width=1.9 + pitch * shape[1], height=1.6 + pitch * 0.72 * shape[0])
        axes = figure.add_subplot()
        axes.grid(False)
        axes.set_facecolor(LINE)  # shows where there is no number
        image = axes.imshow(values, cmap="cividis", vmin=darkest, vmax=1, aspect="auto")
        for row, column in np.ndindex(shape):
            interval = None if intervals is None else np.asarray(intervals)[row, column]
            _write_cell(axes, row, column, float(values[row, column]), interval, (1 + darkest) / 2)
        axes.set_xticks(range(shape[1]), shorten_apart(columns, 18), rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(shape[0]), shorten_apart(rows, 18))
        axes.set_xlabel(column_axis)
        axes.set_ylabel(row_axis)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, label=label, shrink=0.8, extend="min").outline.set_visible(False)
        _entitle(figure, title)
    return figure


def _write_cell(axes: Axes, row: int, column: int, value: float, interval: Floats | None, bright_from: float) -> None:
    if np.isnan(value):
        axes.text(column, row, "–", ha="center", va="center")
        return
    ink = "white" if value < bright_from else "black"  # on cividis, whose lightness grows with the value
    with_interval = interval is not None and not np.isnan(interval).any()
    axes.text(column, row - (0.14 if with_interval else 0), f"{value:.3f}", color=ink, ha="center", va="center")
    if interval is not None and with_interval:
        text = f"{interval[0]:.2f} to {interval[1]:.2f}"
        axes.text(column, row + 0.22, text, color=ink, ha="center", va="center", fontsize=6)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    places = np.arange(len(panel.ticks), dtype=float)
    for index, line in enumerate(panel.lines):
        values, low, high = np.array(line.estimates, float).reshape(-1, 3).T
        shift = 0.06 * (index - (len(panel.lines) - 1) / 2)  # so that intervals stand side by side
        _bars(axes, places + shift, values, low, high, line.label, index)
    axes.set_xticks(places, [shorten(tick, 12) for tick in panel.ticks])
    axes.set_xlim(-0.3, len(places) - 0.7)
    axes.grid(False, axis="x")
    share_axis(axes, "y", "")
    axes.set_xlabel(shorten(panel.unit))


def _bars(axes: Axes, x: Floats, value: Floats, low: Floats, high: Floats, label: str, index: int) -> None:
    spread = _spread(value, low, high)
    axes.errorbar(x, value, yerr=spread, label=shorten(label, 48), elinewidth=0.9, **series_style(index))


def _spread(value: Floats, low: Floats, high: Floats) -> Floats:
    """(2, N) distances for error bars; a percentile interval need not hold its value, a bar cannot be negative."""
    return np.stack([np.maximum(value - low, 0), np.maximum(high - value, 0)])


def _entitle(figure: Figure, title: str, characters: int = 62) -> None:
    figure.suptitle(textwrap.fill(shorten(title, 4 * characters), characters), x=0.015, ha="left", fontsize=9)


def _finish(figure: Figure, axes: Axes, title: str) -> None:
    _entitle(figure, title)
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower left", fontsize=8)
