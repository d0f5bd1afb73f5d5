"""Figures: what they draw is what they were given, nothing overlaps, and what goes into the page is safe there."""

import re
import warnings
import xml.etree.ElementTree as ElementTree
from functools import cache
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from apn.report import canvas
from apn.report.canvas import SERIES, legend_svg, save_png, series_style, shorten, shorten_apart, styled, svg
from apn.report.figures import (
    Dots,
    Group,
    Line,
    Panel,
    Reliability,
    RocCurve,
    dot_figure,
    histogram_figure,
    matrix_figure,
    panel_figure,
    panels_figure,
    reliability_figure,
    roc_figure,
)
from apn.report.results import Estimate

UNDEFINED = Estimate(np.nan, np.nan, np.nan)
HOSTILE = ["<script>alert(1)</script>", "$x^{", "--><b>", "two\nlines", "日本 \udcff", "x" * 200, ""]
GENERATORS = [f"generator_with_a_long_name_{i}" for i in range(30)]


def around(value: float) -> Estimate:
    return Estimate(value, max(value - 0.05, 0), min(value + 0.04, 1))


KINDS = ("roc", "reliability", "histogram", "dots", "panel", "panels", "matrix")


def drawn(kind: str, names: list[str]) -> Figure:
    """A figure of this kind with these names on it."""
    x = np.linspace(0, 1, 9)
    estimates = [around(0.5 + i / 2 / len(names)) for i in range(len(names))]
    if kind == "roc":
        return roc_figure([RocCurve(name, x, np.sqrt(x), around(0.7)) for name in names[:8]], "ROC")
    if kind == "reliability":
        return reliability_figure([Reliability(n, x, x, x - 0.1, x + 0.1, np.ones(9, int)) for n in names[:8]], "R")
    if kind == "histogram":
        return histogram_figure([Group(name, i > 0, x) for i, name in enumerate(names)], 0.8, "H")
    if kind == "dots":
        return dot_figure(names, [Dots("native", estimates), Dots("aligned", estimates)], "AUC")
    if kind == "matrix":
        return matrix_figure(np.full((len(names), len(names[:9])), 0.7), None, names, names[:9], "M")
    lines = [Line("AUC", [around(0.9), around(0.7), UNDEFINED])]
    panels = [Panel(name, "quality, 1 to 100", ["clean", "95", "30"], lines) for name in names]
    return panel_figure(panels[0]) if kind == "panel" else panels_figure(panels[:7], "Robustness")


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_lie_inside_the_figure_and_never_on_each_other(kind: str) -> None:
    figure = drawn(kind, GENERATORS)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    boxes = []
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible() and text.get_rotation() == 0:
            box = text.get_window_extent(canvas.get_renderer())
            assert box.x0 >= -1, text
            assert box.y0 >= -1, text
            assert box.x1 <= width + 1, text
            assert box.y1 <= height + 1, text
            boxes.append((box, text.get_text()))
    for (one, first), (other, second) in combinations(boxes, 2):
        overlap = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(overlap) < 2, (first, second)  # pixels: boxes have a margin


