"""Semantic teacher (optional): the frozen embedding of another network, which the irrelevant embeddings should match.

The official run used features of an image-language model. Any timm model serves here.
Dimensions: B batch, H x W pixels, N teacher features, D embedding size.
"""

import torch
from torch import Tensor, nn

from apn.models.backbones import build_backbone, normalization, num_features


class SemanticTeacher(nn.Module):
    """Image (B, 3, H, W) in [0, 1] -> embedding (B, D). Nothing in it ever learns.

    Its N features are brought to D by a fixed random matrix with orthonormal rows (or columns), which keeps distances
    as well as a linear map can; a learnt one could make the task trivial.
    """

    mean: Tensor
    std: Tensor
    projection: Tensor

    def __init__(self, name: str, embedding_dim: int, *, pretrained: bool = True, seed: int = 0) -> None:
        super().__init__()
        self.backbone = build_backbone(name, pretrained=pretrained)
        features = num_features(self.backbone)
        noise = torch.randn(
            max(features, embedding_dim), min(features, embedding_dim), generator=torch.Generator().manual_seed(seed)
        )
        basis = torch.linalg.qr(noise).Q  # orthonormal columns
        self.register_buffer("projection", basis if features >= embedding_dim else basis.T)  # (N, D)
        mean, std = normalization(self.backbone)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "SemanticTeacher":
        """Stays in evaluation mode: batch norm statistics count as learning."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        return self.backbone((image - self.mean) / self.std) @ self.projection
