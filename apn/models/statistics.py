"""A backbone that never learns, read by the statistics of its stages: texture at several scales, not what is shown.

A few thousand pictures teach a whole ImageNet network the scenes and cameras they show. Left as it is, and asked only
how strongly and how unevenly its filters answer, it carries over better to generators it has not seen
(docs/experiments.md).

Sources: frozen features, Ojha et al., "Towards universal fake image detectors that generalize across generative
models", CVPR 2023; mean and standard deviation as what a picture's style is, Huang and Belongie, "Arbitrary style
transfer in real-time with adaptive instance normalization", ICCV 2017.
Dimensions: B batch, H x W pixels, F_s channels of stage s, N = sum of 2 F_s features.
"""

from collections.abc import Sequence

import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn


class Standardize(nn.BatchNorm1d):
    """Features (B, N) of a trunk that never learns -> each with mean 0 and deviation 1.

    The trunk does not change, so that the mean of all batches, momentum None, is the best there is. Once it is `fixed`,
    what is seen in training moves neither.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5) -> None:
        super().__init__(num_features, affine=False, momentum=None, eps=eps)
        self.fixed = False

    def train(self, mode: bool = True) -> "Standardize":
        super().train(mode and not self.fixed)
        return self

    def fix(self) -> None:
        """Mean and deviation stay what they are."""
        self.fixed = True
        self.eval()

    def set(self, mean: Tensor, deviation: Tensor) -> None:
        """Both (N,). A deviation under the root of eps becomes less than 1, as in a batch norm."""
        assert self.running_mean is not None, "batch norm without running statistics"
        assert self.running_var is not None, "batch norm without running statistics"
        self.running_mean.copy_(mean)
        self.running_var.copy_((deviation.square() - self.eps).clamp(min=0))


class FrozenStatistics(nn.Module):
    """A trunk without a weight that learns: image (B, 3, H, W) -> standardised statistics of its maps (B, N)."""

    num_features: int  # N
    standardize: Standardize
    placed: str  # name of the first layer whose maps the statistics are of: all evidence passes it


class StageStatistics(FrozenStatistics):
    """Image (B, 3, H, W) -> standardised mean and deviation over places of the chosen stages' channels (B, N).

    stages: which of the network's, from 1, in rising order; what follows the last is dropped. Only the mean and
    variance that the features are standardised by follow the data, as a batch norm's do. log: the deviation's logarithm
    instead, in which twice as strong an answer is one step, however strong it was.
    Raises ValueError for another network than a timm EfficientNet, or a stage that it does not have.
    """

    def __init__(self, network: nn.Module, stages: Sequence[int], name: str, *, log: bool = False) -> None:
        super().__init__()
        rising = list(stages) == sorted(set(stages))
        if not isinstance(network, EfficientNet) or not rising or stages[-1] > len(network.blocks):
            raise ValueError(f"no backbone {name!r}: expected a timm EfficientNet and stages of it in rising order")
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.stages = nn.ModuleList(list(network.blocks)[: stages[-1]])
        self.chosen = frozenset(stages)
        self.placed = f"stages.{stages[0] - 1}"
        self.log = log
        self.pretrained_cfg = network.pretrained_cfg
        self.requires_grad_(False)
        with torch.no_grad():
            channels = sum(maps.shape[1] for maps in self.maps(torch.zeros(1, 3, 64, 64)))
        self.num_features = 2 * channels
        self.standardize = Standardize(self.num_features)
        self.train()

    def train(self, mode: bool = True) -> "StageStatistics":
        """The network stays in evaluation mode: batch norm statistics count as learning."""
        super().train(mode)
        self.stem.eval()
        self.stages.eval()
        return self

    def maps(self, image: Tensor) -> list[Tensor]:
        """What the chosen stages give, (B, F_s, h, w) each."""
        found, maps = [], self.stem(image)
        for number, stage in enumerate(self.stages, start=1):
            maps = stage(maps)
            if number in self.chosen:
                found.append(maps)
        return found

    def forward(self, image: Tensor) -> Tensor:
        return self.standardize(torch.cat([statistics(maps, log=self.log) for maps in self.maps(image)], dim=1))


def statistics(maps: Tensor, *, log: bool = False) -> Tensor:
    """(B, F, h, w) -> mean and standard deviation over places, or the natural logarithm of that (B, 2 F)."""
    mean = maps.mean(dim=(2, 3))
    # The floor keeps the gradient finite where a channel is the same everywhere.
    variance = (maps - mean[:, :, None, None]).square().mean(dim=(2, 3)) + 1e-6
    return torch.cat([mean, variance.log() / 2 if log else variance.sqrt()], dim=1)
