"""Frequency branch: propose suspicious bands, purify the image by each, encode what they keep and what they leave.

Source: Meng et al., CVIU 2024, explicit purification (1); METHOD section 1 of the project's notes in docs/method.md.
Dimensions: B batch, K bands, C = 3 colours, H x W pixels, M = W // 2 + 1 spectrum columns, L axis length,
F encoder features, D embedding size.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apn.model_config import ModelConfig
from apn.models.backbones import Normalize, build_backbone, num_features
from apn.models.bands import (
    AxisBands,
    ComponentBands,
    Proposals,
    Spectrum,
    hard_axis_mask,
    join_axes,
    mirror_rows,
    purify,
    remainder,
    settle_bands,
    soft_axis_mask,
)
from apn.models.fourier import FFT, MatrixDFT

COLOURS = 3
ATTENTION_HEADS = 8
LEAST_EDGE = 0.005  # of a wide band's start, beyond its prior: frequency 0 stays in the first band of up to 200 places
LAST_PRIOR = 0.9  # band k of K starts its life at k / (K - 1) * 0.9 of the axis
UNCUT_BANDS = 15  # with more bands than this the official code zeroes the weakest weights


class FrequencyOutput(NamedTuple):
    """artifact, irrelevant (B, D); band_weights (B, K, 1) in [0, 1]; proposals before any band is voided."""

    artifact: Tensor
    irrelevant: Tensor | None
    band_weights: Tensor
    proposals: Proposals


class Bottleneck(nn.Module):
    """1x1, 3x3 per colour, 1x1, each with batch norm, around an identity."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(COLOURS, COLOURS, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(COLOURS)
        self.conv2 = nn.Conv2d(COLOURS, COLOURS, 3, padding=1, groups=COLOURS, bias=False)
        self.bn2 = nn.BatchNorm2d(COLOURS)
        self.conv3 = nn.Conv2d(COLOURS, COLOURS, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(COLOURS)

    def forward(self, component: Tensor) -> Tensor:  # (B, C, H, M) -> (B, C, H, M)
        hidden = F.relu(self.bn1(self.conv1(component)))
        hidden = F.relu(self.bn2(self.conv2(hidden)))
        return F.relu(component + self.bn3(self.conv3(hidden)))


def _head(length: int, outputs: int) -> nn.Sequential:
    quarter = length // 4
    return nn.Sequential(
        nn.Linear(length, quarter), nn.ReLU(),
        nn.Linear(quarter, quarter), nn.ReLU(),
        nn.Linear(quarter, quarter), nn.ReLU(),
        nn.Linear(quarter, outputs), nn.Sigmoid(),
    )  # fmt: skip


@torch.no_grad()
def widen(edges: nn.Module, prior: Tensor) -> None:
    """Sets the bias of the last layer of an edges head so that each band reaches from its prior (K,) to the next's."""
    assert isinstance(edges, nn.Linear)
    width = torch.diff(prior, append=prior.new_ones(1))  # (K,), fraction of the axis
    edges.bias.copy_(torch.logit(torch.cat([torch.full_like(width, LEAST_EDGE), width]), eps=LEAST_EDGE))


class AxisProposer(nn.Module):
    """K bands along the rows (axis 0, L = H) or the columns (axis 1, L = M) of one spectrum component."""

    prior: Tensor

    def __init__(self, height: int, columns: int, axis: int, band_count: int, start: str) -> None:
        super().__init__()
        length = (height, columns)[axis]
        kernel, padding = ((3, columns), (1, 0)) if axis == 0 else ((height, 3), (0, 1))
        self.bottlenecks = nn.Sequential(*(Bottleneck() for _ in range(3)))
        self.collapse = nn.Conv2d(COLOURS, COLOURS, kernel, padding=padding, groups=COLOURS)
        self.neck = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(length, length), nn.ReLU())))
        self.confidence_head = _head(length, band_count)
        self.edges_head = _head(length, 2 * band_count)
        self.register_buffer("prior", torch.linspace(0, LAST_PRIOR, band_count))
        if start == "wide":
            widen(self.edges_head[-2], self.prior)

    def forward(self, component: Tensor) -> AxisBands:  # (B, C, H, M)
        profile = self.collapse(self.bottlenecks(component)).flatten(2)  # (B, C, L)
        profile = self.neck(profile)
        start, end = self.edges_head(profile).chunk(2, dim=-1)  # (B, C, K) each
        return AxisBands(self.confidence_head(profile), start + self.prior, end + self.prior)


class BandProposer(nn.Module):
    """Row and column bands of one component, amplitude or phase."""

    def __init__(self, height: int, columns: int, band_count: int, start: str) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(COLOURS)
        self.rows = AxisProposer(height, columns, 0, band_count, start)
        self.columns = AxisProposer(height, columns, 1, band_count, start)

    def forward(self, component: Tensor) -> ComponentBands:  # (B, C, H, M)
        component = self.norm(component)
        return ComponentBands(self.rows(component), self.columns(component))


