"""A report as text: every number of it arrives, the best is bold, undefined is said in words."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from made import ALIGNED, NATIVE, make_scores

from apn.metrics import METRIC_TITLES, Metrics
from apn.report.build import build_report
from apn.report.results import Estimate, Report
from apn.report.tables import brief, cell, markdown, write_tables
from apn.scoretable import Shortcut, TableFacts


def make_report(detectors: int = 1, both: bool = True, failed: bool = False) -> Report:
    scores = []
    for number in range(detectors):
        rng = np.random.default_rng(number)
        labels = np.arange(160) % 2
        logits = (1 + number) * labels + rng.normal(0, 1.5, 160)
        if failed:
            logits[7] = np.nan
        probes = (
            Shortcut(data="here", protocol=NATIVE, auc=0.987, low=0.9, high=1.0),
            Shortcut(data="here", protocol=ALIGNED, auc=0.512, low=0.4, high=0.6),
        )
        facts = TableFacts(weights=f"net{number}", sha256=str(number) * 64, shortcuts=probes)
        protocol = [NATIVE] * 80 + [ALIGNED if both else NATIVE] * 80
        paths = [f"{i % 80 if both else i}.png" for i in range(160)]
        generator = ["", "adm", "", "glide|x"] * 40
        scores.append(make_scores(labels, logits, facts=facts, generator=generator, protocol=protocol, paths=paths))
    return build_report(scores, resamples=30)


def grids(text: str) -> dict[str, list[list[str]]]:
    """The tables of a Markdown page by title: header and rows, cells as text."""
    found: dict[str, list[list[str]]] = {}
    for block in f"\n{text}".split("\n## ")[1:]:
        title, *lines = block.splitlines()
        rows = [line[2:-2].replace("\\|", "¦").split(" | ") for line in lines if line.startswith("| ")]
        found.setdefault(title, []).extend(row for row in rows if set(row) != {"---"})
    return found


def test_a_generator_of_any_name_breaks_no_table(tmp_path: Path) -> None:
    name = "<b>*a*</b> `|`\n| x |"
    scores = make_scores([0, 1, 0, 1], [0.0, 2.0, 1.0, 3.0], generator=["", name, "", name], paths=list("abcd"))
    write_tables(build_report([scores], resamples=5), tmp_path)
    lines = [line for line in (tmp_path / "tables.md").read_text("utf-8").splitlines() if "a\\*" in line]
    assert {line.split(" | ")[0] for line in lines} == {r"| \<b>\*a\*\</b> \`\|\`\n\| x \|"}


def test_images_of_a_group_are_from_the_fewest_to_the_most_where_tables_differ() -> None:
    scores = make_scores(
        [0, 1, 0, 1, 1, 0, 1, 0],
        [0.0, 2.0, 1.0, 3.0, math.nan, 0.0, 2.0, 1.0],
        generator=["", "adm", "", "adm", "adm", "", "adm", ""],
        protocol=[NATIVE] * 5 + [ALIGNED] * 3,
        paths=["a", "b", "c", "d", "e", "a", "b", "c"],
    )
    (header, everything, adm, *_), *_ = grids(markdown(build_report([scores], resamples=5))).values()
    assert header[1] == "real + generated"
    assert (everything[1], adm[1]) == ("2 + 1 to 2", "2 + 1 to 2")


def test_cells() -> None:
    assert cell(Estimate(0.94, 0.9061, 0.965)) == "0.940 (0.906 to 0.965)"
    assert cell(Estimate(math.nan, math.nan, math.nan)) == "undefined"
    assert cell(Estimate(1.0, math.nan, math.nan)) == "1.000"


def test_every_table_of_markdown_is_square_and_names_its_protocol() -> None:
    report = make_report(2)
    for text in (markdown(report), brief(report)):
        for title, rows in grids(text).items():
            assert title == "Paired tests" or NATIVE in title or ALIGNED in title
            assert len({len(row) for row in rows}) == 1, title


def test_markdown_holds_every_metric_of_every_row() -> None:
    report = make_report()
    found = grids(markdown(report))
    for table in report.tables:
        (head1, *rows1), (head2, *rows2) = (
            found[f"{table.title}: {what}"] for what in ("ranking", "decisions and probabilities")
        )
        for one, first, second in zip(table.rows, rows1, rows2, strict=False):  # the probe's row comes last
            cells = dict(zip(head1 + head2, first + second, strict=True))
            assert first[0] == second[0] == one.name.replace("|", "¦")
            if one.kind != "mean":
                assert first[1:4] == [str(one.real), str(one.generated), str(one.failed)]
            for name in Metrics._fields:
                assert cells[getattr(METRIC_TITLES, name)] == cell(getattr(one.metrics, name)), (one.name, name)
        assert [row[0] for row in rows1[len(table.rows) :]] == ["shortcut probe"]


def test_native_and_aligned_stand_side_by_side_with_the_probe_beside_them() -> None:
    report = make_report()
    header, *rows = grids(brief(report))[f"net0, {NATIVE} and {ALIGNED}, by generator"]
    assert header[:4] == ["generator", "real + generated", "AUC, native", "AUC, aligned"]
    first, last = rows[0], rows[-1]
    assert first[:2] == ["all", "40 + 40"]
    assert first[2:4] == [cell(table.rows[0].metrics.auc) for table in report.tables]
    assert last[:4] == ["shortcut probe", "", "0.987 (0.900 to 1.000)", "0.512 (0.400 to 0.600)"]


def test_the_best_of_several_detectors_is_bold() -> None:
    report = make_report(3, both=False)
    found = grids(brief(report))
    header, *rows = found[f"Detectors, {NATIVE}, mean over generators"]
    means = {table.detector: table.rows[-1].metrics for table in report.tables}
    for name, pick in (("auc", max), ("eer", min)):
        column = header.index(getattr(METRIC_TITLES, name))
        bold = [row[0] for row in rows if row[column].startswith("**")]
        assert bold == [pick(means, key=lambda label: getattr(means[label], name).value)], name
    header, *rows = found[f"AUC by generator, {NATIVE}"]
    assert header == ["generator", "net0", "net1", "net2"]
    assert [row[0] for row in rows] == ["all", "adm", "glide¦x", "mean", "shortcut probe"]
    assert all(sum(one.startswith("**") for one in row) == 1 for row in rows[:-1])
    tests = found["Paired tests"]
    assert [row[:2] for row in tests[1:]] == [["net0", "net1"], ["net0", "net2"], ["net1", "net2"]]


def test_one_class_is_called_undefined() -> None:
    report = build_report([make_scores(np.zeros(5), np.arange(5.0) - 2)], resamples=5)
    assert "| undefined |" in brief(report)
    assert "nan" not in markdown(report)


def test_failures_are_said() -> None:
    assert "Every image has a score." in brief(make_report())
    text = brief(make_report(failed=True))
    assert "1 images without a score" in text
    assert f"| net0 | {NATIVE} | 7.png | broken |" in text
    assert "apn detect checks stability as well" in text


def test_files_hold_every_number(tmp_path: Path) -> None:
    report = make_report(2, failed=True)
    written = write_tables(report, tmp_path / "out")
    assert [path.name for path in written] == ["tables.md", "metrics.csv", "paired.csv", "failures.csv", "summary.json"]
    assert written[0].read_text() == markdown(report)
    with written[1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(table, one) for table in report.tables for one in table.rows]
    assert len(rows) == len(expected)
    for found, (table, one) in zip(rows, expected, strict=True):
        assert (found["detector"], found["protocol"], found["by"]) == (table.detector, table.protocol, table.by)
        assert (found["name"], int(found["failed"])) == (one.name, one.failed)
        for name, estimate in one.metrics._asdict().items():
            numbers = [float(found[f"{name}{end}"]) for end in ("", "_low", "_high")]
            assert numbers == pytest.approx(estimate, rel=1e-12)
    with written[2].open(newline="") as file:
        assert [float(row["mcnemar"]) for row in csv.DictReader(file)] == [test.mcnemar for test in report.paired]
    with written[3].open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["7.png", "7.png"]
    summary = json.loads(written[4].read_text())
    assert summary["tables"][0]["rows"][0]["metrics"]["auc"]["value"] == report.tables[0].rows[0].metrics.auc.value
    assert summary["probes"][0]["auc"] == {"value": 0.987, "low": 0.9, "high": 1.0}


def test_json_has_null_for_undefined(tmp_path: Path) -> None:
    report = build_report([make_scores(np.zeros(5), np.arange(5.0) - 2)], resamples=5)
    *_, summary = write_tables(report, tmp_path)
    metrics = json.loads(summary.read_text())["tables"][0]["rows"][0]["metrics"]
    assert metrics["auc"] == {"value": None, "low": None, "high": None}
    with (tmp_path / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["auc"] == row["auc_low"] == ""
    assert float(row["accuracy"]) == pytest.approx(0.4)
    assert (tmp_path / "failures.csv").read_text().split() == ["detector,protocol,path,error"]
