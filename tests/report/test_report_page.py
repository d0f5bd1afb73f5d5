"""The report's page: its numbers are the tables', it needs nothing from outside, and no name can harm it.

Run as a program (`python tests/report/test_report_page.py report/index.html docs/report.png`) it takes the picture of
the documentation: summary and robustness of a real report, without thumbnails.
"""

import io
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made import ALIGNED, NATIVE
from made_tables import GENERATORS, made_rows, write_table
from PIL import Image

from apn.report.build import build_report
from apn.report.figures import Dots, dot_figure
from apn.report.page import Draw, write_page
from apn.report.results import ONE_SCORE, Estimate, Report
from apn.report.tables import cell, markdown
from apn.scoretable import read_scores
from apn.words import printable

SHOWN = ("summary", "robustness")
CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = '"><script>document.title = "broken\u202e"<.png'


class Reader(HTMLParser):
    """Elements, tables as rows of texts, references to elsewhere, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._caption, self._cell, self._rows = "", None, []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th", "caption"):
            self._cell = ""
        elif tag == "span" and self._cell:
            self._cell += " "

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "caption":
            self._caption, self._cell = (self._cell or "").strip(), None
        elif tag in ("td", "th"):
            self._rows[-1].append((self._cell or "").strip())
            self._cell = None
        elif tag == "table":
            self.tables[self._caption] = self._rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two detectors with everything in it; the worst mistakes are a picture, a gone file and bad names."""
    folder = tmp_path_factory.mktemp("report")
    names = [str(folder / "images" / f"{i}{HOSTILE}") for i in range(80)]
    (folder / "images").mkdir()
    for name in names[:40]:
        Image.new("RGB", (64, 48), "olive").save(name)
    tables = []
    for weights, quality in (("apn-mini", 1.0), ("npr <b>", 0.2)):
        parts = [made_rows(names, NATIVE, quality=quality + 1), made_rows(names, ALIGNED, quality=quality)]
        parts += [made_rows(names, ALIGNED, quality=quality, degradation="jpeg", level=one) for one in ("95", "30")]
        parts[0]["logit"][6] = parts[0]["probability"][6] = None
        parts[0]["error"][6] = "cannot <read> it"
        tables.append(write_table(folder / f"{len(tables)}.parquet", parts, weights=weights))
    write_page(build(tables), read_scores(tables), folder, command="apn report <tables>")
    return folder


def build(tables: list[Path]) -> Report:
    return build_report(read_scores(tables), resamples=30, seed=3)


