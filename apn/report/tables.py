"""A report as Markdown, CSV and JSON. Undefined numbers are shown as "undefined" (JSON: null)."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from apn.markdown import Marked, as_text, table_row
from apn.metrics import LOWER_IS_BETTER, METRIC_TITLES
from apn.report.results import ONE_SCORE, Estimate, Failure, PairedTest, Report, Row, Table

EVERY_METRIC = {
    "ranking": ("auc", "ap", "tpr_at_1", "tpr_at_5", "eer"),
    "decisions and probabilities": ("accuracy", "balanced_accuracy", "oracle_accuracy", "nll", "brier", "ece"),
}
MAIN = ("auc", "balanced_accuracy", "accuracy", "tpr_at_5")
SIDE_BY_SIDE = ("auc", "balanced_accuracy", "tpr_at_5")
COMPARED = ("auc", "ap", "accuracy", "balanced_accuracy", "oracle_accuracy", "tpr_at_5", "eer")
UNDEFINED = Estimate(math.nan, math.nan, math.nan)


def cell(estimate: Estimate) -> str:
    """`0.940 (0.906 to 0.965)`, or `undefined`."""
    if math.isnan(estimate.value):
        return "undefined"
    if math.isnan(estimate.low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def markdown(report: Report) -> str:
    """All tables: detectors compared, protocols side by side, then every metric of every table, tests and failures."""
    blocks = ["# Evaluation", *_comparisons(report), *_side_by_side(report)]
    for table in report.tables:
        blocks += [_table(table, names, report, what) for what, names in EVERY_METRIC.items()]
    return _page([*blocks, *_rest(report)])


def brief(report: Report) -> str:
    """What fits a terminal: comparisons, and the main metrics of what is not shown side by side."""
    shown = {key for key, tables in _by_detector(report).items() if len(tables) > 1}
    tables = [_table(table, MAIN, report) for table in report.tables if (table.detector, table.by) not in shown]
    return _page([*_comparisons(report), *_side_by_side(report), *tables, *_rest(report)])


def write_tables(report: Report, folder: Path) -> list[Path]:
    """tables.md, metrics.csv, paired.csv, failures.csv and summary.json, which has all numbers at full precision."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / name for name in ("tables.md", "metrics.csv", "paired.csv", "failures.csv", "summary.json")]
    written[0].write_text(markdown(report), encoding="utf-8")
    _write_csv(written[1], list(_metric_rows(report)))
    _write_csv(written[2], [_flat(test._asdict()) for test in report.paired], PairedTest._fields)
    _write_csv(written[3], [failure._asdict() for failure in report.failures], Failure._fields)
    written[4].write_text(json.dumps(to_json(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return written


def to_json(value: Any) -> Any:
    """Nested NamedTuples as JSON objects by field name; nan as null."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: to_json(item) for name, item in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Markdown -------------------------------------------------------------------------------------------------------------


def _comparisons(report: Report) -> Iterator[str]:
    """Where there are several detectors: their means by metric, then the AUC of each group; the best in bold."""
    compared = defaultdict(list)
    for table in report.tables:
        compared[table.protocol, table.by].append(table)
    for (protocol, by), tables in compared.items():
        if len(tables) < 2:
            continue
        last = [table.rows[-1] for table in tables]  # the mean, where there are groups
        over = f"mean over {by}s" if any(row.kind == "mean" for row in last) else "all images"
        estimates = [[getattr(row.metrics, name) for name in COMPARED] for row in last]
        columns = [
            _bold(column, name in LOWER_IS_BETTER)
            for column, name in zip(zip(*estimates, strict=True), COMPARED, strict=True)
        ]
        rows = [[table.detector, *cells] for table, cells in zip(tables, zip(*columns, strict=True), strict=True)]
        yield _grid(f"Detectors, {protocol}, {over}", ["detector", *_titles(COMPARED)], rows)
        names = dict.fromkeys(row.name for table in tables for row in table.rows)
        found = [{row.name: row.metrics.auc for row in table.rows} for table in tables]
        rows = [[name, *_bold([one.get(name, UNDEFINED) for one in found], False)] for name in names]
        rows += _probe_rows(report, [protocol] * len(tables))
        yield _grid(f"AUC by {by}, {protocol}", [by, *(table.detector for table in tables)], rows)


def _side_by_side(report: Report) -> Iterator[str]:
    """Where a detector was scored under several protocols: its main numbers under each of them."""
    for (detector, by), tables in _by_detector(report).items():
        if len(tables) < 2:
            continue
        shorts = [table.protocol.split(" (")[0] for table in tables]
        if len(set(shorts)) < len(shorts):
            shorts = [table.protocol for table in tables]
        header = [f"{title}, {short}" for title in _titles(SIDE_BY_SIDE) for short in shorts]
        found = [{row.name: row for row in table.rows} for table in tables]
        rows = []
        for name in dict.fromkeys(row.name for table in tables for row in table.rows):
            cells = [_metric(one.get(name), metric) for metric in SIDE_BY_SIDE for one in found]
            rows.append([name, _counts([one[name] for one in found if name in one]), *map(cell, cells)])
        probes = _probe_rows(report, [table.protocol for table in tables])
        rows += [[name, "", *aucs, *[""] * (len(header) - len(tables))] for name, *aucs in probes]
        protocols = " and ".join(table.protocol for table in tables)
        yield _grid(f"{detector}, {protocols}, by {by}", [by, "real + generated", *header], rows, _threshold(tables[0]))


def _table(table: Table, metrics: Sequence[str], report: Report, what: str = "") -> str:
    rows = []
    for row in table.rows:
        counts = ["", "", ""] if row.kind == "mean" else [str(row.real), str(row.generated), str(row.failed)]
        rows.append([row.name, *counts, *(cell(getattr(row.metrics, name)) for name in metrics)])
    if "auc" in metrics:
        rows += [
            [row[0], "", "", "", row[1], *[""] * (len(metrics) - 1)] for row in _probe_rows(report, [table.protocol])
        ]
    note = _threshold(table) if "balanced_accuracy" in metrics else ""
    title = f"{table.title}: {what}" if what else table.title
    return _grid(title, [table.by, "real", "generated", "failed", *_titles(metrics)], rows, note)


def _rest(report: Report) -> list[str]:
    """Tests, failures, and what the intervals are."""
    blocks = []
    if report.paired:
        header = ["first", "second", "protocol", "images", "only first right", "only second right", "McNemar p"]
        rows = [
            [*test[:3], *map(str, test[3:6]), f"{test.mcnemar:.2g}", cell(test.auc_difference)]
            for test in report.paired
        ]
        note = "Right or wrong at the frozen thresholds; exact test. Difference: first minus second, same images."
        blocks.append(_grid("Paired tests", [*header, "AUC difference"], rows, note))
    if report.failed:
        rows = [list(failure) for failure in report.failures]
        shown = "" if report.failed == len(rows) else f" (the first {len(rows)})"
        title = f"{report.failed} images without a score{shown}"
        blocks.append(_grid(title, ["detector", "protocol", "file", "reason"], rows))
    else:
        blocks.append("Every image has a score.")
    blocks.append(ONE_SCORE)
    blocks.append(
        f"Intervals: 95 %, bootstrap over split groups, {report.resamples} resamples, seed {report.seed}. Oracle "
        "accuracy: best threshold on the test set itself. Shortcut probe: the label told from file facts alone."
    )
    return blocks


def _probe_rows(report: Report, protocols: Sequence[str]) -> list[list[str]]:
    """A row a data set, with the probe's AUC in a column for each of these protocols."""
    found: dict[str, dict[str, Estimate]] = defaultdict(dict)
    for probe in report.probes:
        found[probe.data][probe.protocol] = probe.auc
    return [
        [
            f"shortcut probe{f', {data}' if len(found) > 1 else ''}",
            *(cell(aucs.get(one, UNDEFINED)) for one in protocols),
        ]
        for data, aucs in found.items()
    ]


def _by_detector(report: Report) -> dict[tuple[str, str], list[Table]]:
    found: dict[tuple[str, str], list[Table]] = defaultdict(list)
    for table in report.tables:
        found[table.detector, table.by].append(table)
    return found


def span(numbers: Iterable[int]) -> str:
    """The number, or the least and the most of those that differ."""
    least, most = min(found := list(numbers)), max(found)
    return str(least) if least == most else f"{least} to {most}"


def _counts(rows: Sequence[Row]) -> str:
    """Images of a group, as several tables have them."""
    if rows[0].kind == "mean":
        return ""
    return f"{span(row.real for row in rows)} + {span(row.generated for row in rows)}"


def _metric(row: Row | None, name: str) -> Estimate:
    return UNDEFINED if row is None else getattr(row.metrics, name)


def _titles(names: Sequence[str]) -> list[str]:
    return [getattr(METRIC_TITLES, name) for name in names]


def _threshold(table: Table) -> str:
    return f"Balanced accuracy at threshold {table.threshold.origin}."


def _bold(estimates: Sequence[Estimate], lower: bool) -> list[str]:
    """Cells, those with the best value in bold."""
    values = [estimate.value for estimate in estimates if not math.isnan(estimate.value)]
    best = (min if lower else max)(values, default=math.nan)
    return [Marked(f"**{cell(estimate)}**") if estimate.value == best else cell(estimate) for estimate in estimates]


def _grid(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    lines = [f"## {as_text(title)}", "", table_row(header), table_row(["---"] * len(header)), *map(table_row, rows)]
    return "\n".join([*lines, "", as_text(note)] if note else lines)


def _page(blocks: Sequence[str]) -> str:
    return "\n\n".join(blocks) + "\n"


# CSV ------------------------------------------------------------------------------------------------------------------


def _metric_rows(report: Report) -> Iterator[dict[str, Any]]:
    for table in report.tables:
        for row in table.rows:
            where = {"detector": table.detector, "protocol": table.protocol, "by": table.by}
            counts = row._asdict() | {"threshold": table.threshold.value, "threshold_on": table.threshold.on}
            metrics = counts.pop("metrics")
            yield where | counts | _flat(metrics._asdict())


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Each estimate as three columns: `auc`, `auc_low`, `auc_high`; undefined ones are empty."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Estimate):
            numbers = ["" if math.isnan(number) else number for number in value]
            flat |= dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))
        else:
            flat[name] = value
    return flat


def _write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """columns: the header where there is no row."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else columns)
        writer.writeheader()
        writer.writerows(rows)
