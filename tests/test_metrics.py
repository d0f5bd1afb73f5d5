"""Metrics against their definitions, scikit-learn, closed forms, and what may not change them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apn.metrics import (
    METRIC_TITLES,
    Metrics,
    auc,
    average_precision,
    balanced_accuracy,
    measure,
    probabilities,
    sigmoid,
)

scored = st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
)
RANKS = ("auc", "ap", "oracle_accuracy", "tpr_at_1", "tpr_at_5", "eer")  # only the order of the scores counts


def measured(labels: np.ndarray, logits: np.ndarray, threshold: float = 0.0) -> Metrics[float]:
    logits = np.asarray(logits, float)
    return measure(labels, logits, sigmoid(logits), logits >= threshold)


def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.array(rows).T
    return labels, scores.astype(float)


@settings(max_examples=40)
@given(scored)
def test_auc_is_the_share_of_pairs_in_order_ties_half(rows: list[tuple[int, int]]) -> None:
    labels, scores = columns(rows)
    wins = np.sign(scores[labels == 1][:, None] - scores[labels == 0]) / 2 + 0.5
    assert auc(labels, scores) == pytest.approx(wins.mean())
    assert measured(labels, scores).auc == pytest.approx(wins.mean())


@settings(max_examples=40)
@given(scored, st.sampled_from([np.tanh, np.exp, lambda x: 3 * x - 7]))
def test_a_monotone_change_of_the_scores_changes_no_ranking_metric(
    rows: list[tuple[int, int]], change: Callable[[np.ndarray], np.ndarray]
) -> None:
    labels, scores = columns(rows)
    before, after = measured(labels, scores), measured(labels, change(scores / 4))
    for name in RANKS:
        assert getattr(after, name) == pytest.approx(getattr(before, name)), name


@settings(max_examples=40)
@given(scored)
def test_swapping_the_classes_and_the_scores_is_symmetric(rows: list[tuple[int, int]]) -> None:
    labels, scores = columns(rows)
    scores += 0.25  # no score at 0, where a call would fall on the other side
    before, after = measured(labels, scores), measured(1 - labels, -scores)
    for name in ("auc", "accuracy", "balanced_accuracy", "oracle_accuracy", "eer", "nll", "brier"):
        assert getattr(after, name) == pytest.approx(getattr(before, name)), name


@settings(max_examples=40)
@given(scored, st.integers(-5, 5))
def test_balanced_accuracy_is_the_mean_of_the_classes(rows: list[tuple[int, int]], threshold: int) -> None:
    labels, scores = columns(rows)
    right = [np.mean((scores[labels == of] >= threshold) == of) for of in (0, 1)]
    assert balanced_accuracy(labels, scores, threshold) == pytest.approx(np.mean(right))
    assert measured(labels, scores, threshold).balanced_accuracy == pytest.approx(np.mean(right))


@settings(max_examples=40)
@given(scored)
def test_oracle_accuracy_is_the_best_of_all_thresholds(rows: list[tuple[int, int]]) -> None:
    labels, scores = columns(rows)
    best = max(np.mean((scores >= threshold) == labels) for threshold in (*scores, np.inf))
    found = measured(labels, scores)
    assert found.oracle_accuracy == pytest.approx(best)
    assert found.oracle_accuracy >= found.accuracy - 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 400)
    logits = np.round(labels + rng.normal(0, 1.5, 400), 1)  # with ties
    chances, found = sigmoid(logits), measured(labels, logits, 0.7)
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, logits)
    assert found.auc == pytest.approx(sklearn.metrics.roc_auc_score(labels, logits))
    assert found.ap == pytest.approx(sklearn.metrics.average_precision_score(labels, logits))
    assert found.accuracy == pytest.approx(sklearn.metrics.accuracy_score(labels, chances >= 0.5))
    assert found.balanced_accuracy == pytest.approx(sklearn.metrics.balanced_accuracy_score(labels, logits >= 0.7))
    assert found.nll == pytest.approx(sklearn.metrics.log_loss(labels, chances))
    assert found.brier == pytest.approx(sklearn.metrics.brier_score_loss(labels, chances))
    assert found.tpr_at_5 == pytest.approx(np.interp(0.05, fpr, tpr))
    along = np.linspace(0, 1, 100_001)
    curve = np.interp(along, fpr, tpr)
    assert found.eer == pytest.approx(along[np.argmin(np.abs(along - (1 - curve)))], abs=1e-3)


def test_a_perfect_an_inverted_and_a_constant_detector() -> None:
    labels = np.repeat([0, 1], [300, 100])
    perfect = measured(labels, np.where(labels == 1, 5.0, -5.0))
    assert perfect[:7] == (1, 1, 1, 1, 1, 1, 1)
    assert perfect.eer == 0
    error = 1 / (1 + math.exp(5))
    assert (perfect.nll, perfect.brier, perfect.ece) == pytest.approx((-math.log(1 - error), error**2, error))
    inverted = measured(labels, np.where(labels == 1, -5.0, 5.0))
    assert (inverted.auc, inverted.accuracy, inverted.balanced_accuracy) == (0, 0, 0)
    assert (inverted.tpr_at_1, inverted.tpr_at_5, inverted.eer) == (0, 0, 1)
    assert inverted.oracle_accuracy == 0.75  # by calling everything real
    assert (inverted.brier, inverted.ece) == pytest.approx(((1 - error) ** 2, 1 - error))
    constant = measured(labels, np.zeros(400))
    assert (constant.auc, constant.balanced_accuracy, constant.eer) == (0.5, 0.5, 0.5)
    assert constant.ap == 0.25
    assert (constant.tpr_at_1, constant.tpr_at_5) == pytest.approx((0.01, 0.05))
    assert (constant.accuracy, constant.oracle_accuracy) == (0.25, 0.75)  # 0.5 is called generated
    assert (constant.nll, constant.brier, constant.ece) == pytest.approx((math.log(2), 0.25, 0.25))


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_leaves_only_what_needs_no_other(label: int) -> None:
    found = measured(np.full(3, label), np.array([-1.0, -2.0, 3.0]))
    for name in ("auc", "ap", "balanced_accuracy", "oracle_accuracy", "tpr_at_1", "tpr_at_5", "eer"):
        assert math.isnan(getattr(found, name)), name
    assert found.accuracy == pytest.approx(1 / 3 if label else 2 / 3)
    expected = sklearn.metrics.log_loss(np.full(3, label), sigmoid(np.array([-1.0, -2.0, 3.0])), labels=[0, 1])
    assert found.nll == pytest.approx(expected)
    for function in (auc, average_precision, balanced_accuracy):
        assert math.isnan(function(np.full(2, label), [0.1, 0.9]))


def test_no_image_leaves_nothing() -> None:
    found = measured(np.empty(0), np.empty(0))
    assert all(math.isnan(value) for value in found)
    assert METRIC_TITLES._fields == found._fields


def test_a_score_at_the_threshold_is_generated() -> None:
    assert balanced_accuracy([0, 1], [0.49, 0.5]) == 1
    assert balanced_accuracy([0, 1], [0.5, 0.5]) == 0.5


def test_certain_and_wrong_costs_much_but_not_everything() -> None:
    found = measure([0, 1], [900, -900], [1.0, 0.0], [True, False])
    assert found.nll == pytest.approx(-math.log(1e-15))


def test_probabilities_are_the_softmax_without_overflow() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (4, 7, 2)).astype(np.float32)
    expected = torch.from_numpy(logits).softmax(dim=-1)[..., 1].numpy()
    found = probabilities(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert probabilities(np.array([30, -30], np.float32)) == pytest.approx(math.exp(-60), rel=1e-5)  # not just 0
    extreme = np.array([[500, -500], [-500, 500], [0, 0]], np.float32)
    np.testing.assert_array_equal(probabilities(extreme), [0, 1, 0.5])
