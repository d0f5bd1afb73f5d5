"""Robustness curves: how the numbers of one detector move as the same images are degraded, from its scores alone.

Intervals are 95 %: of AUC, its change and balanced accuracy by the bootstrap over split groups (the clean image and
all its degraded copies are drawn together); of shares Wilson's, with each split group counted as one image, so that
near copies do not narrow it and a share of 0 still has an upper end.

Dimensions: N rows of a table, I images of the clean condition. Labels: 0 real, 1 generated.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apn.bootstrap import Images, bootstrap, interval
from apn.degradations import CLEAN, GRID
from apn.markdown import as_text, table_row
from apn.metrics import auc, balanced_accuracy
from apn.report.build import called
from apn.report.results import Estimate, Threshold
from apn.report.tables import cell
from apn.scoretable import Category, Scores

UNDEFINED = Estimate(math.nan, math.nan, math.nan)
_Z = 1.959963984540054  # the 97.5 % point of the normal distribution


class Point(NamedTuple):
    """One level of one degradation; its images are those scored both clean and degraded."""

    level: str  # as in the table of scores, "" for the clean images
    images: int
    auc: Estimate
    auc_change: Estimate  # degraded minus clean, of the same images
    balanced_accuracy: Estimate  # at the frozen threshold
    tpr: Estimate  # share of generated images found at the frozen threshold
    fpr: Estimate  # share of real images called generated at the frozen threshold
    decision_flips: Estimate  # share of images whose decision at the frozen threshold is another one than clean
    verdict_flips: Estimate  # the same for the verdict: real, unsure or generated


class Curve(NamedTuple):
    """One degradation under one protocol: the clean point, then the levels, mildest first."""

    detector: str
    protocol: str
    degradation: str
    unit: str  # of the levels
    points: tuple[Point, ...]


POINT_TITLES = {
    "level": "level",
    "images": "images",
    "auc": "AUC",
    "auc_change": "AUC change",
    "balanced_accuracy": "balanced accuracy",
    "tpr": "TPR at the threshold",
    "fpr": "FPR at the threshold",
    "decision_flips": "decision flips",
    "verdict_flips": "verdict flips",
}


class _Rows(NamedTuple):
    """Scored rows of one protocol as arrays (N,); `clean` is the row of the same image as it is, -1 for none."""

    labels: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    called: np.ndarray  # bool: generated at the frozen threshold
    verdicts: np.ndarray  # 0 real, 1 unsure, 2 generated
    groups: np.ndarray  # codes of the split groups
    degradations: np.ndarray  # str
    levels: np.ndarray  # str
    clean: np.ndarray  # row numbers


def measure_curves(
    scores: Scores, detector: str, threshold: Threshold, *, resamples: int = 1000, seed: int = 0
) -> tuple[Curve, ...]:
    """Every curve that the table of one detector holds, protocol by protocol; none where nothing was degraded."""
    curves: list[Curve] = []
    for protocol in scores.protocol.present(~scores.degradation.where(CLEAN)):
        rows = _rows(scores, scores.protocol.where(protocol) & ~scores.failed, threshold)
        paired = np.unique(rows.clean[(rows.clean >= 0) & (rows.degradations != CLEAN)])
        measured = _Bootstrap(rows, resamples, seed)
        start = [measured.point(CLEAN, paired)] if len(paired) else []
        for name in _in_order(set(rows.degradations[_paired(rows)]), list(GRID)):
            points = []
            for level in _in_order(set(rows.levels[rows.degradations == name]), _levels(name)):
                chosen = _paired(rows) & (rows.degradations == name) & (rows.levels == level)
                points.append(measured.point(level, np.flatnonzero(chosen)))
            unit = GRID[name].unit if name in GRID else "level"
            curves.append(Curve(detector, protocol, name, unit, (*start, *points)))
    return tuple(curves)


class _Bootstrap:
    """Points of one protocol, whose intervals all come from the same resamples of split groups."""

    def __init__(self, rows: _Rows, resamples: int, seed: int) -> None:
        self.rows, self.resamples, self.seed = rows, resamples, seed
        self._cached: tuple[bytes, np.ndarray] | None = None  # clean resamples: the same images at nearly all levels

    def point(self, level: str, chosen: np.ndarray) -> Point:
        """The point of these rows (I,), each compared with the clean row of its image."""
        rows, clean = self.rows, self.rows.clean[chosen]
        aucs, balanced = self._resample(chosen)
        found = rows.labels[chosen] == 1
        groups = rows.groups[chosen]
        change = _auc(rows, chosen) - _auc(rows, clean)
        return Point(
            level=level,
            images=len(chosen),
            auc=_estimate(_auc(rows, chosen), aucs),
            auc_change=_estimate(change, aucs - self._clean(clean)),
            balanced_accuracy=_estimate(_balanced_accuracy(rows, chosen), balanced),
            tpr=wilson(rows.called[chosen][found], groups[found]),
            fpr=wilson(rows.called[chosen][~found], groups[~found]),
            decision_flips=wilson(rows.called[chosen] != rows.called[clean], groups),
            verdict_flips=wilson(rows.verdicts[chosen] != rows.verdicts[clean], groups),
        )

    def _clean(self, clean: np.ndarray) -> np.ndarray:
        key = np.sort(clean).tobytes()
        if self._cached is None or self._cached[0] != key:
            self._cached = key, self._resample(clean)[0]
        return self._cached[1]

    def _resample(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUC and balanced accuracy (R,). The groups keep their numbers, so that each resample draws the same ones."""
        rows = self.rows
        columns = rows.labels, rows.logits, rows.probabilities, rows.called, rows.groups
        images = Images(*[column[chosen] for column in columns])
        if not len(chosen):
            return np.full(1, np.nan), np.full(1, np.nan)
        values = bootstrap(images, [np.ones(len(chosen), bool)], resamples=self.resamples, seed=self.seed)
        return values.auc[:, 0], values.balanced_accuracy[:, 0]


