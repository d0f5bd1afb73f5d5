"""Calibration: it recovers what made the logits, keeps the promised error rates, and says what is wrong with a file."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apn.calibration import (
    Calibration,
    Thresholds,
    conformal_quantile,
    expected_calibration_error,
    fit_calibration,
    images_needed,
    read_calibration,
    sigmoid,
    write_calibration,
)


def simulated(count: int, temperature: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose true probability of generated is sigmoid(logit / temperature), and labels tossed with it."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, count)
    labels = (rng.random(count) < 1 / (1 + np.exp(-true))).astype(int)
    return temperature * true, labels


def test_temperature_is_recovered() -> None:
    for temperature in (0.5, 3.0):
        logits, labels = simulated(20_000, temperature)
        found = fit_calibration(logits, labels, fitted_on="simulation")
        assert found.temperature == pytest.approx(temperature, rel=0.05)
        assert found.ece is not None
        assert found.ece < 0.015
        softmax_error = expected_calibration_error([sigmoid(x) for x in logits], labels)
        assert softmax_error > 5 * found.ece


def test_class_shares_do_not_move_the_temperature() -> None:
    """Fitted as if half were real: dropping most real images must not make the detector suspicious."""
    logits, labels = simulated(60_000, 2.0)
    kept = (labels == 1) | (np.random.default_rng(1).random(len(labels)) < 0.2)
    found = fit_calibration(logits[kept], labels[kept], fitted_on="simulation")
    assert found.temperature == pytest.approx(2.0, rel=0.05)


def test_isotonic_map_is_monotone_and_recovers_the_truth() -> None:
    rng = np.random.default_rng(0)
    logits = rng.uniform(-3, 3, 30_000)
    truth = np.clip(0.5 + logits / 10 + 0.2 * np.sign(logits), 0, 1)  # a step that no temperature follows
    labels = (rng.random(len(logits)) < truth).astype(int)
    found = fit_calibration(logits, labels, method="isotonic", fitted_on="simulation")
    grid = np.linspace(-5, 5, 301)
    values = np.array([found.probability(x) for x in grid])
    assert (np.diff(values) >= 0).all()
    inside = (np.abs(grid) < 2.9) & (np.abs(grid) > 0.1)
    expected = np.clip(0.5 + grid / 10 + 0.2 * np.sign(grid), 0, 1)
    assert np.abs(values - expected)[inside].max() < 0.06
    assert values[0] >= 1e-3
    assert values[-1] <= 1 - 1e-3  # never certain
    assert all(math.isfinite(found.probability(x)) for x in (-1e9, 1e9))


def test_centered_isotonic_by_hand() -> None:
    """Each step of the isotonic curve is a point at the mean of its logits, straight lines lie between them."""
    logits, labels = np.repeat(np.arange(8.0), 5), np.repeat([0, 1, 0, 0, 1, 1, 0, 1], 5)
    found = fit_calibration(logits, labels, method="isotonic", fitted_on="simulation")
    assert found.knots_logit == pytest.approx((0, 2, 5, 7))
    assert found.knots_probability == pytest.approx((1e-3, 1 / 3, 2 / 3, 1 - 1e-3))
    assert [found.probability(x) for x in (-1, 3.5, 8)] == pytest.approx([1e-3, 0.5, 1 - 1e-3])


def test_thresholds_keep_the_promised_rates() -> None:
    """Averaged over many calibration sets, whatever the distribution: at most the target, and not far under it."""
    rng = np.random.default_rng(0)
    rates = {"fpr": [], "fnr": []}
    fresh = {0: rng.gamma(2, 1, 20_000), 1: 0.5 + rng.gamma(4, 1, 20_000)}
    for _ in range(100):
        logits = np.concatenate([rng.gamma(2, 1, 99), 0.5 + rng.gamma(4, 1, 99)])
        # method "none" has a known map, so that rates can be read off logits
        found = fit_calibration(
            logits, np.repeat([0, 1], 99), method="none", target_fpr=0.1, target_fnr=0.04, fitted_on="simulation"
        )
        upper, lower = (math.log(p / (1 - p)) for p in (found.generated_from, found.real_below))
        rates["fpr"].append((fresh[0] >= upper).mean())
        rates["fnr"].append((fresh[1] < lower).mean())
        assert found.real_below <= found.generated_from
    assert 0.085 < np.mean(rates["fpr"]) < 0.105
    assert 0.03 < np.mean(rates["fnr"]) < 0.045


@pytest.mark.parametrize("method", ["none", "temperature", "isotonic"])
def test_thresholds_keep_the_rates_on_the_images_they_were_fitted_on(method: str) -> None:
    logits, labels = simulated(4000)
    found = fit_calibration(logits, labels, method=method, target_fpr=0.1, target_fnr=0.05, fitted_on="simulation")
    verdicts = np.array([found.verdict(found.probability(x)) for x in logits])
    assert (verdicts[labels == 0] == "generated").mean() <= 0.1 + 1e-9
    assert (verdicts[labels == 1] == "real").mean() <= 0.05 + 1e-9
    assert (verdicts[labels == 0] == "generated").mean() > 0.09
    assert (verdicts[labels == 1] == "real").mean() > 0.04
    assert {"real", "unsure", "generated"} == set(verdicts)


def with_extremes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels, and the lowest and highest of each logit and four that lie about it."""
    logits, labels = simulated(count, seed=seed)
    moved = logits[:, None] + np.random.default_rng(seed).normal(0, 1, (count, 4))
    all_of_them = np.column_stack([logits, moved])
    return logits, labels, np.column_stack([all_of_them.min(axis=1), all_of_them.max(axis=1)])


