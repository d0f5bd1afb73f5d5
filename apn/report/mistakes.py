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
    alarms, misses = worst_rows(scores, table, SHOWN)
    return [_mistake(scores, row) for row in alarms], [_mistake(scores, row) for row in misses]


def worst_rows(scores: Scores, table: Table, count: int) -> tuple[list[int], list[int]]:
    """Rows of (false alarms, misses), most confident first, at most `count` of each."""
    rows = scored(scores, table.protocol)
    found = called(scores, table.threshold)
    alarms = np.flatnonzero(rows & (scores.labels == 0) & found)
    misses = np.flatnonzero(rows & (scores.labels == 1) & ~found)
    order = np.argsort(-scores.logits[alarms], kind="stable"), np.argsort(scores.logits[misses], kind="stable")
    return alarms[order[0][:count]].tolist(), misses[order[1][:count]].tolist()


def _mistake(scores: Scores, row: int) -> Mistake:
    path = scores.paths[row].as_py()
    known = origin(scores, row)
    shown = note = None
    try:
        shown = thumbnail(Path(path))
    except ImageError as error:
        note = str(error)
    return Mistake(short_name(path, known), known, float(scores.probabilities[row]), shown, note)


def origin(scores: Scores, row: int) -> str:
    """Generator or source of an image, "" where nobody said."""
    column = scores.generator if scores.labels[row] else scores.source
    return column.names[column.codes[row]]


def short_name(path: str, known: str) -> str:
    """Folder, where it is not the name known already, and file."""
    parts = PurePath(path).parts[-2:]
    return "/".join(parts[-1:] if parts[0] == known else parts)


def thumbnail(path: Path, side: int = SIDE, quality: int = 80) -> str:
    """A JPEG as data URI, as the detector's own loader decodes the file, upright and on white. Raises ImageError."""
    from PIL import Image

    image = Image.fromarray(load_image(path).pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
