"""The loss terms: official numbers, closed forms, and which terms a configuration sums."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from golden_rule import golden_arrays
from tiny import noise, tiny_model
from torch import Tensor

from apn.config import LossConfig
from apn.losses import (
    agreement_loss,
    bands_loss,
    build_clubs,
    classification_loss,
    club_learning_loss,
    floored,
    information_pairs,
    loss_terms,
    orthogonality_loss,
)
from apn.models.apn import APNOutput
from apn.models.bands import AxisBands, ComponentBands, Proposals

LABEL = torch.tensor([0, 1, 1])


@pytest.fixture(scope="module")
def golden() -> Mapping[str, np.ndarray]:
    return golden_arrays("official_losses.npz")


@pytest.fixture(scope="module")
def official(golden: Mapping[str, np.ndarray]) -> APNOutput:
    """What the official losses were computed from, as an output of ours."""
    tensors = {name: torch.from_numpy(value) for name, value in golden.items() if value.ndim}

    def bands(component: str, axis: str) -> AxisBands:
        return AxisBands(*(tensors[f"{component}.{axis}.{edge}"] for edge in ("p", "c_1", "c_2")))

    return APNOutput(
        logits=tensors["logits"],
        logits_frequency=tensors["logits_f"],
        logits_spatial=tensors["logits_s"],
        artifact=(tensors["artifact_frequency"] + tensors["club.artifact"]) / 2,
        irrelevant=(tensors["irrelevant_frequency"] + tensors["club.irrelevant"]) / 2,
        artifact_frequency=tensors["artifact_frequency"],
        artifact_spatial=tensors["club.artifact"],
        irrelevant_frequency=tensors["irrelevant_frequency"],
        irrelevant_spatial=tensors["club.irrelevant"],
        band_weights=torch.empty(0),
        proposals=Proposals(*(ComponentBands(bands(c, "x"), bands(c, "y")) for c in ("amplitude", "phase"))),
    )


def test_official_numbers(official: APNOutput, golden: Mapping[str, np.ndarray]) -> None:
    teacher = torch.from_numpy(golden["semantic_teacher"])
    assert official.irrelevant_frequency is not None
    found = {
        "CELoss": classification_loss(official, torch.from_numpy(golden["labels"])),
        "GenLoss": agreement_loss(official.artifact_spatial, official.artifact_frequency),
        "SELossSingle1": agreement_loss(official.irrelevant_spatial, official.irrelevant_frequency),
        "SELossSingle2": agreement_loss(official.irrelevant_spatial, teacher),
        "SELossSingle3": agreement_loss(official.irrelevant_frequency, teacher),
        "BandLoss": bands_loss(official.proposals),
        "PullLoss": orthogonality_loss(
            *(torch.from_numpy(golden[f"{side}_basis"]) for side in ("artifact", "irrelevant"))
        ),
    }
    assert {f"loss.{name}" for name in found} == {name for name in golden if name.startswith("loss.")}
    for name, value in found.items():
        assert value.item() == pytest.approx(golden[f"loss.{name}"].item(), rel=1e-6), name


def test_undecided_logits_cost_log_2_each(official: APNOutput) -> None:
    zeros = torch.zeros(6, 2)
    output = official._replace(logits=zeros, logits_frequency=zeros, logits_spatial=zeros)
    assert classification_loss(output, torch.tensor([0, 1, 1, 0, 0, 1])).item() == pytest.approx(3 * math.log(2))


def test_agreement_is_a_squared_distance() -> None:
    one, other = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, -1.0], [3.0, 4.0]])
    assert agreement_loss(one, other).item() == (9 + 25) / 2
    assert agreement_loss(one, one).item() == 0


def test_orthogonality_of_known_bases() -> None:
    eye = torch.eye(6)
    assert orthogonality_loss(eye[:3], eye[3:]).item() == 0
    assert orthogonality_loss(5 * eye[:3], -2 * eye[:3]).item() == pytest.approx(3)  # lengths and signs do not count
    diagonal = torch.ones(1, 6)
    assert orthogonality_loss(diagonal, eye[:3]).item() == pytest.approx(3 / math.sqrt(6))


def terms_of(config: LossConfig, teacher: Tensor | None = None) -> dict[str, float]:
    torch.manual_seed(0)
    model = tiny_model().eval()
    clubs = build_clubs(config, 48)
    with torch.no_grad():
        return {
            name: term.item()
            for name, term in loss_terms(model, model(noise(3)), LABEL, clubs, config, teacher).items()
        }


def test_each_weight_scales_its_own_term() -> None:
    teacher = noise(1, 12)[0].flatten()[: 3 * 48].view(3, 48)
    ones = terms_of(LossConfig(), teacher)
    assert list(ones) == [
        "classification",
        "artifact_agreement",
        "irrelevant_agreement",
        "band_order",
        "orthogonality",
        "information",
        "semantic",
    ]
    for name in ones:
        scaled = terms_of(LossConfig(**{name: 2.5}), teacher)
        assert scaled == pytest.approx({**ones, name: 2.5 * ones[name]})


def test_weight_0_leaves_a_term_out_and_no_teacher_leaves_out_the_semantic_one() -> None:
    assert "semantic" not in terms_of(LossConfig())
    assert set(terms_of(LossConfig(information=0, band_order=0))) == {
        "classification",
        "artifact_agreement",
        "irrelevant_agreement",
        "orthogonality",
    }


def test_semantic_term_is_both_branches_distance_to_the_teacher() -> None:
    with torch.no_grad():
        output = tiny_model().eval()(noise(3))
    teacher = output.irrelevant_spatial
    expected = agreement_loss(output.irrelevant_frequency, teacher).item()
    assert terms_of(LossConfig(), teacher)["semantic"] == pytest.approx(expected)


def test_band_order_margin_is_the_settings() -> None:
    """Where a start lies behind its end, each unit of margin adds a unit per void band."""
    small, large = (terms_of(LossConfig(band_order_margin=m))["band_order"] for m in (10.0, 11.0))
    assert large - small == pytest.approx(4 * 3 * 2)  # four axes, three colours, two bands, all short of 10


@pytest.mark.parametrize(("club_pairs", "count"), [("mean", 1), ("branches", 2)])
def test_information_pairs_and_their_clubs(club_pairs: str, count: int) -> None:
    with torch.no_grad():
        output = tiny_model().eval()(noise(3))
    config = LossConfig(club_pairs=club_pairs)
    pairs, clubs = information_pairs(output, club_pairs), build_clubs(config, 48)
    assert len(pairs) == len(clubs) == count
    assert output.irrelevant_frequency is not None
    if club_pairs == "mean":
        torch.testing.assert_close(pairs[0][0], (output.artifact_frequency + output.artifact_spatial) / 2)
        torch.testing.assert_close(pairs[0][1], (output.irrelevant_frequency + output.irrelevant_spatial) / 2)
    else:
        assert pairs[0] == (output.artifact_frequency, output.irrelevant_frequency)
        assert pairs[1] == (output.artifact_spatial, output.irrelevant_spatial)
    total = sum(club.learning_loss(*pair).item() for club, pair in zip(clubs, pairs, strict=True))
    assert club_learning_loss(clubs, pairs).item() == pytest.approx(total)


def test_a_bound_below_its_floor_moves_nothing() -> None:
    bound = torch.tensor([-3.0, 2.0], requires_grad=True)
    assert floored(bound, None) is bound
    floored(bound, 0.0).sum().backward()
    assert floored(bound, 0.0).tolist() == [0.0, 2.0]
    assert bound.grad is not None
    assert bound.grad.tolist() == [0.0, 1.0]
