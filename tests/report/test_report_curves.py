"""Robustness curves: counted by hand, compared with references, and read back from what is written."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import ALIGNED, NATIVE
from made_tables import made_rows, write_table
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from apn.report.build import build_report, recorded_threshold
from apn.report.curves import Curve, markdown, measure_curves, wilson, write_curves
from apn.report.results import Threshold
from apn.scoretable import Scores, read_scores

NAMES = [f"{i}.jpg" for i in range(80)]
AT = Threshold(0.6, "probability", "made")


def read(path: Path, *parts: dict[str, list[object]]) -> Scores:
    (scores,) = read_scores([write_table(path / "scores.parquet", parts)])
    return scores


def measured(path: Path, *parts: dict[str, list[object]], resamples: int = 100) -> tuple[Curve, ...]:
    return measure_curves(read(path, *parts), "apn-mini", AT, resamples=resamples)


def test_a_table_without_degraded_images_has_no_curve(tmp_path: Path) -> None:
    assert measured(tmp_path, made_rows(NAMES, NATIVE), made_rows(NAMES, ALIGNED)) == ()


def test_curves_come_by_the_grids_order_clean_first(tmp_path: Path) -> None:
    parts = [
        made_rows(NAMES, ALIGNED, degradation=name, level=level)
        for name, level in (("blur", "1"), ("jpeg", "30"), ("own", "b"), ("jpeg", "95"), ("own", "a"))
    ]
    curves = measured(tmp_path, made_rows(NAMES, ALIGNED), *parts)
    assert [curve.degradation for curve in curves] == ["jpeg", "blur", "own"]
    assert [[point.level for point in curve.points] for curve in curves] == [
        ["", "95", "30"],
        ["", "1"],
        ["", "a", "b"],
    ]
    assert [curve.unit for curve in curves] == ["quality, 1 to 100", "sigma, pixels", "level"]


def test_equal_scores_change_nothing_and_flip_nothing(tmp_path: Path) -> None:
    (curve,) = measured(tmp_path, made_rows(NAMES, ALIGNED), made_rows(NAMES, ALIGNED, degradation="blur", level="1"))
    clean, same = curve.points
    assert same.auc == clean.auc
    assert same.auc_change == (0, 0, 0)
    assert (same.decision_flips.value, same.verdict_flips.value) == (0, 0)
    assert 0 < same.decision_flips.high < 0.25  # none of 20 groups: not proof of none at all


def test_numbers_are_those_of_the_images_counted_by_hand(tmp_path: Path) -> None:
    clean = made_rows(NAMES, ALIGNED)
    degraded = made_rows(NAMES, ALIGNED, quality=0.5, degradation="jpeg", level="30", seed=1)
    (curve,) = measured(tmp_path, clean, degraded)
    point = curve.points[1]
    labels, before, after = (
        np.array(column) for column in (clean["label"], clean["probability"], degraded["probability"])
    )
    assert point.images == len(NAMES)
    assert point.auc.value == pytest.approx(roc_auc_score(labels, after))
    assert point.auc_change.value == pytest.approx(roc_auc_score(labels, after) - roc_auc_score(labels, before))
    assert point.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(labels, after >= 0.6))
    assert point.tpr.value == pytest.approx((after[labels == 1] >= 0.6).mean())
    assert point.fpr.value == pytest.approx((after[labels == 0] >= 0.6).mean())
    assert point.decision_flips.value == pytest.approx(((before >= 0.6) != (after >= 0.6)).mean())
    verdicts = [np.digitize(values, [0.4, 0.6]) for values in (before, after)]
    assert point.verdict_flips.value == pytest.approx((verdicts[0] != verdicts[1]).mean())
    assert 0 < point.decision_flips.value < point.verdict_flips.value
    assert curve.points[0].decision_flips.value == 0
    for estimate in point[2:]:
        assert estimate.low <= estimate.value <= estimate.high


def test_the_change_is_measured_on_the_same_resamples(tmp_path: Path) -> None:
    """Scores that differ from the clean ones by a little: the change is known far better than the AUC."""
    clean = made_rows(NAMES, ALIGNED)
    degraded = made_rows(NAMES, ALIGNED, degradation="blur", level="1")
    rng = np.random.default_rng(5)
    degraded["logit"] = (np.array(clean["logit"]) + rng.normal(0, 0.05, len(NAMES))).tolist()
    (curve,) = measured(tmp_path, clean, degraded, resamples=300)
    point = curve.points[1]
    assert point.auc_change.high - point.auc_change.low < 0.3 * (point.auc.high - point.auc.low)


def test_images_without_a_pair_and_failed_ones_count_nowhere(tmp_path: Path) -> None:
    clean = made_rows(NAMES, ALIGNED)
    degraded = made_rows([*NAMES[:-8], *[f"new {i}.jpg" for i in range(8)]], ALIGNED, degradation="jpeg", level="30")
    degraded["logit"][0] = degraded["probability"][0] = None
    degraded["error"][0] = "no such file"
    (curve,) = measured(tmp_path, clean, degraded)
    assert [point.images for point in curve.points] == [71, 71]
    assert curve.points[1].auc == curve.points[0].auc


def test_protocols_are_curves_of_their_own(tmp_path: Path) -> None:
    parts = [
        made_rows(NAMES, protocol, quality=quality, degradation=degradation, level=level)
        for protocol, quality in ((NATIVE, 3.0), (ALIGNED, 1.0))
        for degradation, level in (("", ""), ("blur", "2"))
    ]
    curves = measured(tmp_path, *parts)
    assert {curve.protocol for curve in curves} == {NATIVE, ALIGNED}
    by_protocol = {curve.protocol: curve.points[0].auc.value for curve in curves}
    assert by_protocol[NATIVE] > by_protocol[ALIGNED]


def test_one_class_leaves_the_auc_undefined_and_the_shares_defined(tmp_path: Path) -> None:
    parts = [made_rows(NAMES, ALIGNED), made_rows(NAMES, ALIGNED, degradation="blur", level="1", seed=1)]
    scores = read(tmp_path, *parts)
    (curve,) = measure_curves(scores.take(scores.labels == 1), "apn-mini", AT, resamples=20)
    point = curve.points[1]
    assert math.isnan(point.auc.value)
    assert math.isnan(point.auc_change.low)
    assert point.tpr.value > 0
    assert point.decision_flips.value > 0


@given(st.integers(1, 200), st.data())
def test_wilson_is_scipys_where_each_image_is_a_group(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    estimate = wilson(np.arange(n) < hits, np.arange(n))
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert estimate.value == pytest.approx(hits / n)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_copies_do_not_narrow_an_interval() -> None:
    hits, groups = np.array([True, False, False, True, False]), np.arange(5)
    once, often = wilson(hits, groups), wilson(np.repeat(hits, 9), np.repeat(groups, 9))
    assert often == pytest.approx(once)
    assert math.isnan(wilson(hits[:0], groups[:0]).value)


def test_what_is_written_holds_the_numbers(tmp_path: Path) -> None:
    parts = [made_rows(NAMES, ALIGNED)]
    parts += [made_rows(NAMES, ALIGNED, degradation="jpeg", level=level, quality=1) for level in ("95", "30")]
    scores = read(tmp_path, *parts)
    curves = measure_curves(scores, "apn-mini", recorded_threshold(scores), resamples=50)
    write_curves(curves, tmp_path)
    with (tmp_path / "robustness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["degradation"], row["level"]) for row in rows] == [("", ""), ("jpeg", "95"), ("jpeg", "30")]
    for row, point in zip(rows, curves[0].points, strict=True):
        assert [float(row[f"auc{end}"]) for end in ("", "_low", "_high")] == list(point.auc)
        assert float(row["verdict_flips"]) == point.verdict_flips.value
    text = markdown(curves)
    assert text.startswith(f"## Robustness of apn-mini, {ALIGNED}\n")
    assert f"{curves[0].points[2].auc.value:.3f} ({curves[0].points[2].auc.low:.3f} to" in text
    assert text.count("\n|") == 2 + 3  # header, rule, a row a point
    # The clean point is the very number of the report's own table.
    report = build_report([scores], resamples=50)
    assert report.tables[0].rows[0].metrics.auc == pytest.approx(curves[0].points[0].auc)


def test_a_detector_of_any_name_breaks_no_table(tmp_path: Path) -> None:
    parts = [made_rows(NAMES, ALIGNED), made_rows(NAMES, ALIGNED, degradation="a|b", level="<1>")]
    text = markdown(measure_curves(read(tmp_path, *parts), "*net*", AT, resamples=5))
    assert text.startswith(rf"## Robustness of \*net\*, {ALIGNED}")
    assert r"| a\|b (level) | \<1> |" in text
