"""The four axis proposers of an APN side by side, for inference: one wide convolution in place of four narrow ones.

Three channels fill a fifth of a processor's vectors, twelve most of one. Dimensions: B batch, K bands, C = 3 colours,
H x M spectrum, L axis length, A = 4 axes: rows and columns of the amplitude, then of the phase; A C = 12 channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apn.models.bands import ComponentBands, Proposals, Spectrum
from apn.models.folding import folded, frozen_copy
from apn.models.frequency import BandProposer, Bottleneck


class JointProposers(nn.Module):
    """spectrum (B, C, H, M) -> the bands that the proposers of amplitude and phase emit, within rounding."""

    def __init__(self, amplitude: BandProposer, phase: BandProposer) -> None:
        super().__init__()
        axes = [amplitude.rows, amplitude.columns, phase.rows, phase.columns]
        self.norms = nn.ModuleList([frozen_copy(amplitude.norm), frozen_copy(phase.norm)])
        layers = zip(*(axis.bottlenecks for axis in axes), strict=True)
        self.bottlenecks = nn.Sequential(*(JointBottleneck(parts) for parts in layers))
        self.ends = nn.ModuleList(frozen_copy(axis) for axis in axes)
        for end in self.ends:
            end.bottlenecks = nn.Sequential()  # done by the joint ones

    def forward(self, spectrum: Spectrum) -> Proposals:
        parts = [norm(part) for norm, part in zip(self.norms, (spectrum.amplitude, spectrum.phase), strict=True)]
        image = torch.cat([parts[0], parts[0], parts[1], parts[1]], dim=1)  # (B, A C, H, M)
        image = self.bottlenecks(image.contiguous(memory_format=torch.channels_last))
        bands = [end(part) for end, part in zip(self.ends, image.chunk(len(self.ends), dim=1), strict=True)]
        return Proposals(ComponentBands(*bands[:2]), ComponentBands(*bands[2:]))


class JointBottleneck(nn.Module):
    """Bottlenecks of several proposers, with their batch norms folded: (B, A C, H, M) -> (B, A C, H, M)."""

    def __init__(self, parts: Sequence[Bottleneck]) -> None:
        super().__init__()
        alone = [folded(part) for part in parts]
        self.conv1 = side_by_side([part.conv1 for part in alone])
        self.conv2 = side_by_side([part.conv2 for part in alone])
        self.conv3 = side_by_side([part.conv3 for part in alone])

    def forward(self, component: Tensor) -> Tensor:
        hidden = F.relu(self.conv1(component), inplace=True)
        hidden = F.relu(self.conv2(hidden), inplace=True)
        return F.relu(self.conv3(hidden).add_(component), inplace=True)


def side_by_side(convolutions: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """One convolution of all channels that keeps those of each given one to themselves.

    Full convolutions become blocks of a larger kernel, zero elsewhere; depthwise ones just line up.
    """
    first = convolutions[0]
    depthwise = first.groups == first.in_channels
    kernels = [one.weight for one in convolutions]  # (C, C, h, w), or (C, 1, h, w)
    channels = sum(len(kernel) for kernel in kernels)
    weight = torch.cat(kernels) if depthwise else block_diagonal(kernels)
    joint = nn.Conv2d(channels, channels, first.kernel_size, padding=first.padding, groups=channels if depthwise else 1)  # type: ignore[arg-type]
    joint.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
    joint.bias = nn.Parameter(
        torch.cat([one.bias for one in convolutions if one.bias is not None]), requires_grad=False
    )
    return joint


def block_diagonal(kernels: Sequence[Tensor]) -> Tensor:
    """(N, N, h, w) with the kernels (n, n, h, w) along its diagonal, N the sum of n."""
    size, (height, width) = sum(len(kernel) for kernel in kernels), kernels[0].shape[2:]
    joint = kernels[0].new_zeros(size, size, height, width)
    start = 0
    for kernel in kernels:
        inside = slice(start, start + len(kernel))
        joint[inside, inside] = kernel
        start = inside.stop
    return joint
