"""The parts of an explanation as coloured pixels, each with its title, one sentence on how to read it, and its scale.

The colour maps cividis, viridis and magma grow evenly in lightness: they are told apart with every kind of colour
vision, and in grey print; the two ends of PuOr with every kind of colour vision.
Dimensions: H x W pixels of the picture, S side of a tile.
"""

from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from PIL import Image

from apn.explain_bands import BandEvidence
from apn.explanations import Explanation, HeatMap

HEAT, SCORE, SHARE, AMPLITUDE = "magma", "cividis", "viridis", "magma"
SIGNED = "PuOr_r"  # orange: for generated; purple: for real
OPACITY = 0.65  # of a map over its grey picture
UNSCORED = 0.25  # how much of the picture's contrast is left where the detector did not look
STRETCH = 99.5  # percentile that becomes full contrast in an image of a band
STRONG = 97  # percentile of evidence that becomes full colour


class Scale(NamedTuple):
    """From `low` to `high` through a colour map of Matplotlib; `label`: of what. overlay: mixed with the picture."""

    colours: str
    low: float
    high: float
    label: str
    overlay: bool

    def paint(self, values: np.ndarray) -> np.ndarray:
        """(...) -> RGB (..., 3) in [0, 1]."""
        span = (values - self.low) / max(self.high - self.low, float(np.finfo(np.float32).tiny))
        return mpl.colormaps[self.colours](np.clip(span, 0, 1))[..., :3]

    def ends(self) -> tuple[float, float]:
        """`low` and `high` in the three digits that are shown."""
        return float(f"{self.low:.3g}"), float(f"{self.high:.3g}")


class Part(NamedTuple):
    """One picture of an explanation. name: of its file. meaning: a sentence or two. pixels: (h, w, 3) uint8 RGB."""

    name: str
    title: str
    meaning: str
    pixels: np.ndarray
    scale: Scale | None = None


def all_parts(explanation: Explanation) -> list[Part]:
    """In the order in which they are read. Tile scores only where there are several tiles."""
    several = len(explanation.detection.tiles) > 1
    return [
        Part("picture", "image", "The image as it was judged.", explanation.picture),
        *heat_parts(explanation),
        *([tile_part(explanation)] if several else []),
        *band_parts(explanation.bands),
    ]


def heat_parts(explanation: Explanation) -> list[Part]:
    """The evidence of both signs, and the heat maps of both branches, over the picture."""
    kind = "an AI-generated image" if explanation.target == "generated" else "a photograph"
    reading = (
        f"Bright: what was there spoke for {kind}, relative to the strongest place of this image: it does not say how "
        "strong. Such a map lies mostly where there is fine detail, and is no reason by itself."
    )
    return [
        _evidence_part(explanation),
        _heat_part(explanation, "heat-map", "spatial branch", f"{reading} From the pixels.", explanation.spatial),
        _heat_part(
            explanation,
            "frequency-heat-map",
            "frequency branch",
            f"{reading} From the purified images of all bands, by their weights.",
            explanation.frequency,
        ),
    ]


def _heat_part(explanation: Explanation, name: str, title: str, meaning: str, heat: HeatMap) -> Part:
    if heat.peak == 0:
        meaning = f"No place spoke for {explanation.target}. {meaning}"
    scale = Scale(HEAT, 0, 1, f"evidence for {explanation.target}", overlay=True)
    return Part(name, title, meaning, overlay(explanation, scale.paint(heat.values)), scale)


def _evidence_part(explanation: Explanation) -> Part:
    sizes = explanation.evidence.peak * np.abs(explanation.evidence.values[explanation.scored])
    full = float(np.percentile(sizes, STRONG)) or 1.0  # a few places are far stronger, and would leave the rest pale
    scale = Scale(SIGNED, -full, full, "real | generated", overlay=True)
    meaning = (
        "Orange: what was there spoke for an AI-generated image; purple: for a photograph. Read regions, not places: "
        "it is smoothed over a tenth of a tile, and much of it cancels. Numbers: the logit (generated above 0) of a "
        "picture that is like this place all over."
    )
    pixels = overlay(explanation, scale.paint(explanation.evidence.peak * explanation.evidence.values))
    return Part("evidence-map", "evidence, two signs", meaning, pixels, scale)


def tile_part(explanation: Explanation) -> Part:
    """The probability of each tile."""
    scale = Scale(SCORE, 0, 1, "probability of generated", overlay=True)
    meaning = "Each tile was scored by itself, the mean where they overlap; the verdict averages all tiles."
    pixels = overlay(explanation, scale.paint(explanation.tile_scores))
    return Part("tile-scores", "tile scores", meaning, pixels, scale)


def band_parts(bands: BandEvidence) -> list[Part]:
    """Coverage of the spectrum, and the purified and residual image of each band shown."""
    scale = Scale(SHARE, 0, 1, "share of band weight", overlay=False)
    coverage = [
        Part(
            f"{component}-bands",
            f"{component} kept",
            f"Which frequencies of the {component} the bands keep: 1 where all of them do. Centre: frequency 0.",
            to_bytes(scale.paint(share)),
            scale,
        )
        for component, share in zip(("amplitude", "phase"), bands.coverage, strict=True)
    ]
    return coverage + [part for rank in range(len(bands.purified)) for part in _images(bands, rank)]


def _images(bands: BandEvidence, rank: int) -> list[Part]:
    band = bands.bands[rank]
    label = f"band {band.index + 1}"
    contrast = "Contrast stretched to what there is; grey is the middle of each colour."
    return [
        Part(
            f"purified-{rank + 1}",
            f"{label}: purified",
            f"What {label} keeps of the tile: this is what the network judged, and it adds {band.effect:+.2f} to the "
            f"logit, generated less real. {contrast}",
            to_bytes(stretch(bands.purified[rank])),
        ),
        Part(
            f"residual-{rank + 1}",
            f"{label}: residual",
            f"What {label} leaves out as irrelevant. {contrast}",
            to_bytes(stretch(bands.residual[rank])),
        ),
    ]


def overlay(explanation: Explanation, colours: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) in [0, 1] over the grey picture; where nothing was scored, the picture alone, faint."""
    grey = np.asarray(Image.fromarray(explanation.picture).convert("L"), np.float32)[..., None] / 255
    mixed = OPACITY * colours.astype(np.float32) + (1 - OPACITY) * grey
    return to_bytes(np.where(explanation.scored[..., None], mixed, 1 - UNSCORED * (1 - grey)))


def stretch(image: np.ndarray) -> np.ndarray:
    """(S, S, 3) of any range -> [0, 1], the median of each colour at 0.5, the same factor for all colours.

    A band may keep frequency 0 of one colour alone; without the medians the picture would be flat in that colour.
    """
    image = image - np.median(image, axis=(0, 1))
    largest = np.percentile(np.abs(image), STRETCH)
    return np.clip(0.5 + image / (2 * max(float(largest), 1e-6)), 0, 1)


def to_bytes(values: np.ndarray) -> np.ndarray:
    """[0, 1] -> uint8."""
    return np.rint(255 * values).astype(np.uint8)
