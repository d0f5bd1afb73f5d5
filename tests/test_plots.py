"""Figures of embeddings: averages in closed form, points that keep neighbours, a page that needs nothing else."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_embeddings import GENERATORS, HOSTILE, made_embeddings
from PIL import Image

from apn.commands import UsageError
from apn.commands.plot import plot as command
from apn.explain_figures import figure_pixels
from apn.plots.averages import average_map, coverage_figure, heat_figure, mean_interval, real_generated_figure, spread
from apn.plots.groups import MOST, group
from apn.plots.interactive import write_interactive
from apn.plots.projections import METHODS, project
from apn.plots.scatter import apart_figure, sides_figure
from apn.plots.spectra import average_spectrum, log_spectrum, spectra_figure
from apn.plots.write import Format, write_plots
from apn.report.folder import LIST, PLOTS

CHROMIUM = Path("/usr/bin/chromium")


@pytest.mark.parametrize(
    "method", [pytest.param(method, marks=pytest.mark.slow) if method == "umap" else method for method in METHODS]
)
def test_images_that_are_alike_stay_together(method: str) -> None:
    """Two far clusters: each point's nearest neighbour in the plane is of its own cluster."""
    pytest.importorskip({"opentsne": "openTSNE", "umap": "umap", "pca": "sklearn"}[method])
    rng = np.random.default_rng(0)
    cluster = np.arange(60) % 2
    points = project(rng.normal(size=(60, 12)) + 20 * cluster[:, None], method, seed=1)  # type: ignore[arg-type]
    assert points.shape == (60, 2)
    far = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(60)
    assert (cluster[far.argmin(axis=1)] == cluster).all()


def test_pca_keeps_the_largest_variance() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(100, 6)) * [9, 5, 1, 1, 1, 1]
    expected = np.sort(np.linalg.eigvalsh(np.cov(values.T)))[::-1][:2]
    np.testing.assert_allclose(project(values, "pca").var(axis=0, ddof=1), expected, rtol=1e-6)


def test_too_few_or_equal_images_cannot_be_laid_out() -> None:
    with pytest.raises(ValueError, match=r"at least 5 images.*found 4"):
        project(np.zeros((4, 3)), "pca")
    with pytest.raises(ValueError, match="the same one for all 9"):
        project(np.ones((9, 3)), "pca")
    with pytest.raises(ValueError, match=r"2 of 9 embeddings are not finite"):
        project(np.where(np.arange(27).reshape(9, 3) > 22, np.nan, np.eye(9, 3)), "pca")


