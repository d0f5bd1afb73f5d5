"""Labelled logits, from a table of scores or by scoring labelled images."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from apn.calibration import Calibration, require_both
from apn.data.layouts import read_data
from apn.data.samples import require_both_classes

if TYPE_CHECKING:
    from apn.detector import Detector


class Labelled(NamedTuple):
    """Of N images: logits (N,), generated minus real, and labels (N,), 0 real or 1 generated.

    extremes: (N, 2), the lowest and the highest logit of an image and its re-deliveries (apn/deliveries.py), NaN where
    they were not scored; None where none was. sha256: of the weights that made the logits; None if unknown.
    """

    logits: np.ndarray
    labels: np.ndarray
    extremes: np.ndarray | None = None
    sha256: str | None = None


def labelled_logits(location: str, open_detector: "Callable[[], Detector]", *, stability: bool = False) -> Labelled:
    """What a calibration is fitted to.

    location: a table of `apn score`, of one protocol, whose degraded rows are left out; a CSV or JSONL file with
    columns `logit` and `label`, and perhaps `lowest` and `highest`; else images as `read_data` takes them, which are
    scored by the detector (opened only then).
    stability: score re-deliveries of these images too.
    Raises ValueError that names the row or the files that have no score, and before it scores any where a class has too
    few images to calibrate on.
    """
    path = Path(location)
    if path.suffix == ".parquet":
        return _from_table(path)
    if path.is_file() and "logit" in _columns(path):
        rows = [_row(path, number, row) for number, row in enumerate(_rows(path), start=1)]
        logits, labels, *bounds = (np.array(column) for column in zip(*rows, strict=True))
        return Labelled(logits, labels, _bounds(np.column_stack(bounds)))
    samples = read_data(location)
    require_both_classes(samples, location)
    generated = sum(sample.label for sample in samples)
    require_both(len(samples) - generated, generated, "to calibrate on")
    detector = open_detector()
    detector.calibration = Calibration()  # one threshold: no image is `unsure` before its re-deliveries are scored
    found, extremes, failed = [], [], []
    for row in detector.detect_many((sample.path for sample in samples), stability=stability):
        if row.logit is None:
            failed.append(f"{row.path}: {row.error}")
        else:
            found.append(row.logit)
            again = [delivery.logit for delivery in row.stability]  # none of a picture smaller than a crop
            extremes.append((min(row.logit, *again), max(row.logit, *again)) if again else (np.nan, np.nan))
    _require_scores(failed, len(samples))
    labels = np.array([sample.label for sample in samples])
    return Labelled(np.array(found), labels, _bounds(extremes), detector.sha256)


def _bounds(extremes: ArrayLike) -> np.ndarray | None:
    """(N, 2) as in `Labelled`: None where no image has any."""
    bounds = np.asarray(extremes, float)
    return bounds if np.isfinite(bounds).any() else None


def _from_table(path: Path) -> Labelled:
    """Of the images as they are under its one protocol: a promise for new images needs each of them once."""
    from apn.scoretable import read_scores

    (scores,) = read_scores([path])
    scores = scores.take(scores.degradation.where(""))
    if len(protocols := scores.protocol.present()) > 1:
        raise ValueError(
            f"{path}: expected scores under one protocol, found {', '.join(protocols)}: score the images again with "
            "`apn score --protocol native`, or write the logits that are meant to a CSV file"
        )
    failed = [f"{scores.paths[int(row)]}: {scores.errors[int(row)]}" for row in np.flatnonzero(scores.failed)]
    _require_scores(failed, len(scores.labels))
    return Labelled(scores.logits, scores.labels.astype(int), sha256=scores.facts.sha256 or None)


def _require_scores(failed: list[str], images: int) -> None:
    if failed:
        raise ValueError(f"{len(failed)} of {images} images have no score:\n  " + "\n  ".join(failed[:20]))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # without the mark that spreadsheets put first
        if path.suffix.lower() == ".csv":
            yield from csv.DictReader(file)
        else:
            yield from (json.loads(line) for line in file if line.strip())


def _columns(path: Path) -> set[str]:
    try:
        return set(next(_rows(path), {}))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is neither CSV nor JSON lines: {error}") from error


def _row(path: Path, number: int, row: dict[str, Any]) -> tuple[float, int, float, float]:
    """Logit, label, lowest and highest logit, both NaN where the row has none."""
    try:
        logit, label = float(row["logit"]), int(row["label"])
        lowest, highest = (float("nan" if row.get(name) in (None, "") else row[name]) for name in ("lowest", "highest"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}, row {number}: expected a number `logit` and a `label` of 0 or 1, found {row}"
        ) from error
    if label not in (0, 1) or not np.isfinite(logit):
        raise ValueError(f"{path}, row {number}: expected a finite logit and a label of 0 or 1, found {logit}, {label}")
    if lowest > logit or highest < logit or np.isnan(lowest) != np.isnan(highest):
        raise ValueError(
            f"{path}, row {number}: expected lowest <= logit <= highest, found {lowest}, {logit}, {highest}"
        )
    return logit, label, lowest, highest
