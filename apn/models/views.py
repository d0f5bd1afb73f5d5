"""What the branches see of a picture: itself, or what a blur takes from it, amplified.

The residual has the traces of how a picture was made without most of what it shows; its colour alone tells of other
generators than the whole of it does (docs/experiments.md).

A median filter takes the same traces from a picture and leaves its edges and colours. It is the reference that the
features of a picture can be compared with: what both share is of the scene. So does saving it as JPEG, which takes the
colour of single pixels, too.

Sources: high-pass residuals, Fridrich and Kodovsky, "Rich models for steganalysis of digital images", IEEE TIFS 2012;
as a generator's fingerprint, Marra et al., "Do GANs leave artificial fingerprints?", MIPR 2019; features less
those of a reference made from the picture itself, Fridrich, Goljan and Hogea, "Steganalysis of JPEG images: breaking
the F5 algorithm", Information Hiding 2002.
Dimensions: B batch, H x W pixels.
"""

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apn.model_config import LookConfig, ModelConfig, Reference, View
from apn.models.codec import Jpeg

SIGMA = 1.0  # of the blur, pixels
REACH = 3  # pixels on either side, where a blur of SIGMA has ended
GAIN = 16.0  # chosen on the leave-out folds: docs/experiments.md
COLOUR_GAIN = 32.0  # colour differs less than brightness does


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


class ColourResidual(Residual):
    """Image (B, 3, H, W) in [0, 1] -> 1/2 + COLOUR_GAIN (residual less its mean over colours), as large."""

    def forward(self, image: Tensor) -> Tensor:
        residual = super().forward(image) - 0.5
        return 0.5 + COLOUR_GAIN / GAIN * (residual - residual.mean(dim=1, keepdim=True))


class Median(nn.Module):
    """Image (B, 3, H, W) -> the median of each 3 x 3 neighbourhood, as large; edges are mirrored."""

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        padded = F.pad(image, (1, 1, 1, 1), mode="reflect")
        rows = [padded[..., i : i + height, :] for i in range(3)]
        least, middle, largest = reduce(torch.minimum, rows), median_of_three(*rows), reduce(torch.maximum, rows)

        def columns(part: Tensor) -> list[Tensor]:
            return [part[..., i : i + width] for i in range(3)]

        # Of nine values in three sorted columns: between the largest least and the least largest.
        return median_of_three(
            reduce(torch.maximum, columns(least)),
            median_of_three(*columns(middle)),
            reduce(torch.minimum, columns(largest)),
        )


def median_of_three(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Elementwise. Minima and maxima rather than a sort: every runtime has them, and they are fast."""
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


VIEWS: dict[str, type[nn.Module]] = {
    "pixels": nn.Identity,
    "residual": Residual,
    "colour-residual": ColourResidual,
}
REFERENCES: dict[str, type[nn.Module]] = {"median": Median, "jpeg": Jpeg}


class Seen(NamedTuple):
    """What each branch is given, (B, 3, H, W) each, colours in the order that the weights expect.

    spatial: one a look of the spatial branch, H and W divided by its scale; with a reference (2 B, 3, H, W), the B
    pictures and after them their B references.
    """

    frequency: Tensor
    spatial: tuple[Tensor, ...]


class Views(nn.Module):
    """RGB image (B, 3, H, W) in [0, 1], float32 -> what each branch sees of it, without a weight that learns."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.flip = config.channel_order == "bgr"
        self.bands: View = config.band_view or config.view
        self.looks = config.looks()
        views = {self.bands, *(look.view for look in self.looks)}
        self.views = nn.ModuleDict({name: VIEWS[name]() for name in sorted(views)})
        self.references = nn.ModuleDict(
            {name: REFERENCES[name]() for name in {look.reference for look in self.looks} if name}
        )

    def forward(self, image: Tensor) -> Seen:
        if self.flip:
            image = image.flip(1)
        pictures = {scale: reduced(image, scale) for scale in {1, *(look.scale for look in self.looks)}}
        seen: dict[tuple[View, int], Tensor] = {}  # once, however many look at it

        def view(name: View, scale: int) -> Tensor:
            if (name, scale) not in seen:
                seen[name, scale] = self.views[name](pictures[scale])
            return seen[name, scale]

        references: dict[tuple[Reference, int], Tensor] = {}

        def look(config: LookConfig) -> Tensor:
            shown = view(config.view, config.scale)
            if config.reference is None:
                return shown
            key = config.reference, config.scale
            if key not in references:
                references[key] = self.references[config.reference](pictures[config.scale])
            return torch.cat([shown, self.views[config.view](references[key])])

        return Seen(view(self.bands, 1), tuple(look(one) for one in self.looks))


def reduced(image: Tensor, scale: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H / scale, W / scale), means of scale x scale pixels."""
    return image if scale == 1 else F.avg_pool2d(image, scale)
