"""Native-resolution crops: never a resize, because resizing destroys the evidence (METHOD, header).

A picture whose shorter side is under the crop size is first repeated by wrapping. Every crop here is cut from that
*canvas*, by index modulo the picture: the canvas itself is never built (20000 x 3 would need 1 GB).
NumPy only, so that the light runtime can import it.

Dimensions: H x W pixels of the picture, S side of a crop.
"""

from collections.abc import Iterable
from itertools import product

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

CROP_SIZE = 224


def canvas_size(height: int, width: int, size: int = CROP_SIZE) -> tuple[int, int]:
    """(height, width) of the canvas that crops of side `size` are cut from, in pixels.

    The picture's own size where its shorter side m reaches `size`; else ceil(side / m * size) for each side.
    ValueError if a side or `size` is below 1.
    """
    if min(height, width, size) < 1:
        raise ValueError(f"expected height, width and crop size of at least 1, found {height} x {width} and {size}")
    shorter = min(height, width)
    if shorter >= size:
        return height, width
    return -(-height * size // shorter), -(-width * size // shorter)  # ceil in integers: exact for any side


def crop(pixels: Pixels, top: int, left: int, size: int = CROP_SIZE) -> Pixels:
    """Cut (S, S, ...) from the canvas of `pixels` (H, W, ...); always an array of its own, same dtype.

    ValueError if the square leaves the canvas.
    """
    height, width = _sides(pixels)
    canvas = canvas_size(height, width, size)
    if not (0 <= top <= canvas[0] - size and 0 <= left <= canvas[1] - size):
        raise ValueError(
            f"expected a {size} x {size} crop inside the {canvas[0]} x {canvas[1]} canvas of a {height} x {width} "
            f"picture, found its corner at row {top}, column {left}"
        )
    if canvas == (height, width):
        return pixels[top : top + size, left : left + size].copy()
    return pixels[np.ix_(np.arange(top, top + size) % height, np.arange(left, left + size) % width)]


def crops_at(pixels: Pixels, corners: Iterable[tuple[int, int]], size: int = CROP_SIZE) -> Pixels:
    """(N, S, S, ...) of the canvas, the `crop` at each (top, left). ValueError for no corner, or as `crop` has it."""
    return np.stack([crop(pixels, top, left, size) for top, left in corners])


def center_crop(pixels: Pixels, size: int = CROP_SIZE) -> Pixels:
    """The (S, S, ...) centre of the canvas; starts at floor((side - S) / 2)."""
    height, width = canvas_size(*_sides(pixels), size)
    return crop(pixels, (height - size) // 2, (width - size) // 2, size)


def random_crop(pixels: Pixels, size: int, rng: "np.random.Generator") -> Pixels:
    """An (S, S, ...) crop of the canvas, every corner equally likely."""
    height, width = canvas_size(*_sides(pixels), size)
    return crop(pixels, int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1)), size)


def tile_corners(height: int, width: int, size: int = CROP_SIZE, tiles_per_side: int = 3) -> list[tuple[int, int]]:
    """(top, left) of the crops that detection averages, row by row: a deterministic grid over the canvas.

    Each side carries round(side / S) tiles, at least 1 and at most `tiles_per_side`, evenly spaced from edge to edge;
    a single one is centred.
    """
    if tiles_per_side < 1:
        raise ValueError(f"expected at least 1 tile per side, found {tiles_per_side}")
    rows, columns = (_starts(side, size, tiles_per_side) for side in canvas_size(height, width, size))
    return list(product(rows, columns))


def _starts(side: int, size: int, most: int) -> list[int]:
    tiles = min(max(round(side / size), 1), most)
    if tiles == 1:
        return [(side - size) // 2]
    return [i * (side - size) // (tiles - 1) for i in range(tiles)]


def _sides(pixels: Pixels) -> tuple[int, int]:
    if pixels.ndim < 2:
        raise ValueError(f"expected pixels of shape (H, W, ...), found shape {pixels.shape}")
    return pixels.shape[0], pixels.shape[1]
