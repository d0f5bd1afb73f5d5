"""The training losses, one function a term; `loss_terms` names them once, for the sum and for the log.

Source: Meng et al., CVIU 2024, and the official code's formulas (docs/method.md has the table of names).
Dimensions: B batch, D embedding size.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apn.config import LossConfig
from apn.models.apn import APN, APNOutput
from apn.models.bands import Proposals, band_order_loss
from apn.models.club import CLUB, own_batch


def classification_loss(output: APNOutput, label: Tensor) -> Tensor:
    """Cross entropy of the three logits, summed; label: classes (B,) or their probabilities (B, 2)."""
    logits = (output.logits, output.logits_frequency, output.logits_spatial)
    return torch.stack([F.cross_entropy(one.float(), label) for one in logits]).sum()


def agreement_loss(one: Tensor, other: Tensor) -> Tensor:
    """Squared distance of two embeddings (B, D): sum over D, mean over B."""
    return (one.float() - other.float()).square().sum(dim=1).mean()


def bands_loss(proposals: Proposals, margin: float = 0.01) -> Tensor:
    """`band_order_loss` over both components and both axes."""
    return torch.stack([band_order_loss(axis, margin) for axis in proposals.axes()]).sum()


def orthogonality_loss(artifact_basis: Tensor, irrelevant_basis: Tensor) -> Tensor:
    """Sum of absolute cosines between every row of one basis and every row of the other, each (D / 2, D)."""
    cosines = F.normalize(artifact_basis, dim=1) @ F.normalize(irrelevant_basis, dim=1).T
    return cosines.abs().sum()


Pairs = list[tuple[Tensor, Tensor]]


def information_pairs(output: APNOutput, club_pairs: str) -> Pairs:
    """(artifact, irrelevant) embeddings (B, D) whose shared information is squeezed: the branches' mean, or each."""
    assert output.irrelevant_frequency is not None, "training needs the irrelevant side of the frequency branch"
    assert output.irrelevant is not None, "it is there with the frequency branch's"
    if club_pairs == "branches":
        return [
            (output.artifact_frequency, output.irrelevant_frequency),
            (output.artifact_spatial, output.irrelevant_spatial),
        ]
    return [(output.artifact, output.irrelevant)]


def build_clubs(
    config: LossConfig, embedding_dim: int, average: Callable[[Tensor], Tensor] = own_batch
) -> nn.ModuleList:
    """One CLUB for each of `information_pairs`; average: see CLUB."""
    count = 1 + (config.club_pairs == "branches")
    return nn.ModuleList(CLUB(embedding_dim, config.club_hidden, average) for _ in range(count))


def club_learning_loss(clubs: nn.ModuleList, pairs: Pairs) -> Tensor:
    """What the CLUB half of a step minimises."""
    return torch.stack([cast(CLUB, club).learning_loss(*pair) for club, pair in zip(clubs, pairs, strict=True)]).sum()


def information_loss(clubs: nn.ModuleList, pairs: Pairs) -> Tensor:
    """CLUB's upper bound of what artifact and irrelevant embeddings share, summed over the pairs; in nats."""
    return torch.stack([club(*pair) for club, pair in zip(clubs, pairs, strict=True)]).sum()


def floored(bound: Tensor, floor: float | None, average: Callable[[Tensor], Tensor] = own_batch) -> Tensor:
    """The bound where it is above the floor, else the floor, which has no gradient.

    average: as CLUB's. The processes that share a global batch have a part of its bound each, and only its mean is one.
    """
    return bound if floor is None else torch.where(average(bound.detach()) < floor, floor, bound)


def loss_terms(
    model: APN,
    output: APNOutput,
    label: Tensor,
    clubs: nn.ModuleList,
    config: LossConfig,
    teacher: Tensor | None = None,
) -> dict[str, Tensor]:
    """The weighted terms of the APN half, by name; terms with weight 0 are left out. teacher: (B, D) or None.

    label: as `classification_loss` takes it.
    """
    assert output.irrelevant_frequency is not None, "training needs the irrelevant side of the frequency branch"
    irrelevant = output.irrelevant_frequency
    terms: dict[str, Callable[[], Tensor]] = {
        "classification": lambda: classification_loss(output, label),
        "artifact_agreement": lambda: agreement_loss(output.artifact_spatial, output.artifact_frequency),
        "irrelevant_agreement": lambda: agreement_loss(output.irrelevant_spatial, irrelevant),
        "band_order": lambda: bands_loss(output.proposals, config.band_order_margin),
        "orthogonality": lambda: orthogonality_loss(model.spatial.artifact_basis, model.spatial.irrelevant_basis),
        "information": lambda: floored(
            information_loss(clubs, information_pairs(output, config.club_pairs)),
            config.information_floor,
            cast(CLUB, clubs[0]).average,
        ),
    }
    if teacher is not None:
        terms["semantic"] = lambda: (
            agreement_loss(output.irrelevant_spatial, teacher) + agreement_loss(irrelevant, teacher)
        )
    return {name: getattr(config, name) * term() for name, term in terms.items() if getattr(config, name)}