@pytest.mark.parametrize("kind", KINDS)
def test_any_name_comes_through_and_does_no_harm(kind: str, tmp_path: Path) -> None:
    figure = drawn(kind, HOSTILE)
    text = svg(figure, "figure-1")
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert not [element.tag for element in root.iter() if element.tag.endswith(("script", "b", "foreignObject"))]
    assert "<!--" not in text
    save_png(figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.convert("L").getextrema()[1] == 255  # on white
        assert image.convert("L").getextrema()[0] < 100


def test_svg_refers_to_itself_alone_and_takes_its_colours_from_the_page() -> None:
    figure = drawn("dots", ["a", "b"])
    text = svg(figure, "first")
    assert text == svg(figure, "first")
    outside = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    assert "http" not in outside
    assert set(re.findall(r'href="([^"]*)"', text)) <= {f"#{name}" for name in re.findall(r'\bid="([^"]*)"', text)}
    assert all(name.startswith("first-") for name in re.findall(r'\bid="([^"]*)"', text))
    assert not set(re.findall(r"#[0-9a-f]{6}", text)) & set(SERIES)
    assert {"var(--series-0)", "var(--series-1)", "var(--ink)"} <= set(re.findall(r"var\([^)]*\)", text))
    assert not re.search(r'<svg[^>]* (width|height)="', text)
    second = svg(figure, "second")
    assert not set(re.findall(r'\bid="([^"]*)"', text)) & set(re.findall(r'\bid="([^"]*)"', second))
    assert "var(--series-1)" in legend_svg(1, "x")


def test_a_figure_does_not_follow_the_users_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    before = svg(drawn("roc", ["a"]), "x")
    monkeypatch.setitem(mpl.rcParams, "font.size", 30)
    monkeypatch.setitem(mpl.rcParams, "axes.grid", False)
    assert svg(drawn("roc", ["a"]), "x") == before
    assert mpl.rcParams["font.size"] == 30


def test_roc_curves_and_their_legend_are_what_was_given() -> None:
    curve = RocCurve("apn-mini", np.array([0, 0.1, 1]), np.array([0, 0.8, 1]), Estimate(0.85, 0.8, 0.9))
    figure = roc_figure([curve, curve._replace(label="other", auc=UNDEFINED)], "ROC: aligned")
    _, first, second = figure.axes[0].lines
    np.testing.assert_array_equal(first.get_xydata(), [[0, 0], [0.1, 0.8], [1, 1]])
    assert first.get_color() != second.get_color()
    assert {"apn-mini: AUC 0.850 (0.800 to 0.900)", "other: AUC undefined", "ROC: aligned"} <= set(texts(figure))


def test_intervals_are_drawn_from_low_to_high() -> None:
    figure = dot_figure(["a", "b"], [Dots("native", [Estimate(0.7, 0.6, 0.75), UNDEFINED])], "AUC")
    (bars,) = (one for one in figure.axes[0].containers if isinstance(one, ErrorbarContainer))
    ends = bars[2][0].get_segments()[0]
    assert ends[:, 0] == pytest.approx([0.6, 0.75])
    assert ends[0, 1] == ends[1, 1] == bars[0].get_ydata()[0]


def test_histograms_count_every_image_and_colour_by_class() -> None:
    groups = [Group("real", False, np.array([0.01, 0.02, 0.99])), Group("gan", True, np.array([0.5]))]
    figure = histogram_figure(groups, 0.8, "H", bins=10)
    real, generated = figure.axes[0].patches
    heights = real.get_data().values - real.get_data().baseline
    assert heights / heights.max() == pytest.approx([1, *[0] * 8, 0.5])
    assert real.get_facecolor() != generated.get_facecolor()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["real (3)", "gan (1)"]


def test_panels_keep_the_order_of_levels() -> None:
    panel = Panel("jpeg", "quality", ["clean", "95", "30"], [Line("AUC", [around(0.9), around(0.8), around(0.6)])])
    axes = panel_figure(panel).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["clean", "95", "30"]
    assert axes.containers[0][0].get_ydata() == pytest.approx([0.9, 0.8, 0.6])
    assert len(panels_figure([panel] * 5, "all", columns=4).axes) == 8


def test_a_matrix_writes_its_numbers_and_marks_what_is_missing() -> None:
    values = np.array([[0.9, 0.512], [np.nan, 1.0]])
    intervals = np.stack([values - 0.1, values], axis=-1)
    figure = matrix_figure(values, intervals, ["a", "b"], ["c", "d"], "AUC, aligned")
    assert {"0.900", "0.512", "1.000", "–", "0.80 to 0.90", "AUC, aligned", "a", "d"} <= set(texts(figure))
    image = figure.axes[0].images[0]
    np.testing.assert_array_equal(np.ma.filled(image.get_array(), np.nan), values)
    inks = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert (inks["0.900"], inks["0.512"]) == ("black", "white")


def test_a_matrix_of_other_shapes_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"expected values \(1, 2\) and intervals \(1, 2, 2\), found \(2, 2\) and None"
    ):
        matrix_figure(np.ones((2, 2)), None, ["a"], ["b", "c"], "M")
    with pytest.raises(ValueError, match=r"found \(1, 2\) and \(1, 2\)"):
        matrix_figure(np.ones((1, 2)), np.ones((1, 2)), ["a"], ["b", "c"], "M")


def test_series_can_be_told_apart_without_colour() -> None:
    styles = [tuple(series_style(i)[part] for part in ("color", "marker", "linestyle")) for i in range(24)]
    assert len(set(styles)) == 24
    assert len({style[1:] for style in styles[:6]}) == 6


def test_long_names_keep_both_ends() -> None:
    assert shorten("short") == "short"
    assert shorten("generator_a_very_long_name_v1", 11) == "gener…me_v1"
    assert len(shorten("x" * 99)) == 30
    assert shorten("a\nb\udcff") == r"a\nb\udcff"


def test_letters_that_no_font_here_has_are_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "_other_fonts", lambda: ())
    monkeypatch.setattr(canvas, "_letters", cache(canvas._letters.__wrapped__))
    assert shorten("café Ελλάδα صورة") == "café Ελλάδα صورة"  # DejaVu Sans has these
    assert shorten("照片.jpg") == r"\u7167\u7247.jpg"
    assert shorten("📷.jpg") == r"\U0001f4f7.jpg"
    assert shorten("照片照片照片.jpg", 20) == r"\u7167…\u7247.jpg"
    assert shorten_apart(["照片", "b"]) == [r"\u7167\u7247", "b"]
    with styled(), warnings.catch_warnings():
        warnings.simplefilter("error")  # Matplotlib warns of each letter that it draws as a box
        figure = roc_figure([RocCurve("照片", np.array([0, 1]), np.array([0, 1]), UNDEFINED)], "names")
        assert "照" not in svg(figure, "names")


def test_a_font_of_the_machine_draws_what_the_own_one_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "OTHER_FONTS", ("No such font", "STIXSizeOneSym"))  # the latter comes with Matplotlib
    for name in ("_other_fonts", "_letters"):
        monkeypatch.setattr(canvas, name, cache(getattr(canvas, name).__wrapped__))
    assert canvas._other_fonts() == ("STIXSizeOneSym",)
    with styled():
        assert mpl.rcParams["font.family"] == ["DejaVu Sans", "STIXSizeOneSym"]


def test_names_that_differ_in_the_middle_alone_stay_apart() -> None:
    names = [f"a model of a long name number {i} with a very long end (turbo, distilled)" for i in range(12)]
    short = shorten_apart([*names, "another"])
    assert len(set(short)) == 13
    assert short[3] == "a model o…3 with a very long …"
    assert short[-1] == "another"
    assert max(map(len, short)) <= 30
    assert len(set(shorten_apart(names, 18))) == 12
    assert shorten_apart(["generator_a_very_long_name_v1", "other"], 11) == ["gener…me_v1", "other"]
    assert shorten_apart([names[0], names[0]]) == [shorten(names[0])] * 2
