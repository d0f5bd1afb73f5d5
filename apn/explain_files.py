"""An explanation as files: the figure, its parts, and JSON with the bands in cycles per pixel."""

import json
import re
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from apn.detector import Detector
from apn.explain_figures import explanation_sheet, figure_pixels
from apn.explain_parts import Part, all_parts
from apn.explanations import Explanation
from apn.report.canvas import save_figure
from apn.rows import file_now, model_words
from apn.words import as_utf8

DPI = 200  # of figures as PNG
LONGEST_NAME = 120  # bytes: file systems allow 255, and endings come after it


class Format(StrEnum):
    """What to write of each image."""

    PNG = "png"  # the figure, and each part beside it
    SVG = "svg"  # the figure, its text as text
    JSON = "json"  # the verdict, the tiles and the bands


class FileNames:
    """A safe name for each image of a run, no two alike: its letters with their marks, digits, dots and dashes."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, path: str) -> str:
        """Raises nothing: whatever the path holds, the name is that of a file in the folder that is written to."""
        safe = "".join(map(_safe, Path(path).stem)).strip(".") or "image"
        safe = safe.encode("utf-8", "replace")[:LONGEST_NAME].decode("utf-8", "ignore")
        name, number = safe, 1
        while _alike(name) in self._taken:
            number += 1
            name = f"{safe}-{number}"
        self._taken.add(_alike(name))
        return name


def _alike(name: str) -> str:
    """The same for names that a file system may take for one: A and a; on macOS accents in their letter or after it."""
    return unicodedata.normalize("NFC", name.casefold())


def _safe(sign: str) -> str:
    """The sign itself, or `_`. Marks stay, as the vowels of Hindi and Thai and accents as macOS writes them."""
    mark = unicodedata.category(sign) in {"Mn", "Mc"} and "SELECTOR" not in unicodedata.name(sign, "")
    return sign if mark or re.match(r"[\w.-]", sign) else "_"


def write_explanation(
    explanation: Explanation, folder: Path, name: str, formats: set[Format], detector: Detector, *, stability: bool
) -> list[Path]:
    """Writes `folder`/`name`.* and, with the PNG, `name`-parts/*.png; files of the same name are replaced.

    stability: whether the check was on; the JSON says so beside the verdict. Returns what was written, the figures
    first. Raises OSError where that is not possible, and ValueError where it would replace the image itself.
    """
    for kind in formats:
        _spare(Path(explanation.detection.path), folder / f"{name}.{kind}")
    folder.mkdir(parents=True, exist_ok=True)
    title, model = Path(explanation.detection.path).name, f"{detector.name}, weights {detector.sha256[:12]}"
    written, parts_written = [], []
    parts = all_parts(explanation) if formats - {Format.JSON} else []
    with ThreadPoolExecutor(1) as beside:  # encoding leaves the interpreter to Matplotlib, which draws meanwhile
        if Format.PNG in formats:
            parts_folder = folder / f"{name}-parts"
            parts_folder.mkdir(exist_ok=True)
            parts_saved = beside.submit(_save_parts, parts, parts_folder)
        if parts:
            sheet = explanation_sheet(explanation, title, model, parts)
        if Format.PNG in formats:
            pixels = figure_pixels(sheet.figure, DPI)
            written.append(_save_pixels(pixels, folder / f"{name}.png"))
            parts_written.append(_save_pixels(sheet.spectrum_pixels(pixels), parts_folder / "spectrum.png"))
            parts_written += parts_saved.result()
        if Format.SVG in formats:
            written.append(folder / f"{name}.svg")
            save_figure(sheet.figure, written[-1])
        if Format.JSON in formats:
            written.append(folder / f"{name}.json")
            text = json.dumps(explanation_json(explanation, detector, stability=stability), indent=2)
            written[-1].write_text(text + "\n", encoding="utf-8")
    return written + parts_written


def _spare(image: Path, target: Path) -> None:
    if target.exists() and image.exists() and target.samefile(image):
        raise ValueError(f"{target} is the image that is explained: expected another folder for what is written")


def _save_pixels(pixels: np.ndarray, path: Path) -> Path:
    """A tenth larger than with Pillow's own level, in less than half of the time."""
    Image.fromarray(pixels).save(path, dpi=(DPI, DPI), compress_level=2)
    return path


def _save_parts(parts: Sequence[Part], folder: Path) -> list[Path]:
    written = [folder / f"{part.name}.png" for part in parts]
    for part, path in zip(parts, written, strict=True):
        Image.fromarray(part.pixels).save(path, compress_level=1)
    return written


def explanation_json(explanation: Explanation, detector: Detector, *, stability: bool) -> dict[str, Any]:
    """Verdict, tiles, heat-map peaks and bands as JSON values; frequencies in cycles per pixel, 0 to 0.5 and signed.

    stability: whether the check was on.
    """
    row = explanation.detection.to_dict()
    row["path"] = as_utf8(row["path"])
    model = model_words(detector.describe(), stability=stability)
    return {
        **file_now(explanation.sha256, model)._asdict(),
        "detection": row,
        "target": explanation.target,
        "heat_map_peaks": {name: getattr(explanation, name).peak for name in ("evidence", "spatial", "frequency")},
        **bands_json(explanation),
    }


def bands_json(explanation: Explanation) -> dict[str, Any]:
    """The tile whose bands these are, and the bands, the one that speaks most for the target first."""
    tile = explanation.bands.tile
    return {
        "tile": {"left": tile.left, "top": tile.top, "size": tile.size},
        "unit": "cycles per pixel",
        "bands": [
            {
                "number": band.index + 1,
                "weight": band.weight,
                "effect": band.effect,
                "intervals": [interval._asdict() for interval in band.intervals],
            }
            for band in explanation.bands.bands
        ],
    }
