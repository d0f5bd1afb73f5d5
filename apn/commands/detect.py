"""`apn detect`. Its arguments are parsed by argparse: importing typer would take a good part of a cold start."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import tee
from pathlib import Path
from typing import TextIO

from apn.commands import HELP, UsageError


def detect(arguments: Sequence[str]) -> None:
    """Say of each image whether it is AI-generated.

    Exit code 0 if every image was scored, 1 if some failed (the others are still scored), 2 for a usage error.
    """
    options = parser().parse_intermixed_args(arguments)
    from apn.backends import find_weights, open_backend

    # ONNX Runtime opens the graph in a thread of its own while the rest is imported and the first images are decoded.
    backend = open_backend(find_weights(options.weights), options.backend, options.device, wait=False)
    from apn.detector import load
    from apn.image import find_images
    from apn.rows import CsvRows, JsonRows, RowWriter, TableRows, file_now, model_words, open_progress
    from apn.sources import HashedFile

    files = list(find_images(options.paths))
    if not files:
        found = ", ".join(map(str, options.paths))
        raise UsageError(f"no images in {found}: expected image files or folders that hold some")
    if options.csv is not None:
        _spare_images(options.csv, files)
    detector = load(options.weights, backend=backend, calibration=options.calibration)
    model = model_words(detector.describe(), stability=options.stability)
    reading = {"allow_truncated": options.allow_truncated, "max_pixels": options.max_pixels}
    # Two iterators over the same: what the detector has read is known here when its row comes.
    given, hashed = tee(HashedFile(path, **reading) for path in files)
    failed = 0
    with _output(options.csv) as csv_file, open_progress(len(files)) as advance:
        writers: list[RowWriter] = [JsonRows(sys.stdout) if options.json else TableRows(sys.stdout)]
        if csv_file is not None:
            writers.append(CsvRows(csv_file))
        rows = detector.detect_many(
            given, names=map(str, files), stability=options.stability, batch_size=options.batch_size
        )
        for file, row in zip(hashed, rows, strict=True):
            failed += row.error is not None
            filed = file_now(file.sha256, model)
            for writer in writers:
                writer.write(row, filed)
            advance()
    if failed:
        raise ValueError(f"{failed} of {len(files)} images could not be scored")


def parser() -> argparse.ArgumentParser:
    """The arguments of `apn detect`."""
    parser = argparse.ArgumentParser("apn detect", description=detect.__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("paths", nargs="+", type=_named, metavar="IMAGE_OR_FOLDER", help="Images and folders (searched recursively).")
    add("--json", action="store_true", help="One JSON object a line on stdout, in order.")
    add("--csv", type=Path, metavar="FILE", help="Write the rows to a CSV file too.")
    add("--weights", default="apn-mini", help=f"{HELP['weights']} Default: %(default)s.")
    add("--backend", choices=("auto", "onnx", "torch"), default="auto", help=HELP["backend"])
    add("--device", choices=("cpu", "cuda", "mps"), default="cpu", help=f"{HELP['device']} Default: %(default)s.")
    add("--calibration", type=Path, metavar="FILE", help=HELP["calibration"])
    add(
        "--batch-size",
        type=_positive,
        default=16,
        metavar="TILES",
        help="Tiles scored at a time; does not change a score. Default: %(default)s.",
    )
    add(
        "--stability",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Deliver each image a few more ways; `unsure` where verdicts disagree. Up to 5x the work; on by default: "
        "without it, most photographs that were scaled to half or saved as WebP are called generated.",
    )
    add("--allow-truncated", action="store_true", help="Score files that end early, with a warning.")
    add(
        "--max-pixels",
        type=_positive,
        default=200_000_000,
        metavar="PIXELS",
        help="Refuse larger images before decoding. Default: %(default)s.",
    )
    return parser


def _named(text: str) -> Path:
    """An empty name would be the folder we are in: what a script gets of a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("expected the name of an image or folder, found an empty one")
    return Path(text)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return value


def _spare_images(csv: Path, images: Sequence[Path]) -> None:
    """Refuses to write the table over an image: `--csv *.jpg` names the first of them as the table."""
    from apn.image import IMAGE_EXTENSIONS

    taken = csv.suffix.lower() in IMAGE_EXTENSIONS
    exists = os.path.exists  # Path.exists raises where a folder on the way is closed, and that is one image's error
    if taken or (exists(csv) and any(exists(image) and os.path.samefile(csv, image) for image in images)):
        raise UsageError(f"--csv {csv}: expected a file for the table, found an image (the name follows --csv at once)")


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield file
    finally:
        try:
            file.close()  # after a write that failed it tries again, and fails again
        except OSError as error:  # which does not say which file it is
            raise OSError(error.errno, error.strerror, str(path)) from error
