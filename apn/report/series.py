"""From scores to what the figures draw. Only images as they are, not degraded ones; failed ones are left out.

Dimensions: N images, P points of a curve, B bins. Labels: 0 real, 1 generated.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.metrics import roc_curve

from apn.calibration import ECE_BINS
from apn.degradations import CLEAN
from apn.report.build import UNNAMED
from apn.report.curves import POINT_TITLES, Curve, wilson
from apn.report.figures import Dots, Group, Line, Panel, Reliability, RocCurve
from apn.report.results import Estimate, Report, Table
from apn.scoretable import Scores

_MOST_POINTS = 400  # of a drawn ROC curve: more than pixels can show
_PANEL_LINES = ("auc", "balanced_accuracy", "tpr", "decision_flips")


def scored(scores: Scores, protocol: str) -> np.ndarray:
    """Mask (N,) of the rows that a table of this protocol is made of."""
    return scores.protocol.where(protocol) & scores.degradation.where(CLEAN) & ~scores.failed


def overall_tables(report: Report) -> Iterator[tuple[int, Table]]:
    """One table a detector and protocol, with the detector's number."""
    labels = [detector.label for detector in report.detectors]
    seen: set[tuple[str, str]] = set()
    for table in report.tables:
        if (table.detector, table.protocol) not in seen:
            seen.add((table.detector, table.protocol))
            yield labels.index(table.detector), table


def roc(scores: Scores, table: Table) -> RocCurve | None:
    """None where only one class is there."""
    rows = scored(scores, table.protocol)
    labels = scores.labels[rows]
    if not 0 < labels.sum() < len(labels):
        return None
    fpr, tpr, _ = roc_curve(labels, scores.logits[rows])
    if len(fpr) > _MOST_POINTS:
        # Evenly along the curve, so that its steep start, where false alarms are rare, keeps its points.
        way = np.cumsum(np.hypot(np.diff(fpr, prepend=0), np.diff(tpr, prepend=0)))
        kept = np.unique(np.searchsorted(way, np.linspace(0, way[-1], _MOST_POINTS)).clip(max=len(way) - 1))
        fpr, tpr = fpr[kept], tpr[kept]
    return RocCurve(table.detector, fpr, tpr, table.rows[0].metrics.auc)


def reliability(scores: Scores, table: Table, bins: int = ECE_BINS) -> Reliability:
    """The bins of the expected calibration error that hold images, each share with Wilson's interval over groups."""
    rows = scored(scores, table.protocol)
    probabilities, labels, groups = scores.probabilities[rows], scores.labels[rows], scores.groups[rows]
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    members = [np.flatnonzero(place == number) for number in np.unique(place)]
    observed, low, high = np.array([wilson(labels[one] == 1, groups[one]) for one in members]).reshape(-1, 3).T
    predicted = np.array([probabilities[one].mean() for one in members])
    images = np.array([len(one) for one in members], int)
    return Reliability(table.detector, predicted, observed, low, high, images)


def histograms(scores: Scores, table: Table) -> list[Group]:
    """All real images first, then those of each generator, then generated ones of which nobody said the generator."""
    rows = scored(scores, table.protocol)
    part = scores.take(rows)
    groups = [Group("real", False, part.probabilities[part.labels == 0])]
    for name in (*part.generator.present(part.labels == 1), ""):
        chosen = part.generator.where(name) & (part.labels == 1)
        groups.append(Group(name or UNNAMED, True, part.probabilities[chosen]))
    return [group for group in groups if len(group.probabilities)]


def auc_by_group(tables: Sequence[Table]) -> tuple[list[str], list[Dots]]:
    """Rows, the lowest mean AUC last, and a series a table: one detector under several protocols, by one kind."""
    nothing = Estimate(np.nan, np.nan, np.nan)
    found = [{row.name: row.metrics.auc for row in table.rows if row.kind == "group"} for table in tables]
    names = sorted({name for one in found for name in one})

    def mean(name: str) -> float:
        values = [one[name].value for one in found if name in one and not np.isnan(one[name].value)]
        return float(np.mean(values)) if values else -1.0

    names.sort(key=mean, reverse=True)
    return names, [
        Dots(table.protocol, [one.get(name, nothing) for name in names])
        for table, one in zip(tables, found, strict=True)
    ]


def panel(curve: Curve) -> Panel:
    """What a curve's figure shows; the rest is in its table."""
    lines = [Line(POINT_TITLES[name], [getattr(point, name) for point in curve.points]) for name in _PANEL_LINES]
    return Panel(curve.degradation, curve.unit, [point.level or "clean" for point in curve.points], lines)
