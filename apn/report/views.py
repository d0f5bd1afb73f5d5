"""The tables and sentences of the page, ready for the template: text only, nothing escaped yet."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from apn.metrics import LOWER_IS_BETTER, METRIC_TITLES, Metrics
from apn.report.curves import POINT_TITLES, Curve
from apn.report.figures import Panel
from apn.report.results import Estimate, Report, Row, ShortcutProbe, Table
from apn.report.tables import COMPARED, SIDE_BY_SIDE, cell, span

GROUP_EXPLANATIONS = {
    "generator": "Each generator's images against the real ones. Mean: over the generators, each counted alike.",
    "scene": "Real and generated images of each scene. Mean: over the scenes, each counted alike.",
}


class Cell(NamedTuple):
    """A number, its interval in brackets below it, and whether it is the best of its column or row."""

    value: str
    interval: str = ""
    best: bool = False


class Line(NamedTuple):
    name: str
    cells: list[Cell]
    note: str = ""
    kind: str = "group"


class View(NamedTuple):
    """One table; columns[0] stands over the names of the rows."""

    caption: str
    columns: list[str]
    rows: list[Line]


class Key(NamedTuple):
    """One large number of the summary."""

    label: str
    value: str
    note: str


def words(estimate: Estimate) -> str:
    """As the tables in Markdown say it."""
    return cell(estimate)


def to_cell(estimate: Estimate, best: bool = False) -> Cell:
    value, _, interval = cell(estimate).partition(" (")
    return Cell(value, interval.removesuffix(")"), best)


def listed(names: Sequence[str], most: int = 4) -> str:
    """a, b and c; the rest as a number."""
    shown = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


# Summary --------------------------------------------------------------------------------------------------------------


def subtitle(report: Report) -> str:
    data = list(dict.fromkeys(spec for detector in report.detectors for spec in detector.data))
    protocol = report.tables[0].protocol
    overall = [table.rows[0] for table in _first_tables(report) if table.protocol == protocol]
    real, generated = span(row.real for row in overall), span(row.generated for row in overall)
    return f"{real} real and {generated} generated images, {protocol}" + (f"; data: {listed(data)}" if data else "")


def keys(report: Report) -> list[Key]:
    """AUC under each protocol and the probe's, where one detector's fit on a line."""
    found = [
        Key(f"AUC, {table.protocol}", f"{auc.value:.3f}", _interval(auc))
        for table in report.tables
        if len(report.detectors) == 1 and table.by == "generator" and _defined(auc := table.rows[0].metrics.auc)
    ]
    for one in _first_probes(report):
        if found and _defined(one.auc):
            found.append(
                Key(f"AUC of file facts alone, {short(one.protocol)}", f"{one.auc.value:.3f}", _interval(one.auc))
            )
    return found


def thresholds(report: Report) -> list[str]:
    """Where each detector's frozen threshold lies and comes from."""
    origins = dict.fromkeys((table.detector, table.threshold.origin) for table in report.tables)
    return [f"Balanced accuracy of {detector} at threshold {origin}." for detector, origin in origins]


def warnings(report: Report) -> list[str]:
    """What a reader must know before the first number."""
    found = []
    for one in _first_probes(report):
        if _defined(one.auc) and one.auc.low > 0.5:
            found.append(
                f"File facts alone tell the label of {one.data}, {one.protocol}, with AUC {cell(one.auc)}: "
                f"a detector's AUC up to there need not come from what a picture shows."
            )
    if not report.probes:
        found.append("No shortcut probe was stored with these scores: what file facts alone would reach is not known.")
    if report.failed:
        found.append(f"{report.failed} scores are missing because a file could not be read; they count nowhere else.")
    return found


def side_by_side(report: Report) -> View:
    """A row a detector, and under each protocol what matters most; best of each column."""
    tables = _first_tables(report)
    protocols = list(dict.fromkeys(table.protocol for table in tables))
    columns = [f"{getattr(METRIC_TITLES, name)}, {short(protocol)}" for protocol in protocols for name in SIDE_BY_SIDE]
    rows = []
    for detector in report.detectors:
        cells = []
        for protocol in protocols:
            own = [one for one in tables if (one.detector, one.protocol) == (detector.label, protocol)]
            rivals = [one.rows[0].metrics for one in tables if one.protocol == protocol]
            for name in SIDE_BY_SIDE:
                cells.append(_ranked(own[0].rows[0].metrics, rivals, name) if own else Cell(""))
        rows.append(Line(detector.label, cells))
    return View(f"All images: {'; '.join(protocols)}", ["detector", *columns], rows)


def comparisons(report: Report) -> list[View]:
    """Where there are several detectors: their means over generators, a table a protocol."""
    views = []
    for protocol in dict.fromkeys(table.protocol for table in report.tables):
        tables = [table for table in report.tables if (table.protocol, table.by) == (protocol, "generator")]
        means = [table.rows[-1].metrics for table in tables]
        if len(tables) > 1 and tables[0].rows[-1].kind == "mean":
            rows = [
                Line(table.detector, [_ranked(own, means, name) for name in COMPARED])
                for table, own in zip(tables, means, strict=True)
            ]
            columns = [getattr(METRIC_TITLES, name) for name in COMPARED]
            views.append(View(f"Mean over generators: {protocol}", ["detector", *columns], rows))
    return views


def short(protocol: str) -> str:
    """The protocol's name without its settings."""
    return protocol.split(" (")[0]


