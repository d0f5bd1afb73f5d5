"""NPR: a ResNet-50 cut after its second stage sees how pixels differ from their neighbours.

Source: Tan et al., "Rethinking the up-sampling operations in CNN-based generative network for generalizable deepfake
detection", CVPR 2024: the image minus itself halved and doubled by nearest neighbour (so, in each 2 x 2 cell, minus
the upper left pixel), times 2/3; the stem is a 3 x 3 convolution of stride 2. The image has ImageNet's mean taken off
and is divided by its deviation first, of which the difference keeps the division.
Deviations: two logits and cross entropy in place of one and binary cross entropy; crops at native size, where the
published numbers come from resized ones. Dimensions: B batch, H x W pixels, both even.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apn.model_config import NPRConfig
from apn.models.backbones import Normalize
from apn.models.baselines.base import Baseline, parts, trunk

GAIN = 2 / 3


def neighbour_differences(image: Tensor) -> Tensor:
    """(B, C, H, W) minus the upper left pixel of each one's 2 x 2 cell."""
    return image - F.interpolate(image[..., ::2, ::2], scale_factor=2.0, mode="nearest")


class NPR(Baseline):
    """Image (B, 3, S, S) in [0, 1] -> logits (B, 2)."""

    def __init__(self, config: NPRConfig, *, offline: bool = False) -> None:
        super().__init__(config)
        if config.image_size % 2:
            raise ValueError(
                f"NPR looks at cells of 2 x 2 pixels: expected an even image_size, not {config.image_size}"
            )
        backbone = trunk(config, offline=offline)
        self.normalize = Normalize(backbone)
        bn1, act1, maxpool, layer1, layer2 = parts(
            backbone, ("bn1", "act1", "maxpool", "layer1", "layer2"), config, "ResNet"
        )
        channels = [stage["num_chs"] for stage in backbone.feature_info]  # type: ignore[union-attr]
        stem = nn.Conv2d(3, channels[0], 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.backbone = nn.Sequential(stem, bn1, act1, maxpool, layer1, layer2)
        self.head = nn.Linear(channels[2], 2)

    def classify(self, image: Tensor) -> Tensor:
        differences = neighbour_differences(self.normalize(image)).contiguous(memory_format=torch.channels_last)
        return self.head(self.backbone(GAIN * differences).mean(dim=(2, 3)))
