"""Spatial branch: a backbone's embedding, split between two orthogonal subspaces. Further looks may add theirs.

Source: Meng et al., CVIU 2024, explicit purification (2).
Dimensions: B batch, H x W pixels, N backbone features, D embedding size.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from apn.model_config import LookConfig, ModelConfig
from apn.models.backbones import Normalize, build_backbone, num_features
from apn.models.statistics import Standardize


class SpatialOutput(NamedTuple):
    """artifact, irrelevant (B, D): projections of one embedding onto the two subspaces."""

    artifact: Tensor
    irrelevant: Tensor


def project(embedding: Tensor, basis: Tensor) -> Tensor:
    """embedding (B, D) onto the rows of basis (D / 2, D), back in D dimensions: (f G^T) G."""
    return embedding @ basis.T @ basis


class Contrast(nn.Module):
    """Features (2 B, N), of B images and then of their references -> differences, each of deviation 1: (B, N).

    What a picture shows moves both alike; what a reference has lost, such as the noise of a camera or decoder, is left.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        # A filter may see next to no difference and counts as much: the floor of the variance is far below.
        self.standardize = Standardize(num_features, eps=1e-8)

    def forward(self, features: Tensor) -> Tensor:
        image, reference = features.unflatten(0, (2, -1))  # chunk would fix the batch size of an exported graph
        return self.standardize(image - reference)


class Look(nn.Module):
    """What one look sees (B, 3, H, W), or that and its references (2 B, 3, H, W) -> embedding (B, D)."""

    def __init__(self, config: ModelConfig, look: LookConfig) -> None:
        super().__init__()
        dim, size = config.embedding_dim, config.image_size // look.scale
        self.backbone = build_backbone(look.backbone, pretrained=config.pretrained, image_size=size)
        self.contrast = Contrast(num_features(self.backbone)) if look.reference else nn.Identity()
        self.dropout = nn.Dropout(config.spatial_dropout)
        self.head = nn.Sequential(nn.Linear(num_features(self.backbone), dim), nn.ReLU(), nn.Linear(dim, dim))
        self.normalize = Normalize(self.backbone) if config.spatial_normalize else nn.Identity()
        if config.head_start == "regressions":  # which are of features that stay what they were
            for norm in self.modules():
                if isinstance(norm, Standardize):
                    norm.fix()

    def features(self, image: Tensor) -> Tensor:
        """(B, N). References go with their images, so that batch norms see both."""
        pixels = self.normalize(image).contiguous(memory_format=torch.channels_last)
        return self.contrast(self.backbone(pixels))

    def embed(self, image: Tensor) -> Tensor:
        """(B, D)."""
        return self.head(self.dropout(self.features(image)))


class SpatialBranch(Look):
    """What each of its looks sees, as `Look` takes it -> both embeddings (B, D)."""

    def __init__(self, config: ModelConfig) -> None:
        first, *others = config.looks()
        super().__init__(config, first)
        self.further = nn.ModuleList(Look(config, look) for look in others)
        identity = torch.eye(config.embedding_dim)
        self.irrelevant_basis = nn.Parameter(identity[: len(identity) // 2].clone())
        self.artifact_basis = nn.Parameter(identity[len(identity) // 2 :].clone())

    def looks(self) -> list[Look]:
        """In the order in which they are given what they see."""
        return [self, *cast(Iterable[Look], self.further)]

    def joined(self, seen: Sequence[Tensor]) -> Tensor:
        """The embedding before it is split (B, D): the mean of the looks'."""
        return torch.stack([look.embed(image) for look, image in zip(self.looks(), seen, strict=True)]).mean(dim=0)

    def forward(self, seen: Sequence[Tensor]) -> SpatialOutput:
        embedding = self.joined(seen)
        return SpatialOutput(project(embedding, self.artifact_basis), project(embedding, self.irrelevant_basis))