def test_where_numba_can_write_nowhere_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, for a user who has no home and does not own the packages."""

    def tsne(**options: object) -> None:
        raise RuntimeError("cannot cache function 'seed': no locator available for file 'utils.py'")

    monkeypatch.setitem(sys.modules, "openTSNE", SimpleNamespace(TSNE=tsne))
    with pytest.raises(ValueError, match="set NUMBA_CACHE_DIR to one, or take the method pca"):
        project(np.eye(9), "opentsne")


def test_groups_are_the_columns_of_the_table() -> None:
    scores = made_embeddings(24).scores
    assert group(scores, "label").names == ("real", "generated")
    by = group(scores, "generator")
    assert by.names[0] == "real"
    assert set(by.names[1:]) == set(GENERATORS)
    for code, label in zip(by.codes, scores.labels, strict=True):
        assert (by.names[code] == "real") == (label == 0)
    styles = [(style["color"], style["marker"]) for style in map(by.style, range(24))]
    assert len(set(styles)) == 24
    with pytest.raises(ValueError, match="no image of the table says its scene"):
        group(scores, "scene")


def test_of_many_names_the_largest_keep_theirs() -> None:
    embeddings = made_embeddings(200)
    names = [f"g{min(i // 2, 60 - i // 4)}" if i % 2 else "" for i in range(200)]
    kinds = sorted(set(names))
    codes = np.array([kinds.index(name) for name in names], np.int32)
    scores = embeddings.scores._replace(generator=embeddings.scores.generator._replace(codes=codes, names=tuple(kinds)))
    by = group(scores, "generator")
    assert len(by.names) == MOST
    assert by.names[by.other] == "other generators"
    counts = np.bincount(by.codes)
    assert counts.sum() == 200
    assert (np.diff(counts[1:-1]) <= 0).all()


def test_spread_is_the_number_of_cells_that_evidence_lies_in() -> None:
    one, all_alike = np.zeros((1, 3, 4)), np.full((1, 3, 4), 1 / 12)
    one[0, 1, 2] = 1
    assert spread(one)[0] == pytest.approx(1 / 12)
    assert spread(all_alike)[0] == pytest.approx(1)


def test_average_maps_tell_global_from_diverse() -> None:
    """Each image has all its evidence in a cell of its own: together they are everywhere, each is in one place."""
    heat = np.zeros((13, 3, 4))
    for image in range(12):
        heat.reshape(13, 12)[image, image] = image + 1.0  # how strong does not count
    found = average_map(heat)
    np.testing.assert_allclose(found.values, 1 / 12)
    assert (found.spread_of_mean, found.spread_of_one) == (pytest.approx(1), pytest.approx(1 / 12))
    assert found.images == 12
    assert average_map(np.zeros((2, 3, 4))).images == 0


def test_the_interval_of_a_mean_draws_whole_groups() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 2))
    low, high = mean_interval(values, np.arange(400))
    np.testing.assert_allclose(high - low, 2 * 1.96 / 20, rtol=0.15)
    assert ((low < values.mean(axis=0)) & (values.mean(axis=0) < high)).all()
    copied = np.repeat(values[:100], 4, axis=0)  # four copies know no more than one
    low, high = mean_interval(copied, np.repeat(np.arange(100), 4))
    np.testing.assert_allclose(high - low, 2 * 1.96 / 10, rtol=0.25)


def test_a_wave_is_two_points_of_light_in_the_spectrum() -> None:
    place = 2 * np.pi * np.arange(64) / 64
    picture = 128 + 100 * np.cos(8 * place)[None, :, None] * np.ones((64, 64, 3))
    spectrum = log_spectrum(picture.round().astype(np.uint8))
    assert spectrum[32, 32] == pytest.approx(np.log10(1 + 64 * 64 * 128 / 255), abs=0.01)
    bright = np.argwhere(spectrum > 2.5)
    assert {tuple(map(int, one)) for one in bright} == {(32, 24), (32, 32), (32, 40)}
    assert spectrum[32, 24] == pytest.approx(np.log10(1 + 64 * 64 * 50 / 255), abs=0.01)


def test_average_spectra_leave_out_and_tell_what_cannot_be_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    paths = [tmp_path / "0.png", tmp_path / "gone.png", tmp_path / "1.png"]
    found, failed = average_spectrum("noise", paths, 32)
    expected = np.mean([log_spectrum(picture[4:36, 4:36]) for picture in pixels], axis=0)
    np.testing.assert_allclose(found.values, expected)
    assert found.images == 2
    assert len(failed) == 1
    assert "gone.png" in failed[0]
    figure = spectra_figure([found], found)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), expected)
    np.testing.assert_allclose(figure.axes[6].images[0].get_array(), 0)


def test_every_static_figure_is_drawn() -> None:
    embeddings = made_embeddings(60)
    by = group(embeddings.scores, "generator")
    points = {part: embeddings.part(part)[:, :2] for part in ("artifact", "irrelevant")}
    figures = [
        sides_figure(points, by, "made"),
        apart_figure(points["artifact"], embeddings.scores.labels, by, "made"),
        heat_figure(embeddings, by),
        coverage_figure(embeddings, by),
        real_generated_figure(embeddings),
    ]
    for figure in figures:
        assert figure_pixels(figure, 50).std() > 5
    dots = list(figures[0].axes[0].collections)
    assert sum(len(one.get_offsets()) for one in dots) == 60
    lines = figures[4].axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), embeddings.coverage[embeddings.scores.labels == 0, 0].mean(axis=0))
    with pytest.raises(ValueError, match="no heat maps"):
        heat_figure(embeddings._replace(heat_spatial=None), by)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    embeddings = made_embeddings(40, folder=folder / "images")
    points = {part: embeddings.part(part)[:, :2] for part in ("artifact", "irrelevant")}
    return write_interactive(
        embeddings, points, folder / "embeddings.html", first="generator", title="A <title> & more"
    )


def content(page: Path) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="page">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(text)


def test_the_page_holds_points_names_and_thumbnails(page: Path) -> None:
    found = content(page)
    assert [panel["name"] for panel in found["panels"]] == ["artifact", "irrelevant"]
    for panel in found["panels"]:
        points = np.array(panel["points"])
        assert points.shape == (40, 2)
        assert points.min() >= 0
        assert points.max() <= 1
        np.testing.assert_allclose(np.ptp(points, axis=0), 1, atol=1e-3)
    assert list(found["colourings"]) == ["label", "generator", "source"]  # no image says its scene
    assert found["first"] == "generator"
    assert sum("image" in one for one in found["thumbnails"]) == 39
    assert "no such file" in found["thumbnails"][39]["note"]
    assert found["images"][1][1] == f"generated, {GENERATORS[0]}"
    assert found["images"][0][0].endswith(HOSTILE.split("/")[-1])


def test_the_page_asks_nothing_from_elsewhere_and_names_stay_text(page: Path) -> None:
    text = page.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|url\(|<img|<b>|onerror=\"", text)
    assert text.count("</script>") == 2
    assert "A &lt;title&gt; &amp; more" in text


def test_the_command_writes_what_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    embeddings = made_embeddings(40, folder=tmp_path / "images")
    monkeypatch.setattr("apn.embeddings.read_embeddings", lambda path: embeddings)
    command(tmp_path / "e.parquet", out=tmp_path / "out", method="pca", formats="png, svg,html", limit=38)
    names = {path.name for path in (tmp_path / "out").iterdir()} - {PLOTS}
    kinds = ("embeddings", "generators-apart", "bands-by-generator", "bands-real-generated", "heat-maps", "spectra")
    assert names == {f"{kind}.{end}" for kind in kinds for end in ("png", "svg")} | {"embeddings.html"}
    assert "38 of 40 images" in capsys.readouterr().out
    svg = (tmp_path / "out" / "generators-apart.svg").read_text()
    assert "<img" not in svg
    with pytest.raises(UsageError, match="html, png, svg, found 'gif'"):
        command(tmp_path / "e.parquet", out=tmp_path, formats="gif")


def test_the_figures_of_another_table_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, embeddings = tmp_path / "out", made_embeddings(20, folder=tmp_path / "images")
    out.mkdir()
    others = [out / name for name in ("mine.png", "index.html", LIST)]  # of mine, and of a report in the same folder
    for path in others:
        path.write_text('["index.html"]')
    drawn = {True: embeddings, False: embeddings._replace(heat_spatial=None)}
    for maps, found in drawn.items():
        monkeypatch.setattr("apn.embeddings.read_embeddings", lambda path, found=found: found)
        command(tmp_path / "e.parquet", out=out, method="pca", formats="png,svg")
        assert [(out / f"heat-maps.{end}").exists() for end in ("png", "svg")] == [maps, maps]
    assert (out / "spectra.png").exists()
    assert all(path.exists() for path in others)


def test_a_table_whose_images_are_elsewhere_has_all_figures_but_the_spectra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a laptop, where the table alone was copied."""
    monkeypatch.setattr("apn.embeddings.read_embeddings", lambda path: made_embeddings(40))
    command(tmp_path / "e.parquet", out=tmp_path / "out", method="pca")
    names = {path.name for path in (tmp_path / "out").iterdir()} - {PLOTS}
    kinds = ("embeddings", "generators-apart", "bands-by-generator", "bands-real-generated", "heat-maps")
    assert names == {*(f"{kind}.png" for kind in kinds), "embeddings.html"}
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 12
    assert told[-2:] == [
        "apn: not in the spectra: 30 more",
        "apn: no figure of spectra: no image of the table could be opened",
    ]


