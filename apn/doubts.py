"""What is to be doubted of an image's score, or says that it has none, as warnings of its row."""

import numpy as np

from apn.calibration import Calibration
from apn.image import LoadedImage

JPEG_QUALITY_WARNING = 50


def colourfulness(pixels: np.ndarray) -> float:
    """How far the strongest of red, green and blue lies above the weakest in RGB pixels (..., 3) uint8: the mean, in
    grey values of 255; 0 for black and white."""
    return float((pixels.max(axis=-1) - pixels.min(axis=-1)).mean())


def flatness(pixels: np.ndarray) -> float:
    """The share of RGB pixels (..., H, W, 3) uint8 that equal their right neighbour; 1 for one colour all over."""
    return float((pixels[..., 1:, :] == pixels[..., :-1, :]).all(axis=-1).mean())


def silences(colour: float, flat: float, calibration: Calibration) -> tuple[str, ...]:
    """Warnings of what no score says anything of: where there is no colour, or no detail, weights may say `real` of
    whatever it is."""
    found = []
    if colour < calibration.least_colour:
        grey = f"{colour:.1f} of 255 grey values, a verdict needs {calibration.least_colour:g}"
        found.append(
            f"no colour: what was scored is black and white or nearly so ({grey}); of that the score says nothing"
        )
    if flat > calibration.most_flat:
        found.append(
            f"flat: {flat:.0%} of what was scored is plain colour, as in screenshots and drawings (at most "
            f"{calibration.most_flat:.0%} for a verdict); of that the score says nothing"
        )
    return tuple(found)


def doubts(image: LoadedImage, size: int) -> tuple[str, ...]:
    """Warnings of what makes its score worth less. size: of a crop."""
    found = []
    if min(image.width, image.height) < size:
        found.append(f"small: {image.width} x {image.height} pixels, a verdict needs at least {size} x {size}")
    if image.quality is not None and image.quality < JPEG_QUALITY_WARNING:
        found.append(f"strongly compressed: JPEG quality about {image.quality}; traces may be lost")
    if image.truncated:
        found.append("truncated: the file ends early, the missing part is filled and scored with the rest")
    return tuple(found)
