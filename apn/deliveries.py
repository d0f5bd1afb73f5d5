"""Stability: would the verdict survive another delivery? The ways an image is delivered once more, tile by tile.

Dimensions: T tiles, S side of a tile, W side of a window (a tile with some surroundings).
"""

import io
from collections.abc import Callable, Sequence

import numpy as np

from apn.crops import Pixels, canvas_size, crop

WINDOW = 4 / 3  # window / tile: after a resize by 0.75 a whole tile is left
GRID = 16  # pixels: the blocks of JPEG with halved colour, and of WebP, that a file saved before was cut into


def deliver(pixels: Pixels, corners: Sequence[tuple[int, int]], size: int) -> list[Pixels]:
    """The tiles of a picture (H, W, 3) after each of DELIVERIES, in their order: (T, S, S, 3) each.

    corners: (top, left) of each tile. It is cut from the same place of what becomes of its window, moved inwards where
    it would stick out.
    """
    height, width = pixels.shape[:2]
    windows = [window(height, width, corner, size) for corner in corners]
    return [
        np.stack(
            [_cut(way(pixels[spans]), corner, spans, size) for corner, spans in zip(corners, windows, strict=True)]
        )
        for way in DELIVERIES.values()
    ]


def window(height: int, width: int, corner: tuple[int, int], size: int) -> tuple[slice, slice]:
    """Rows and columns of a tile's surroundings in a picture; fewer at its edge.

    They begin on GRID: a file that was saved in one of these ways before is saved again in the same blocks, and stays
    what it is.
    """
    side = round(size * WINDOW)

    def span(at: int, n: int) -> slice:
        start = max(min(at - (side - size) // 2, n - side), 0) // GRID * GRID
        return slice(start, min(start + side + GRID, n))

    return span(corner[0], height), span(corner[1], width)


def _cut(pixels: Pixels, corner: tuple[int, int], spans: tuple[slice, slice], size: int) -> Pixels:
    """The tile of what became of its window."""
    height, width = canvas_size(pixels.shape[0], pixels.shape[1], size)
    top, left = (at - span.start for at, span in zip(corner, spans, strict=True))
    return crop(pixels, min(top, height - size), min(left, width - size), size)


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
