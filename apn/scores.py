"""Labelled logits, from a table of scores or by scoring labelled images."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apn.data.layouts import read_data
from apn.data.samples import require_both_classes

if TYPE_CHECKING:
    from apn.detector import Detector


def labelled_logits(location: str, open_detector: "Callable[[], Detector]") -> tuple[np.ndarray, np.ndarray]:
    """logits (N,), generated minus real, and labels (N,), 0 real or 1 generated.

    location: a table of `apn score`, a CSV or JSONL file with columns `logit` and `label`, else images as `read_data`
    takes them, which are scored by the detector (opened only then). Raises ValueError that names the row or the files
    that have no score.
    """
    path = Path(location)
    if path.suffix == ".parquet":
        return _from_table(path)
    if path.is_file() and "logit" in _columns(path):
        pairs = [_pair(path, number, row) for number, row in enumerate(_rows(path), start=1)]
        return np.array([logit for logit, _ in pairs]), np.array([label for _, label in pairs])
    samples = read_data(location)
    require_both_classes(samples)
    rows = open_detector().detect_many((sample.path for sample in samples), stability=False)
    logits, failed = [], []
    for row in rows:
        logits.append(row.logit)
        if row.error is not None:
            failed.append(f"{row.path}: {row.error}")
    _require_scores(failed, len(samples))
    return np.array(logits, float), np.array([sample.label for sample in samples])


def _from_table(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from apn.scoretable import read_scores

    (scores,) = read_scores([path])
    failed = [f"{scores.paths[int(row)]}: {scores.errors[int(row)]}" for row in np.flatnonzero(scores.failed)]
    _require_scores(failed, len(scores.labels))
    return scores.logits, scores.labels.astype(int)


def _require_scores(failed: list[str], images: int) -> None:
    if failed:
        raise ValueError(f"{len(failed)} of {images} images have no score:\n  " + "\n  ".join(failed[:20]))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            yield from csv.DictReader(file)
        else:
            yield from (json.loads(line) for line in file if line.strip())


def _columns(path: Path) -> set[str]:
    try:
        return set(next(_rows(path), {}))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is neither CSV nor JSON lines: {error}") from error


def _pair(path: Path, number: int, row: dict[str, Any]) -> tuple[float, int]:
    try:
        logit, label = float(row["logit"]), int(row["label"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}, row {number}: expected a number `logit` and a `label` of 0 or 1, found {row}"
        ) from error
    if label not in (0, 1) or not np.isfinite(logit):
        raise ValueError(f"{path}, row {number}: expected a finite logit and a label of 0 or 1, found {logit}, {label}")
    return logit, label
