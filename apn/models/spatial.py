"""Spatial branch: a backbone's embedding, split between two orthogonal subspaces.

Source: Meng et al., CVIU 2024, explicit purification (2).
Dimensions: B batch, H x W pixels, N backbone features, D embedding size.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from apn.config import ModelConfig
from apn.models.backbones import build_backbone, normalization, num_features


class SpatialOutput(NamedTuple):
    """artifact, irrelevant (B, D): projections of one embedding onto the two subspaces."""

    artifact: Tensor
    irrelevant: Tensor


def project(embedding: Tensor, basis: Tensor) -> Tensor:
    """embedding (B, D) onto the rows of basis (D / 2, D), back in D dimensions: (f G^T) G."""
    return embedding @ basis.T @ basis


class SpatialBranch(nn.Module):
    """Image (B, 3, H, W) in [0, 1] -> artifact and irrelevant embedding (B, D)."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.backbone = build_backbone(config.spatial_backbone, pretrained=config.pretrained)
        self.dropout = nn.Dropout(config.spatial_dropout)
        self.head = nn.Sequential(nn.Linear(num_features(self.backbone), dim), nn.ReLU(), nn.Linear(dim, dim))
        identity = torch.eye(dim)
        self.irrelevant_basis = nn.Parameter(identity[: dim // 2].clone())
        self.artifact_basis = nn.Parameter(identity[dim // 2 :].clone())
        mean, std = normalization(self.backbone) if config.spatial_normalize else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def embed(self, image: Tensor) -> Tensor:
        """The embedding before it is split, (B, D)."""
        pixels = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.head(self.dropout(self.backbone(pixels)))

    def forward(self, image: Tensor) -> SpatialOutput:
        embedding = self.embed(image)
        return SpatialOutput(project(embedding, self.artifact_basis), project(embedding, self.irrelevant_basis))
