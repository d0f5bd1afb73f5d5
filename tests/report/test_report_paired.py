"""Tests between two detectors on the images that both have scored."""

import numpy as np
import pytest
from made import ALIGNED, NATIVE, make_scores
from scipy.stats import binom, norm

from apn.report.build import build_report
from apn.report.paired import mcnemar
from apn.report.results import PairedTest
from apn.scoretable import Scores, TableFacts

A, B = (TableFacts(weights=name, sha256=name * 64) for name in "ab")


def pair(count: int = 400, better: float = 0.0, seed: int = 0) -> tuple[Scores, Scores]:
    """Two detectors whose errors go together; the first sees `better` more of the label."""
    rng = np.random.default_rng(seed)
    labels, shared = np.arange(count) % 2, rng.normal(0, 1, count)
    logits = [(2 + more) * (labels - 0.5) + shared + rng.normal(0, 0.5, count) for more in (better, 0)]
    return make_scores(labels, logits[0], facts=A), make_scores(labels, logits[1], facts=B)


def only(scores: tuple[Scores, ...], **options: int) -> PairedTest:
    (test,) = build_report(scores, **{"resamples": 300} | options).paired
    return test


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 5), (1, 9), (30, 12), (0, 6)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    n, k = first + second, min(first, second)
    expected = min(1.0, 2 * binom.cdf(k, n, 0.5)) if n else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_counts_and_difference_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    first = make_scores(labels, np.array([-1.0, -2.0, 1.0, 2.0]), facts=A)
    second = make_scores(labels, np.array([-1.0, 3.0, -1.5, 2.0]), facts=B)
    test = only((first, second))
    assert (test.first, test.second, test.protocol, test.images) == ("a", "b", NATIVE, 4)
    assert (test.only_first_right, test.only_second_right, test.mcnemar) == (2, 0, 0.5)
    assert test.auc_difference.value == pytest.approx(1 - 1 / 4)


def test_a_better_detector_is_found_and_an_equal_one_is_not() -> None:
    better = only(pair(better=2.0))
    assert better.auc_difference.low > 0
    assert better.mcnemar < 0.01
    equal = only(pair())
    assert equal.auc_difference.low < 0 < equal.auc_difference.high
    assert equal.mcnemar > 0.05
    first, second = pair(better=2.0)
    swapped = only((second, first))
    assert swapped.auc_difference == pytest.approx(tuple(-x for x in (
        better.auc_difference.value, better.auc_difference.high, better.auc_difference.low
    )), abs=1e-9)  # fmt: skip
    assert (swapped.only_first_right, swapped.only_second_right) == (better.only_second_right, better.only_first_right)


def test_a_detector_does_not_differ_from_itself() -> None:
    first, _ = pair()
    test = only((first, first._replace(facts=B)))
    assert test.auc_difference == (0, 0, 0)
    assert (test.only_first_right, test.only_second_right, test.mcnemar) == (0, 0, 1)


def test_pairing_narrows_the_interval() -> None:
    """Both are resampled together: errors they share cancel, which two separate intervals would not show."""
    first, second = pair(better=0.3)
    report = build_report([first, second], resamples=500)
    widths = [high - low for _, low, high in (table.rows[0].metrics.auc for table in report.tables)]
    difference = report.paired[0].auc_difference
    assert difference.high - difference.low < 0.6 * np.hypot(*widths)


def test_images_are_matched_by_path_whatever_the_order_and_only_common_ones_count() -> None:
    first, second = pair()
    expected = only((first, second))
    order = np.random.default_rng(3).permutation(400)
    assert only((first, second.take(order))) == expected
    assert only((first.take(order), second)) == expected
    fewer = only((first, second.take(np.arange(300))))
    assert fewer == only((first.take(np.arange(300)), second.take(np.arange(300))))
    failed = second._replace(logits=np.where(np.arange(400) < 100, np.nan, second.logits))
    assert only((first, failed)).images == 300


def test_protocols_are_compared_each_with_itself() -> None:
    first, second = pair(40)
    both = first._replace(
        protocol=make_scores(first.labels, first.logits, protocol=[NATIVE, NATIVE, ALIGNED, ALIGNED] * 10).protocol
    )
    (test,) = build_report([both, second], resamples=20).paired
    assert (test.protocol, test.images) == (NATIVE, 20)
    aligned = second._replace(protocol=make_scores(second.labels, second.logits, protocol=ALIGNED).protocol)
    assert build_report([first, aligned], resamples=20).paired == ()


def test_three_detectors_make_three_pairs() -> None:
    first, second = pair(60)
    third = second._replace(facts=TableFacts(weights="c", sha256="c" * 64))
    tests = build_report([first, second, third], resamples=20).paired
    assert [(test.first, test.second) for test in tests] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert tests[0].auc_difference == tests[1].auc_difference


def test_two_labels_for_one_image_are_refused() -> None:
    first, second = pair(20)
    with pytest.raises(
        ValueError, match="expected one label an image, found 20 images labelled otherwise by a than by b"
    ):
        build_report([first, second._replace(labels=1 - second.labels)], resamples=5)


@pytest.mark.slow
def test_the_interval_of_a_difference_covers_the_truth() -> None:
    runs, covered = 200, 0
    gain = 0.6
    truth = norm.cdf((2 + gain) / np.sqrt(2 * 1.25)) - norm.cdf(2 / np.sqrt(2 * 1.25))
    for run in range(runs):
        difference = only(pair(300, gain, seed=run), resamples=300).auc_difference
        covered += difference.low <= truth <= difference.high
    assert 0.91 <= covered / runs <= 0.985