@pytest.mark.parametrize("method", ["none", "temperature", "isotonic"])
def test_thresholds_of_the_check_keep_its_rates_and_give_more_verdicts(method: str) -> None:
    logits, labels, extremes = with_extremes(4000)
    found = fit_calibration(
        logits, labels, method=method, extremes=extremes, checked_fpr=0.02, checked_fnr=0.01, fitted_on="simulation"
    )
    lowest, highest = (np.array([found.probability(x) for x in column]) for column in extremes.T)

    def called(one: Thresholds) -> tuple[np.ndarray, np.ndarray]:
        return lowest >= one.generated_from, highest < one.real_below

    generated, real = called(found.thresholds(checked=True))
    assert 0.015 < generated[labels == 0].mean() <= 0.02
    assert 0.005 < real[labels == 1].mean() <= 0.01
    strict = fit_calibration(logits, labels, method=method, target_fpr=0.02, target_fnr=0.01, fitted_on="simulation")
    for mine, theirs in zip((generated, real), called(strict.thresholds(checked=True)), strict=True):
        assert mine.sum() > theirs.sum(), "thresholds of one score are stricter than the check needs"


def test_images_without_re_deliveries_do_not_move_the_check() -> None:
    logits, labels, extremes = with_extremes(400)
    first = slice(0, 200)
    partly = np.where(np.arange(400)[:, None] < 200, extremes, np.nan)
    found = fit_calibration(logits, labels, method="none", extremes=partly, fitted_on="simulation")
    alone = fit_calibration(
        logits[first], labels[first], method="none", extremes=extremes[first], fitted_on="simulation"
    )
    assert found.checked == alone.checked
    assert found.thresholds() != alone.thresholds()
    with pytest.raises(ValueError, match="20 generated images with re-deliveries, found 0 and 0"):
        fit_calibration(logits, labels, extremes=np.full((400, 2), np.nan), fitted_on="simulation")


def test_without_thresholds_of_its_own_the_check_has_those_of_one_score() -> None:
    found = fit_calibration(*simulated(300), fitted_on="simulation")
    assert found.checked is None
    assert found.thresholds(checked=True) == found.thresholds()
    assert found.thresholds().generated_from == found.generated_from


def test_a_perfect_detector_has_no_unsure_band() -> None:
    logits = np.concatenate([np.linspace(-5, -1, 100), np.linspace(1, 5, 100)])
    found = fit_calibration(logits, np.repeat([0, 1], 100), fitted_on="simulation")
    assert found.real_below == found.generated_from
    assert {found.verdict(p) for p in np.linspace(0, 1, 101)} == {"real", "generated"}


def test_few_images_promise_nothing() -> None:
    """20 images of a class cannot promise 1 %: then no verdict is given on that side."""
    logits, labels = np.linspace(-3, 3, 60), np.repeat([0, 1], 30)
    found = fit_calibration(logits, labels, target_fpr=0.01, target_fnr=0.01, fitted_on="simulation")
    assert found.verdict(0.999) == "unsure"
    assert found.verdict(0.001) == "unsure"


def test_what_was_measured_is_written_down() -> None:
    logits, labels = simulated(500)
    found = fit_calibration(logits, labels, target_fpr=0.2, fitted_on="500 made numbers")
    assert (found.real_images, found.generated_images) == ((labels == 0).sum(), (labels == 1).sum())
    assert (found.target_fpr, found.target_fnr, found.fitted_on) == (0.2, 0.05, "500 made numbers")
    assert "knots_logit" not in found.describe()
    assert found.describe()["temperature"] == found.temperature


@pytest.mark.parametrize(("level", "expected"), [(0.5, 2.0), (0.75, 3.0), (0.76, math.inf), (0.25, 1.0)])
def test_conformal_quantile_by_hand(level: float, expected: float) -> None:
    assert conformal_quantile(np.array([3.0, 1.0, 2.0]), level) == expected


@pytest.mark.parametrize(("rate", "images"), [(0.5, 1), (0.3, 3), (0.1, 9), (0.07, 14), (0.05, 19), (0.01, 99)])
def test_so_many_images_promise_a_rate_and_one_less_does_not(rate: float, images: int) -> None:
    assert images_needed(rate) == images
    assert math.isfinite(conformal_quantile(np.arange(images), 1 - rate))
    assert not math.isfinite(conformal_quantile(np.arange(images - 1), 1 - rate))


