"""Gram-Net: a ResNet-18 whose every stage also reports how its features go together, which is texture.

Source: Liu, Qi, Torr, "Global texture enhancement for fake face detection in the wild", CVPR 2020. A Gram block on the
image, the stem, the pooled stem and the first three stages: 3 x 3 convolution to 32 channels, their Gram matrix, two
strided 3 x 3 convolutions, mean: 32 numbers, which join the trunk's 512.
Deviations: crops at native size, where the authors resize to 512 pixels; the trunk sees ImageNet-normalised pixels.
Dimensions: B batch, C channels, h x w positions.
"""

import torch
from torch import Tensor, nn

from apn.model_config import GramNetConfig
from apn.models.backbones import Normalize, num_features
from apn.models.baselines.base import Baseline, parts, trunk

GRAM_CHANNELS = 32
HIDDEN = 512


def gram_matrix(features: Tensor) -> Tensor:
    """(B, C, h, w) -> the products of all pairs of channels, a one-channel picture (B, 1, C, C); per value."""
    flat = features.flatten(2)  # (B, C, h w)
    return (flat @ flat.mT / flat[0].numel())[:, None]


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


class GramBlock(nn.Module):
    """Features (B, channels, h, w) -> texture (B, 32)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = _convolution(channels, GRAM_CHANNELS, 1)
        self.encode = nn.Sequential(_convolution(1, 16, 2), _convolution(16, GRAM_CHANNELS, 2))

    def forward(self, features: Tensor) -> Tensor:
        reduced = self.reduce(features)
        with torch.autocast(features.device.type, enabled=False):  # sums over all positions
            gram = gram_matrix(reduced.float())
        return self.encode(gram).mean(dim=(2, 3))


class GramNet(Baseline):
    """Image (B, 3, S, S) in [0, 1] -> logits (B, 2)."""

    def __init__(self, config: GramNetConfig, *, offline: bool = False) -> None:
        super().__init__(config)
        self.backbone = trunk(config, offline=offline)
        self.normalize = Normalize(self.backbone)
        parts(self.backbone, ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3"), config, "ResNet")
        stem, *stages = (stage["num_chs"] for stage in self.backbone.feature_info)  # type: ignore[union-attr]
        channels = (3, stem, stem, *stages[:3])
        self.gram_blocks = nn.ModuleList(GramBlock(count) for count in channels)
        self.gram_scale = nn.Parameter(torch.ones(1))
        self.head = nn.Sequential(
            nn.Linear(num_features(self.backbone) + len(channels) * GRAM_CHANNELS, HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(HIDDEN, 2),
        )

    def stages(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """What the Gram blocks see, in order, and the trunk's features (B, N)."""
        trunk, seen = self.backbone, [image]
        seen.append(trunk.act1(trunk.bn1(trunk.conv1(image))))  # type: ignore[operator]
        for name in ("maxpool", "layer1", "layer2", "layer3"):
            seen.append(trunk.get_submodule(name)(seen[-1]))
        return seen, trunk.layer4(seen[-1]).mean(dim=(2, 3))  # type: ignore[operator]

    def classify(self, image: Tensor) -> Tensor:
        seen, features = self.stages(self.normalize(image))
        textures = [self.gram_scale * block(one) for block, one in zip(self.gram_blocks, seen, strict=True)]
        return self.head(torch.cat([features, *textures], dim=1))