class BandWeights(nn.Module):
    """How much each band counts, judged from the K artifact features together."""

    def __init__(self, num_features: int, cut_weakest: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(num_features, ATTENTION_HEADS, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(num_features, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid()
        )
        self.cut_weakest = cut_weakest

    def forward(self, features: Tensor) -> Tensor:  # (B, K, F) -> (B, K, 1)
        attended, _ = self.attention(features, features, features, need_weights=False)
        weights = self.head(attended)
        if self.cut_weakest and weights.shape[1] > UNCUT_BANDS:
            threshold = weights.topk(UNCUT_BANDS, dim=1, largest=False).values[:, -1:]
            weights = torch.where(weights < threshold, 0.0, weights)
        return weights


class BandEncoder(nn.Module):
    """A trunk shared by all bands: images (B, K, C, H, W) -> features (B, K, F), embeddings (B, K, D)."""

    def __init__(self, config: ModelConfig, pretrained: bool) -> None:
        super().__init__()
        self.trunk = build_backbone(config.band_encoder, pretrained=pretrained)
        self.num_features = num_features(self.trunk)
        self.project = nn.Linear(self.num_features, config.embedding_dim)
        self.normalize = Normalize(self.trunk) if config.band_normalize else nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self.normalize(images.flatten(0, 1)).contiguous(memory_format=torch.channels_last)  # (B * K, C, H, W)
        features = self.trunk(pixels).unflatten(0, images.shape[:2])  # (B, K, F)
        return features, self.project(features)


def band_mask(config: ModelConfig, bands: ComponentBands, height: int, columns: int) -> Tensor:
    """(B, K, C, H, M), 1 where a band selects: bool for hard bands, float in [0, 1] for the others."""
    symmetric = config.band_rows == "symmetric"
    lengths = (height // 2 + 1 if symmetric else height, columns)

    settled = (settle_bands(axis, suppress=config.band_suppression) for axis in bands)

    def join(rows: Tensor, columns: Tensor) -> Tensor:
        return join_axes(mirror_rows(rows, height) if symmetric else rows, columns)

    hard = join(*(hard_axis_mask(axis, n) for axis, n in zip(settled, lengths, strict=True)))
    if config.bands == "hard" or (config.bands == "straight-through" and not torch.is_grad_enabled()):
        return hard
    width = config.band_edge_width
    soft = join(*(soft_axis_mask(axis, n, width) for axis, n in zip(bands, lengths, strict=True)))
    return soft if config.bands == "soft" else hard + (soft - soft.detach())


class FrequencyBranch(nn.Module):
    """Image (B, C, H, W) in [0, 1] -> artifact and irrelevant embedding (B, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        height = width = config.image_size
        columns = width // 2 + 1
        self.config = config
        self.fourier: FFT | MatrixDFT = FFT(height, width)
        self.amplitude_proposer = BandProposer(height, columns, config.band_count, config.band_start)
        self.phase_proposer = BandProposer(height, columns, config.band_count, config.band_start)
        self.artifact_encoder = BandEncoder(config, pretrained=config.pretrained_artifact)
        self.irrelevant_encoder = BandEncoder(config, pretrained=config.pretrained_irrelevant)
        self.band_weights = BandWeights(self.artifact_encoder.num_features, config.cut_weakest_bands)

    def propose(self, spectrum: Spectrum) -> Proposals:
        """Bands of the spectrum (B, C, H, M), each tensor (B, C, K)."""
        return Proposals(self.amplitude_proposer(spectrum.amplitude), self.phase_proposer(spectrum.phase))

    def mask(self, bands: ComponentBands, height: int, columns: int) -> Tensor:
        """As `band_mask`, with this branch's settings."""
        return band_mask(self.config, bands, height, columns)

    def split(self, image: Tensor, *, residual: bool = True) -> tuple[Tensor, Tensor | None, Proposals]:
        """Purified and residual images (B, K, C, H, W) and the bands that made them; always float32.

        Half precision fails here: the FFT does not exist at 224 pixels, and rounded band edges move the logits.
        """
        with torch.autocast(image.device.type, enabled=False):
            spectrum = self.fourier(image.float())  # (B, C, H, M)
            bands = self.propose(spectrum)
            height, columns = spectrum.real.shape[-2:]
            masks = [self.mask(component, height, columns) for component in bands]  # (B, K, C, H, M) each
            spectrum = Spectrum(spectrum.real[:, None], spectrum.imaginary[:, None])  # (B, 1, C, H, M)
            purified = self.fourier.inverse(purify(spectrum, *masks))  # (B, K, C, H, W)
            left = self.fourier.inverse(remainder(spectrum, *masks)) if residual else None
        return purified, left, bands

    def weigh(self, purified: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, K, D) of the purified images (B, K, C, H, W), each times its band's weight, and these weights
        (B, K, 1)."""
        features, embeddings = self.artifact_encoder(purified)  # (B, K, F), (B, K, D)
        weights = self.band_weights(features)
        return weights * embeddings, weights

    def forward(self, image: Tensor, *, irrelevant: bool = True) -> FrequencyOutput:
        """irrelevant=False leaves out what inference does not need: the residual images and their encoder."""
        purified, residual, proposals = self.split(image, residual=irrelevant)
        embeddings, weights = self.weigh(purified)
        artifact = embeddings.sum(dim=1)  # (B, D)
        rest = None if residual is None else self.irrelevant_encoder(residual)[1].mean(dim=1)  # (B, D)
        return FrequencyOutput(artifact, rest, weights, proposals)