def test_expected_calibration_error_by_hand() -> None:
    assert expected_calibration_error([0.5, 0.5], [0, 1]) == pytest.approx(0)
    assert expected_calibration_error([0.75, 0.75], [0, 1]) == pytest.approx(0.25)
    assert expected_calibration_error([0.0, 1.0], [1, 0]) == pytest.approx(1)
    # Two of two bins: |0.5 - 0.2| over two images, |1 - 0.9| over one.
    assert expected_calibration_error([0.1, 0.3, 0.9], [0, 1, 1], bins=2) == pytest.approx((2 * 0.3 + 0.1) / 3)


@given(st.floats(-1e6, 1e6))
def test_sigmoid_never_overflows_and_is_symmetric(logit: float) -> None:
    assert sigmoid(logit) + sigmoid(-logit) == pytest.approx(1)
    assert sigmoid(logit) == pytest.approx(0.5 * (1 + math.tanh(logit / 2)), abs=1e-12)


@pytest.mark.parametrize("method", ["none", "temperature", "isotonic"])
def test_written_and_read_back(method: str, tmp_path: Path) -> None:
    logits, labels, extremes = with_extremes(300)
    found = fit_calibration(
        logits, labels, method=method, extremes=extremes, least_colour=1.5, most_flat=0.4, fitted_on="simulation"
    )
    assert (found.least_colour, found.most_flat) == (1.5, 0.4)
    write_calibration(found, tmp_path / "calibration.json")
    assert read_calibration(tmp_path) == found
    assert read_calibration(tmp_path / "calibration.json") == found


def test_a_folder_without_one_means_softmax_and_a_half(tmp_path: Path) -> None:
    found = read_calibration(tmp_path)
    assert found == Calibration()
    assert found.probability(1.5) == sigmoid(1.5)
    assert [found.verdict(p) for p in (0.4999, 0.5)] == ["real", "generated"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not a calibration: expected JSON as `apn calibrate` writes it"),
        ("[1]", "is not a calibration"),
        ('{"temprature": 2}', "is not a calibration.*temprature"),
        ('{"temperature": 0}', "temperature > 0, found"),
        ('{"least_colour": 256}', "expected least_colour between 0 and 255, found"),
        ('{"most_flat": 1.5}', "expected most_flat between 0 and 1, found"),
        ('{"temperature": "hot"}', "is not a calibration"),
        ('{"real_below": 0.9}', "expected 0 <= real_below <= generated_from <= 1"),
        ('{"checked": {"real_below": 0.9}}', "expected 0 <= real_below <= generated_from <= 1"),
        ('{"checked": {"real_above": 0.9}}', "is not a calibration.*real_above"),
        ('{"method": "magic"}', "magic"),
        ('{"method": "isotonic"}', "knots"),
        ('{"temperature": Infinity}', "a finite temperature > 0, found"),
        ('{"method": "isotonic", "knots_logit": [1, 0], "knots_probability": [0, 1]}', "finite knots_logit that rise"),
        ('{"method": "isotonic", "knots_logit": [0, 1], "knots_probability": [1, 0]}', "knots_probability that rise"),
        ('{"method": "isotonic", "knots_logit": [0, NaN], "knots_probability": [0, 1]}', "finite knots_logit"),
        ('{"method": "isotonic", "knots_logit": [0, 1], "knots_probability": [0, 9]}', "that rise from 0 to 1"),
        ('{"method": "isotonic", "knots_logit": ["a"], "knots_probability": [0]}', "is not a calibration"),
    ],
)
def test_a_file_that_is_no_calibration(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"calibration.json.*{message}"):
        read_calibration(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone.json is not a calibration"):
        read_calibration(tmp_path / "gone.json")


def test_data_that_cannot_be_fitted() -> None:
    logits, labels = simulated(300)
    with pytest.raises(ValueError, match=r"expected at least 20 real and 20 generated images .*, found 100 and 0"):
        fit_calibration(np.zeros(100), np.zeros(100), fitted_on="nothing")
    with pytest.raises(ValueError, match="wrong labels"):
        fit_calibration(logits, 1 - labels, fitted_on="nothing")
    with pytest.raises(ValueError, match="expected checked_fpr between 0 and 1, found 0"):
        fit_calibration(logits, labels, extremes=np.column_stack([logits, logits]), checked_fpr=0, fitted_on="nothing")
    with pytest.raises(ValueError, match="expected logits of re-deliveries"):
        fit_calibration(logits, labels, checked_fnr=0.01, fitted_on="nothing")
    with pytest.raises(ValueError, match="expected target_fpr between 0 and 1, found 1"):
        fit_calibration(logits, labels, target_fpr=1, fitted_on="nothing")


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    write_calibration(Calibration(temperature=2.0), tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["temperature"] == 2.0


def test_a_folder_without_a_calibration_is_refused_where_one_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"no calibration in {re.escape(str(tmp_path))}: expected calibration.json"):
        read_calibration(tmp_path, required=True)
    found = fit_calibration(*simulated(100), fitted_on="simulation")
    write_calibration(found, tmp_path / "calibration.json")
    assert read_calibration(tmp_path, required=True) == found
