"""`apn calibrate` as its users type it: what it writes, what it refuses, and when."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from labelled import labelled_folder
from PIL import Image

DEMO = Path(__file__).parent.parent / "demo" / "images"
CAT = DEMO / "photo-cat.jpg"
WEIGHTS = Path(__file__).parent.parent / "apn" / "weights" / "apn-mini"


def test_calibrate_writes_what_detect_uses(apn, tmp_path):
    rng = np.random.default_rng(0)
    table = "logit,label\n" + "\n".join(f"{rng.normal(4 * k - 2)},{k}" for k in (0, 1) for _ in range(200))
    (tmp_path / "scores.csv").write_text(table)
    code, out, _ = apn("calibrate", tmp_path / "scores.csv", "--target-fpr", 0.01, "--out", tmp_path / "mine.json")
    written = json.loads((tmp_path / "mine.json").read_text())
    assert (code, written["target_fpr"], written["real_images"]) == (0, 0.01, 200)
    assert f"without the stability check: generated from {written['generated_from']:.3f}" in out
    assert "not chosen for it: no scores of re-deliveries" in out
    default = json.loads(apn("detect", "--json", "--no-stability", CAT)[1])
    mine = json.loads(apn("detect", "--json", "--no-stability", "--calibration", tmp_path / "mine.json", CAT)[1])
    assert mine["logit"] == default["logit"]
    expected = 1 / (1 + np.exp(-mine["logit"] / written["temperature"]))
    assert mine["probability"] == pytest.approx(expected)


def test_calibrate_says_which_rates_its_images_cannot_promise(apn, tmp_path):
    """1 % takes 99 images of a class; of 120 real and 60 generated ones, 30 of each were delivered once more."""
    lines = ["logit,label,lowest,highest"]
    for label, count in ((0, 120), (1, 60)):
        for number in range(count):
            logit = 4 * label - 2 + number / count
            lines.append(f"{logit},{label}," + (f"{logit - 1},{logit + 1}" if number < 30 else ","))
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    rates = ("--target-fpr", 0.01, "--target-fnr", 0.01, "--checked-fpr", 0.02, "--checked-fnr", 0.04)
    code, _, err = apn("calibrate", tmp_path / "scores.csv", *rates, "--out", tmp_path / "mine.json")
    assert code == 0
    assert err.splitlines() == [
        "apn: warning: without the stability check: expected at least 99 generated images for a rate of 0.01, "
        "found 60: practically nothing will be called real",
        "apn: warning: with it: expected at least 49 real images for a rate of 0.02, found 30: "
        "practically nothing will be called generated",
    ]


def test_calibrate_refuses_rates_of_the_check_without_the_check_before_it_scores(apn, tmp_path, monkeypatch):
    monkeypatch.setattr("apn.scores.read_data", None)  # what comes before scoring
    options = ("--no-stability", "--checked-fnr", 0.01, "--out", tmp_path / "mine.json")
    code, _, err = apn("calibrate", tmp_path, *options)
    assert (code, err) == (
        2,
        "apn: --no-stability: expected no --checked-fpr or --checked-fnr, which are of the stability check\n",
    )


def test_calibrate_does_not_replace_what_it_reads(apn, tmp_path):
    (tmp_path / "scores.csv").write_text("logit,label\n")
    code, _, err = apn("calibrate", tmp_path / "scores.csv", "--out", tmp_path / "." / "scores.csv")
    assert (code, "expected another file than the scores" in err) == (2, True)
    assert (tmp_path / "scores.csv").read_text() == "logit,label\n"


def test_calibrate_chooses_thresholds_of_the_stability_check(apn, tmp_path):
    rng, rows = np.random.default_rng(0), []
    for label in (0, 1):
        for logit in rng.normal(4 * label - 2, 1, 200):
            rows.append({"logit": logit, "label": label, "lowest": logit - 1, "highest": logit + 1})
    (tmp_path / "scores.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    code, out, _ = apn("calibrate", tmp_path / "scores.jsonl", "--checked-fpr", 0.02, "--out", tmp_path / "mine.json")
    checked = json.loads((tmp_path / "mine.json").read_text())["checked"]
    assert (code, checked["target_fpr"], checked["target_fnr"]) == (0, 0.02, 0.05)
    assert f"with it: generated from {checked['generated_from']:.3f} (at most 2.0% of real images)" in out
    rows[7]["lowest"] = rows[7]["logit"] + 1
    (tmp_path / "scores.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    code, _, err = apn("calibrate", tmp_path / "scores.jsonl", "--out", tmp_path / "none.json")
    assert (code, "row 8: expected lowest <= logit <= highest" in err) == (1, True)


def test_calibrate_scores_re_deliveries_of_images(apn, tmp_path):
    data = labelled_folder(tmp_path / "data", 20, side=160)
    Image.new("RGB", (64, 64), (200, 30, 30)).save(data / "real" / "small.png")  # always unsure, so not delivered again
    for option, has in (("--stability", True), ("--no-stability", False)):
        code, _, err = apn("calibrate", data, option, "--method", "isotonic", "--out", tmp_path / "mine.json")
        assert code == 0, err
        written = json.loads((tmp_path / "mine.json").read_text())
        assert ((written["checked"] is not None), written["real_images"]) == (has, 21)


def test_calibrate_needs_no_re_deliveries_where_all_pictures_are_small(apn, tmp_path):
    data = labelled_folder(tmp_path / "data", 20)
    code, out, _ = apn("calibrate", data, "--method", "isotonic", "--out", tmp_path / "mine.json")
    assert (code, json.loads((tmp_path / "mine.json").read_text())["checked"]) == (0, None)
    assert "not chosen for it: no scores of re-deliveries" in out


@pytest.mark.parametrize(
    ("images", "option", "message"),
    [
        (20, ("--target-fpr", 1), "expected target_fpr between 0 and 1, found 1.0"),
        (20, ("--checked-fnr", 0), "expected checked_fnr between 0 and 1, found 0.0"),
        (20, ("--out", "."), "--out .: expected a file to write, found a folder"),
        (19, (), "expected at least 20 real and 20 generated images to calibrate on, found 19 and 19"),
    ],
)
def test_calibrate_refuses_what_cannot_work_before_it_scores(apn, tmp_path, monkeypatch, images, option, message):
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a detector was opened")

    monkeypatch.setattr("apn.detector.load", load)
    monkeypatch.chdir(tmp_path)
    code, _, err = apn("calibrate", labelled_folder(tmp_path / "data", images), *option)
    assert (code > 0, message in err) == (True, True), err


def test_calibrate_says_at_once_that_it_cannot_fit(apn, tmp_path, monkeypatch):
    monkeypatch.setattr("apn.calibration.find_spec", lambda name: None)
    monkeypatch.setattr("apn.detector.load", None)
    code, _, err = apn("calibrate", labelled_folder(tmp_path / "data", 20), "--out", tmp_path / "mine.json")
    assert (code, err) == (1, 'apn: fitting a calibration needs scikit-learn: pip install "apn[evaluate]"\n')


def test_calibrate_makes_the_folder_of_its_file(apn, tmp_path):
    (tmp_path / "scores.csv").write_text("logit,label\n" + "".join(f"{k - 0.5},{k}\n" for k in (0, 1) * 20))
    out = tmp_path / "of" / "mine" / "calibration.json"
    assert apn("calibrate", tmp_path / "scores.csv", "--out", out)[0] == 0
    assert json.loads(out.read_text())["real_images"] == 20


def test_black_and_white_pictures_stay_unsure_with_thresholds_of_ones_own(apn, tmp_path):
    """The shipped network calls them real, whatever made them: its own calibration says how much colour it needs."""
    (tmp_path / "scores.csv").write_text("logit,label\n" + "".join(f"{k - 0.5},{k}\n" for k in (0, 1) * 20))
    Image.open(CAT).convert("L").save(tmp_path / "grey.jpg")
    code, out, _ = apn("calibrate", tmp_path / "scores.csv", "--out", tmp_path / "mine.json")
    assert (code, "pictures with less colour than 2 are unsure (--least-colour)" in out) == (0, True)
    row = json.loads(apn("detect", "--json", "--calibration", tmp_path / "mine.json", tmp_path / "grey.jpg")[1])
    assert (row["verdict"], row["warnings"][0].partition(":")[0]) == ("unsure", "no colour")
    assert apn("calibrate", tmp_path / "scores.csv", "--least-colour", 0, "--out", tmp_path / "mine.json")[0] == 0
    assert json.loads((tmp_path / "mine.json").read_text())["least_colour"] == 0


def test_screenshots_stay_unsure_with_thresholds_of_ones_own(apn, tmp_path):
    (tmp_path / "scores.csv").write_text("logit,label\n" + "".join(f"{k - 0.5},{k}\n" for k in (0, 1) * 20))
    code, out, _ = apn("calibrate", tmp_path / "scores.csv", "--out", tmp_path / "mine.json")
    assert (code, "pictures of which more than 50% is flat are unsure (--most-flat)" in out) == (0, True)
    code, out, _ = apn("calibrate", tmp_path / "scores.csv", "--most-flat", 1, "--out", tmp_path / "mine.json")
    assert (code, "flat" in out, json.loads((tmp_path / "mine.json").read_text())["most_flat"]) == (0, False, 1)


def test_a_table_as_spreadsheets_save_it_is_calibrated_on(apn, tmp_path):
    table = "logit,label\n" + "".join(f"{k - 0.5},{k}\n" for k in (0, 1) * 20)
    (tmp_path / "SCORES.CSV").write_text(table, "utf-8-sig")
    code, out, err = apn("calibrate", tmp_path / "SCORES.CSV", "--out", tmp_path / "mine.json")
    assert (code, "from 20 real and 20 generated images" in out) == (0, True), err


def test_a_calibration_is_for_the_weights_whose_scores_it_was_fitted_to(apn, tmp_path):
    data, mine = labelled_folder(tmp_path / "data", 20), tmp_path / "mine.json"
    assert apn("score", "--data", data, "--protocol", "native", "--out", tmp_path / "scores.parquet")[0] == 0
    for scores in (data, tmp_path / "scores.parquet"):
        assert apn("calibrate", scores, "--method", "isotonic", "--out", mine)[0] == 0
        written = json.loads(mine.read_text())
        assert written["weights_sha256"] == json.loads((WEIGHTS / "training.json").read_text())["sha256"]
        assert apn("detect", "--no-stability", "--calibration", mine, CAT)[0] == 0
    others = shutil.copytree(WEIGHTS, tmp_path / "others")
    facts = json.loads((others / "training.json").read_text())
    (others / "training.json").write_text(json.dumps(facts | {"sha256": "1" * 64}))
    code, _, err = apn("calibrate", tmp_path / "scores.parquet", "--weights", others, "--out", mine)
    assert (code, "expected scores of --weights" in err, "name these with --weights" in err) == (2, True, True), err
    mine.write_text(json.dumps(written | {"weights_sha256": "0" * 64}))
    code, _, err = apn("detect", "--calibration", mine, CAT)
    assert (code, err.startswith(f"apn: {mine}: expected a calibration of these weights (sha256 ")) == (1, True), err
    assert f"found one of others ({'0' * 64})" in err
