"""What saving a picture as JPEG would leave of it, inside a network: no file, no codec, the same in every runtime.

Source: ITU-T T.81 (1992), A.3.3 (the transform) and K.1 (the tables); JFIF 1.02 for colours; tables scaled by quality,
colour halved and enlarged again as libjpeg does it.
Dimensions: B batch, C channels, H x W pixels.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

QUALITY = 90  # of a few tried on the leave-out folds: docs/experiments.md
BLOCK = 8
NUDGE = 2.0**-12
_BRIGHTNESS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_COLOUR = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))  # elsewhere 99
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def quantisation(quality: int) -> tuple[Tensor, Tensor]:
    """Steps of the coefficients of brightness and of colour, (64,) each, row by row. quality: 1 to 100."""
    colour = np.full((BLOCK, BLOCK), 99)
    colour[:4, :4] = _COLOUR
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    first, second = (np.clip((np.array(one) * scale + 50) // 100, 1, 255) for one in (_BRIGHTNESS, colour))
    return torch.from_numpy(first.ravel()).float(), torch.from_numpy(second.ravel()).float()


def block_transform() -> Tensor:
    """(64, 64): the orthonormal cosine transform of a block's pixels, both row by row."""
    places = np.arange(BLOCK)
    rows = np.cos(np.pi * (2 * places[None] + 1) * places[:, None] / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    rows[0] /= np.sqrt(2)
    return torch.from_numpy(np.kron(rows, rows)).float()


class Jpeg(nn.Module):
    """Image (B, 3, H, W) in [0, 1] -> the same after a JPEG of QUALITY with halved colour, as large.

    From what libjpeg gives it differs by less than one grey value on average, without bias (tests/test_codec.py).
    Rounding has no gradient, nor has this.
    """

    transform: Tensor
    brightness: Tensor
    colour: Tensor
    to_ycc: Tensor
    to_rgb: Tensor

    def __init__(self, quality: int = QUALITY) -> None:
        super().__init__()
        brightness, colour = quantisation(quality)
        for name, values in {
            "transform": block_transform(), "brightness": brightness, "colour": colour,
            "to_ycc": torch.tensor(TO_YCC), "to_rgb": torch.tensor(_TO_RGB),
        }.items():  # fmt: skip
            self.register_buffer(name, values, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        side = 2 * BLOCK  # of what is saved together; the picture's edge is repeated up to there
        pixels = F.pad(255 * image, (0, -width % side, 0, -height % side), mode="replicate")
        ycc = _whole(_mix(self.to_ycc, pixels))  # colours about 0 already, brightness about 128
        brightness = self._saved(ycc[:, :1] - 128, self.brightness) + 128
        colour = self._saved(torch.round(F.avg_pool2d(ycc[:, 1:], 2)), self.colour)
        colour = F.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)
        found = _whole(_mix(self.to_rgb, torch.cat([brightness, torch.round(colour)], dim=1)))
        return found[..., :height, :width].clamp(0, 255) / 255

    def _saved(self, channels: Tensor, steps: Tensor) -> Tensor:
        """(B, C, H, W) about 0, H and W whole blocks -> as read again."""
        rows, columns = (n // BLOCK for n in channels.shape[-2:])
        blocks = channels.unflatten(3, (columns, BLOCK)).unflatten(2, (rows, BLOCK)).transpose(3, 4).flatten(4)
        kept = _whole(blocks @ self.transform.T / steps) * steps  # (B, C, rows, columns, 64)
        blocks = torch.round(kept @ self.transform).clamp(-128, 127).unflatten(4, (BLOCK, BLOCK))
        return blocks.transpose(3, 4).flatten(4).flatten(2, 3)


def _whole(values: Tensor) -> Tensor:
    """Rounded, up where they lie halfway, as many do: pixels are whole numbers, and so are steps. At which side of it a
    sum of products or a quotient comes out is each runtime's own affair; means of whole numbers are exact."""
    return torch.round(values + NUDGE)


def _mix(matrix: Tensor, channels: Tensor) -> Tensor:
    """(3, 3) times each pixel of (B, 3, H, W)."""
    return torch.einsum("ij,bjhw->bihw", matrix, channels)
