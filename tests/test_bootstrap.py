"""The bootstrap: its metrics are those of apn.metrics, its intervals as wide as theory says, groups stay together."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from apn import bootstrap as module
from apn.bootstrap import Images, bootstrap, bootstrap_interval, interval
from apn.metrics import Metrics, auc, measure, sigmoid


def made(count: int, seed: int = 0, ties: bool = False, groups: int | None = None) -> Images:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    logits = labels + rng.normal(0, 1.5, count)
    logits = np.round(2 * logits) / 2 if ties else logits
    codes = np.arange(count) if groups is None else rng.permutation(count) % groups
    return Images(labels, logits, sigmoid(logits), logits >= 0.4, codes)


def exact(images: Images, member: np.ndarray) -> Metrics[float]:
    return measure(images.labels[member], images.logits[member], images.probabilities[member], images.called[member])


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(0, 1000), st.booleans())
def test_undisturbed_images_give_the_metrics_themselves(count: int, seed: int, ties: bool) -> None:
    """Also for sets of one class and for empty sets, which are undefined in the same places."""
    images = made(count, seed, ties)
    sets = [
        np.ones(count, bool),
        images.labels == 1,
        images.labels == 0,
        np.arange(count) % 3 == 0,
        np.zeros(count, bool),
    ]
    found = bootstrap(images, sets, resamples=0)
    for number, member in enumerate(sets):
        for name, value in exact(images, member)._asdict().items():
            assert getattr(found, name)[0, number] == pytest.approx(value, abs=2e-6, nan_ok=True), name


@pytest.mark.parametrize("resamples", [0, 3])
def test_where_nothing_was_scored_all_is_undefined(resamples: int) -> None:
    nothing = Images(np.zeros(0, int), np.zeros(0), np.zeros(0), np.zeros(0, bool), np.zeros(0, int))
    found = bootstrap(nothing, [np.zeros(0, bool)], resamples=resamples)
    for values in found:
        assert values.shape == (max(resamples, 1), 1)
        assert np.isnan(values).all()


def test_a_resample_is_the_metric_of_the_images_repeated_as_drawn() -> None:
    images, count = made(80, ties=True, groups=30), 5
    weights = next(module._weights(30, count, 7))
    assert weights.sum(axis=0) == pytest.approx(30)
    sets = [np.ones(80, bool), (images.labels == 0) | (np.arange(80) < 40)]
    found = bootstrap(images, sets, resamples=count, seed=7)
    for r in range(count):
        times = weights[:, r].astype(int)[images.groups]
        drawn = Images(*(np.repeat(column, times) for column in images))
        for s, member in enumerate(sets):
            for name, value in exact(drawn, np.repeat(member, times))._asdict().items():
                assert getattr(found, name)[r, s] == pytest.approx(value, abs=2e-6), name


def test_bins_and_poisson_weights_give_the_same_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    images, sets = made(4000), [np.ones(4000, bool)]
    few = bootstrap(images, sets, resamples=1500)
    monkeypatch.setattr(module, "EXACT", 500)
    monkeypatch.setattr(module, "POISSON", 1000)
    many, middle = (bootstrap(images, sets, resamples=count, seed=1) for count in (1500, 0))
    for name, value in exact(images, sets[0])._asdict().items():
        center = getattr(middle, name)[0, 0]
        assert center == pytest.approx(value, abs=2e-3), name
        ends = [np.ravel(interval(getattr(values, name))) for values in (few, many)]
        width = ends[0][1] - ends[0][0]
        assert ends[1] - center == pytest.approx(ends[0] - value, abs=0.15 * width), name


def test_poisson_weights_have_mean_and_variance_1() -> None:
    weights = next(module._weights(50_000, 20, 0))
    assert weights.mean() == pytest.approx(1, abs=5e-3)
    assert weights.var() == pytest.approx(1, abs=1e-2)
    assert (weights == 0).mean() == pytest.approx(math.exp(-1), abs=2e-3)


def test_interval_is_as_wide_as_hanley_and_mcneil_say() -> None:
    count, shift = 200, 1.0
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 1, count), rng.normal(shift, 1, count)])
    labels = np.repeat([0, 1], count)
    low, high = bootstrap_interval(labels, scores, np.arange(2 * count), resamples=600)
    area = norm.cdf(shift / math.sqrt(2))
    assert low < auc(labels, scores) < high
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (count - 1) * (q1 - area**2) + (count - 1) * (q2 - area**2)) / count**2
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.2)
    assert (low, high) == bootstrap_interval(labels, scores, np.arange(2 * count), resamples=600)


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


def test_a_class_of_one_group_has_no_interval() -> None:
    """Its single group is in a resample as it is or not at all, which would leave no doubt where all is doubt."""
    labels, scores = np.array([0, 0, 0, 1, 1]), np.array([0.0, 1, 2, 3, 4])
    assert bootstrap_interval(labels, scores, np.array([0, 1, 2, 3, 4])) == (1, 1)
    assert all(map(math.isnan, bootstrap_interval(labels, scores, np.array([0, 1, 2, 3, 3]))))
    assert all(map(math.isnan, bootstrap_interval(labels, scores, np.array([0, 0, 0, 3, 4]))))


def test_many_sets_do_not_run_out_of_codes() -> None:
    images = made(300)
    sets = [np.arange(300) % 97 == number for number in range(97)]
    found = bootstrap(images, sets, resamples=0)
    for number in (0, 50, 96):
        assert found.accuracy[0, number] == pytest.approx(exact(images, sets[number]).accuracy)


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """400 data sets of 300 images in groups of two: 95 % intervals hold the true value in 92 to 98 % of them."""
    shift, runs = 1.2, 400
    truth = {
        "auc": norm.cdf(shift / math.sqrt(2)),
        "accuracy": norm.cdf(shift / 2),
        "balanced_accuracy": norm.cdf(shift / 2),
        "tpr_at_5": norm.cdf(shift - norm.ppf(0.95)),
        "eer": norm.cdf(-shift / 2),
    }
    covered = dict.fromkeys(truth, 0)
    for run in range(runs):
        rng = np.random.default_rng(run)
        groups, labels = np.arange(300) // 2, np.arange(300) // 2 % 2
        shared = rng.normal(0, math.sqrt(0.5), 150)[groups]  # members of a group resemble each other
        scores = shift * labels + shared + rng.normal(0, math.sqrt(0.5), 300)
        logits = shift * (scores - shift / 2)  # the optimal detector: 0 is the best threshold
        images = Images(labels, logits, sigmoid(logits), logits >= 0, groups)
        found = bootstrap(images, [np.ones(300, bool)], resamples=300, seed=run)
        for name, value in truth.items():
            low, high = interval(getattr(found, name)[:, 0])
            covered[name] += low <= value <= high
    for name, count in covered.items():
        assert 0.92 <= count / runs <= 0.98, (name, count / runs)
