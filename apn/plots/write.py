"""All figures of one table of embeddings, as files."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from apn.embeddings import Branch, Embeddings
from apn.plots.averages import coverage_figure, heat_figure, real_generated_figure
from apn.plots.groups import Colour, Groups, group
from apn.plots.interactive import write_interactive
from apn.plots.projections import TITLES, Method, project
from apn.plots.scatter import apart_figure, sides_figure
from apn.plots.spectra import EACH, AverageSpectrum, average_spectrum, spectra_figure
from apn.report.canvas import save_figure

DPI = 150
PARTS = ("artifact", "irrelevant")


class Format(StrEnum):
    """png and svg: every figure. html: the map of points, to be pointed at."""

    PNG = "png"
    SVG = "svg"
    HTML = "html"


def write_plots(
    embeddings: Embeddings,
    out: Path,
    *,
    method: Method,
    colour: Colour,
    branch: Branch,
    formats: set[Format],
    seed: int = 0,
    warn: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Writes the figures into a folder; returns their paths. warn: told of each image that could not be opened.

    Averages are by generator, where generators are named, else by label; heat maps only where the table has them,
    spectra where an image could be opened.
    Raises ValueError for a colour that no image has a name for, or fewer images than can be laid out.
    """
    groups = group(embeddings.scores, colour)
    points = {part: project(embeddings.part(part, branch), method, seed) for part in PARTS}
    out.mkdir(parents=True, exist_ok=True)
    which = "both branches" if branch == "mean" else f"{branch} branch"
    title = f"{TITLES[method]} of {len(groups.codes)} images, {which}, {embeddings.scores.facts.weights}"
    written = []
    if Format.HTML in formats:
        written.append(write_interactive(embeddings, points, out / "embeddings.html", first=colour, title=title))
    static = sorted(formats - {Format.HTML})
    figures = _figures(embeddings, groups, points, title, seed, warn) if static else ()
    for name, figure in figures:
        for kind in static:
            written.append(out / f"{name}.{kind}")
            save_figure(figure, written[-1], DPI)
    return written


def _figures(
    embeddings: Embeddings,
    groups: Groups,
    points: dict[str, np.ndarray],
    title: str,
    seed: int,
    warn: Callable[[str], None],
) -> Iterator[tuple[str, Figure]]:
    scores = embeddings.scores
    yield "embeddings", sides_figure(points, groups, title)
    by = group(scores, "generator" if scores.generator.present() else "label")
    if scores.generator.present():
        yield "generators-apart", apart_figure(points["artifact"], scores.labels, by, f"{title}: artifact embeddings")
    yield "bands-by-generator", coverage_figure(embeddings, by)
    yield "bands-real-generated", real_generated_figure(embeddings, seed)
    if embeddings.heat_spatial is not None:
        yield "heat-maps", heat_figure(embeddings, by)
    spectra = _spectra(embeddings, by, seed, warn)
    if any(one.images for one in spectra):
        real = next((one for one in spectra if one.name == "real" and one.images), None)
        yield "spectra", spectra_figure(spectra, real)


def _spectra(
    embeddings: Embeddings, groups: Groups, seed: int, warn: Callable[[str], None]
) -> Sequence[AverageSpectrum]:
    """Of at most EACH images of a group, drawn by the seed."""
    size, rng = 2 * (embeddings.coverage.shape[-1] - 1), np.random.default_rng(seed)
    found = []
    for code in np.unique(groups.codes):
        rows = np.flatnonzero(groups.codes == code)
        chosen = rows if len(rows) <= EACH else np.sort(rng.choice(rows, EACH, replace=False))
        paths = [Path(embeddings.scores.paths[int(row)].as_py()) for row in chosen]
        spectrum, failed = average_spectrum(groups.names[code], paths, size)
        found.append(spectrum)
        for reason in failed:
            warn(reason)
    return found
