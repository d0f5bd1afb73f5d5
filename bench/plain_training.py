"""The training step restated plainly: the baseline of bench/training.py.

Source: METHOD sections 1, 4 and 5 in our own words (docs/method.md), none of the official code. Like it, and unlike
apn/models: masks are dense int64 tensors, amplitude and phase are masked and put together again as complex numbers,
every layer is in the contiguous layout, CLUB compares every pair of a batch, B x B x D numbers, and AdamW is PyTorch's
as it comes.
Dimensions: B batch, K bands, C = 3 colours, H x W pixels, M = W // 2 + 1 spectrum columns, D embedding size.
"""

from functools import partial

import torch
from torch import Tensor

from apn.models.apn import APN
from apn.models.bands import Proposals, Spectrum
from apn.models.club import CLUB
from apn.models.frequency import BandEncoder, FrequencyBranch
from apn.models.spatial import Look
from apn.step import Trainee


def make_plain(trainee: Trainee) -> None:
    """The same network, weights and numbers up to rounding, computed plainly from now on."""
    model = trainee.model
    assert isinstance(model, APN), "the baseline is APN's"
    model.to(memory_format=torch.contiguous_format)
    frequency = model.frequency
    frequency.split = partial(split, frequency)  # type: ignore[method-assign]
    for encoder in (frequency.artifact_encoder, frequency.irrelevant_encoder):
        encoder.forward = partial(encode, encoder)  # type: ignore[method-assign]
    for look in model.spatial.looks():
        look.embed = partial(embed, look)  # type: ignore[method-assign]
    for optimizer in (trainee.model_optimizer, trainee.club_optimizer):
        for group in optimizer.param_groups if optimizer else ():
            group["fused"] = None
    for club in trainee.clubs:
        club.forward = partial(bound, club)  # type: ignore[method-assign]


def split(branch: FrequencyBranch, image: Tensor, *, residual: bool = True) -> tuple[Tensor, Tensor, Proposals]:
    """Purified and residual images (B, K, C, H, W) and the bands that made them."""
    spectrum = torch.fft.rfft2(image)  # (B, C, H, M)
    imaginary = spectrum.imag.masked_fill(branch.fourier.self_conjugate, 0.0)
    amplitude, phase = spectrum.abs(), torch.atan2(imaginary, spectrum.real)
    bands = branch.propose(Spectrum(spectrum.real, imaginary))
    masks = [branch.mask(component, *amplitude.shape[2:]) for component in bands]  # (B, K, C, H, M) each
    masks = [mask.long() if mask.dtype == torch.bool else mask for mask in masks]

    def picture(*masks: Tensor) -> Tensor:
        kept = [component[:, None] * mask for component, mask in zip((amplitude, phase), masks, strict=True)]
        return torch.fft.irfft2(kept[0] * torch.exp(1j * kept[1]), s=image.shape[2:])  # (B, K, C, H, W)

    return picture(*masks), picture(*(1 - mask for mask in masks)), bands


def encode(encoder: BandEncoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """images (B, K, C, H, W) -> features (B, K, F), embeddings (B, K, D)."""
    features = encoder.trunk(encoder.normalize(images.flatten(0, 1)).contiguous()).unflatten(0, images.shape[:2])
    return features, encoder.project(features)


def embed(look: Look, image: Tensor) -> Tensor:
    """Image (B, C, H, W), or with its reference (2 B, C, H, W) -> embedding (B, D)."""
    return look.head(look.dropout(look.contrast(look.backbone(look.normalize(image).contiguous()))))


def bound(club: CLUB, artifact: Tensor, irrelevant: Tensor) -> Tensor:
    """CLUB's bound, every irrelevant embedding compared with every prediction."""
    mean, variance = club.mean(artifact), torch.exp(club.log_variance(artifact))  # (B, D)
    positive = -((irrelevant - mean) ** 2) / 2 / variance
    everyone: Tensor = irrelevant[None] - mean[:, None]  # (B, B, D)
    negative = -(everyone**2).mean(dim=1) / 2 / variance
    return (positive.sum(dim=1) - negative.sum(dim=1)).mean()
