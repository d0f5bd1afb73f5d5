"""Tables of a report: who is compared with whom, which threshold, what is undefined, what the mean is of."""

import math
from typing import Any

import numpy as np
import pytest
from made import ALIGNED, NATIVE, make_scores

from apn.bootstrap import Images, bootstrap, interval
from apn.metrics import Metrics, measure
from apn.report import build
from apn.report.build import UNNAMED, build_report, protocols, validation_threshold
from apn.report.results import Row, Table
from apn.scoretable import Scores, Shortcut, TableFacts, Thresholds


def random_scores(count: int = 240, seed: int = 0, **texts: Any) -> Scores:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return make_scores(labels, labels + rng.normal(0, 1.5, count), **texts)


def row(table: Table, name: str) -> Row:
    (found,) = [one for one in table.rows if one.name == name]
    return found


def expected(scores: Scores, chosen: np.ndarray, threshold: float = 0.5) -> Metrics[float]:
    part = scores.take(chosen & ~scores.failed)
    return measure(part.labels, part.logits, part.probabilities, part.probabilities >= threshold)


def values(one: Row) -> list[float]:
    return [estimate.value for estimate in one.metrics]


def test_without_subsets_a_generator_is_compared_with_all_real_images() -> None:
    generators = ["", "adm", "", "glide"] * 60
    scores = random_scores(generator=generators)
    (table,) = build_report([scores], resamples=50).tables
    assert [one.name for one in table.rows] == ["all", "adm", "glide", "mean"]
    real = scores.labels == 0
    for name in ("adm", "glide"):
        assert values(row(table, name)) == pytest.approx(expected(scores, real | scores.generator.where(name)))
        assert (row(table, name).real, row(table, name).generated) == (120, 60)
    assert values(row(table, "all")) == pytest.approx(expected(scores, np.ones(240, bool)))
    for index, estimate in enumerate(row(table, "mean").metrics):
        assert estimate.value == pytest.approx(
            np.mean([row(table, name).metrics[index].value for name in ("adm", "glide")])
        )
        assert estimate.low <= estimate.value <= estimate.high


def test_with_subsets_a_generator_is_compared_with_the_real_images_of_its_own_and_of_none() -> None:
    generators, subsets = ["", "adm", "", "glide", "", "adm"] * 40, ["a", "a", "b", "b", "", "a"] * 40
    scores = random_scores(generator=generators, subset=subsets)
    (table,) = build_report([scores], resamples=20).tables
    of_adm = scores.generator.where("adm") | ((scores.labels == 0) & scores.subset.where("a", ""))
    assert values(row(table, "adm")) == pytest.approx(expected(scores, of_adm))
    assert (row(table, "adm").real, row(table, "glide").real, row(table, "all").real) == (80, 80, 120)


def test_a_generator_whose_subset_has_no_real_image_is_compared_with_all() -> None:
    scores = random_scores(generator=["", "adm"] * 120, subset=["a", "b"] * 120)
    assert row(build_report([scores], resamples=20).tables[0], "adm").real == 120


def test_generated_images_without_a_name_have_a_row_beside_named_ones() -> None:
    (table,) = build_report([random_scores(generator=["", "adm", "", ""] * 60)], resamples=20).tables
    assert [one.name for one in table.rows] == ["all", "adm", UNNAMED, "mean"]
    assert row(table, UNNAMED).generated == 60
    (table,) = build_report([random_scores()], resamples=20).tables
    assert [one.name for one in table.rows] == ["all"]


def test_tables_by_scene_where_there_are_several_and_native_before_aligned() -> None:
    scores = random_scores(scene=["church"] * 120 + ["dog"] * 120, protocol=[ALIGNED, ALIGNED, NATIVE, NATIVE] * 60)
    report = build_report([scores], resamples=20)
    assert [(table.protocol, table.by) for table in report.tables] == [
        (NATIVE, "generator"), (NATIVE, "scene"), (ALIGNED, "generator"), (ALIGNED, "scene"),
    ]  # fmt: skip
    assert [one.name for one in report.tables[1].rows] == ["all", "church", "dog", "mean"]
    chosen = scores.protocol.where(NATIVE) & scores.scene.where("dog")
    assert values(row(report.tables[1], "dog")) == pytest.approx(expected(scores, chosen))
    for table in report.tables:
        assert table.protocol in table.title
        assert table.detector in table.title
    other = random_scores(protocol=["fakes-jpeg (x)", "mine", NATIVE, ALIGNED] * 60)
    assert protocols(other) == [NATIVE, ALIGNED, "fakes-jpeg (x)", "mine"]