@pytest.fixture(scope="module")
def page(folder: Path) -> Reader:
    return Reader((folder / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return build(sorted(folder.glob("*.parquet")))


def test_every_number_is_that_of_the_report(page: Reader, report: Report) -> None:
    assert len(report.tables) == 8
    for table in report.tables:
        (caption,) = (one for one in page.tables if one.startswith(f"{table.title}; threshold"))
        _, *rows = page.tables[caption]
        assert len(rows) == len(table.rows)
        for shown, row in zip(rows, table.rows, strict=True):
            assert shown[0].startswith(row.name)
            expected = [cell(estimate).replace("(", "").replace(")", "") for estimate in row.metrics]
            assert shown[1:] == expected


def test_the_numbers_are_also_those_of_the_markdown(page: Reader, report: Report) -> None:
    in_markdown = set(re.findall(r"\d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)", markdown(report)))
    rows = [text for caption in page.tables for row in page.tables[caption] for text in row]
    in_page = {re.sub(r"^(\S+) (\S+ to \S+)$", r"\1 (\2)", text) for text in rows}
    assert in_markdown
    assert in_markdown <= in_page


def test_counts_are_of_every_detector_that_a_table_holds(tmp_path: Path) -> None:
    """Not of the last of them: the others' numbers would seem to be of its images."""
    names = [str(number) for number in range(24)]
    tables = []
    for weights, images in (("first", 24), ("second", 12)):
        parts = [made_rows(names[:images], NATIVE)]
        if weights == "second":
            parts[0]["logit"][1] = parts[0]["probability"][1] = None
            parts[0]["error"][1] = "gone"
        tables.append(write_table(tmp_path / f"{weights}.parquet", parts, weights=weights))
    write_page(build(tables), read_scores(tables), tmp_path)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "6 to 12 real and 5 to 12 generated images, native" in text
    everything = Reader(text).tables[f"AUC by generator: {NATIVE}"][1]
    assert " ".join(everything[0].split()) == "all 6 to 12 real, 5 to 12 generated, 0 to 1 failed"


def test_a_png_is_as_wide_as_the_svg_it_has_the_layout_of(tmp_path: Path) -> None:
    """Letters rounded to whole pixels of 1/150 inch would be wider than the layout of the SVG has room for."""
    dots = [Dots("native", [Estimate(0.5, 0.4, 0.6)] * 2)]
    Draw(tmp_path)("wide", dot_figure(["MIDJOURNEY-V6.1-UPSCALED-HD", "x" * 120], dots, "AUC"), "")
    with Image.open(tmp_path / "wide.png") as image:
        assert image.convert("L").crop((0, 0, 6, image.height)).getextrema() == (255, 255)


def test_the_best_detector_is_bold(folder: Path, report: Report) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    summary = page[page.index('id="summary"') : page.index('id="by-generator"')]
    bold = re.findall(r"<strong>([\d.]+)</strong>", summary)
    overall = [table.rows[0].metrics.auc.value for table in report.tables if table.by == "generator"]
    assert max(overall[:2] + overall[2:]) == overall[0]
    assert f"{overall[0]:.3f}" in bold
    assert f"{overall[3]:.3f}" not in bold  # the weaker one, aligned


def test_nothing_is_asked_from_elsewhere(folder: Path, page: Reader) -> None:
    for _, attributes in page.elements:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action", "srcset", "poster", "data"):
                assert re.match(r"(data:|#)", value or ""), (name, value)
            if name not in ("xmlns", "xmlns:xlink"):
                assert not re.search(r"url\((?!#)|https?://", value or ""), (name, value)
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "@import" not in text
    assert not [tag for tag, _ in page.elements if tag in ("script", "iframe", "object", "embed")]
    assert [attributes for tag, attributes in page.elements if tag == "link"] == [{"rel": "icon", "href": "data:,"}]


def test_names_from_outside_stay_text(page: Reader) -> None:
    for text in (HOSTILE, GENERATORS[2], "npr <b>", "cannot <read> it", "apn report <tables>"):
        assert printable(text) in page.text, text
    assert "\u202e" not in page.text
    assert "script" not in {tag for tag, _ in page.elements}
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]


def test_it_can_be_read_by_those_who_do_not_see_it(page: Reader) -> None:
    tags = [tag for tag, _ in page.elements]
    assert [tags.count(tag) for tag in ("h1", "main", "nav", "header", "footer")] == [1] * 5
    for tag, attributes in page.elements:
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        if attributes.get("role") == "img":
            assert len(attributes["aria-label"] or "") > 20
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert len(links) > 8
    assert {f"#{name}" for name in ids} >= set(links)
    assert {attributes["aria-labelledby"] for tag, attributes in page.elements if tag == "section"} <= set(ids)


def test_protocols_stand_in_every_title(page: Reader) -> None:
    exempt = ("AUC of file facts alone", "First minus second", "The first ")
    for caption in page.tables:
        assert NATIVE in caption or ALIGNED in caption or caption.startswith(exempt), caption


def test_pictures_that_are_gone_are_noted_and_the_others_shown(page: Reader) -> None:
    shown = [attributes for tag, attributes in page.elements if tag == "img"]
    assert shown
    assert all(str(attributes["src"]).startswith("data:image/jpeg;base64,") for attributes in shown)
    assert {str(attributes["alt"]).split(":")[0] for attributes in shown} == {"false alarm", "miss"}
    assert "no picture: no such file" in page.text


def test_failures_probe_and_environment_are_told(page: Reader, report: Report) -> None:
    assert "2 scores are missing because a file could not be read" in page.text
    assert ONE_SCORE in page.text
    assert page.tables["AUC of file facts alone"][1:] == [
        ["folder:made", NATIVE, "0.987 0.954 to 0.999"],
        ["folder:made", ALIGNED, "0.500 0.480 to 0.520"],
    ]
    for fact in ("apn-mini-0123456789abcdef", "30, 3", "matplotlib", "apn score folder:made", "at 5 % FPR"):
        assert fact in page.text, fact


def test_figures_and_curves_lie_beside_the_page(folder: Path) -> None:
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {"roc-native-files-as-they-are.png", "auc-by-generator-apn-mini.png"} <= names
    assert "robustness-apn-mini-aligned-224-px-centre-jpeg-q96.png" in names
    assert (folder / "robustness.csv").read_text().count("\n") == 1 + 2 * 3
    assert "| jpeg (quality, 1 to 100) | 30 |" in (folder / "robustness.md").read_text()


def test_one_detector_with_one_class_and_no_names_still_makes_a_page(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("label,logit\n" + "1,0.5\n1,-0.25\n" * 5)
    scores = read_scores([tmp_path / "scores.csv"])
    page = Reader(write_page(build_report(scores, resamples=5), scores, tmp_path)[0].read_text(encoding="utf-8"))
    assert "undefined" in page.text
    assert "No shortcut probe was stored" in page.text
    assert "robustness" not in {attributes.get("id") for _, attributes in page.elements}


def test_figures_of_like_titles_keep_apart(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    draw = Draw(tmp_path / "figures")
    for title in ("ROC: a_b", "ROC: a-b", "../../roc"):
        draw(title, Figure(figsize=(1, 1)), "nothing")
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["roc-a-b-2.png", "roc-a-b.png", "roc.png"]


def launch(playwright: Any) -> Any:
    # Debian's package brings no sandbox that works as root, and the page under test is ours.
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    return playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs Debian's chromium at {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_it_opens_with_every_request_blocked(browser: Any, folder: Path, width: int) -> None:
    with browser.new_context(viewport={"width": width, "height": 800}) as context:
        tab = context.new_page()
        asked, errors = [], []
        home = (folder / "index.html").as_uri()

        def block(route: Any) -> None:
            if route.request.url == home:
                route.continue_()
                return
            asked.append(route.request.url)
            route.abort()

        tab.route("**", block)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda message: errors.append(message.text))
        tab.goto(home)
        assert tab.title() == "Evaluation of apn-mini and npr <b>"
        for summary in tab.locator("summary").all():
            summary.click()
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        for image in tab.locator("img").all():
            image.scroll_into_view_if_needed()
            assert image.evaluate("image => image.complete && image.naturalWidth > 0")
        for drawing in tab.locator("figure svg").all():
            box = drawing.bounding_box()
            assert box["width"] > min(width, 360) / 2
            assert box["height"] > 60
        assert [url for url in asked if not url.startswith("data:")] == []
        assert errors == []


def take_picture(page: Path, picture: Path) -> None:
    """The sections of `SHOWN` and the navigation, in few colours."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launch(playwright)
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(page.resolve().as_uri())
        kept = ", ".join(f"#{name}" for name in SHOWN)
        tab.evaluate(f"document.querySelectorAll('section:not({kept}), footer').forEach(one => one.remove())")
        image = Image.open(io.BytesIO(tab.screenshot(full_page=True))).convert("RGB")
        browser.close()
    image.quantize(255, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    take_picture(Path(sys.argv[1]), Path(sys.argv[2]))
