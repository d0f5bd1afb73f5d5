"""UnivFD: a linear layer on what a frozen, broadly trained backbone sees.

Source: Ojha, Li, Lee, "Towards universal fake image detectors that generalize across generative models", CVPR 2023:
CLIP's ViT-L/14, nothing but the linear layer learns.
Deviations: two logits and cross entropy in place of one and binary cross entropy; the layer reads the 1024 numbers
before CLIP's projection to 768 (a linear layer on the projection is one on these too). Any timm backbone serves, and
configs/univfd-lite.toml has one whose weights come as a package. Dimensions: B batch, S side, N features.
"""

import torch
from torch import Tensor

from apn.model_config import UnivFDConfig
from apn.models.baselines.classifier import Classifier


class UnivFD(Classifier):
    """Image (B, 3, S, S) in [0, 1] -> logits (B, 2)."""

    def __init__(self, config: UnivFDConfig, *, offline: bool = False) -> None:
        super().__init__(config, offline=offline)
        self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "UnivFD":
        """The backbone stays in evaluation mode: batch norm statistics count as learning."""
        super().train(mode)
        self.backbone.eval()
        return self

    def classify(self, image: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.backbone(self.view(image))  # (B, N)
        return self.head(features)
