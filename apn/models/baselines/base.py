"""What the baselines share: the interface of APN, so that training, scoring and export need not tell them apart.

Dimensions: B batch, H x W pixels. Labels: 0 real, 1 generated.
"""

from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from apn.model_config import BaselineConfig
from apn.models.backbones import build_backbone


class BaselineOutput(NamedTuple):
    """logits (B, 2), before softmax."""

    logits: Tensor


class Baseline(nn.Module):
    """float RGB image (B, 3, H, W) in [0, 1], H = W = config.image_size -> BaselineOutput.

    A method has a `backbone` and says in `classify` what it does with an image.
    """

    backbone: nn.Module
    not_exported: ClassVar[str] = ""  # why there can be no graph of it; "" where there can

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config

    def classify(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> logits (B, 2)."""
        raise NotImplementedError

    def forward(self, image: Tensor, *, irrelevant: bool = True) -> BaselineOutput:
        """irrelevant: APN's switch for its second half, which no baseline has.

        Raises ValueError for an image of another shape than the settings say.
        """
        size = self.config.image_size
        if image.shape[1:] != (3, size, size):
            raise ValueError(f"expected images (B, 3, {size}, {size}), found {tuple(image.shape)}: crop them first")
        return BaselineOutput(self.classify(image))


def trunk(config: BaselineConfig, *, offline: bool) -> nn.Module:
    """The timm backbone of the settings, pooled features out; offline: without fetching weights."""
    fetch = config.pretrained and not offline
    return build_backbone(config.backbone, pretrained=fetch, image_size=config.image_size)


def parts(backbone: nn.Module, names: tuple[str, ...], config: BaselineConfig, kind: str) -> list[nn.Module]:
    """The named parts of a backbone. Raises ValueError where it is not of the kind that has them."""
    missing = [name for name in names if not hasattr(backbone, name)]
    if missing:
        raise ValueError(f"backbone {config.backbone!r} has no {', '.join(missing)}: expected a timm {kind}")
    return [getattr(backbone, name) for name in names]
