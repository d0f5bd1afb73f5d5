"""What linear probes tell from artifact and irrelevant embeddings, and what both share, over training."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apn.purification import TARGETS, Purity
from apn.report.canvas import GENERATED, QUIET, REAL, new_figure, series_style, shorten, styled
from apn.report.results import Estimate

WIDTH = 7.2  # inches
_PART_STYLES = {
    "artifact": {"color": GENERATED, "marker": "D", "linestyle": "-"},
    "irrelevant": {"color": REAL, "marker": "o", "linestyle": "--"},
}


def purification_figure(found: Sequence[Purity], title: str) -> Figure:
    """Three panels of probes and one of information, a tick a table, in the order given; of one branch."""
    ticks = [shorten(one.name, 16) for one in found]
    with styled():
        figure = new_figure(width=WIDTH, height=2.9)
        panels = figure.subplots(1, len(TARGETS) + 1)
        for axes, target in zip(panels, TARGETS, strict=False):
            for part, style in _PART_STYLES.items():
                probes = [one.probe(target, part) for one in found]
                _line(axes, [probe.accuracy for probe in probes], part, style)
            axes.axhline(probes[0].chance, color=QUIET, linewidth=0.8, linestyle=":")
            axes.set_ylim(-0.02, 1.02)
            axes.set_title(target)
        panels[0].set_ylabel("balanced accuracy")
        _information(panels[-1], found)
        for axes in panels:
            axes.set_xticks(range(len(ticks)), ticks, rotation=40, ha="right", rotation_mode="anchor", fontsize=7)
            axes.set_xlim(-0.4, len(ticks) - 0.6)
        handles, labels = panels[0].get_legend_handles_labels()
        more, names = panels[-1].get_legend_handles_labels()
        figure.legend(handles + more, labels + names, loc="outside lower center", ncols=6, fontsize=7.5)
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure


def _line(axes: Axes, estimates: Sequence[Estimate], label: str, style: dict[str, str]) -> None:
    values, low, high = np.array(estimates, float).T
    spread = np.stack([np.maximum(values - low, 0), np.maximum(high - values, 0)])
    axes.errorbar(np.arange(len(values)), values, yerr=spread, label=label, elinewidth=1, **style)  # type: ignore[arg-type]


def _information(axes: Axes, found: Sequence[Purity]) -> None:
    places = np.arange(len(found))
    for index, (estimator, label) in enumerate((("club", "CLUB"), ("knn", "k-NN"))):
        style = series_style(index + 2)
        axes.plot(places, [getattr(one.shared, estimator) for one in found], label=label, **style)
        torn = [getattr(one.shared, f"{estimator}_shuffled") for one in found]
        axes.plot(places, torn, label=f"{label}, torn apart", **style | {"linestyle": ":", "alpha": 0.6})
    axes.set_title("shared, nats")
    axes.axhline(0, color=QUIET, linewidth=0.8, linestyle=":")
