"""Probes and information against closed forms; the table and figure hold these numbers."""

from pathlib import Path

import numpy as np
import pytest
from made_embeddings import made_embeddings
from matplotlib.figure import Figure

from apn.explain_figures import figure_pixels
from apn.plots.purification import purification_figure
from apn.purification import (
    _NAN,
    Purity,
    _balanced,
    club_bound,
    knn_information,
    linear_probe,
    measure_purity,
    purity_table,
    shared_information,
    table_names,
    whitened,
)

RHO = 0.6


def gaussian_pairs(count: int, dim: int, rho: float = RHO, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two (N, D) whose columns correlate pairwise, and a group for each."""
    rng = np.random.default_rng(seed)
    one, noise = rng.normal(size=(2, count, dim))
    return one, rho * one + np.sqrt(1 - rho**2) * noise, np.arange(count)


@pytest.fixture(scope="module")
def purity() -> Purity:
    return measure_purity("made", made_embeddings(), resamples=100)


def test_probes_find_what_was_put_in_and_nothing_else(purity: Purity) -> None:
    for target, part, knows in (
        ("label", "artifact", True),
        ("generator", "artifact", False),
        ("generator", "irrelevant", True),
        ("source", "artifact", False),
        ("source", "irrelevant", True),
    ):
        probe = purity.probe(target, part)
        if knows:
            assert probe.accuracy.value > 0.9, (target, part)
        else:
            assert abs(probe.accuracy.value - probe.chance) < 0.2, (target, part)
        assert probe.accuracy.low <= probe.accuracy.value <= probe.accuracy.high
    assert purity.probe("generator", "artifact").chance == pytest.approx(1 / 3)
    assert (purity.probe("source", "artifact").images, purity.probe("source", "artifact").classes) == (60, 2)


def test_what_only_a_group_has_in_common_does_not_help() -> None:
    """Each group's own direction tells the label of its images, and nothing of other groups."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    labels = np.repeat(rng.permutation(np.arange(40) % 2), 6)
    features = 5 * np.eye(40)[groups] + 0.1 * rng.normal(size=(240, 40))
    assert linear_probe(features, labels, groups, resamples=50).accuracy.value < 0.65


def test_a_class_in_too_few_groups_is_left_out_and_one_class_is_nothing_to_tell() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(60, 3)), np.array(["a"] * 28 + ["b"] * 28 + ["c"] * 4)
    probe = linear_probe(features, targets, np.arange(60), resamples=20)
    assert (probe.classes, probe.images, probe.chance) == (2, 56, 0.5)
    probe = linear_probe(features, np.zeros(60), np.arange(60), resamples=20)
    assert probe.classes == 1
    assert np.isnan(probe.accuracy.value)


def test_balanced_accuracy_and_its_interval_count_classes_not_images() -> None:
    """Nothing to tell from: the probe may answer as it likes, and half of two classes is right."""
    rng = np.random.default_rng(1)
    targets = (np.arange(300) % 10 == 0).astype(int)
    probe = linear_probe(rng.normal(size=(300, 2)), targets, np.arange(300), resamples=300)
    assert abs(probe.accuracy.value - 0.5) < 0.12
    assert probe.accuracy.low < 0.5 < probe.accuracy.high + 0.05
    assert 0.08 < probe.accuracy.high - probe.accuracy.low < 0.35


def test_nearest_neighbours_find_the_information_of_gaussians() -> None:
    """I = - log(1 - rho^2) / 2 for each pair of columns."""
    one, other, _ = gaussian_pairs(1500, 2)
    assert knn_information(one, other) == pytest.approx(-np.log(1 - RHO**2), abs=0.08)
    assert knn_information(one, gaussian_pairs(1500, 2, seed=9)[0]) == pytest.approx(0, abs=0.06)


def test_club_finds_its_own_closed_form_and_lies_above_the_information() -> None:
    """With the true q of standard normal pairs the bound is rho^2 / (1 - rho^2) for each pair of columns."""
    one, other, groups = gaussian_pairs(1500, 2)
    found = club_bound(one, other, groups)
    assert found == pytest.approx(2 * RHO**2 / (1 - RHO**2), rel=0.25)
    assert found > -np.log(1 - RHO**2)
    assert abs(club_bound(one, gaussian_pairs(1500, 2, seed=9)[0], groups)) < 0.1


