"""The smallest network that has every part: 64 pixels, 2 bands, narrow trunks. Milliseconds a step on one core."""

from typing import Any

import torch

from apn.model_config import ModelConfig
from apn.models.apn import APN

# Further looks of the spatial branch: one compared with its reference, one at half of the size.
LOOKS: list[dict[str, Any]] = [
    {"view": "residual", "backbone": "resnet10_narrow", "reference": "median"},
    {"view": "colour-residual", "backbone": "resnet10_narrow", "reference": "median", "scale": 2},
]


def tiny_config(**changes: Any) -> ModelConfig:
    settings: dict[str, Any] = {
        "image_size": 64,
        "embedding_dim": 48,
        "band_count": 2,
        "band_encoder": "resnet10_narrow",
        "spatial_backbone": "resnet10_narrow",
        "pretrained": False,
        "pretrained_irrelevant": False,
    }
    return ModelConfig(**settings | changes)


def tiny_model(seed: int = 0, **changes: Any) -> APN:
    """Same seed, same weights, whichever settings without weights differ."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return APN(tiny_config(**changes))


def noise(batch: int, size: int = 64, seed: int = 0) -> torch.Tensor:
    """(B, 3, size, size) uniform in [0, 1]."""
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))
