"""How every figure looks, and its two ways out: SVG for the page, PNG for documents.

Colours are those of Okabe and Ito, told apart with every kind of colour vision; each series also has a marker and a
line style of its own, for print. In the page's SVG each colour is a CSS variable, so that it follows light and dark.
Text is drawn as paths in the font that Matplotlib brings: the same on every machine, no font to fetch. What it has no
letters for, as Chinese, is drawn in a font of the machine, or spelt out where that has none.
"""

import io
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font

from apn.words import printable

INK, QUIET, LINE = "#1d1f21", "#5a5f67", "#d9dadb"
REAL, GENERATED = "#0072b2", "#d55e00"  # blue and vermilion, as on the detector's own page
SERIES = (REAL, GENERATED, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "D", "s", "^", "v", "P")
DASHES = ("-", "--", "-.", ":")
WIDTH = 4.6  # inches: one column of the page, and legible on a phone
LONGEST_LABEL = 30  # characters

FONT = "DejaVu Sans"  # comes with Matplotlib
# Fonts of Linux, Windows and macOS for letters that it lacks: Chinese, Japanese, Korean, Indian, Thai.
OTHER_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("WenQuanYi Zen Hei", "Droid Sans Fallback", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("PingFang SC", "Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Nirmala UI", "Leelawadee UI"),
)

# Most of these have no bold: said of every title otherwise.
logging.getLogger("matplotlib.font_manager").addFilter(lambda record: "find font weight" not in record.getMessage())

# Colour -> its variable in page.html.
VARIABLES = {
    INK: "--ink",
    QUIET: "--quiet",
    LINE: "--line",
    **{colour: f"--series-{i}" for i, colour in enumerate(SERIES)},
}
_STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "text.hinting": "no_hinting",  # letters as wide at every resolution: a PNG keeps the layout of the SVG
    "text.parse_math": False,  # a generator's name may hold dollar signs
    "svg.fonttype": "path",
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}  # it names hosts, and the day


@contextmanager
def styled() -> Iterator[None]:
    """Figures made and saved inside look alike, whatever the user's own settings of Matplotlib."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        mpl.rcParams["font.family"] = [FONT, *_other_fonts()]
        yield


@cache
def _other_fonts() -> tuple[str, ...]:
    """Those of OTHER_FONTS that this machine has."""
    installed = {font.name for font in fontManager.ttflist}
    return tuple(name for name in OTHER_FONTS if name in installed)


@cache
def _letters() -> frozenset[int]:
    """Code points that figures can show."""
    return frozenset().union(*(get_font(findfont(name)).get_charmap() for name in (FONT, *_other_fonts())))


def legible(text: str) -> str:
    r"""`printable`, and what no font here has letters for is spelt out too (`\u7167`): a figure would show boxes."""
    return "".join(
        letter if letter.isascii() or ord(letter) in _letters() else letter.encode("unicode_escape").decode("ascii")
        for letter in printable(text)
    )


def new_figure(width: float = WIDTH, height: float = WIDTH) -> Figure:
    """An empty figure of inches; laid out so that no label is cut. Made outside pyplot: nothing global to close."""
    return Figure(figsize=(width, height), layout="constrained")


def series_style(index: int) -> dict[str, Any]:
    """Colour, marker and line style of the series of this number; no two of 24 alike."""
    turn = index // len(SERIES)
    return {
        "color": SERIES[index % len(SERIES)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[(index + turn) % len(DASHES)],
    }


def shorten(label: str, longest: int = LONGEST_LABEL) -> str:
    """At most `longest` characters that can be drawn, the middle left out: both ends of a name tell it apart."""
    letters = [legible(letter) for letter in label]  # one that is spelt out is never cut
    if sum(map(len, letters)) <= longest:
        return "".join(letters)
    head = (longest - 1) // 2
    return f"{''.join(_first(letters, head))}…{''.join(_first(letters[::-1], longest - 1 - head)[::-1])}"


def _first(letters: Sequence[str], room: int) -> Sequence[str]:
    """As many of them as have room."""
    ends = accumulate(map(len, letters))
    return letters[: sum(end <= room for end in ends)]


def shorten_apart(labels: Sequence[str], longest: int = LONGEST_LABEL) -> list[str]:
    """`shorten` of each; names that it would leave alike show where they begin to differ instead of their ends."""
    found = [shorten(label, longest) for label in labels]
    alike = defaultdict(set)
    for label, short in zip(labels, found, strict=True):
        alike[short].add(legible(label))
    head = (longest - 2) // 3
    for place, (label, short) in enumerate(zip(labels, found, strict=True)):
        if len(alike[short]) > 1:
            pairs = enumerate(zip(min(alike[short]), max(alike[short]), strict=False))  # these differ first of all
            differs = next((number for number, (one, other) in pairs if one != other), len(min(alike[short])))
            rest = legible(label)[differs:]
            room = longest - 1 - head
            found[place] = f"{legible(label)[:head]}…{rest if len(rest) <= room else f'{rest[: room - 1]}…'}"
    return found


def share_axis(axes: Axes, axis: str, label: str) -> None:
    """An axis from 0 to 1 with room for markers at its ends."""
    getattr(axes, f"set_{axis}lim")(-0.02, 1.02)
    getattr(axes, f"set_{axis}ticks")([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    getattr(axes, f"set_{axis}label")(label)


def svg(figure: Figure, name: str) -> str:
    """An `<svg>` element to stand in a page, as wide as that lets it be; its ids start with `name`, which is its own.

    No outside reference, and the same text every time.
    """
    file = io.StringIO()
    with styled():
        mpl.rcParams["svg.hashsalt"] = name
        figure.savefig(file, format="svg", transparent=True, metadata=_NO_METADATA)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</defs>", "", text, count=1, flags=re.DOTALL)  # it would style the whole page
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)  # each label once more
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)


def legend_svg(index: int, name: str) -> str:
    """A small `<svg>` of the line and marker of the series of this number."""
    style = series_style(index)
    with styled():
        figure = Figure(figsize=(0.45, 0.16))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.plot([0, 0.5, 1], [0, 0, 0], markevery=[1], **style)
        axes.set_xlim(0, 1)
    return svg(figure, f"legend-{name}-{index}")


def save_png(figure: Figure, path: Path, dpi: int = 150) -> None:
    """The figure on white."""
    with styled():
        figure.savefig(path, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})


def save_figure(figure: Figure, path: Path, dpi: int = 200) -> None:
    """PNG or SVG by the path's ending. SVG keeps text as text, in the reader's font; no date, so the same each time."""
    with styled():
        mpl.rcParams["svg.fonttype"] = "none"
        mpl.rcParams["svg.hashsalt"] = "apn"
        if path.suffix == ".svg":
            options: dict[str, Any] = {"metadata": {"Date": None, "Creator": None}}
        else:  # a tenth larger than with Pillow's own level, in less than half of the time
            options = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 2}}
        figure.savefig(path, dpi=dpi, facecolor="white", **options)
