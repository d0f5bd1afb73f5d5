"""What a blur takes from a picture, amplified: the traces of how it was made, without most of what it shows.

Sources: high-pass residuals, Fridrich and Kodovsky, "Rich models for steganalysis of digital images", IEEE TIFS 2012;
as a generator's fingerprint, Marra et al., "Do GANs leave artificial fingerprints?", MIPR 2019.
Dimensions: B batch, H x W pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIGMA = 1.0  # of the blur, pixels
REACH = 3  # pixels on either side, where a blur of SIGMA has ended
GAIN = 16.0  # chosen on the leave-out folds: docs/results.md


class Residual(nn.Module):
    """Image (B, 3, H, W) in [0, 1] -> 1/2 + GAIN (image - blurred image), as large; mid-grey where it is smooth."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        places = torch.arange(-REACH, REACH + 1.0)
        bell = torch.exp(-places.square() / (2 * SIGMA**2))
        bell /= bell.sum()
        self.register_buffer("kernel", torch.outer(bell, bell).repeat(3, 1, 1, 1), persistent=False)  # (3, 1, 7, 7)

    def forward(self, image: Tensor) -> Tensor:
        blurred = F.conv2d(F.pad(image, (REACH,) * 4, mode="reflect"), self.kernel, groups=3)
        return 0.5 + GAIN * (image - blurred)


def view(name: str) -> nn.Module:
    """The module that makes what a backbone sees of a picture: "pixels" (the picture itself) or "residual"."""
    return {"pixels": nn.Identity, "residual": Residual}[name]()
