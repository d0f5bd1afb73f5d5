"""Metrics against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from apn.metrics import auc, balanced_accuracy, bootstrap_interval, probabilities

scored = st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
)


@given(scored)
def test_auc_is_the_share_of_pairs_in_order_ties_half(rows: list[tuple[int, int]]) -> None:
    real, generated = ([score for label, score in rows if label == of] for of in (0, 1))
    wins = sum((g > r) + 0.5 * (g == r) for g in generated for r in real)
    labels, scores = zip(*rows, strict=True)
    assert auc(labels, scores) == pytest.approx(wins / (len(real) * len(generated)))
    assert auc(labels, np.tanh(np.array(scores) / 9)) == pytest.approx(auc(labels, scores))  # only the order counts


@given(scored, st.integers(-5, 5))
def test_balanced_accuracy_is_the_mean_of_the_classes(rows: list[tuple[int, int]], threshold: int) -> None:
    labels, scores = zip(*rows, strict=True)
    right = [[(score >= threshold) == label for label, score in rows if label == of] for of in (0, 1)]
    assert balanced_accuracy(labels, scores, threshold) == pytest.approx(np.mean([np.mean(part) for part in right]))


def test_one_class_has_no_auc_and_no_balanced_accuracy() -> None:
    for labels in ([0, 0], [1, 1]):
        assert math.isnan(auc(labels, [0.1, 0.9]))
        assert math.isnan(balanced_accuracy(labels, [0.1, 0.9]))


def test_a_score_at_the_threshold_is_generated() -> None:
    assert balanced_accuracy([0, 1], [0.49, 0.5]) == 1
    assert balanced_accuracy([0, 1], [0.5, 0.5]) == 0.5


def test_probabilities_are_the_softmax_without_overflow() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (4, 7, 2)).astype(np.float32)
    expected = torch.from_numpy(logits).softmax(dim=-1)[..., 1].numpy()
    found = probabilities(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert probabilities(np.array([30, -30], np.float32)) == pytest.approx(math.exp(-60), rel=1e-5)  # not just 0
    extreme = np.array([[500, -500], [-500, 500], [0, 0]], np.float32)
    np.testing.assert_array_equal(probabilities(extreme), [0, 1, 0.5])


def test_bootstrap_interval_is_as_wide_as_hanley_and_mcneil_say() -> None:
    count, shift = 200, 1.0
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 1, count), rng.normal(shift, 1, count)])
    labels = np.repeat([0, 1], count)
    low, high = bootstrap_interval(labels, scores, np.arange(2 * count), resamples=300)
    area = norm.cdf(shift / math.sqrt(2))
    assert low < auc(labels, scores) < high
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (count - 1) * (q1 - area**2) + (count - 1) * (q2 - area**2)) / count**2
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.2)
    assert (low, high) == bootstrap_interval(labels, scores, np.arange(2 * count), resamples=300)


def test_copies_in_a_group_narrow_nothing() -> None:
    """Counted as images, each four times over, the interval would be half as wide."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 100)
    scores, groups = labels + rng.normal(0, 1.5, 100), rng.integers(0, 60, 100)
    once = bootstrap_interval(labels, scores, groups, resamples=200)
    four = bootstrap_interval(*(np.tile(part, 4) for part in (labels, scores, groups)), resamples=200)
    assert four == pytest.approx(once, abs=1e-12)
    apart = bootstrap_interval(np.tile(labels, 4), np.tile(scores, 4), np.arange(400), resamples=200)
    assert apart[1] - apart[0] < 0.7 * (once[1] - once[0])


def test_separated_classes_leave_no_doubt() -> None:
    labels = np.repeat([0, 1], 20)
    assert bootstrap_interval(labels, labels + 0.1, np.arange(40), resamples=50) == (1, 1)
