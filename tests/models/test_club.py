"""CLUB: its bound, its own loss, and what makes it an upper bound."""

import math

import torch
from golden_rule import golden_arrays, golden_tensor
from torch import Tensor
from torch.nn import functional as F

from apn.models.club import CLUB


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def some_club() -> CLUB:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLUB(6, hidden=16)


def true_conditional(dim: int, correlation: float) -> CLUB:
    """q(y | x) = N(r x, 1 - r^2), exactly: x is relu(x) - relu(-x)."""
    club = CLUB(dim, hidden=4 * dim)
    eye = torch.eye(dim)
    with torch.no_grad():
        for parameter in club.parameters():
            parameter.zero_()
        club.mean[0].weight.copy_(torch.cat([eye, -eye]))
        club.mean[2].weight.copy_(correlation * torch.cat([eye, -eye], dim=1))
        club.log_variance[2].bias.fill_(math.atanh(math.log(1 - correlation**2)))
    return club


def test_official_numbers() -> None:
    golden = golden_arrays("official_losses.npz")
    club = CLUB(256, hidden=256)
    theirs = {"mean": "p_mu", "log_variance": "p_logvar"}
    club.load_state_dict({
        name: golden_tensor(f"club.{theirs[net]}.{rest}", tuple(value.shape))
        for name, value in club.state_dict().items()
        for net, rest in [name.split(".", 1)]
    })  # fmt: skip
    pair = [torch.from_numpy(golden[f"club.{side}"]) for side in ("artifact", "irrelevant")]
    assert math.isclose(club(*pair).item(), golden["club.upper_bound"], rel_tol=1e-5)
    assert math.isclose(club.learning_loss(*pair).item(), golden["club.learning_loss"], rel_tol=1e-6)


def test_closed_form_equals_the_sum_over_all_pairs() -> None:
    club, artifact, irrelevant = some_club(), normal(9, 6), normal(9, 6, seed=1)
    mean, variance = club.mean(artifact), club.log_variance(artifact).exp()
    bound = 0.0
    for i in range(9):
        negative = torch.stack([(irrelevant[j] - mean[i]) ** 2 / 2 / variance[i] for j in range(9)]).mean(dim=0)
        bound += (negative - (irrelevant[i] - mean[i]) ** 2 / 2 / variance[i]).sum() / 9
    torch.testing.assert_close(club(artifact, irrelevant), bound)


def test_learning_loss_is_the_gaussian_likelihood() -> None:
    club, artifact, irrelevant = some_club(), normal(9, 6), normal(9, 6, seed=1)
    variance = club.log_variance(artifact).exp()
    likelihood = F.gaussian_nll_loss(club.mean(artifact), irrelevant, variance, reduction="none").sum(dim=1).mean()
    torch.testing.assert_close(club.learning_loss(artifact, irrelevant), 2 * likelihood)


def test_bound_lies_above_the_true_information_of_correlated_gaussians() -> None:
    """With q true the bound is r^2 / (1 - r^2) a dimension, never under the information -log(1 - r^2) / 2."""
    dim, samples = 3, 20_000
    for correlation in (0.0, 0.3, 0.7):
        x, rest = normal(2, samples, dim)
        y = correlation * x + math.sqrt(1 - correlation**2) * rest
        bound = true_conditional(dim, correlation)(x, y).item()
        assert abs(bound - dim * correlation**2 / (1 - correlation**2)) < 0.08
        assert bound >= -dim * math.log(1 - correlation**2) / 2 - 0.02


def test_independent_sides_share_nothing() -> None:
    """A batch whose irrelevant side is constant has bound 0, whatever q says."""
    bound = some_club()(normal(9, 6), normal(1, 6).expand(9, 6))
    assert abs(bound.item()) < 1e-6


def test_stays_in_float32_under_autocast() -> None:
    club, pair = some_club(), (normal(9, 6), normal(9, 6, seed=1))
    expected = club(*pair), club.learning_loss(*pair)
    with torch.autocast("cpu", torch.bfloat16):
        assert (club(*pair), club.learning_loss(*pair)) == expected
