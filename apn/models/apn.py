"""The Artifact Purification Network: two branches, one classifier.

Source: Meng, Peng, Dong, Tan, "Artifact feature purification for cross-domain detection of AI-generated images", 2024.
Dimensions: B batch, H x W pixels, K bands, D embedding size. Labels: 0 real, 1 generated.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from apn.model_config import ModelConfig
from apn.models.bands import Proposals
from apn.models.detect import DetectOnly
from apn.models.frequency import FrequencyBranch
from apn.models.fusion import fuse
from apn.models.spatial import SpatialBranch
from apn.models.views import Seen, Views


class APNOutput(NamedTuple):
    """logits (B, 2) of the averaged artifact embedding, the ones to use; the others serve training and explanation.

    The embeddings are (B, D), `artifact` and `irrelevant` the branches' averages. The irrelevant ones, but for the
    spatial branch's, are None when they were not asked for.
    """

    logits: Tensor
    logits_frequency: Tensor
    logits_spatial: Tensor
    artifact: Tensor
    irrelevant: Tensor | None
    artifact_frequency: Tensor
    artifact_spatial: Tensor
    irrelevant_frequency: Tensor | None
    irrelevant_spatial: Tensor
    band_weights: Tensor
    proposals: Proposals


def classifier(dim: int) -> nn.Sequential:
    """D -> 128 -> 32 -> D // 24 -> 2."""
    return nn.Sequential(
        nn.Linear(dim, 128), nn.ReLU(),
        nn.Linear(128, 32), nn.ReLU(),
        nn.Linear(32, dim // 24), nn.ReLU(),
        nn.Linear(dim // 24, 2),
    )  # fmt: skip


def he_start(layer: nn.Module) -> None:
    """He et al., "Delving deep into rectifiers", ICCV 2015: what a ReLU halves, the weights double."""
    if isinstance(layer, nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


class APN(nn.Module):
    """float RGB image (B, 3, H, W) in [0, 1], H = W = config.image_size -> APNOutput."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.views = Views(config)
        self.frequency = FrequencyBranch(config)
        self.spatial = SpatialBranch(config)
        self.classifier = classifier(config.embedding_dim)
        if config.head_start != "default":
            for head in (*(look.head for look in self.spatial.looks()), self.classifier):
                head.apply(he_start)

    def forward(self, image: Tensor, *, irrelevant: bool = True) -> APNOutput:
        """irrelevant=False leaves out what inference does not need; the logits are the same.

        Raises ValueError for an image of another shape than the bands were made for.
        """
        seen = self.seen(image)
        frequency = self.frequency(seen.frequency, irrelevant=irrelevant)
        spatial = self.spatial(seen.spatial)
        weight, rest = self.config.frequency_weight, frequency.irrelevant
        artifact = fuse(frequency.artifact, spatial.artifact, weight)
        return APNOutput(
            logits=self.classifier(artifact),
            logits_frequency=self.classifier(frequency.artifact),
            logits_spatial=self.classifier(spatial.artifact),
            artifact=artifact,
            irrelevant=None if rest is None else fuse(rest, spatial.irrelevant, weight),
            artifact_frequency=frequency.artifact,
            artifact_spatial=spatial.artifact,
            irrelevant_frequency=rest,
            irrelevant_spatial=spatial.irrelevant,
            band_weights=frequency.band_weights,
            proposals=frequency.proposals,
        )

    def spatial_logits(self, image: Tensor) -> Tensor:
        """`logits_spatial` (B, 2) without the work of the frequency branch. Raises ValueError as `forward` does."""
        return self.classifier(self.spatial(self.seen(image).spatial).artifact)

    def seen(self, image: Tensor) -> Seen:
        """The branches' views of an RGB image (B, 3, H, W) in [0, 1].

        Raises ValueError as `forward` does.
        """
        size = self.config.image_size
        if image.shape[1:] != (3, size, size):
            raise ValueError(f"expected images (B, 3, {size}, {size}), found {tuple(image.shape)}: crop them first")
        image = image.float()
        with torch.autocast(image.device.type, enabled=False):  # half precision would round the traces away
            return self.views(image)

    def detect_only(self, *, dtype: torch.dtype = torch.float32) -> DetectOnly:
        """A network for inference with the same logits, faster and without the irrelevant side.

        dtype: bfloat16 runs the trunks in it, where the processor or GPU has it; the logits then move by a
        percent or more of their range (docs/performance.md). It shares weights with this model: make it again after
        training. On a processor it cannot be copied, saved or moved to another device: move this model first.
        """
        return DetectOnly(self, dtype=dtype)
