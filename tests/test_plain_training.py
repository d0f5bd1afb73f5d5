"""The baseline of bench/training.py computes the same numbers as ours: only then is its time worth comparing."""

import sys
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from tiny import noise
from toy import toy_config

from apn.data.dataset import Batch
from apn.models.club import CLUB
from apn.step import Trainee, apn_half, build_trainee

sys.path.append(str(Path(__file__).parent.parent / "bench"))
from plain_training import bound, make_plain


@pytest.mark.parametrize("bands", ["hard", "straight-through"])
def test_the_plain_step_has_the_same_losses_and_gradients(bands: str) -> None:
    config = toy_config(Path(), model={"bands": bands})
    fabric = Fabric(accelerator="cpu", devices=1)
    batch = Batch(noise(4), torch.tensor([0, 1, 0, 1]), torch.arange(4))

    def step(plain: bool) -> tuple[Trainee, dict[str, float]]:
        torch.manual_seed(0)
        trainee = build_trainee(config)
        if plain:
            make_plain(trainee)
        terms, _ = apn_half(fabric, trainee, batch, config, 0)
        return trainee, terms

    (ours, terms), (plain, expected) = step(False), step(True)
    assert terms == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for (name, one), other in zip(ours.model.named_parameters(), plain.model.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        # The gradient at the bands is another one there: the phase enters through its sine and cosine.
        if one.grad is not None and "proposer" not in name:
            error = (one.grad - other.grad).abs().max() / other.grad.abs().max()
            assert error < 1e-3, f"{name}: {error:.1e}"


def test_club_pair_by_pair_is_club_in_closed_form() -> None:
    torch.manual_seed(0)
    club, artifact, irrelevant = CLUB(16, 8), torch.randn(5, 16), torch.randn(5, 16)
    torch.testing.assert_close(bound(club, artifact, irrelevant), club(artifact, irrelevant))
