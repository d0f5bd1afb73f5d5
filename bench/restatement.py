"""The official forward pass, restated plainly: the baseline of bench/inference.py.

Source: METHOD section 1 in our own words (docs/method.md), none of the official code. Like it, and unlike apn/models:
both encoders always run, one after the other; masks are dense int64 tensors (B, C, K, H, M); amplitude and phase are
masked and put together again as complex numbers; three logits; contiguous layout, autograd's bookkeeping off.
It has the settings of the official run: hard bands, rows as stored, no suppression (`supports` says whether a
configuration is that). Dimensions: B batch, K bands, C = 3 colours, H x W pixels, M = W // 2 + 1, L axis length.
"""

import torch
from torch import Tensor, nn

from apn.model_config import ModelConfig
from apn.models.apn import APN
from apn.models.bands import AxisBands
from apn.models.frequency import BandEncoder


def supports(config: ModelConfig) -> bool:
    """Whether the restatement computes what an APN of these settings does."""
    return config.bands != "soft" and not config.band_suppression


class Restatement(nn.Module):
    """float RGB image (B, 3, H, W) in [0, 1] -> logits (B, 2), by the layers of `model`, which it takes over."""

    def __init__(self, model: APN) -> None:
        super().__init__()
        if not supports(model.config):
            raise ValueError("the official code has hard bands without suppression: no baseline for other settings")
        self.model = model.to(memory_format=torch.contiguous_format).eval()
        self.symmetric = model.config.band_rows == "symmetric"

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        model, frequency, spatial = self.model, self.model.frequency, self.model.spatial
        seen = model.seen(image)
        spectrum = torch.fft.rfft2(seen.frequency)  # (B, C, H, M)
        spectrum.imag[..., frequency.fourier.self_conjugate] = 0.0
        amplitude, phase = spectrum.abs(), spectrum.angle()
        amplitude_mask = self.mask(frequency.amplitude_proposer(amplitude), *amplitude.shape[2:])  # (B, C, K, H, M)
        phase_mask = self.mask(frequency.phase_proposer(phase), *phase.shape[2:])
        amplitude, phase = amplitude[:, :, None], phase[:, :, None]  # (B, C, 1, H, M)
        purified = self.picture(amplitude * amplitude_mask, phase * phase_mask)  # (B, K, C, H, W)
        residual = self.picture(amplitude * (1 - amplitude_mask), phase * (1 - phase_mask))
        features = self.encode(frequency.artifact_encoder, purified)  # (B, K, F)
        irrelevant = self.encode(frequency.irrelevant_encoder, residual)
        weights = frequency.band_weights(features)  # (B, K, 1)
        artifact_frequency = (weights * frequency.artifact_encoder.project(features)).sum(1)  # (B, D)
        frequency.irrelevant_encoder.project(irrelevant).mean(1)  # computed, not used, as there
        embeddings = [
            look.head(look.contrast(look.backbone(look.normalize(image).contiguous())))
            for look, image in zip(spatial.looks(), seen.spatial, strict=True)
        ]
        embedding = sum(embeddings) / len(embeddings)  # (B, D)
        artifact_spatial = embedding @ spatial.artifact_basis.T @ spatial.artifact_basis
        embedding @ spatial.irrelevant_basis.T @ spatial.irrelevant_basis
        model.classifier(artifact_frequency), model.classifier(artifact_spatial)
        weight = model.config.frequency_weight
        return model.classifier(weight * artifact_frequency + (1 - weight) * artifact_spatial)

    def mask(self, bands: tuple[AxisBands, AxisBands], height: int, columns: int) -> Tensor:
        """(B, C, K, H, M) int64, 1 where the row or the column lies in the band."""
        folded = height // 2 + 1 if self.symmetric else height
        rows, across = self.interval(bands[0], folded), self.interval(bands[1], columns)  # (B, C, K, L) int64
        if self.symmetric:
            place = torch.arange(height, device=rows.device)
            rows = rows[..., torch.minimum(place, height - place)]
        return (rows[..., :, None] + across[..., None, :]).clamp(max=1)

    def interval(self, bands: AxisBands, length: int) -> Tensor:
        """(B, C, K, L) int64; a band that ends at or before its start selects place 0."""
        void = bands.end <= bands.start
        first = (bands.start.masked_fill(void, 0) * length).floor().clamp(0, length - 1)
        last = (bands.end.masked_fill(void, 0) * length).floor().clamp(0, length - 1)
        place = torch.arange(length, device=first.device)
        return ((place >= first[..., None]) & (place <= last[..., None])).long()

    def picture(self, amplitude: Tensor, phase: Tensor) -> Tensor:
        """(B, C, K, H, M) -> (B, K, C, H, W)."""
        complex_spectrum = amplitude * torch.exp(1j * phase)
        size = self.model.config.image_size
        return torch.fft.irfft2(complex_spectrum, s=(size, size)).transpose(1, 2)

    def encode(self, encoder: BandEncoder, images: Tensor) -> Tensor:
        """(B, K, C, H, W) -> (B, K, F)."""
        return encoder.trunk(encoder.normalize(images.flatten(0, 1)).contiguous()).unflatten(0, images.shape[:2])
