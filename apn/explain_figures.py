"""One figure of an explanation, for a page of paper: verdict, heat maps, spectrum with its bands, images of the bands.

Places are in inches from the upper left corner: nothing has to be measured by drawing, which would take most of the
time. Dimensions: S side of a tile, K bands.
"""

import io
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from apn.explain_bands import Band, BandEvidence
from apn.explain_parts import AMPLITUDE, OPACITY, Part, Scale, all_parts
from apn.explanations import Explanation
from apn.report.canvas import INK, LINE, QUIET, legible, shorten, styled
from apn.words import frames_words, verdict_line

WIDTH = 7.2  # inches: across both columns of a paper
MARGIN, GAP = 0.12, 0.16
HEADER, TITLE, BAR, FOOTER = 0.5, 0.17, 0.34, 0.46
TITLE_LENGTH = 90  # letters of the first line that fit
TALLEST = 2.4
SPECTRUM, STRIP, AXIS = 1.75, 0.095, 0.64  # side of the spectrum, a band at its side, words and scale under it
LEFT, EDGE, TICK = 0.66, 0.08, 0.03  # numbers at its left, white around it all
STRIP_BANDS = 5  # drawn at the spectrum's sides, the strongest; the coverage has all
FIRST_ROW = ("picture", "evidence-map", "heat-map", "frequency-heat-map", "tile-scores")


def explanation_figure(explanation: Explanation, name: str, model: str = "") -> Figure:
    """Everything on one sheet. name: of the image. model: which network, for the second line."""
    return explanation_sheet(explanation, name, model, all_parts(explanation)).figure


def explanation_sheet(explanation: Explanation, name: str, model: str, made: Sequence[Part]) -> "Sheet":
    """`explanation_figure` where there is more to do with it, or with `made`, `all_parts` of the explanation."""
    parts = {part.name: part for part in made}
    first = [parts[key] for key in FIRST_ROW if key in parts]
    images = [part for key, part in parts.items() if key.startswith(("purified", "residual"))]
    with styled():
        sheet = Sheet(explanation, len(first), len(images))
        sheet.header(explanation, name, model)
        places = sheet.picture_boxes()
        scales = [sheet.part(part, place) for part, place in zip(first, places, strict=True)]
        sheet.mark_tile(explanation, scales[0])
        sheet.below_pictures()
        sheet.spectra(explanation.bands, parts["amplitude-bands"], parts["phase-bands"])
        for part, place in zip(images, sheet.row(max(len(images), 1), sheet.image_side), strict=False):
            sheet.part(part, place)
        sheet.footer(explanation)
    return sheet


def spectrum_figure(bands: BandEvidence) -> Figure:
    """The spectrum with its bands alone."""
    with styled():
        sheet = _Canvas(LEFT + SPECTRUM + sides(bands) + EDGE, EDGE + sides(bands) + SPECTRUM + AXIS)
        sheet.spectrum(bands, LEFT, EDGE)
    return sheet.figure


def sides(bands: BandEvidence) -> float:
    """Inches that the strips of bands take above the spectrum and at its right."""
    return STRIP * min(len(bands.bands), STRIP_BANDS) + 0.05