def test_labels_alone_are_enough_for_figures(tmp_path: Path) -> None:
    embeddings = made_embeddings(20, folder=tmp_path / "images")
    nobody = embeddings.scores.generator._replace(codes=np.zeros(20, np.int32), names=("",))
    embeddings = embeddings._replace(scores=embeddings.scores._replace(generator=nobody), heat_spatial=None)
    options = {"method": "pca", "colour": "label", "branch": "spatial", "formats": {Format.PNG}}
    warned: list[str] = []
    written = write_plots(embeddings, tmp_path / "out", warn=warned.append, **options)  # type: ignore[arg-type]
    assert {path.stem for path in written} == {"embeddings", "bands-by-generator", "bands-real-generated", "spectra"}
    assert len(warned) == 1


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs Debian's chromium at {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        # Debian's package brings no sandbox that works as root, and the page under test is ours.
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield browser
        browser.close()


def place_of(tab: Any, found: dict[str, Any], image: int) -> tuple[float, float]:
    """Where on the screen the first panel has this image's mark."""
    canvas = tab.locator("#panels canvas").first
    canvas.scroll_into_view_if_needed()
    box, (x, y) = canvas.bounding_box(), found["panels"][0]["points"][image]
    side = box["width"] - 28
    return box["x"] + 14 + x * side, box["y"] + 14 + (1 - y) * side


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_pointing_at_a_mark_shows_its_picture(browser: Any, page: Path, width: int) -> None:
    found = content(page)
    with browser.new_context(viewport={"width": width, "height": 900}) as context:
        tab = context.new_page()
        asked, errors = [], []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda message: errors.append(message.text))
        tab.goto(page.as_uri())
        tab.wait_for_timeout(200)
        tab.mouse.move(*place_of(tab, found, 4))
        tip = tab.locator("#tip")
        assert tip.is_visible()
        assert found["images"][4][0] in tip.inner_text()
        assert tip.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 60
        first = tab.locator("#legend button").first
        first.click()
        assert first.get_attribute("aria-pressed") == "false"
        tab.select_option("#by", "label")
        assert tab.locator("#legend button").count() == 2
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
        assert errors == []


