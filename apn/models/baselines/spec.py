"""Spec: a ResNet-50 that sees the spectrum of each colour.

Source: Zhang, Karaman, Chang, "Detecting and simulating artifacts in GAN fake images", WIFS 2019 (AutoGAN), whose
classifier is its baseline in GenImage. Colour by colour: log(|FFT| + 0.001), stretched so that its 5th percentile
becomes -1 and its 95th +1, clamped; frequency zero in the corner.
Deviations: ResNet-50 in place of ResNet-34, as GenImage's other trunks; no simulated GAN images (AutoGAN's second
part), as in GenImage. Dimensions: B batch, H x W pixels, M = W // 2 + 1 spectrum columns.
"""

import torch
from torch import Tensor

from apn.model_config import SpecConfig
from apn.models.baselines.classifier import Classifier
from apn.models.fourier import FFT

FLOOR = 1e-3  # added to an amplitude before its logarithm
LOW, HIGH = 0.05, 0.95  # shares of the values that become -1 and +1


def mirror_columns(half: Tensor, width: int) -> Tensor:
    """The amplitudes (..., H, M) of a real image's half spectrum -> all of them, (..., H, W)."""
    mirrored = half[..., 1 : (width + 1) // 2].flip(-1)  # column -m at row r is column m at row -r
    mirrored = torch.cat([mirrored[..., :1, :], mirrored[..., 1:, :].flip(-2)], dim=-2)
    return torch.cat([half, mirrored], dim=-1)


def quantile(ordered: Tensor, share: float) -> Tensor:
    """Linear interpolation between the two nearest of the ascending values (..., N) -> (..., 1)."""
    position = share * (ordered.shape[-1] - 1)
    below = min(int(position), ordered.shape[-1] - 2)
    low, high = ordered[..., below : below + 1], ordered[..., below + 1 : below + 2]
    return low + (position - below) * (high - low)


def stretch(values: Tensor) -> Tensor:
    """(..., H, W) -> the same in [-1, 1], each map's 5th percentile at -1 and 95th at +1."""
    ordered = values.flatten(-2).sort(dim=-1).values
    low, high = (quantile(ordered, share)[..., None] for share in (LOW, HIGH))
    return ((values - low) / (high - low).clamp(min=1e-6) * 2 - 1).clamp(-1, 1)


class Spec(Classifier):
    """Image (B, 3, S, S) in [0, 1] -> logits (B, 2)."""

    def __init__(self, config: SpecConfig, *, offline: bool = False) -> None:
        super().__init__(config, offline=offline)
        self.fourier = FFT(config.image_size, config.image_size)

    def view(self, image: Tensor) -> Tensor:
        """The stretched log-amplitude spectrum (B, 3, H, W) in [-1, 1]; always float32, as there is no FFT below."""
        with torch.autocast(image.device.type, enabled=False):
            half = self.fourier(image.float())  # (B, 3, H, M)
            amplitude = mirror_columns((half.real.square() + half.imaginary.square()).sqrt(), image.shape[-1])
            return stretch((amplitude + FLOOR).log()).contiguous(memory_format=torch.channels_last)
