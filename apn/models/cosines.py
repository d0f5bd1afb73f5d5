"""How strong each cosine of a block of 8 x 8 pixels is: what JPEG rounds, and what a decoder leaves otherwise.

Compared with those of the picture saved as JPEG (`Contrast`) they tell what an earlier save, or none, had left.
Source: calibrated features of cosine coefficients, Fridrich, "Feature-based steganalysis for JPEG images", Information
Hiding 2004.
Dimensions: B batch, C colours, H x W pixels, h x w blocks, F = 64 C.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from apn.models.codec import BLOCK, TO_YCC, block_transform
from apn.models.statistics import FrozenStatistics, Standardize, statistics

STRIDE = 5  # pixels from one block to the next: prime to 8, so that no place of a JPEG grid counts more than another
FLOOR = 0.5  # grey values; fainter cosines than this are as good as none


class LogCosines(nn.Module):
    """RGB image (B, 3, H, W) in [0, 1] -> logarithm of the strength of each cosine, (B, F, h, w) float32."""

    to_ycc: Tensor

    def __init__(self, part: Literal["brightness", "colour"]) -> None:
        super().__init__()
        rows = torch.tensor(TO_YCC)
        self.register_buffer("to_ycc", rows[:1] if part == "brightness" else rows[1:], persistent=False)
        self.transform = nn.Conv2d(1, BLOCK * BLOCK, BLOCK, stride=STRIDE, bias=False)
        self.transform.weight = nn.Parameter(block_transform().view(-1, 1, BLOCK, BLOCK), requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):  # what matters is less than one grey value
            channels = 255 * torch.einsum("ij,bjhw->bihw", self.to_ycc, image.float())  # (B, C, H, W)
            found = self.transform(channels.flatten(0, 1)[:, None])  # (B C, 64, h, w)
            return (found.abs() + FLOOR).log().unflatten(0, (-1, len(self.to_ycc))).flatten(1, 2)


class BlockCosines(FrozenStatistics):
    """Image (B, 3, H, W) in [0, 1] -> standardised means and deviations over blocks of `LogCosines` (B, N).

    part: of brightness, or of both colour differences. spread: the deviations alone, which how much detail a picture
    has moves less.
    """

    placed = "cosines"

    def __init__(self, part: Literal["brightness", "colour"], *, spread: bool = False) -> None:
        super().__init__()
        self.cosines = LogCosines(part)
        self.pretrained_cfg = {"mean": (0.0,) * 3, "std": (1.0,) * 3}  # pixels as they are
        self.spread = spread
        self.num_features = (1 if spread else 2) * BLOCK * BLOCK * len(self.cosines.to_ycc)
        self.standardize = Standardize(self.num_features)

    def forward(self, image: Tensor) -> Tensor:
        return self.standardize(self.statistics(image))

    def statistics(self, image: Tensor) -> Tensor:
        """Not standardised."""
        maps = self.cosines(image)
        found = statistics(maps)
        return found[:, maps.shape[1] :] if self.spread else found
