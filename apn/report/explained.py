"""Why a detector was wrong: explanation figures of the worst mistakes, for the report's page.

Each image is explained as it was scored, under the same protocol, by the checkpoint whose SHA-256 the table names.
"""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from PIL import Image

from apn.backends import find_weights
from apn.checkpoint import load_model
from apn.detector import Detector, load
from apn.explain_figures import explanation_figure, figure_pixels
from apn.explanations import explain
from apn.image import ImageError
from apn.models.apn import APN
from apn.protocols import Protocol
from apn.report.mistakes import worst_rows
from apn.report.results import Table
from apn.scoretable import Scores

DPI = 120
_TITLES = (
    r"(?P<name>native) .*",
    r"(?P<name>aligned) \((?P<size>\d+) px centre, (?P<codec>JPEG|WebP|PNG)( q(?P<quality>\d+))?\)",
    r"(?P<name>fakes-jpeg) \(.* JPEG q(?P<quality>\d+), .*\)",
)


class Explained(NamedTuple):
    """One mistake. figure: the explanation as data URI, None with a note that says why there is none."""

    title: str
    figure: str | None
    note: str = ""


class Explainer:
    """Opens each checkpoint once. weights: names or folders, beside those shipped under the tables' own names."""

    def __init__(self, weights: Sequence[str] = ()) -> None:
        self.weights = list(weights)
        self._opened: dict[str, tuple[APN, Detector]] = {}

    def __call__(self, scores: Scores, table: Table, count: int) -> list[Explained]:
        """At most `count` false alarms, with the evidence for generated, and as many misses, with that for real.

        Raises ValueError where no checkpoint of the table's detector is found, or it is no APN.
        """
        alarms, misses = worst_rows(scores, table, count)
        if not alarms and not misses:
            return []
        opened = self._open(scores)
        protocol = protocol_of(table.protocol)
        told = [(row, "false alarm", "generated") for row in alarms] + [(row, "miss", "real") for row in misses]
        return [_explained(scores, row, protocol, opened, kind, target) for row, kind, target in told]

    def _open(self, scores: Scores) -> tuple[APN, Detector]:
        facts = scores.facts
        if facts.sha256 not in self._opened:
            for name in [*self.weights, facts.weights]:
                try:
                    folder = find_weights(name)
                except ValueError:
                    if name in self.weights:
                        raise
                    continue
                detector = load(folder)
                if detector.sha256 == facts.sha256:
                    model = load_model(folder)
                    if not isinstance(model, APN):
                        raise ValueError(f"explanations are for an APN, {facts.weights} is a {type(model).__name__}")
                    self._opened[facts.sha256] = model, detector
                    break
            else:
                raise ValueError(
                    f"no checkpoint of {facts.weights} with SHA-256 {facts.sha256[:12]} found: give its folder with "
                    "--explain-weights"
                )
        return self._opened[facts.sha256]


def protocol_of(title: str) -> Protocol:
    """The protocol whose `title` this is. ValueError for any other text."""
    for pattern in _TITLES:
        match = re.fullmatch(pattern, title)
        if match:
            fields: dict[str, Any] = {key: value for key, value in match.groupdict().items() if value is not None}
            fields |= {key: int(fields[key]) for key in ("size", "quality") if key in fields}
            fields |= {"codec": fields["codec"].lower()} if "codec" in fields else {}
            return Protocol(**fields)
    raise ValueError(f"expected the title of a protocol, as a table of scores has it, found {title!r}")


def _explained(
    scores: Scores, row: int, protocol: Protocol, opened: tuple[APN, Detector], kind: str, target: Any
) -> Explained:
    model, detector = opened
    path = scores.paths[row].as_py()
    title = f"{kind}: {'/'.join(PurePath(path).parts[-2:])}"
    try:
        image = protocol.open(Path(path), int(scores.labels[row]))
        found = explain(model, image, detector=detector, target=target, stability=False)
    except ImageError as error:
        return Explained(title, None, str(error))
    model_name = f"{detector.name}, weights {detector.sha256[:12]}"
    pixels = figure_pixels(explanation_figure(found, PurePath(path).name, model_name), DPI)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88, optimize=True)
    return Explained(title, "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode())
