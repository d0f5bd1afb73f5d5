"""What is done to both classes before a detector sees them, so that a table says what it measured.

`native` scores files as they are. `aligned` cuts the centre of both classes to one size and saves it with one codec and
quality, so that neither format nor size of a file can tell the label. `fakes-jpeg` saves only the generated images as
JPEG, as several papers do to take the advantage of PNG from them; the photographs keep their own compression.
No torch here. Labels: 0 real, 1 generated.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from apn.crops import CROP_SIZE, Pixels
from apn.data.samples import GENERATED
from apn.data.transforms import ALIGNED_QUALITY, Codec, align, jpeg
from apn.image import LoadedImage, load_image

ProtocolName = Literal["native", "aligned", "fakes-jpeg"]
PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)
_CODEC_TITLES: dict[Codec, str] = {"jpeg": "JPEG q{}", "webp": "WebP q{}", "png": "PNG"}


@dataclass(frozen=True)
class Protocol:
    """One protocol with its settings; those that it does not use are ignored.

    size: side of the aligned crop in pixels. quality: 1 .. 100, of `codec` or of the JPEG of `fakes-jpeg`.
    """

    name: ProtocolName
    size: int = CROP_SIZE
    codec: Codec = "jpeg"
    quality: int = ALIGNED_QUALITY

    def __post_init__(self) -> None:
        for field, found, expected in (
            ("protocol", self.name, PROTOCOLS),
            ("codec", self.codec, get_args(Codec)),
        ):
            if found not in expected:
                raise ValueError(f"expected a {field} of {', '.join(expected)}, found {found!r}")
        if self.size < 1 or not 1 <= self.quality <= 100:
            raise ValueError(
                f"expected a size of at least 1 and a quality of 1 .. 100, found {self.size}, {self.quality}"
            )

    @property
    def title(self) -> str:
        """The canonical name with every setting that matters; part of each table's title."""
        if self.name == "native":
            return "native (files as they are)"
        if self.name == "fakes-jpeg":
            return f"fakes-jpeg (generated saved as JPEG q{self.quality}, real as they are)"
        return f"aligned ({self.size} px centre, {_CODEC_TITLES[self.codec].format(self.quality)})"

    def apply(self, pixels: Pixels, label: int) -> Pixels:
        """What a detector is shown of a decoded picture: (H, W, 3) uint8, or (size, size, 3) when aligned."""
        if self.name == "aligned":
            return align(pixels, self.size, self.codec, self.quality)
        if self.name == "fakes-jpeg" and label == GENERATED:
            return jpeg(pixels, self.quality)
        return pixels

    def open(self, path: Path, label: int) -> LoadedImage:
        """Reads a file and applies the protocol. Raises ImageError where it cannot be read."""
        image = load_image(path)
        pixels = self.apply(image.pixels, label)
        if pixels is image.pixels:
            return image
        # No quality, no metadata: what the file said of itself is no longer true, and must not reach a verdict.
        return LoadedImage(np.ascontiguousarray(pixels), "pixels", 1, False, None, {})