def wilson(hits: np.ndarray, groups: np.ndarray) -> Estimate:
    """The share of `hits` (I,) with Wilson's 95 % interval for as many independent images as there are groups (I,).

    Wilson 1927. nan where there is no image.
    """
    n = len(np.unique(groups))
    if not n:
        return UNDEFINED
    share = float(hits.mean())
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    reach = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    # The two ends meet the share exactly where it is 0 or 1; rounding must not put it outside.
    return Estimate(share, max(min(middle - reach, share), 0.0), min(max(middle + reach, share), 1.0))


def markdown(curves: Sequence[Curve]) -> str:
    """One table a detector and protocol, a row a degradation and level."""
    lines: list[str] = []
    title = ""
    for curve in curves:
        if (heading := f"Robustness of {curve.detector}, {curve.protocol}") != title:
            title = heading
            columns = ["degradation", *POINT_TITLES.values()]
            lines += ["", f"## {as_text(title)}", "", table_row(columns), table_row(["---"] * len(columns))]
            lines.append(table_row(["as it is", *_cells(curve.points[0])]))
        lines += [table_row([f"{curve.degradation} ({curve.unit})", *_cells(point)]) for point in curve.points[1:]]
    return "\n".join(lines[1:]) + "\n"


def write_curves(curves: Sequence[Curve], folder: Path) -> list[Path]:
    """robustness.md and robustness.csv, which has each number and both ends of its interval at full precision."""
    written = [folder / "robustness.md", folder / "robustness.csv"]
    written[0].write_text(markdown(curves), encoding="utf-8")
    estimates = [name for name in Point._fields if name not in ("level", "images")]
    with written[1].open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        ends = [f"{name}{end}" for name in estimates for end in ("", "_low", "_high")]
        writer.writerow(["detector", "protocol", "degradation", "unit", "level", "images", *ends])
        for curve in curves:
            for point in curve.points:
                name, unit = ("", "") if point.level == "" else (curve.degradation, curve.unit)
                numbers = [number for field in estimates for number in getattr(point, field)]
                writer.writerow([curve.detector, curve.protocol, name, unit, point.level, point.images, *numbers])
    return written


def _rows(scores: Scores, chosen: np.ndarray, threshold: Threshold) -> _Rows:
    part = scores.take(chosen)
    images = np.asarray(part.paths.dictionary_encode().indices)
    degradations, levels = _texts(part.degradation), _texts(part.level)
    clean_rows = np.flatnonzero(degradations == CLEAN)
    clean_of = np.full(images.max(initial=0) + 1, -1)
    clean_of[images[clean_rows]] = clean_rows
    return _Rows(
        part.labels.astype(int),
        part.logits,
        part.probabilities,
        called(part, threshold),
        _verdicts(part),
        np.unique(part.groups, return_inverse=True)[1],
        degradations,
        levels,
        clean_of[images],
    )


def _texts(column: Category) -> np.ndarray:
    return np.array(column.names, str)[column.codes]


def _verdicts(scores: Scores) -> np.ndarray:
    ends = scores.facts.thresholds.real_below, scores.facts.thresholds.generated_from
    return np.searchsorted(ends, scores.probabilities, side="right")


def _paired(rows: _Rows) -> np.ndarray:
    return (rows.degradations != CLEAN) & (rows.clean >= 0)


def _levels(name: str) -> list[str]:
    return [f"{level:g}" for level in GRID[name].levels] if name in GRID else []


def _in_order(found: set[str], known: Sequence[str]) -> list[str]:
    return [name for name in known if name in found] + sorted(found - set(known))


def _auc(rows: _Rows, chosen: np.ndarray) -> float:
    return auc(rows.labels[chosen], rows.logits[chosen])


def _balanced_accuracy(rows: _Rows, chosen: np.ndarray) -> float:
    return balanced_accuracy(rows.labels[chosen], rows.called[chosen])


def _estimate(value: float, resampled: np.ndarray) -> Estimate:
    low, high = interval(resampled)
    return Estimate(value, float(low), float(high))


def _cells(point: Point) -> Iterator[str]:
    yield point.level or "–"
    yield str(point.images)
    yield from (cell(estimate) for estimate in point[2:])
