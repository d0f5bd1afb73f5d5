"""The commands as their users type them: rows, files and exit codes."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apn.cli import main
from apn.detection import Detection
from apn.rows import CsvRows, JsonRows, TableRows

DEMO = Path(__file__).parent.parent / "demo" / "images"
CAT = DEMO / "photo-cat.jpg"


@pytest.fixture
def apn(monkeypatch, capsys):
    """Runs `apn ARGUMENTS` in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["apn", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return run


def test_detect_prints_a_row_an_image_and_exits_0(apn):
    code, out, _ = apn("detect", "--no-stability", DEMO)
    lines = [line for line in out.splitlines()[1:] if not line.startswith(" ")]
    assert code == 0
    assert [line.split()[-1] for line in lines] == [str(path) for path in sorted(DEMO.iterdir())]
    assert {line.split()[0] for line in lines} <= {"generated", "real", "unsure"}


def test_a_failed_image_is_a_row_the_others_are_scored_and_the_exit_code_is_1(apn, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("not an image")
    code, out, err = apn("detect", "--json", "--no-stability", bad, CAT, tmp_path / "gone.jpg")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [row["path"] for row in rows] == [str(bad), str(CAT), str(tmp_path / "gone.jpg")]
    assert [row["error"] is None for row in rows] == [False, True, False]
    assert 0 < rows[1]["probability"] < 1
    assert "2 of 3 images could not be scored" in err
    assert "Traceback" not in out + err


def test_wrong_usage_exits_2_and_says_what_was_expected(apn, tmp_path):
    code, _, err = apn("detect", tmp_path)
    assert (code, "expected image files or folders" in err) == (2, True)
    code, _, err = apn("detect", "--csv", tmp_path / "no" / "such.csv", CAT)
    assert (code, "cannot write" in err) == (2, True)
    assert apn("detect", "--no-such-option", CAT)[0] == 2
    assert apn("detekt")[0] == 2


def test_unknown_weights_are_one_line_and_exit_code_1(apn):
    code, _, err = apn("detect", "--weights", "nowhere", CAT)
    assert code == 1
    assert err.strip().splitlines() == ["apn: no weights 'nowhere': expected a checkpoint folder or one of apn-mini"]


def test_csv_holds_the_numbers_of_json(apn, tmp_path):
    _, out, _ = apn("detect", "--json", "--no-stability", "--csv", tmp_path / "rows.csv", CAT)
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    fields = json.loads(out)
    assert row["path"] == fields["path"]
    assert (float(row["logit"]), int(row["width"])) == (fields["logit"], fields["width"])
    assert (row["error"], row["verdict"]) == ("", fields["verdict"])


def test_hostile_file_names_reach_the_terminal_as_plain_text(tmp_path, capsys):
    row = Detection(path="a\x1b[31m\n\udcff.jpg", error="line\nbreak")
    for writer in (TableRows(sys.stdout), CsvRows(sys.stdout), JsonRows(sys.stdout)):
        writer.write(row)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\udcff" not in printed
    assert len(printed.splitlines()) == 2 + 1 + 2 + 1  # table: header, row, note; csv: header, row; one JSON line


def test_zero_is_a_number_in_csv_and_nothing_is_an_empty_cell(capsys):
    CsvRows(sys.stdout).write(Detection(path="a", verdict="real", probability=0.0, logit=0.0, width=0))
    cells = capsys.readouterr().out.splitlines()[1].split(",")
    assert cells[:5] == ["a", "real", "0.0", "0.0", "0"]
    assert set(cells[5:]) == {""}


def test_a_reader_that_leaves_early_causes_no_complaint():
    command = [sys.executable, "-m", "apn", "detect", "--json", "--no-stability", *map(str, DEMO.iterdir())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ.copy())
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert err == b""
    assert process.returncode == 1


def labelled_folder(folder: Path, count: int) -> Path:
    """Real: smooth ramps; generated: noise. What the detector makes of them does not matter here."""
    rng = np.random.default_rng(0)
    for label in ("real", "generated"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            ramp = np.linspace(0, 200, 64)[:, None, None] + rng.uniform(0, 50, (1, 64, 3))
            pixels = rng.uniform(0, 255, (64, 64, 3)) if label == "generated" else ramp
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number}.png")
    return folder


@pytest.mark.parametrize("protocol", ["native", "aligned"])
def test_score_report_and_failed_rows(apn, tmp_path, protocol):
    data = labelled_folder(tmp_path / "data", 3)
    (data / "real" / "broken.png").write_text("no")
    code, out, _ = apn("score", data, "--protocol", protocol, "--out", tmp_path / "scores.csv")
    assert (code, "6 images scored, 1 failed" in out) == (1, True)
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["error"]) for row in rows].count(True) == 1
    code, out, _ = apn("report", tmp_path / "scores.csv")
    assert code == 0
    assert "| all | 6 |" in out
    assert "1 images have no score" in out


def test_calibrate_writes_what_detect_uses(apn, tmp_path):
    rng = np.random.default_rng(0)
    table = "logit,label\n" + "\n".join(f"{rng.normal(4 * k - 2)},{k}" for k in (0, 1) for _ in range(200))
    (tmp_path / "scores.csv").write_text(table)
    code, out, _ = apn("calibrate", tmp_path / "scores.csv", "--target-fpr", 0.01, "--out", tmp_path / "mine.json")
    written = json.loads((tmp_path / "mine.json").read_text())
    assert (code, written["target_fpr"], written["real_images"]) == (0, 0.01, 200)
    assert f"generated from {written['generated_from']:.3f}" in out
    default = json.loads(apn("detect", "--json", "--no-stability", CAT)[1])
    mine = json.loads(apn("detect", "--json", "--no-stability", "--calibration", tmp_path / "mine.json", CAT)[1])
    assert mine["logit"] == default["logit"]
    expected = 1 / (1 + np.exp(-mine["logit"] / written["temperature"]))
    assert mine["probability"] == pytest.approx(expected)


def test_export_writes_a_graph_that_detect_can_use(apn, tmp_path):
    weights = Path(__file__).parent.parent / "apn" / "weights" / "apn-mini"
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("model.safetensors", "config.json", "training.json", "calibration.json"):
        shutil.copy(weights / name, copy)
    code, out, _ = apn("export", copy, "--out", copy / "model.onnx", "--images", CAT)
    assert code == 0
    assert "largest difference from PyTorch on 1 crops" in out
    ours, shipped = (
        json.loads(apn("detect", "--json", "--no-stability", "--weights", folder, CAT)[1]) for folder in (copy, weights)
    )
    assert ours["probability"] == pytest.approx(shipped["probability"], abs=1e-4)


def test_serve_refuses_other_machines_without_a_token(apn):
    code, _, err = apn("serve", "--host", "0.0.0.0")
    assert code == 1
    assert "token" in err


def test_train_names_the_setting_that_is_wrong(apn, tmp_path):
    (tmp_path / "a.toml").write_text("[model]\nband_cout = 3\n")
    code, _, err = apn("train", tmp_path / "a.toml")
    assert code == 1
    assert "model.band_cout" in err
