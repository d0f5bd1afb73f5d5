"""The rows of verdicts: what is filed away with one, tables that other programs open, words on a terminal."""

import csv
import hashlib
import io
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

import apn as library
from apn.detection import Detection
from apn.rows import CsvRows, JsonRows, TableRows

CAT = Path(__file__).parents[1] / "demo" / "images" / "photo-cat.jpg"


@pytest.mark.parametrize(("option", "thresholds"), [("--no-stability", "thresholds"), ("--stability", None)])
def test_a_verdict_says_of_which_file_when_and_by_what(apn, tmp_path, option, thresholds):
    gone = tmp_path / "gone.jpg"
    code, out, _ = apn("detect", "--json", "--csv", tmp_path / "rows.csv", option, CAT, gone)
    row, failed = map(json.loads, out.splitlines())
    assert code == 1
    assert row["sha256"] == hashlib.sha256(CAT.read_bytes()).hexdigest()
    assert failed["sha256"] is None
    assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(row["judged"]) < timedelta(minutes=1)
    told = library.load("apn-mini").describe()
    used = told[thresholds or "checked_thresholds"]
    assert row["model"] == failed["model"]
    assert row["model"] == {
        **{name: told[name] for name in ("name", "version", "sha256")},
        **{name: used[name] for name in ("real_below", "generated_from")},
        "stability": thresholds is None,
    }
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        first, _ = csv.DictReader(file)
    assert (first["sha256"], first["judged"]) == (row["sha256"], row["judged"])
    assert json.loads(first["model"]) == row["model"]


def test_a_file_that_is_replaced_once_it_is_judged_keeps_the_hash_of_what_was(apn, tmp_path, monkeypatch):
    judge = library.Detector._judge

    def then_replaced(detector, *arguments):
        rows = list(judge(detector, *arguments))
        (tmp_path / "a.jpg").write_bytes(b"another file")
        return iter(rows)

    monkeypatch.setattr(library.Detector, "_judge", then_replaced)
    (tmp_path / "a.jpg").write_bytes(CAT.read_bytes())
    code, out, _ = apn("detect", "--json", "--no-stability", tmp_path / "a.jpg", tmp_path / "a.jpg")
    assert (code, (tmp_path / "a.jpg").read_bytes()) == (0, b"another file")
    sha256 = hashlib.sha256(CAT.read_bytes()).hexdigest()
    assert [json.loads(line)["sha256"] for line in out.splitlines()] == [sha256, sha256]


def test_a_path_is_no_formula_of_a_spreadsheet_and_names_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["=1+2.jpg", "+1.jpg", "-1.jpg", "@SUM(1).jpg", "Prüfung 写真.jpg", "a/=1.jpg"]
    file = io.StringIO(newline="")
    writer = CsvRows(file)
    Path("a").mkdir()
    for name in names:
        Path(name).touch()
        writer.write(Detection(path=name, error="the file is empty"))
    paths = list(pd.read_csv(io.StringIO(file.getvalue()))["path"])
    assert paths == [f"./{name}" for name in names[:4]] + names[4:]
    assert all(Path(path).samefile(name) for path, name in zip(paths, names, strict=True))


def test_hostile_file_names_reach_the_terminal_as_plain_text(tmp_path, capsys):
    name = "a\x1b[31m\n\u202egpj.exe\udcff.jpg"
    row = Detection(path=name, error="line\nbreak")
    for writer in (TableRows(sys.stdout), JsonRows(sys.stdout)):
        writer.write(row)
    table, as_json = capsys.readouterr().out.split("\n{")
    assert table.splitlines()[1].endswith(r" a\x1b[31m\n\u202egpj.exe\udcff.jpg")
    assert table.splitlines()[2].strip() == r"line\nbreak"
    kept = name.replace("\udcff", "\N{REPLACEMENT CHARACTER}")  # programs get the name as it is, as far as UTF-8 can
    assert json.loads("{" + as_json)["path"] == kept
    file = io.StringIO(newline="")
    CsvRows(file).write(row)
    file.seek(0)
    assert next(csv.DictReader(file))["path"] == kept


def test_on_a_terminal_a_long_note_stays_in_its_column(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    note = "not stable: real as it is, but not when saved, resized or shifted once more (WebP 80: unsure)"
    terminal, file = io.StringIO(), io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    for output in (terminal, file):
        TableRows(output).write(Detection(path="a.jpg", verdict="unsure", probability=0.5, warnings=(note,)))
    first, *further = terminal.getvalue().splitlines()[2:]
    assert first.startswith(" " * 12 + "not stable")
    assert [line[:15].strip() for line in further] == ["o"]  # of "once more", which column 14 begins with
    assert max(map(len, [first, *further])) <= 80
    assert file.getvalue().splitlines()[2:] == [" " * 12 + note]


def test_the_table_tells_that_only_one_of_several_pictures_was_scored(capsys):
    TableRows(sys.stdout).write(Detection(path="a.gif", verdict="unsure", probability=0.5, format="GIF", frames=7))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[2:] == ["7 pictures in the file, only the first is scored"]


def test_zero_is_a_number_in_csv_and_nothing_is_an_empty_cell(capsys):
    CsvRows(sys.stdout).write(Detection(path="a", verdict="real", probability=0.0, logit=0.0, width=0))
    cells = capsys.readouterr().out.splitlines()[1].split(",")
    assert cells[:5] == ["a", "real", "0.0", "0.0", "0"]
    assert set(cells[5:]) == {""}
