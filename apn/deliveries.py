"""Stability: would the verdict survive another delivery? The ways an image is delivered once more, tile by tile.

Dimensions: T tiles, S side of a tile, W side of a window (a tile with some surroundings).
"""

import io
from collections.abc import Callable, Sequence

import numpy as np

from apn.crops import Pixels, center_crop

WINDOW = 4 / 3  # window / tile: after a resize by 0.75 a whole tile is left


def deliver(pixels: Pixels, corners: Sequence[tuple[int, int]], size: int) -> list[Pixels]:
    """The tiles of a picture (H, W, 3) after each of DELIVERIES, in their order: (T, S, S, 3) each.

    corners: (top, left) of each tile. The centre is cut from what becomes of the tile's window.
    """
    windows = [window(pixels, corner, size) for corner in corners]
    return [np.stack([center_crop(way(one), size) for one in windows]) for way in DELIVERIES.values()]


def window(pixels: Pixels, corner: tuple[int, int], size: int) -> Pixels:
    """The (W, W, 3) surroundings of a tile, a view, moved inwards at the picture's edge; smaller in small pictures."""
    side = round(size * WINDOW)
    top, left = (max(min(at - (side - size) // 2, n - side), 0) for at, n in zip(corner, pixels.shape[:2], strict=True))
    return pixels[top : top + side, left : left + side]


def _through_codec(pixels: Pixels, codec: str, **options: int) -> Pixels:
    from PIL import Image, WebPImagePlugin  # noqa: F401  (unnamed, Pillow would look for WebP by loading every plugin)

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, codec, **options)
    return np.asarray(Image.open(file).convert("RGB"))


def _resize(pixels: Pixels, factor: float) -> Pixels:
    from PIL import Image

    height, width = (max(round(n * factor), 1) for n in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


DELIVERIES: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG 75": lambda pixels: _through_codec(pixels, "JPEG", quality=75),
    "WebP 80": lambda pixels: _through_codec(pixels, "WEBP", quality=80, method=2),
    "resize x0.75": lambda pixels: _resize(pixels, 0.75),
    "shift 3, 5": lambda pixels: pixels[min(3, pixels.shape[0] - 1) :, min(5, pixels.shape[1] - 1) :],
}