def test_intervals_are_those_of_the_bootstrap_over_groups() -> None:
    groups = [str(i // 4) for i in range(240)]
    scores = random_scores(groups=groups)
    (table,) = build_report([scores], resamples=200, seed=5).tables
    images = Images(scores.labels, scores.logits, scores.probabilities, scores.probabilities >= 0.5, scores.groups)
    drawn = bootstrap(images, [np.ones(240, bool)], resamples=200, seed=5)
    for name, resampled in drawn._asdict().items():
        low, high = map(float, interval(resampled[:, 0]))
        estimate = getattr(row(table, "all").metrics, name)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-5)


def test_bins_move_no_interval_away_from_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = random_scores(4000)
    exact = build_report([scores], resamples=300).tables[0].rows[0]
    monkeypatch.setattr("apn.bootstrap.EXACT", 20)  # far fewer than ever
    binned = build_report([scores], resamples=300).tables[0].rows[0]
    assert values(binned) == values(exact)
    for name in ("auc", "ap", "eer"):
        ours, theirs = (np.array(getattr(one.metrics, name)) for one in (binned, exact))
        assert ours == pytest.approx(theirs, abs=0.2 * (theirs[2] - theirs[1])), name


def test_no_interval_leaves_the_scale() -> None:
    """Rounding must not make -0.000 of the AUC of three images."""
    scores = make_scores(np.arange(12) % 2, np.array([3.0, -3.1, 2, -2.2] * 3), generator=["", "a", "", "b"] * 3)
    for one in build_report([scores], resamples=100).tables[0].rows:
        for name, estimate in one.metrics._asdict().items():
            assert 0 <= estimate.low <= estimate.high, name
            assert estimate.high <= 1 or name == "nll", name
            assert math.copysign(1, estimate.low) == 1, name


def test_one_class_is_undefined_and_no_crash() -> None:
    for label in (0, 1):
        scores = make_scores(np.full(30, label), np.linspace(-1, 1, 30), generator=["adm" * label] * 30)
        (table,) = build_report([scores], resamples=20).tables
        for one in table.rows:
            assert math.isnan(one.metrics.auc.value)
            assert math.isnan(one.metrics.auc.low)
            assert one.metrics.accuracy.value == pytest.approx(0.5)


def test_a_scene_of_one_class_stays_out_of_the_mean() -> None:
    labels = np.array([0, 1] * 40 + [1] * 20)
    scene = ["church"] * 40 + ["dog"] * 40 + ["sky"] * 20
    scores = make_scores(labels, labels + np.random.default_rng(0).normal(0, 1.5, 100), scene=scene)
    table = build_report([scores], resamples=50).tables[1]
    assert math.isnan(row(table, "sky").metrics.auc.value)
    two = [row(table, name).metrics.auc.value for name in ("church", "dog")]
    assert row(table, "mean").metrics.auc.value == pytest.approx(np.mean(two))


def test_a_generator_of_one_image_has_no_interval_and_takes_the_mean_s() -> None:
    names = [""] * 40 + ["many"] * 39 + ["one"]
    labels = np.repeat([0, 1], 40)
    scores = make_scores(labels, np.random.default_rng(0).normal(labels), generator=names)
    (table,) = build_report([scores], resamples=100).tables
    for name in ("one", "mean"):
        auc = row(table, name).metrics.auc
        assert 0 <= auc.value <= 1
        assert math.isnan(auc.low)
        assert math.isnan(auc.high)
    assert row(table, "many").metrics.auc.low > 0.5


def test_resamples_that_lack_a_generator_count_for_none_of_the_mean() -> None:
    """Half of them lack the one of two images; averaged over the others alone, they would be another number."""
    labels = np.repeat([0, 1], [40, 42])
    logits = np.repeat([0.0, 1, -1], [40, 40, 2])
    scores = make_scores(labels, logits, generator=[""] * 40 + ["found"] * 40 + ["missed"] * 2)
    mean = row(build_report([scores], resamples=200).tables[0], "mean").metrics.auc
    assert mean == (0.5, 0.5, 0.5)


def test_failed_rows_are_counted_and_count_nowhere_else() -> None:
    scores = random_scores(generator=["", "adm", "", "glide"] * 60)
    broken = scores.logits.copy()
    broken[[0, 1, 3, 5]] = np.nan
    failed = make_scores(scores.labels, broken, generator=["", "adm", "", "glide"] * 60)
    report = build_report([failed], resamples=20)
    (table,) = report.tables
    assert report.failed == 4
    assert [(failure.path, failure.error) for failure in report.failures] == [
        (f"{i}.png", "broken") for i in (0, 1, 3, 5)
    ]
    counts = {one.name: (one.real, one.generated, one.failed) for one in table.rows}
    assert counts == {"all": (119, 117, 4), "adm": (119, 58, 3), "glide": (119, 59, 2), "mean": (119, 117, 4)}
    kept = np.isfinite(broken)
    assert values(row(table, "all")) == pytest.approx(expected(scores, kept))


def test_degraded_rows_are_left_out() -> None:
    scores = random_scores(degradation=["", "", "blur", "blur"] * 60)
    assert build_report([scores], resamples=20).tables[0].rows[0].real == 60
    with pytest.raises(ValueError, match="no scores of images as they are for made"):
        build_report([random_scores(degradation="blur")])


def test_the_frozen_threshold_is_the_recorded_one_or_that_of_validation() -> None:
    facts = TableFacts(weights="made", sha256="1" * 64, thresholds=Thresholds(generated_from=0.7, target_fpr=0.05))
    scores = random_scores(facts=facts)
    (table,) = build_report([scores], resamples=20).tables
    assert table.threshold == (0.7, "probability", "0.700, frozen with the weights at 5 % FPR")
    assert values(table.rows[0]) == pytest.approx(expected(scores, np.ones(240, bool), 0.7))
    assert "no calibration" in build_report([random_scores()], resamples=20).tables[0].threshold.origin
    validation = random_scores(seed=1, facts=facts)
    threshold = validation_threshold(scores, [validation], 0.1)
    real = np.sort(validation.logits[validation.labels == 0])
    assert real[108] < threshold.value <= real[109]  # the 109th of 120: at most a tenth of new ones lies above
    assert (threshold.on, "10 % FPR on 120 validation scores" in threshold.origin) == ("logit", True)
    (table,) = build_report([scores], thresholds=[threshold], resamples=20).tables
    called = scores.logits >= threshold.value
    right = [(called == scores.labels)[scores.labels == label].mean() for label in (0, 1)]
    assert table.rows[0].metrics.balanced_accuracy.value == pytest.approx(np.mean(right))


def test_thresholds_that_cannot_be() -> None:
    scores = random_scores()
    other = random_scores(facts=TableFacts(weights="made", sha256="2" * 64))
    with pytest.raises(
        ValueError, match=r"expected at least 99 validation scores .* by made for an FPR of 1.0%, found 0"
    ):
        validation_threshold(scores, [other], 0.01)
    with pytest.raises(ValueError, match="expected a target FPR between 0 and 1, found 2"):
        validation_threshold(scores, [scores], 2)


def test_detectors_of_one_name_are_told_apart() -> None:
    facts = [
        TableFacts(weights="a", sha256="1" * 64),
        TableFacts(weights="a", sha256="2" * 64),
        TableFacts(weights="b", sha256="3" * 64, backend="onnx"),
        TableFacts(weights="b", sha256="3" * 64, backend="torch"),
        TableFacts(weights="c"),
    ]
    report = build_report([random_scores(20, facts=one) for one in facts], resamples=5)
    assert [one.label for one in report.detectors] == [
        "a (11111111)", "a (22222222)", "b (33333333) (onnx)", "b (33333333) (torch)", "c",
    ]  # fmt: skip


def test_the_shortcut_probe_of_each_data_set_is_told_once() -> None:
    probe = Shortcut(data="here", protocol=NATIVE, auc=0.9, low=0.8, high=1.0)
    unknown = Shortcut(data="there", protocol=NATIVE, auc=None)
    facts = [TableFacts(weights=name, shortcuts=(probe, unknown)) for name in "ab"]
    probes = build_report([random_scores(20, facts=one) for one in facts], resamples=5).probes
    assert [(one.data, one.protocol) for one in probes] == [("here", NATIVE), ("there", NATIVE)]
    assert probes[0].auc == (0.9, 0.8, 1.0)
    assert math.isnan(probes[1].auc.value)


def test_only_the_first_failures_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_SHOWN_FAILURES", 3)
    scores = make_scores(np.arange(40) % 2, np.where(np.arange(40) < 10, np.nan, np.arange(40) % 2))
    report = build_report([scores], resamples=5)
    assert (report.failed, len(report.failures)) == (10, 3)
