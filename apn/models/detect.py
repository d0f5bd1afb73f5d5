"""APN for detection alone: the artifact side, with its weights folded and laid out for speed.

Source: Meng et al., CVIU 2024: at inference only the artifact side is needed; its network is apn/models/apn.py.
Dimensions: B batch, K bands, C = 3 colours, H x W pixels, M = W // 2 + 1 spectrum columns, F and N
features of the trunks, D embedding size.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from apn.models.bands import Spectrum, purify
from apn.models.cosines import BlockCosines
from apn.models.folding import folded, frozen_copy
from apn.models.frequency import band_mask
from apn.models.fusion import fuse
from apn.models.joint_proposers import JointProposers
from apn.models.packed import can_pack, packed
from apn.models.spatial import Look, project

if TYPE_CHECKING:
    from apn.models.apn import APN

# Of one image, through a float32 trunk on a processor: a third of the memory that 15 take, and as fast. bfloat16 is
# half as large already, and slower in parts.
PURIFIED_AT_ONCE = 5


class DetectLook(nn.Module):
    """A look of the spatial branch, its trunk as `DetectOnly` has trunks."""

    def __init__(self, look: Look, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.contrast = frozen_copy(look.contrast)
        self.head = frozen_copy(look.head)
        self.normalize = frozen_copy(look.normalize)

    def embed(self, features: Tensor) -> Tensor:
        """(B, D) of the trunk's features (B, N), with references (2 B, N)."""
        return self.head(self.contrast(features))


class DetectOnly(nn.Module):
    """float RGB image (B, 3, H, W) in [0, 1] -> logits (B, 2) float32, those of the APN that it was made from.

    It shares the weights that did not change with that APN, which stays as it was. On a processor images go through
    one by one: their K purified images are a batch already, and a larger one leaves the cache and takes its memory.
    """

    artifact_basis: Tensor

    def __init__(
        self,
        model: "APN",
        *,
        dtype: torch.dtype = torch.float32,
        images_at_once: int | None = None,
        plain: bool = False,
    ) -> None:
        """dtype: of the trunks; spectrum, bands and heads stay float32 (METHOD section 6).

        images_at_once: None is one on a processor, all of a batch on another device. plain: True keeps the trunks'
        layers as PyTorch has them, to be exported or compiled.
        """
        super().__init__()
        frequency, spatial = model.frequency, model.spatial
        encoder = frequency.artifact_encoder
        self.config = model.config
        self.dtype = dtype
        self.images_at_once = images_at_once
        self.packed = not plain and can_pack(spatial.artifact_basis.device, dtype)
        self.views = frozen_copy(model.views)
        self.fourier = frozen_copy(frequency.fourier)
        self.proposers = JointProposers(frequency.amplitude_proposer, frequency.phase_proposer)
        self.band_normalize = frozen_copy(encoder.normalize)
        self.band_trunk = self._trunk(encoder.trunk)
        self.band_projection = frozen_copy(encoder.project)
        self.band_weights = frozen_copy(frequency.band_weights)
        self.looks = nn.ModuleList(DetectLook(look, self._trunk(look.backbone)) for look in spatial.looks())
        self.register_buffer("artifact_basis", spatial.artifact_basis.detach())
        self.classifier = frozen_copy(model.classifier)
        self.eval()

    @torch.inference_mode()
    def forward(self, image: Tensor) -> Tensor:
        """Raises ValueError for an image of another shape than the bands were made for."""
        size = self.config.image_size
        if image.shape[1:] != (3, size, size):
            raise ValueError(f"expected images (B, 3, {size}, {size}), found {tuple(image.shape)}: crop them first")
        at_once = self.images_at_once or (1 if image.device.type == "cpu" else max(len(image), 1))
        if not len(image):
            return torch.empty(0, 2, device=image.device)
        return torch.cat([self.together(part) for part in image.split(at_once)])

    def together(self, image: Tensor) -> Tensor:
        """The logits (B, 2) of a batch at once."""
        with torch.autocast(image.device.type, enabled=False):
            seen = self.views(image)
            return self.judge(self.band_features(self.purified(seen.frequency)), self.spatial_features(seen.spatial))

    def purified(self, image: Tensor) -> Tensor:
        """The purified images (B, K, C, H, W), float32, of what the frequency branch sees of an image."""
        spectrum = self.fourier(image.float())  # (B, C, H, M)
        size = spectrum.real.shape[-2:]
        masks = [band_mask(self.config, component, *size) for component in self.proposers(spectrum)]  # (B, K, C, H, M)
        return self.fourier.inverse(purify(Spectrum(*(part[:, None] for part in spectrum)), *masks))

    def band_features(self, purified: Tensor) -> Tensor:
        """(B, K, F) float32 of the purified images (B, K, C, H, W)."""
        pixels = self.band_normalize(purified.flatten(0, 1))
        parts = pixels.split(PURIFIED_AT_ONCE) if self.packed and self.dtype == torch.float32 else [pixels]
        return torch.cat([self._features(self.band_trunk, part) for part in parts]).unflatten(0, purified.shape[:2])

    def spatial_features(self, seen: Sequence[Tensor]) -> list[Tensor]:
        """(B, N) float32 a look, of what it sees; with references (2 B, N)."""
        return [
            self._features(look.trunk, look.normalize(image)) for look, image in zip(self._looks(), seen, strict=True)
        ]

    def judge(self, bands: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Logits (B, 2) of the features of the purified images (B, K, F) and of each look (B or 2 B, N)."""
        frequency = (self.band_weights(bands) * self.band_projection(bands)).sum(dim=1)  # (B, D)
        embeddings = [look.embed(one) for look, one in zip(self._looks(), features, strict=True)]
        spatial = project(torch.stack(embeddings).mean(dim=0), self.artifact_basis)
        return self.classifier(fuse(frequency, spatial, self.config.frequency_weight))

    def _looks(self) -> list[DetectLook]:
        return cast(list[DetectLook], list(self.looks))

    def _features(self, trunk: nn.Module, pixels: Tensor) -> Tensor:
        return trunk(pixels.to(self._dtype(trunk), memory_format=torch.channels_last)).float()

    def _dtype(self, trunk: nn.Module) -> torch.dtype:
        return torch.float32 if isinstance(trunk, BlockCosines) else self.dtype  # they read less than one grey value

    def _trunk(self, trunk: nn.Module) -> nn.Module:
        trunk = folded(trunk).to(self._dtype(trunk))
        return packed(trunk) if self.packed else trunk

    def compile_trunks(self) -> "DetectOnly":
        """Itself, after torch.compile of all trunks, plain ones, with weights as constants; the next calls compile."""
        for trunk in (self.band_trunk, *(look.trunk for look in self._looks())):
            trunk.compile(dynamic=False, options={"freezing": True})
        return self
