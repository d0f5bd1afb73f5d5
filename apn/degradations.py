"""What happens to pictures between the maker and the detector, as pure functions of pixels; `GRID` lists them by level.

Each takes (H, W, 3) uint8 RGB and gives a new array, of other sides where it resizes, cuts or frames the picture. The
same path, degradation and level give the same pixels. Nothing here knows labels.

The `paper_` three are those of GenImage's table 5 (Zhu et al., NeurIPS 2023), low resolution 112 and 64, JPEG 65 and
30, blur 3 and 5: the benchmark that the APN paper tests on. Levels of the paper's own are not known to us.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from apn.crops import Pixels
from apn.data import transforms

CLEAN = ""  # the name of the grid's first cell in tables of scores: the image as it is
_LONGEST_SIDE = 2048  # pixels; what sites keep of a larger picture
_TOP_BAR, _BOTTOM_BAR = (242, 242, 242), (32, 33, 36)  # a light title bar, a dark tool bar


class Degradation(NamedTuple):
    """One row of the grid. apply: (pixels, level, generator of random numbers) -> pixels."""

    name: str
    unit: str  # of the levels
    levels: tuple[float, ...]  # mildest first
    apply: Callable[[Pixels, float, np.random.Generator], Pixels]


class Cell(NamedTuple):
    """One degradation at one level; `CLEAN` has none."""

    degradation: str
    level: float | None


class Chain(NamedTuple):
    """What two sites do in a row: shrink and save as JPEG, shrink again and save as WebP."""

    first_scale: float  # of both sides
    jpeg_quality: int
    second_scale: float
    webp_quality: int


CHAINS = (Chain(0.9, 85, 0.95, 80), Chain(0.75, 75, 0.9, 75), Chain(0.5, 60, 0.9, 60))


def rescale(pixels: Pixels, factor: float) -> Pixels:
    """Both sides times `factor`, at least 1 pixel, bicubic: (H, W, 3) -> (round(factor H), round(factor W), 3)."""
    height, width = (max(round(side * factor), 1) for side in pixels.shape[:2])
    return transforms.resize(pixels, (height, width))


def crop_share(pixels: Pixels, share: float) -> Pixels:
    """The middle `share` of both sides, at least 1 pixel."""
    height, width = pixels.shape[:2]
    rows, columns = (max(round(side * share), 1) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return pixels[top : top + rows, left : left + columns].copy()


def shift(pixels: Pixels, cut: float) -> Pixels:
    """Without `cut` rows at the top and columns at the left: an earlier JPEG's grid starts elsewhere. 1 pixel stays."""
    top, left = (min(int(cut), side - 1) for side in pixels.shape[:2])
    return pixels[top:, left:].copy()


def grey(pixels: Pixels, share: float) -> Pixels:
    """`share` of the way, 0 .. 1, to the luma of ITU-R BT.601 (Pillow's and JPEG's grey); (H, W, 3) stays."""
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    mixed = pixels + share * (luma[..., None] - pixels)
    return np.rint(mixed).astype(np.uint8)


def gamma(pixels: Pixels, exponent: float) -> Pixels:
    """255 (value / 255) ** exponent: above 1 darker, below 1 brighter; (H, W, 3) stays."""
    table = np.rint(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)
    return table[pixels]