def test_information_survives_a_change_of_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apn.purification.SHUFFLES", 1)
    one, other, groups = gaussian_pairs(300, 4)
    turned = one @ np.random.default_rng(3).normal(size=(4, 4)) * 50 + 7
    plain, changed = (shared_information(part, other, groups, components=4) for part in (one, turned))
    assert changed.knn == pytest.approx(plain.knn, abs=0.05)
    assert changed.club == pytest.approx(plain.club, rel=0.3)
    assert plain.knn > plain.knn_shuffled + 0.3
    assert plain.club > plain.club_shuffled + 0.5


def test_whitening_gives_uncorrelated_columns_and_leaves_out_empty_ones() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6))
    found = whitened(values, 5)
    assert found.shape == (200, 2)
    np.testing.assert_allclose(np.cov(found.T), np.eye(2), atol=1e-8)


def test_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apn.purification.SHUFFLES", 1)
    embeddings = made_embeddings(60)
    first, second = (measure_purity("a", embeddings, resamples=10, seed=4) for _ in range(2))
    assert first == second


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 40 images.*found 20"):
        measure_purity("a", made_embeddings(20))


def test_the_table_says_the_numbers_and_the_figure_draws_them(purity: Purity, tmp_path: Path) -> None:
    table = purity_table([purity])
    header, _, row = table.splitlines()[:3]
    assert header.count("|") == row.count("|") == 11
    probe = purity.probe("label", "artifact").accuracy
    assert f"{probe.value:.3f} ({probe.low:.3f} to {probe.high:.3f})" in row
    assert f"{purity.shared.knn:.2f} ({purity.shared.knn_shuffled:.2f})" in row
    assert "generator: 60 images, 3 classes, chance 0.333" in table
    figure = purification_figure([purity, purity._replace(name="later")], "made")
    assert isinstance(figure, Figure)
    assert figure_pixels(figure, 60).std() > 10
    (line,) = (line for line in figure.axes[0].get_lines() if line.get_marker() == "D")
    np.testing.assert_allclose(line.get_ydata(), [probe.value] * 2)


def test_too_few_groups_are_refused_and_a_part_that_never_varies_shares_nothing() -> None:
    made = made_embeddings()
    few = made._replace(scores=made.scores._replace(groups=made.scores.groups % 4))
    with pytest.raises(ValueError, match=r"at least 40 images in 5 split groups .* found \d+ in 4 of made"):
        measure_purity("made", few)
    constant = np.ones_like(made.irrelevant_spatial)
    assert shared_information(made.artifact_spatial, constant, made.scores.groups) == (0, 0, 0, 0)


def test_the_interval_resamples_whole_groups_one_resample_at_a_time() -> None:
    rng = np.random.default_rng(0)
    groups, classes, right = rng.integers(0, 30, 200), rng.integers(0, 3, 200), rng.random(200) < 0.7
    drawn = np.random.default_rng(5).multinomial(30, np.full(30, 1 / 30), size=100)
    shares = [
        np.mean([(times[groups] * right)[classes == c].sum() / times[groups][classes == c].sum() for c in range(3)])
        for times in drawn
    ]
    found = _balanced(right, classes, groups, 100, 5)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(shares, [2.5, 97.5])))


def test_the_legend_says_why_a_cell_is_empty(purity: Purity) -> None:
    assert "–" not in purity_table([purity])
    untold = tuple(probe._replace(accuracy=_NAN, classes=1) for probe in purity.probes)
    table = purity_table([purity._replace(probes=untold)])
    assert table.count("| – ") == 6
    assert table.rstrip().endswith("–: fewer than two classes of 5 split groups.")


def test_tables_of_one_file_name_are_told_apart_by_their_folders() -> None:
    assert table_names([Path("runs/a/last.parquet"), Path("x.parquet")]) == ["last", "x"]
    same = [Path("runs/a/last.parquet"), Path("runs/b/last.parquet")]
    assert table_names(same) == ["a/last", "b/last"]
    with pytest.raises(ValueError, match=r"each table of embeddings once, found x.parquet, y/../x.parquet"):
        table_names([Path("x.parquet"), Path("y/../x.parquet")])