# Tables ---------------------------------------------------------------------------------------------------------------


def by_group(report: Report, tables: Sequence[Table]) -> View:
    """AUC: a row a group, a column a detector and protocol; best of the detectors under each protocol."""
    by = tables[0].by
    names = list(dict.fromkeys(row.name for table in tables for row in table.rows))
    order = {"all": 0, "group": 1, "mean": 2}
    found = [{row.name: row for row in table.rows} for table in tables]
    kinds = {row.name: row.kind for table in tables for row in table.rows}
    rows = []
    for name in sorted(names, key=lambda name: order[kinds[name]]):
        cells = []
        for table, own in zip(tables, found, strict=True):
            rivals = [
                other[name].metrics
                for rival, other in zip(tables, found, strict=True)
                if rival.protocol == table.protocol and name in other
            ]
            cells.append(_ranked(own[name].metrics, rivals, "auc") if name in own else Cell(""))
        counted = [own[name] for own in found if name in own]
        rows.append(Line(name, cells, _counts(counted), kinds[name]))
    several = len(report.detectors) > 1
    columns = [f"{table.detector}, {short(table.protocol)}" if several else table.protocol for table in tables]
    protocols = dict.fromkeys(table.protocol for table in tables)
    return View(f"AUC by {by}: {'; '.join(protocols)}", [by, *columns], rows)


def full(table: Table) -> View:
    """Every metric of one table."""
    rows = [Line(row.name, [to_cell(one) for one in row.metrics], _counts([row]), row.kind) for row in table.rows]
    return View(f"{table.title}; threshold {table.threshold.origin}", [table.by, *METRIC_TITLES], rows)


def robustness(curves: Sequence[Curve], caption: str) -> View:
    """A row a degradation and level, the clean images first."""
    titles = [title for name, title in POINT_TITLES.items() if name != "level"]
    rows = []
    for number, curve in enumerate(curves):
        for point in curve.points[0 if number == 0 else 1 :]:
            cells = [Cell(str(point.images)), *(to_cell(one) for one in point[2:])]
            name = f"{curve.degradation} {point.level}" if point.level else "as it is"
            rows.append(Line(name, cells, curve.unit if point.level else "", "group" if point.level else "all"))
    return View(caption, ["degradation", *titles], rows)


def probe(report: Report) -> View:
    rows = [Line(one.data, [Cell(one.protocol), to_cell(one.auc)]) for one in report.probes]
    return View("AUC of file facts alone", ["data", "protocol", "AUC"], rows)


def paired(report: Report) -> View:
    columns = [
        "detectors",
        "protocol",
        "images",
        "AUC difference",
        "only first right",
        "only second right",
        "McNemar p",
    ]
    rows = []
    for test in report.paired:
        counts = [Cell(str(test.only_first_right)), Cell(str(test.only_second_right)), Cell(f"{test.mcnemar:.2g}")]
        start = [Cell(short(test.protocol)), Cell(str(test.images)), to_cell(test.auc_difference)]
        rows.append(Line(f"{test.first} against {test.second}", start + counts))
    return View("First minus second; calls at the frozen thresholds; exact McNemar test", columns, rows)


def failures(report: Report) -> View:
    rows = [Line(one.path, [Cell(one.detector), Cell(short(one.protocol)), Cell(one.error)]) for one in report.failures]
    return View(f"The first {len(rows)} of {report.failed}", ["file", "detector", "protocol", "reason"], rows)


def panel_words(panel: Panel, title: str) -> str:
    """What a robustness panel shows, for those who do not see it."""
    ends = [f"{line.label} {line.estimates[0].value:.2f} to {line.estimates[-1].value:.2f}" for line in panel.lines]
    return f"{panel.title} ({panel.unit}), {title}: from {panel.ticks[0]} to {panel.ticks[-1]}: {', '.join(ends)}."


def _first_tables(report: Report) -> list[Table]:
    """The first table of each detector and protocol: its row of all images is the same in the others."""
    first: dict[tuple[str, str], Table] = {}
    for table in report.tables:
        first.setdefault((table.detector, table.protocol), table)
    return list(first.values())


def _first_probes(report: Report) -> list[ShortcutProbe]:
    """One a data set and protocol: a table of fewer images of the same data has a probe of its own."""
    first: dict[tuple[str, str], ShortcutProbe] = {}
    for one in report.probes:
        first.setdefault((one.data, one.protocol), one)
    return list(first.values())


def _ranked(own: Metrics[Estimate], rivals: Sequence[Metrics[Estimate]], name: str) -> Cell:
    """Best among several."""
    values = [value for metrics in rivals if not math.isnan(value := getattr(metrics, name).value)]
    best = min if name in LOWER_IS_BETTER else max
    estimate: Estimate = getattr(own, name)
    return to_cell(estimate, len(rivals) > 1 and bool(values) and estimate.value == best(values))


def _counts(rows: Sequence[Row]) -> str:
    """Images of a group, as one table or several have them."""
    if rows[0].kind == "mean":
        return ""
    failed = f", {span(row.failed for row in rows)} failed" if any(row.failed for row in rows) else ""
    return f"{span(row.real for row in rows)} real, {span(row.generated for row in rows)} generated{failed}"


def _defined(estimate: Estimate) -> bool:
    return not math.isnan(estimate.value)


def _interval(estimate: Estimate) -> str:
    return to_cell(estimate).interval