@pytest.fixture
def oddly_named(tmp_path: Path) -> Path:
    """A page whose generators have a name without a place to break it, and one that would turn the writing."""
    embeddings = made_embeddings(40)
    points = {"artifact": embeddings.part("artifact")[:, :2]}
    names = tuple(
        {"adm": "stable_diffusion_" * 7, "glide": "two\nlines\u202e"}.get(name, name)
        for name in embeddings.scores.generator.names
    )
    scores = embeddings.scores._replace(generator=embeddings.scores.generator._replace(names=names))
    return write_interactive(
        embeddings._replace(scores=scores), points, tmp_path / "e.html", first="generator", title="T"
    )


def test_nothing_is_hidden_in_the_names_of_the_legend(oddly_named: Path) -> None:
    assert r"two\nlines\u202e" in content(oddly_named)["colourings"]["generator"]["names"]


@pytest.mark.slow
def test_a_long_name_is_broken_on_a_phone(browser: Any, oddly_named: Path) -> None:
    with browser.new_context(viewport={"width": 360, "height": 740}) as context:
        tab = context.new_page()
        tab.goto(oddly_named.as_uri())
        assert tab.locator("#legend button").count() == 4
        assert tab.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.slow
def test_a_picture_stays_when_the_finger_is_lifted(browser: Any, page: Path) -> None:
    found = content(page)
    with browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True) as context:
        tab = context.new_page()
        tab.goto(page.as_uri())
        tab.touchscreen.tap(*place_of(tab, found, 4))
        tab.wait_for_timeout(200)
        assert tab.locator("#tip").is_visible()
        assert found["images"][4][0] in tab.locator("#tip").inner_text()
        box = tab.locator("#panels canvas").first.bounding_box()
        tab.touchscreen.tap(box["x"] + 1, box["y"] + 1)  # where no mark is
        tab.wait_for_timeout(200)
        assert not tab.locator("#tip").is_visible()
