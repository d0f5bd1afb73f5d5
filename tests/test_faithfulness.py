"""Tests of explanations, tested on networks whose evidence is known."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import noise, tiny_model
from torch import Tensor

from apn.faithfulness import (
    RANDOMIZED,
    SIDES,
    blurred,
    insertion_deletion,
    localisation_auc,
    plant,
    randomized,
    rank_correlation,
    shuffled_cells,
    turned,
)
from apn.heatmaps import tile_maps

SIZE = 8
WEIGHT = torch.from_numpy(np.random.default_rng(0).random((SIZE, SIZE)).astype(np.float32))


def linear(images: Tensor) -> Tensor:
    """A network whose evidence is known: place by place WEIGHT times the picture."""
    return (WEIGHT * images.mean(dim=1)).sum(dim=(1, 2))


def test_curves_of_a_linear_network_are_sums_of_its_sorted_weights() -> None:
    image, baseline = torch.ones(3, SIZE, SIZE), torch.zeros(3, SIZE, SIZE)
    found = insertion_deletion(linear, image, WEIGHT.numpy(), baseline, steps=SIZE * SIZE)
    cumulated = np.concatenate([[0], np.cumsum(np.sort(WEIGHT.numpy().ravel())[::-1])])
    np.testing.assert_allclose(found.insertion, cumulated, rtol=1e-5)
    np.testing.assert_allclose(found.deletion, cumulated[-1] - cumulated, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.fractions, np.arange(65) / 64)
    assert found.insertion_area == pytest.approx((cumulated[:-1] + cumulated[1:]).sum() / 128, rel=1e-5)
    assert found.insertion_area + found.deletion_area == pytest.approx(cumulated[-1], rel=1e-5)


@given(st.integers(0, 10**6))
def test_no_map_beats_the_true_one(seed: int) -> None:
    image, baseline = torch.ones(3, SIZE, SIZE), torch.zeros(3, SIZE, SIZE)
    true, other = (
        insertion_deletion(linear, image, heat, baseline)
        for heat in (WEIGHT.numpy(), np.random.default_rng(seed).random((SIZE, SIZE)))
    )
    assert true.insertion_area >= other.insertion_area
    assert true.deletion_area <= other.deletion_area
    for curve in (true.insertion, true.deletion[::-1]):
        assert curve[0] == pytest.approx(0)
        assert curve[-1] == pytest.approx(float(WEIGHT.sum()), rel=1e-5)


def test_places_without_evidence_come_in_a_random_order_of_the_seed() -> None:
    image, baseline, flat = torch.ones(3, SIZE, SIZE), torch.zeros(3, SIZE, SIZE), np.zeros((SIZE, SIZE))
    first, again, other = (insertion_deletion(linear, image, flat, baseline, seed=seed).insertion for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found \(3, 8, 8\), \(3, 8, 8\) and \(7, 7\)"):
        insertion_deletion(linear, torch.ones(3, 8, 8), np.zeros((7, 7)), torch.ones(3, 8, 8))


def test_blurring_keeps_a_constant_and_the_mean_and_removes_a_checkerboard() -> None:
    np.testing.assert_allclose(blurred(torch.full((3, 64, 64), 0.3)), 0.3, rtol=1e-5)
    board = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(3, 64, 64)
    np.testing.assert_allclose(blurred(board)[:, 16:48, 16:48], 0.5, atol=1e-3)


@pytest.mark.parametrize("side", SIDES)
def test_half_of_the_picture_is_planted_and_the_mask_says_which(side: str) -> None:
    photo, fake = np.zeros((6, 9, 3), np.uint8), np.full((6, 9, 3), 7, np.uint8)
    mixed, mask = plant(photo, fake, side)  # type: ignore[arg-type]
    np.testing.assert_array_equal(mixed[..., 0] == 7, mask)
    assert 0.4 < mask.mean() < 0.6
    inside = {"left": mask[:, 0], "right": mask[:, -1], "top": mask[0], "bottom": mask[-1]}[side]
    assert inside.all()


def test_planting_needs_two_pictures_of_one_size_and_a_side() -> None:
    photo = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="of one size"):
        plant(photo, np.zeros((4, 5, 3), np.uint8), "left")
    with pytest.raises(ValueError, match="expected a side of left"):
        plant(photo, photo, "inside")  # type: ignore[arg-type]


def test_localisation_is_1_on_the_mask_0_beside_it_and_a_half_for_nothing() -> None:
    mask = plant(np.zeros((8, 8, 3)), np.ones((8, 8, 3)), "top")[1]
    assert localisation_auc(mask.astype(float), mask) == 1
    assert localisation_auc(1.0 - mask, mask) == 0
    assert localisation_auc(np.zeros((8, 8)), mask) == 0.5
    half = mask & (np.arange(8) < 4)  # half of the mask's places are above all others, the rest equal
    assert localisation_auc(half.astype(float), mask) == 0.75
    with pytest.raises(ValueError, match="some places"):
        localisation_auc(np.zeros((8, 8)), np.ones((8, 8), bool))


def test_turned_maps_are_the_same_map_with_each_place_elsewhere() -> None:
    heat = np.arange(12.0).reshape(3, 4)
    found = turned(heat)
    assert [one[0, 0] for one in found] == [3, 8, 11]  # the corners
    for one in found:
        assert one.shape == heat.shape
        assert set(one.ravel()) == set(heat.ravel())
        assert np.abs(np.diff(one, axis=1)).max() == np.abs(np.diff(heat, axis=1)).max()  # as smooth


def test_shuffled_cells_are_the_same_cells_elsewhere() -> None:
    heat = np.arange(12.0).reshape(3, 4)
    found = shuffled_cells(heat, 1)
    assert found.shape == heat.shape
    np.testing.assert_array_equal(np.sort(found.ravel()), heat.ravel())
    assert (found != heat).any()


def test_randomizing_changes_what_it_says_and_nothing_else() -> None:
    model = tiny_model(5, further_looks=[{"view": "residual", "backbone": "resnet10_narrow", "scale": 2}]).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for what, pattern in RANDOMIZED.items():
        found = randomized(model, what, seed=1)
        assert not found.training
        for name, value in found.state_dict().items():
            if not re.match(pattern, name):
                assert torch.equal(value, before[name]), name
        assert not torch.equal(found.classifier[0].weight, before["classifier.0.weight"])
        assert not torch.allclose(found(noise(1)).logits, model(noise(1)).logits)
    heads = randomized(model, "all heads").state_dict()
    for name in ("spatial.head.0.weight", "spatial.further.0.head.0.weight"):
        assert not torch.equal(heads[name], before[name])
    trunk = "spatial.backbone.stem.0.weight"
    assert not torch.equal(randomized(model, "everything").state_dict()[trunk], before[trunk])
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    with pytest.raises(ValueError, match="expected what to randomize as one of classifier"):
        randomized(model, "nothing")


def test_a_randomized_network_has_another_heat_map() -> None:
    model, tiles = tiny_model(5).eval(), noise(6)
    before, after = tile_maps(model, tiles), tile_maps(randomized(model, "everything", seed=8), tiles)
    same = tile_maps(model, tiles)
    for name in ("spatial", "frequency"):
        pairs = zip(getattr(before, name), getattr(after, name), strict=True)
        assert np.nanmean([rank_correlation(*pair) for pair in pairs]) < 0.9
        for one, other in zip(getattr(before, name), getattr(same, name), strict=True):
            assert np.isnan(found := rank_correlation(one, other)) or found == pytest.approx(1)


def test_rank_correlation_knows_order_alone() -> None:
    heat = np.array([[0.0, 1.0], [4.0, 9.0]])
    assert rank_correlation(heat, np.sqrt(heat)) == pytest.approx(1)
    assert rank_correlation(heat, -heat) == pytest.approx(-1)
    assert np.isnan(rank_correlation(heat, np.ones((2, 2))))
    with pytest.raises(ValueError, match="one shape"):
        rank_correlation(heat, np.ones((3, 3)))
