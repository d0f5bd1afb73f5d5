"""The images a detector is most wrong about, as thumbnails that stand in a page."""

import base64
import io
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from apn.image import ImageError, load_image
from apn.report.build import called
from apn.report.results import Table
from apn.report.series import scored
from apn.scoretable import Scores

SHOWN = 8  # of each kind
SIDE = 176  # pixels of a thumbnail's longer side


class Mistake(NamedTuple):
    """One image on the wrong side of the frozen threshold."""

    name: str  # folder, where `origin` is not its name, and file; not the whole path: a page is passed on
    origin: str  # generator or source, "" where nobody said
    probability: float
    thumbnail: str | None  # data URI
    note: str | None  # why there is no thumbnail


def worst(scores: Scores, table: Table) -> tuple[list[Mistake], list[Mistake]]:
    """(false alarms, misses): most confident first, at most `SHOWN` of each; opens these files."""
    rows = scored(scores, table.protocol)
    found = called(scores, table.threshold)
    alarms = np.flatnonzero(rows & (scores.labels == 0) & found)
    misses = np.flatnonzero(rows & (scores.labels == 1) & ~found)
    order = np.argsort(-scores.logits[alarms], kind="stable"), np.argsort(scores.logits[misses], kind="stable")
    return (
        [_mistake(scores, row) for row in alarms[order[0][:SHOWN]]],
        [_mistake(scores, row) for row in misses[order[1][:SHOWN]]],
    )


def _mistake(scores: Scores, row: int) -> Mistake:
    path = scores.paths[row].as_py()
    origin = scores.generator if scores.labels[row] else scores.source
    thumbnail = note = None
    try:
        thumbnail = _thumbnail(Path(path))
    except ImageError as error:
        note = str(error)
    known, parts = origin.names[origin.codes[row]], PurePath(path).parts[-2:]
    name = "/".join(parts[-1:] if parts[0] == known else parts)
    return Mistake(name, known, float(scores.probabilities[row]), thumbnail, note)


def _thumbnail(path: Path) -> str:
    """As the detector's own loader decodes it, upright and on white. Raises ImageError."""
    from PIL import Image

    image = Image.fromarray(load_image(path).pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
