"""Detections as they leave `apn detect`: a table to read, JSON lines, CSV. A row is flushed as soon as it is known."""

import csv
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TextIO

from apn.detection import Detection
from apn.words import as_utf8, frames_words, hanging, printable, probability_words

COLUMNS = (
    "path", "verdict", "probability", "logit", "width", "height", "format", "frames", "error", "warnings", "stability",
    "metadata", "sha256", "judged", "model",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for the beginning of one
COLOURS = {"generated": "\x1b[31m", "real": "\x1b[32m", "unsure": "\x1b[33m", "error": "\x1b[35m"}
RESET = "\x1b[0m"


class Filed(NamedTuple):
    """What a verdict that is filed away has to say beside it.

    sha256: of the bytes that were judged, in hexadecimal; None where it was not scored. judged: when, in UTC.
    model: name, version and sha256 of the weights, the thresholds in use, and whether the stability check was on.
    """

    sha256: str | None = None
    judged: str | None = None
    model: dict[str, Any] | None = None


_UNFILED = Filed()


def model_words(described: dict[str, Any], *, stability: bool) -> dict[str, Any]:
    """The model of a `Filed`, from `Detector.describe`."""
    thresholds = described["checked_thresholds" if stability else "thresholds"]
    return {
        **{name: described[name] for name in ("name", "version", "sha256")},
        **{name: thresholds[name] for name in ("real_below", "generated_from")},
        "stability": stability,
    }


def file_now(sha256: str | None, model: dict[str, Any]) -> Filed:
    """What to say beside a row that was judged just now."""
    return Filed(sha256, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), model)


class RowWriter(Protocol):
    """Takes detections one by one."""

    def write(self, row: Detection, filed: Filed) -> None: ...


class JsonRows:
    """One JSON object a line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: Detection, filed: Filed = _UNFILED) -> None:
        fields = {**row.to_dict(), "path": as_utf8(row.path), **filed._asdict()}
        self._file.write(json.dumps(fields) + "\n")
        self._file.flush()


class CsvRows:
    """COLUMNS with a header; lists, metadata and model are JSON in their cell, the tiles are left out.

    UTF-8 without a mark in front, which other readers than Excel take for a part of the first name. A path that a
    spreadsheet would take for a formula is written `./=1.jpg`, which is the same file.
    """

    def __init__(self, file: TextIO) -> None:
        self._file, self._writer = file, csv.writer(file)
        self._writer.writerow(COLUMNS)

    def write(self, row: Detection, filed: Filed = _UNFILED) -> None:
        fields = {**row.to_dict(), **filed._asdict()}
        fields["path"] = f"./{row.path}" if row.path.startswith(_FORMULA) else row.path
        cells = (fields[name] for name in COLUMNS)
        self._writer.writerow(
            json.dumps(cell)
            if isinstance(cell, tuple | dict) and cell
            else as_utf8(str(cell))
            if cell
            else _empty(cell)
            for cell in cells
        )
        self._file.flush()


def _empty(cell: object) -> object:
    """0 and 0.0 are values; None and empty collections are empty cells."""
    return cell if isinstance(cell, int | float) else ""


class TableRows:
    """A line an image, the widest column last, so that rows can be printed before all of them are known."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._terminal = file, file.isatty()
        self._started = False

    def write(self, row: Detection, filed: Filed = _UNFILED) -> None:
        if not self._started:
            self._file.write(f"{'verdict':<10} {'probability':>11}  {'size':<13} {'format':<8} file\n")
            self._started = True
        verdict = row.verdict or "error"
        score = "" if row.probability is None else probability_words(row.probability)
        size = "" if row.width is None else f"{row.width} x {row.height}"
        word = f"{verdict:<10}"
        if self._terminal:
            word = f"{COLOURS[verdict]}{word}{RESET}"
        self._file.write(f"{word} {score:>11}  {size:<13} {row.format or '':<8} {printable(row.path)}\n")
        notes = [*filter(None, (row.error, frames_words(row))), *row.warnings]
        notes += [f"found in the file: {key}: {value}" for key, value in row.metadata.items()]
        width = shutil.get_terminal_size().columns if self._terminal else None
        for note in notes:
            self._file.write(f"{hanging(printable(note), width, indent=12)}\n")
        self._file.flush()


@contextmanager
def open_progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar with images per second on stderr, where that is a terminal and there is more than one image.

    Yields what to call after each row. Rows written to `sys.stdout` meanwhile appear above the bar.
    """
    if not sys.stderr.isatty() or total < 2:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as progress:
        task, started = progress.add_task("", total=total, rate=""), time.perf_counter()
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            progress.update(task, advance=1, rate=f"{done / (time.perf_counter() - started):.1f} images/s")

        yield advance
