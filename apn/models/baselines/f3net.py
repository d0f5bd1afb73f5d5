"""F3-Net: two Xception trunks, one on the image split into learnt frequency bands, one on local frequency statistics,
that exchange what they attend to.

Source: Qian et al., "Thinking in frequency: face forgery detection by mining frequency-aware clues", ECCV 2020. There
is no official code; where the paper is silent this follows what its public re-implementations agree on.
Deviations and readings: "the first 1/16 of the spectrum" is a share of its area below an anti-diagonal; MixBlock's
attention is a W x W matrix for each channel, its gate starts at 0; the logarithm of the local statistics is floored at
0.01 (of 255 grey levels), below which there is only rounding; pixels are scaled to [-1, 1] and cropped, not faces of
299 x 299; cross entropy alone, dropout 0.2.
Dimensions: B batch, S side of the image, K = 10 side of a window, L windows a side, M = 6 local bands.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apn.model_config import F3NetConfig
from apn.models.baselines.base import Baseline, parts, trunk

AREAS = (0, 1 / 16, 1 / 8, 1)  # shares of the spectrum's area where the low, middle and high band begin and end
WINDOW, STRIDE, PADDING, LOCAL_BANDS = 10, 2, 4, 6
FLOOR = 1e-2
GREY = (0.299, 0.587, 0.114)
STEM = ("conv1", "bn1", "act1", "conv2", "bn2", "act2")
BEFORE_FIRST_MIX = tuple(f"block{i}" for i in range(1, 8))
BEFORE_SECOND_MIX = tuple(f"block{i}" for i in range(8, 13))
LAST = ("conv3", "bn3", "act3", "conv4", "bn4", "act4")


def dct_matrix(size: int) -> Tensor:
    """(size, size) orthonormal: row k holds the cosine of frequency k (DCT-II)."""
    angles = torch.outer(torch.arange(size), torch.arange(size) + 0.5).double() * (math.pi / size)
    matrix = angles.cos() * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def anti_diagonal_band(size: int, after: float, until: float) -> Tensor:
    """(size, size), 1 where the sum of row and column is above `after` and at most `until`, else 0."""
    sums = torch.arange(size)[:, None] + torch.arange(size)
    return ((sums > after) & (sums <= until)).float()


def area_bands(size: int) -> Tensor:
    """(4, size, size): the low, middle and high band and all of them; see AREAS."""
    # Below an anti-diagonal t lies the area t^2 / 2, up to the middle of the square; the high band takes the rest.
    edges = [-1.0, *(size * math.sqrt(2 * area) for area in AREAS[1:-1]), 2.0 * size]
    bands = [anti_diagonal_band(size, *pair) for pair in pairwise(edges)]
    return torch.stack([*bands, torch.ones(size, size)])


class LearntBands(nn.Module):
    """Fixed 0/1 bands (N, s, s), each with a learnt change between -1 and 1 around them."""

    bands: Tensor

    def __init__(self, bands: Tensor) -> None:
        super().__init__()
        self.register_buffer("bands", bands, persistent=False)
        self.change = nn.Parameter(torch.randn_like(bands) * 0.1)

    def forward(self) -> Tensor:
        return self.bands + 2 * self.change.sigmoid() - 1


class Decomposition(nn.Module):
    """Frequency-aware decomposition: image (B, 3, S, S) -> its part in each of 4 bands, (B, 12, S, S)."""

    dct: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("dct", dct_matrix(size), persistent=False)
        self.filters = LearntBands(area_bands(size))

    def forward(self, image: Tensor) -> Tensor:
        spectrum = self.dct @ image @ self.dct.T  # (B, 3, S, S)
        filtered = spectrum[:, None] * self.filters()[:, None]  # (B, 4, 3, S, S)
        return (self.dct.T @ filtered @ self.dct).flatten(1, 2)


class LocalStatistics(nn.Module):
    """Local frequency statistics: image (B, 3, S, S) in [-1, 1] -> log-amplitude of M bands by window, (B, M, L, L)."""

    grey: Tensor
    kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        matrix = dct_matrix(WINDOW)
        self.register_buffer("grey", torch.tensor(GREY).view(1, 3, 1, 1), persistent=False)
        kernels = torch.einsum("ki,lj->klij", matrix, matrix).flatten(0, 1)[:, None]  # (K K, 1, K, K)
        self.register_buffer("kernels", kernels, persistent=False)
        edges = [-1.0, *(2 * WINDOW * band / LOCAL_BANDS for band in range(1, LOCAL_BANDS + 1))]
        self.filters = LearntBands(torch.stack([anti_diagonal_band(WINDOW, *pair) for pair in pairwise(edges)]))

    def forward(self, image: Tensor) -> Tensor:
        grey = ((image * self.grey).sum(dim=1, keepdim=True) + 1) * 127.5  # (B, 1, S, S)
        amplitude = F.conv2d(grey, self.kernels, stride=STRIDE, padding=PADDING).abs()  # (B, K K, L, L)
        weights = self.filters().abs().flatten(1)[:, :, None, None]  # (M, K K, 1, 1)
        return (F.conv2d(amplitude, weights) + FLOOR).log10()


class MixBlock(nn.Module):
    """Cross attention of two branches: features (B, C, W, W) twice -> the same, each with what the other attends to."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.queries = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.keys = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.gates = nn.Parameter(torch.zeros(2))
        self.outputs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 1, groups=channels), nn.BatchNorm2d(channels)) for _ in range(2)
        )

    def forward(self, bands: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        branches = (bands, local)
        energy = sum(
            query(one) @ key(one).mT for query, key, one in zip(self.queries, self.keys, branches, strict=True)
        )
        attention = energy.float().softmax(dim=-1)  # (B, C, W, W)
        gates = 2 * self.gates.sigmoid() - 1
        to_bands = self.outputs[0](local * attention * gates[0])
        to_local = self.outputs[1](bands * attention * gates[1])
        return bands + to_bands, local + to_local


def widen_input(xception: nn.Module, channels: int, stride: int) -> None:
    """Gives the first convolution `channels` inputs (a multiple of 3): its weights repeated and scaled alike."""
    first = xception.get_submodule("conv1")
    assert isinstance(first, nn.Conv2d)
    wide = nn.Conv2d(channels, first.out_channels, first.kernel_size, stride=stride, bias=False)  # type: ignore[arg-type]
    repeats = channels // 3
    wide.weight.data.copy_(first.weight.data.repeat(1, repeats, 1, 1) / repeats)
    xception.conv1 = wide


def sides_at_first_mix(size: int) -> tuple[int, int]:
    """Sides of the maps that an image of this side has in both trunks where they first exchange something."""
    bands = (size - 3) // 2 + 1  # after conv1, of stride 2 and without padding
    local = (size + 2 * PADDING - WINDOW) // STRIDE + 1 - 2  # windows, then conv1 of stride 1
    first, second = (-(-(side - 2) // 8) for side in (bands, local))  # conv2, then three times halved, rounded up
    return first, second


class F3Net(Baseline):
    """Image (B, 3, S, S) in [0, 1] -> logits (B, 2)."""

    def __init__(self, config: F3NetConfig, *, offline: bool = False) -> None:
        super().__init__(config)
        bands, local = sides_at_first_mix(config.image_size)
        if bands != local:
            raise ValueError(
                "F3-Net's trunks must meet at maps of one size: expected an image_size such as a multiple of 16, not "
                f"{config.image_size}, which gives {bands} x {bands} and {local} x {local}"
            )
        self.decompose, self.statistics = Decomposition(config.image_size), LocalStatistics()
        trunks = [trunk(config, offline=offline) for _ in range(2)]
        for one in trunks:
            parts(one, (*STEM, *BEFORE_FIRST_MIX, *BEFORE_SECOND_MIX, *LAST), config, "Xception (legacy_xception)")
        widen_input(trunks[0], 3 * len(area_bands(1)), stride=2)
        widen_input(trunks[1], LOCAL_BANDS, stride=1)  # the windows have halved the picture already
        self.backbone = nn.ModuleList(trunks)
        self.mix7, self.mix12 = MixBlock(728), MixBlock(1024)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * 2048, 2))

    def views(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 12, S, S), (B, M, L, L): what the two trunks see; float32, as small differences of spectra matter."""
        with torch.autocast(image.device.type, enabled=False):
            pixels = 2 * image.float() - 1
            return self.decompose(pixels), self.statistics(pixels)

    def classify(self, image: Tensor) -> Tensor:
        features = list(self.views(image))
        for names, mix in ((STEM + BEFORE_FIRST_MIX, self.mix7), (BEFORE_SECOND_MIX, self.mix12), (LAST, None)):
            features = [
                self._run(one, names, part) for one, part in zip(self.backbone.children(), features, strict=True)
            ]
            if mix is not None:
                features = list(mix(*features))
        return self.head(torch.cat([one.mean(dim=(2, 3)) for one in features], dim=1))

    @staticmethod
    def _run(xception: nn.Module, names: tuple[str, ...], features: Tensor) -> Tensor:
        for name in names:
            features = xception.get_submodule(name)(features)
        return features
