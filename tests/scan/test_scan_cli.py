"""`apn scan` as its users type it, with the shipped weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from scanning import picture, rows_of

from apn.commands import UsageError
from apn.commands.scan import _has_ray, _location
from apn.detector import load
from apn.scan.opening import OpenDetector

DEMO = Path(__file__).parent.parent.parent / "demo" / "images"


def test_a_scan_says_what_detect_says(apn, tmp_path):
    (tmp_path / "in").mkdir()
    for path in (DEMO / "photo-cat.jpg", DEMO / "synthesised-stars.jpg"):
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "in" / "broken.png").write_text("no")
    out = tmp_path / "out"
    options = ("--no-stability", "--sha256", "--workers", 1, "--out", out)
    code, printed, _ = apn("scan", tmp_path / "in", *options)
    assert (code, "3 images, 2 scored, 1 failed" in printed) == (0, True)
    detector = load("apn-mini")
    for row in rows_of(out):
        if row["error"] is None:
            expected = detector.detect(row["path"], stability=False)
            assert np.isclose(row["logit"], expected.logit, atol=1e-5)
            assert (row["verdict"], row["model"], row["format"]) == (expected.verdict, detector.sha256, "JPEG")
            assert len(row["sha256"]) == 64
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["images"], summary["model"]["sha256"]) == (3, detector.sha256)
    code, _, err = apn("scan", tmp_path / "in", *options)
    assert (code, "holds this scan already: --resume" in err) == (1, True)
    code, _, err = apn("scan", tmp_path / "in", *options[1:], "--resume")
    assert (code, "stability: expected True, found False" in err) == (1, True)
    code, printed, _ = apn("scan", tmp_path / "in", *options, "--resume")
    assert (code, "3 images were there from an earlier run" in printed) == (0, True)


def test_a_sample_prints_an_estimate(apn, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(12):
        (tmp_path / "in" / f"{number}.png").write_bytes(picture(20 * number))
    options = ("--sample", 5, "--seed", 1, "--no-stability", "--workers", 1, "--out", tmp_path / "out")
    code, printed, _ = apn("scan", tmp_path / "in", *options)
    assert (code, "a sample of 5 of 12 images; 95 % intervals:" in printed) == (0, True)
    assert "called generated" in printed
    assert "generated  between" in printed
    assert len(rows_of(tmp_path / "out")) == 5
    prevalence = json.loads((tmp_path / "out" / "summary.json").read_text())["prevalence"]
    assert 0 <= prevalence["low"] <= prevalence["high"] <= 1


def test_ctrl_c_says_how_to_go_on_and_frees_the_folder(apn, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("apn.scan.local.run_local", interrupted)
    (tmp_path / "a.png").write_bytes(picture())
    code, printed, err = apn("scan", tmp_path / "a.png", "--out", tmp_path / "out")
    assert (code, printed, err.count("\n"), "with --resume goes on" in err) == (130, "", 1, True)
    assert not (tmp_path / "out" / ".lock").exists()


def test_without_ray_a_scan_runs_here_unless_a_cluster_was_named(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not _has_ray("auto")
    assert "Ray is not installed" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r'needs Ray: pip install "apn\[scan\]"'):
        _has_ray("ray://head:10001")


def test_a_folder_named_as_the_weights_is_no_weights(monkeypatch, tmp_path):
    """As for `apn detect`, only a folder with a config.json is; a worker may be started in another folder than this."""
    (tmp_path / "apn-mini").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert (_location("apn-mini"), _location("mine")) == ("apn-mini", str(tmp_path / "mine"))
    assert OpenDetector(_location("apn-mini")).describe()["sha256"] == load("apn-mini").sha256


def test_wrong_usage_says_what_was_expected(apn, tmp_path):
    code, _, err = apn("scan", tmp_path / "none", "--out", tmp_path / "out")
    assert (code, "expected a folder, an image" in err) == (1, True)
    assert apn("scan", tmp_path)[0] == 2
    (tmp_path / "a.png").write_bytes(picture())
    code, _, err = apn("scan", tmp_path / "a.png", "--out", "memory://scan")  # each worker has its own
    assert (code, err.count("\n"), "--out memory://scan: expected a folder or an address" in err) == (2, 1, True)