class _Canvas:
    """A figure of a size in inches, on which all is put by its upper left corner: on one pair of axes as large as the
    figure, since Matplotlib takes longer to make further ones than to draw what is on them."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))
        self.page = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        self.page.set_axis_off()

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        self.page.text(left, top, text, **{"va": "top", **style})

    def image(self, pixels: np.ndarray, left: float, top: float, width: float, height: float, **style: Any) -> None:
        self.page.imshow(pixels, extent=(left, left + width, top + height, top), aspect="auto", **style)

    def part(self, part: Part, place: tuple[float, float, float, float]) -> float:
        """A part in its box (left, top, width, height) under its title, over its scale. Returns inches a pixel."""
        left, top, width, height = place
        self.text(left, top + 0.02, part.title, fontsize=7)
        rows, columns = part.pixels.shape[:2]
        inches = min(width / columns, height / rows)
        self.image(part.pixels, left, top + TITLE, columns * inches, rows * inches, interpolation="antialiased")
        if part.scale is not None:
            self.bar(part.scale, left, top + TITLE + rows * inches + 0.04, width)
        return inches

    def bar(self, scale: Scale, left: float, top: float, width: float) -> None:
        colours = mpl.colormaps[scale.colours](np.linspace(0, 1, 256))
        if scale.overlay:  # as over a picture of middle grey
            colours[:, :3] = OPACITY * colours[:, :3] + (1 - OPACITY) / 2
        self.image(colours[None], left, top, width, 0.06)
        low, high = scale.ends()
        labels = (f"{low:g}", "left"), (scale.label, "center"), (f"{high:g}", "right")
        for share, (label, side) in zip((0, 0.5, 1), labels, strict=True):
            self.text(left + share * width, top + 0.075, label, fontsize=6, ha=side)

    def spectrum(self, bands: BandEvidence, left: float, top: float) -> None:
        """The spectrum below the strip of horizontal bands, whose corner is there; vertical ones at its right."""
        shown, thick = bands.bands[:STRIP_BANDS], sides(bands) - 0.05
        share = {axis: _selected(shown, axis, len(bands.spectrum)) for axis in ("horizontal", "vertical")}
        self.framed(share["horizontal"], left, top, SPECTRUM, thick)
        for place, band in enumerate(shown):
            height = top + (place + 0.5) * STRIP
            self.text(
                left - 0.03, height, f"{band.index + 1} ({band.effect:+.2f})", fontsize=5.5, ha="right", va="center"
            )
            beside = left + SPECTRUM + 0.05 + (place + 0.5) * STRIP
            self.text(beside, top + thick + 0.02, str(band.index + 1), fontsize=5.5, ha="center", va="bottom")
        top += sides(bands)
        self.framed(share["vertical"].T, left + SPECTRUM + 0.05, top, thick, SPECTRUM)
        self.image(bands.spectrum, left, top, SPECTRUM, SPECTRUM, cmap=AMPLITUDE, vmin=0, interpolation="nearest")
        bottom, right, middle = top + SPECTRUM, left + SPECTRUM, SPECTRUM / 2
        lines = [[(left, top), (left, bottom), (right, bottom)]]
        for frequency in (-0.4, -0.2, 0, 0.2, 0.4):
            down, across = top + (frequency + 0.5) * SPECTRUM, left + (frequency + 0.5) * SPECTRUM
            lines += [(left - TICK, down), (left, down)], [(across, bottom), (across, bottom + TICK)]
            self.text(left - 0.05, down, f"{frequency:g}", fontsize=6, ha="right", va="center_baseline")
            self.text(across, bottom + 0.05, f"{frequency:g}", fontsize=6, ha="center")
        self.page.add_collection(LineCollection(lines, colors=QUIET, linewidths=0.8, capstyle="projecting"))
        words: dict[str, Any] = {"fontsize": 6.5, "ha": "center"}
        self.text(left + middle, bottom + 0.14, "horizontal, cycles per pixel", **words)
        self.text(left - 0.32, top + middle, "vertical, cycles per pixel", **words, rotation=90, va="center")
        scale = Scale(AMPLITUDE, 0, float(bands.spectrum.max()), "log10(1 + amplitude)", overlay=False)
        self.bar(scale, left, bottom + 0.36, SPECTRUM)

    def framed(self, selected: np.ndarray, left: float, top: float, width: float, height: float) -> None:
        """What bands select, in a frame."""
        self.image(selected, left, top, width, height, **_STRIP)
        self.page.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=LINE, linewidth=0.8))


_STRIP: dict[str, Any] = {
    "cmap": ListedColormap(np.vstack([[1, 1, 1, 1], mpl.colormaps["cividis_r"](np.linspace(0.35, 1, 255))])),
    "vmin": 0, "vmax": 1, "interpolation": "nearest",
}  # fmt: skip


def _selected(bands: tuple[Band, ...], axis: str, size: int) -> np.ndarray:
    """(K, S) in [0, 1]: share of the colours in which a band selects a frequency of the amplitude along an axis."""
    frequency = (np.arange(size) - size // 2) / size
    share = np.zeros((len(bands), size))
    for row, band in enumerate(bands):
        for interval in band.intervals:
            if (interval.component, interval.axis) == ("amplitude", axis):
                place = np.abs(frequency) if interval.mirrored else frequency
                share[row] += (place >= interval.low) & (place <= interval.high)
    return share / 3


class Sheet(_Canvas):
    """The whole figure, filled from the top down: `top` is where the next row begins."""

    def __init__(self, explanation: Explanation, pictures: int, images: int) -> None:
        height, width = explanation.picture.shape[:2]
        self.pictures = pictures
        self.columns = 1 if width >= 8 * height else 2 if width >= 3 * height else pictures  # side by side
        self.picture_height = min(self.box(self.columns) * height / width, TALLEST)
        self.image_side = min(self.box(max(images, 1)), 1.3)
        self.spectrum_width = SPECTRUM + sides(explanation.bands)
        self.spectra_height = self.spectrum_width + AXIS
        lines = [self.picture_height + BAR] * math.ceil(pictures / self.columns)
        rows = *lines, self.spectra_height, self.image_side + 0.06
        total = HEADER + sum(TITLE + row for row in rows) + FOOTER
        super().__init__(WIDTH, total)
        self.top = HEADER

    @staticmethod
    def box(number: int) -> float:
        return (WIDTH - 2 * MARGIN - GAP * (number - 1)) / number

    def row(self, number: int, height: float) -> list[tuple[float, float, float, float]]:
        """Boxes side by side, as wide as the sheet lets them be."""
        width = self.box(number) if self.box(number) * 4 > height else height
        return [(MARGIN + index * (width + GAP), self.top, width, height) for index in range(number)]

    def picture_boxes(self) -> list[tuple[float, float, float, float]]:
        """Boxes of the picture and its maps: all side by side, those of a panorama in lines of one or two."""
        line = self.row(self.columns, self.picture_height)
        step = TITLE + self.picture_height + BAR
        places = (divmod(place, self.columns) for place in range(self.pictures))
        return [(line[column][0], self.top + row * step, *line[column][2:]) for row, column in places]

    def below_pictures(self) -> None:
        for _ in range(math.ceil(self.pictures / self.columns)):
            self.down(self.picture_height + BAR)

    def down(self, height: float) -> None:
        self.top += TITLE + height

    def header(self, explanation: Explanation, name: str, model: str) -> None:
        detection = explanation.detection
        line = verdict_line(detection)  # first: it is never cut, nor turned round by a name that is read from the right
        title = f"{line[:1].upper()}{line[1:]}: "
        title += shorten(name, TITLE_LENGTH - len(title))
        self.text(MARGIN, 0.08, title, fontsize=8.5, weight="bold")
        kinds = ", ".join(warning.partition(":")[0] for warning in detection.warnings)
        size = f"{detection.width} x {detection.height} pixels, {_plural(len(detection.tiles), 'tile')}"
        facts = [size, frames_words(detection), kinds and f"warning: {kinds}", legible(model)]
        self.text(MARGIN, 0.26, "; ".join(filter(None, facts)), fontsize=7, color=QUIET)

    def mark_tile(self, explanation: Explanation, inches: float) -> None:
        """The tile of the bands on the picture at the left of this row, `inches` a pixel; not if it is all there is."""
        if len(explanation.detection.tiles) == 1 or not tile_is_inside(explanation):
            return
        tile, scale = explanation.bands.tile, inches / explanation.reduction
        corner = MARGIN + tile.left * scale, self.top + TITLE + tile.top * scale
        side = tile.size * scale
        for colour, style in ((INK, "-"), ("white", "--")):
            self.page.add_patch(
                Rectangle(corner, side, side, fill=False, edgecolor=colour, linestyle=style, linewidth=1)
            )

    def spectra(self, bands: BandEvidence, amplitude: Part, phase: Part) -> None:
        """The middle row: the spectrum between its strips, and what all bands keep."""
        self.text(MARGIN, self.top + 0.02, "amplitude spectrum (log); bands and effect on logit", fontsize=7)
        self.spectrum(bands, MARGIN + LEFT, self.top + TITLE)
        self.spectrum_top = self.top + TITLE
        side = self.spectra_height - AXIS  # its lower edge as that of the spectrum
        side = min(side, (WIDTH - 3.2 - MARGIN - GAP) / 2)
        for place, part in enumerate((phase, amplitude)):
            self.part(part, (WIDTH - MARGIN - side - place * (side + GAP), self.top, side, side))
        self.down(self.spectra_height)

    def spectrum_pixels(self, sheet: np.ndarray) -> np.ndarray:
        """What `spectrum_figure` draws, (h, w, 3), cut out of those of this sheet: drawing it again takes half as long
        as all of the sheet."""
        dots = sheet.shape[1] / WIDTH  # an inch
        white, frame = round(EDGE * dots), round(EDGE / 3 * dots)  # the frame's line lies half outside
        left, top = round(MARGIN * dots), round(self.spectrum_top * dots)
        right, bottom = left + round((LEFT + self.spectrum_width) * dots), top + round(self.spectra_height * dots)
        return np.pad(
            sheet[top - frame : bottom, left:right], ((white - frame, 0), (0, white), (0, 0)), constant_values=255
        )

    def footer(self, explanation: Explanation) -> None:
        heat = f"bright places spoke for {explanation.target}, relative to the strongest place of this image"
        peaks = f"{explanation.spatial.peak:.2g} and {explanation.frequency.peak:.2g}"
        text = (
            f"Evidence: logit, were the whole image like this place; read regions, not places. Heat maps: {heat} "
            f"(peaks {peaks}); they lie mostly where there is fine detail. "
            f"Spectrum and bands: of what is seen of {_which_tile(explanation)}. Images of bands: contrast stretched."
        )
        self.text(MARGIN, self.height - FOOTER + 0.08, textwrap.fill(text, 150), fontsize=6.5, color=QUIET)


def _which_tile(explanation: Explanation) -> str:
    tile = explanation.bands.tile
    if not tile_is_inside(explanation):
        return f"one tile of {tile.size} pixels, which the image is repeated to fill"
    dashed = "the dashed tile, " if len(explanation.detection.tiles) > 1 else ""
    return f"{dashed}{tile.size} x {tile.size} pixels at ({tile.left}, {tile.top})"


def tile_is_inside(explanation: Explanation) -> bool:
    """Whether the tile of the bands is a part of the picture; a picture smaller than a tile is repeated in it."""
    tile, height, width = explanation.bands.tile, explanation.detection.height, explanation.detection.width
    assert height is not None
    assert width is not None
    return tile.top + tile.size <= height and tile.left + tile.size <= width


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def figure_pixels(figure: Figure, dpi: int) -> np.ndarray:
    """The figure on white, (h, w, 3) uint8."""
    file = io.BytesIO()
    with styled():
        figure.savefig(file, format="rgba", dpi=dpi, facecolor="white")
    width, height = (int(inches * dpi) for inches in figure.get_size_inches())
    return np.frombuffer(file.getvalue(), np.uint8).reshape(height, width, 4)[..., :3]