def screenshot(pixels: Pixels, scale: float) -> Pixels:
    """The picture shown at `scale`, between a light bar of 1/12 and a dark one of 1/16 of its height.

    A screen is saved as PNG, which changes no pixel: nothing is left to do for that.
    """
    shown = rescale(pixels, scale)
    height, width = shown.shape[:2]
    bars = [
        np.full((-(-height // parts), width, 3), colour, np.uint8)
        for parts, colour in ((12, _TOP_BAR), (16, _BOTTOM_BAR))
    ]
    return np.concatenate([bars[0], shown, bars[1]])


def social(pixels: Pixels, number: float) -> Pixels:
    """Through the chain of this number, from 1; a picture larger than 2048 pixels is first shrunk to that."""
    chain = CHAINS[int(number) - 1]
    fitting = min(1.0, _LONGEST_SIDE / max(pixels.shape[:2]))
    posted = transforms.jpeg(rescale(pixels, fitting * chain.first_scale), chain.jpeg_quality)
    return transforms.webp(rescale(posted, chain.second_scale), chain.webp_quality)


def low_resolution(pixels: Pixels, side: float) -> Pixels:
    """Shrunk until the shorter side is `side` pixels, then enlarged again; (H, W, 3) stays. Never enlarged first."""
    height, width = pixels.shape[:2]
    return transforms.resize(rescale(pixels, min(1.0, side / min(height, width))), (height, width))


def _jpeg(pixels: Pixels, quality: float, _: np.random.Generator) -> Pixels:
    return transforms.jpeg(pixels, int(quality))


def _blur(pixels: Pixels, sigma: float, _: np.random.Generator) -> Pixels:
    return transforms.blur(pixels, sigma)


def _rescale(pixels: Pixels, factor: float, _: np.random.Generator) -> Pixels:
    return rescale(pixels, factor)


def _gamma(pixels: Pixels, exponent: float, _: np.random.Generator) -> Pixels:
    return gamma(pixels, exponent)


GRID: dict[str, Degradation] = {
    row.name: row
    for row in (
        Degradation("jpeg", "quality, 1 to 100", (95, 85, 75, 60, 45, 30), _jpeg),
        Degradation("webp", "quality, 1 to 100", (90, 75, 60, 45, 30), lambda p, q, _: transforms.webp(p, int(q))),
        Degradation("avif", "quality, 1 to 100", (90, 75, 60, 45, 30), lambda p, q, _: transforms.avif(p, int(q))),
        Degradation("blur", "sigma, pixels", (0.5, 1, 2, 3), _blur),
        Degradation("noise", "sigma, grey values of 255", (2, 5, 10, 20), transforms.noise),
        Degradation("resize_down", "factor of both sides", (0.9, 0.75, 0.5, 0.25), _rescale),
        Degradation("resize_up", "factor of both sides", (1.25, 1.5, 2), _rescale),
        Degradation("crop", "share of both sides kept", (0.9, 0.75, 0.5), lambda p, share, _: crop_share(p, share)),
        Degradation("shift", "pixels cut from the top and the left", (1, 4, 8), lambda p, cut, _: shift(p, cut)),
        Degradation("grey", "share of colour taken", (0.5, 1), lambda p, share, _: grey(p, share)),
        Degradation("gamma_bright", "exponent", (0.8, 0.65, 0.5), _gamma),
        Degradation("gamma_dark", "exponent", (1.25, 1.5, 2), _gamma),
        Degradation("screenshot", "scale of the picture", (0.9, 0.8, 0.67, 0.5), lambda p, s, _: screenshot(p, s)),
        Degradation("social", "number of the chain", (1, 2, 3), lambda p, number, _: social(p, number)),
        Degradation(
            "paper_low_resolution",
            "shorter side, pixels",
            (112, 64),
            lambda p, s, _: low_resolution(p, s),
        ),
        Degradation("paper_jpeg", "quality, 1 to 100", (65, 30), _jpeg),
        Degradation("paper_blur", "sigma, pixels", (3, 5), _blur),
    )
}


def cells(only: Sequence[str] = ()) -> list[Cell]:
    """The clean image, then every level of the degradations named, in the grid's order; all of them by default.

    ValueError that lists the names for one that is not in the grid.
    """
    if unknown := [name for name in only if name not in GRID]:
        raise ValueError(f"no degradation {', '.join(unknown)}: expected some of {', '.join(GRID)}")
    chosen: Iterable[Degradation] = (row for name, row in GRID.items() if not only or name in only)
    return [Cell(CLEAN, None), *(Cell(row.name, level) for row in chosen for level in row.levels)]


def degrade(pixels: Pixels, cell: Cell, key: str) -> Pixels:
    """The pixels after this cell's degradation; themselves for the clean one.

    key: what the randomness depends on besides the degradation, such as the image's path. All levels get the same
    draw, so that of two levels one image has the same noise, only more of it.
    """
    if cell.level is None:
        return pixels
    digest = hashlib.sha256(f"{cell.degradation}\0{key}".encode(errors="surrogateescape")).digest()
    return GRID[cell.degradation].apply(pixels, cell.level, np.random.default_rng(int.from_bytes(digest[:8])))
