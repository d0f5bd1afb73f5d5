"""The map of points as one HTML file that needs nothing else: thumbnails stand in it, nothing is fetched.

Every name passes through the template's escaping; the page's own policy forbids any request.
Dimensions: N images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import jinja2
import numpy as np
from matplotlib.colors import to_hex

from apn.embeddings import Embeddings
from apn.image import ImageError
from apn.plots.groups import COLOURS, Colour, Groups, group
from apn.report.mistakes import thumbnail
from apn.threads import ahead
from apn.version import __version__
from apn.words import printable, probability_words

SIDE, QUALITY = 96, 70  # of a thumbnail: pixels of its longer side, JPEG quality


def write_interactive(
    embeddings: Embeddings, points: Mapping[str, np.ndarray], path: Path, *, first: Colour, title: str
) -> Path:
    """Writes the page. points: (N, 2) of each panel, by its name. first: the colouring it opens with.

    Opens every image; one that is gone is shown as a note. Columns that no image fills are not offered as colours.
    """
    scores = embeddings.scores
    page = {
        "first": first,
        "panels": [{"name": name, "points": _unit(places)} for name, places in points.items()],
        "colourings": {by: _colouring(found) for by, found in _groups(embeddings).items()},
        "images": _images(embeddings),
        "thumbnails": thumbnails([Path(path.as_py()) for path in scores.paths]),
    }
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {}  # not sorted: colours in their own order
    text = environment.get_template("points.html").render(page=page, title=title, version=__version__)
    path.write_text(text, encoding="utf-8")
    return path


def thumbnails(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Of each file {"image": a data URI}, or {"note": why there is none}."""
    return list(ahead(_thumbnail, paths, workers=2))


def _thumbnail(path: Path) -> dict[str, str]:
    try:
        return {"image": thumbnail(path, SIDE, QUALITY)}
    except ImageError as error:
        return {"note": str(error)}


def _unit(points: np.ndarray) -> list[list[float]]:
    """Stretched over the unit square, as in the static figures; four digits are a tenth of a pixel."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.round((points - low) / np.maximum(high - low, 1e-12), 4).tolist()


def _groups(embeddings: Embeddings) -> dict[Colour, Groups]:
    said = {by: by == "label" or bool(getattr(embeddings.scores, by).present()) for by in COLOURS}
    return {by: group(embeddings.scores, by) for by in COLOURS if said[by]}


def _colouring(groups: Groups) -> dict[str, Any]:
    styles = [groups.style(code) for code in range(len(groups.names))]
    return {
        "codes": groups.codes.tolist(),
        "names": [printable(name) for name in groups.names],
        "colours": [to_hex(style["color"]) for style in styles],
        "markers": [style["marker"] for style in styles],
    }


def _images(embeddings: Embeddings) -> list[list[str]]:
    """Lines of text of each image: file, label with generator and source, probability."""
    scores = embeddings.scores
    lines = []
    for row, path in enumerate(scores.paths):
        origin = [column.names[column.codes[row]] for column in (scores.generator, scores.source, scores.scene)]
        label = "generated" if scores.labels[row] else "real"
        told = ", ".join(dict.fromkeys(filter(None, [label, *origin])))
        probability = f"probability {probability_words(scores.probabilities[row])}"
        lines.append([printable("/".join(PurePath(path.as_py()).parts[-2:])), printable(told), probability])
    return lines
