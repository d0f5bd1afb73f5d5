"""What the card of a picture says on the web page: names, verdict, map of the parts, explanation."""

import io
import re
from typing import Any

import httpx
import pytest
from browsing import HOSTILE, choose, done, file, needs_chromium, opened
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from serving import FakeDetector, FakeExplainer, picture, running
from test_words import NAMES

from apn.words import printable, probability_words

pytestmark = needs_chromium


def test_a_file_name_stays_text(page: Page) -> None:
    choose(page, file(HOSTILE, picture(200)))
    done(page, 1)
    expect(page.locator("#results h3")).to_have_text(HOSTILE)
    assert page.locator("#results h3 *").count() == 0
    assert page.title() == "apn: AI-generated or photograph?"


def test_names_are_shown_as_everywhere_else(page: Page) -> None:
    names = [*NAMES, "a\x1b[31m\n\r\t\x85\u2028.png", "a\U000e0041\\.png"]
    assert page.evaluate("names => names.map(printable)", names) == [printable(name) for name in names]
    choose(page, file("photo\u202egpj.exe", b"no picture"))
    done(page, 1, failed=1)
    expect(page.locator("#results h3")).to_have_text(r"photo\u202egpj.exe")


def test_probabilities_are_written_as_everywhere_else(page: Page) -> None:
    some = [0, 0.00049, 0.0005, 0.5, 0.9994, 0.9995, 1]
    assert page.evaluate("some => some.map(score)", some) == [probability_words(one) for one in some]


def test_the_tile_map_lies_where_the_tiles_are(page: Page) -> None:
    choose(page, file("a.png", picture(255, size=(400, 200))))
    done(page, 1)
    page.get_by_role("button", name="Show the score of each part").click()
    image, squares = page.locator(".frame img").bounding_box(), page.locator(".tile")
    expect(squares).to_have_count(2)
    for index, left in enumerate((0, 0.5)):
        square = squares.nth(index).bounding_box()
        assert square["x"] - image["x"] == pytest.approx(left * image["width"], abs=1)
        assert square["width"] == pytest.approx(image["width"] / 2, abs=1)
        assert square["height"] == pytest.approx(image["height"], abs=1)


@pytest.mark.parametrize("size", [(3000, 250), (250, 3000)])
def test_the_parts_of_a_panorama_are_large_enough_to_see(page: Page, size: tuple[int, int]) -> None:
    choose(page, file("a.png", picture(100, size=size)))
    done(page, 1)
    image = page.locator(".frame img")
    assert max(image.bounding_box().values()) < 1000  # as a whole at first
    page.get_by_role("button", name="Show the score of each part").click()
    box = image.bounding_box()
    assert min(box["width"], box["height"]) == pytest.approx(240)
    assert max(box["width"], box["height"]) == pytest.approx(240 * 12)
    view = page.get_by_role("group", name="Picture, scrolls").bounding_box()
    assert max(view["width"], view["height"]) < 1000
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.emulate_media(media="print")
    box = image.bounding_box()
    assert max(box["width"], box["height"]) < 1000  # paper does not scroll


def test_where_parts_overlap_the_map_has_the_colour_of_their_mean(page: Page) -> None:
    tiles = [{"left": left, "top": 0, "size": 60, "probability": share} for left, share in ((0, 0.2), (36, 0.6))]
    show_unsure(page, probability=0.4, warnings=[], stability=[], height=60, tiles=tiles)
    page.get_by_role("button", name="Show the score of each part").click()
    cells = page.locator(".cell")
    expect(cells).to_have_count(3)
    colours = [cells.nth(index).evaluate("cell => cell.style.background") for index in range(3)]
    shown = "(share) => make('i', { style: `background: ${tileColour(share)}` }).style.background"
    assert colours == page.evaluate(f"[0.2, 0.4, 0.6].map({shown})")
    widths = [cells.nth(index).evaluate("cell => cell.style.width") for index in range(3)]
    assert widths == ["37.5%", "25%", "37.5%"]  # of 96 pixels: nothing is painted twice


def test_a_picture_that_the_browser_does_not_turn_upright_has_no_map_beside_its_parts(page: Page) -> None:
    upright = Image.Exif()
    upright[0x0112] = 6  # which browsers ignore in WebP
    buffer = io.BytesIO()
    Image.new("RGB", (90, 60), (255, 0, 0)).save(buffer, "WEBP", exif=upright)
    choose(page, file("turned.webp", buffer.getvalue()), file("upright.png", picture(255)))
    done(page, 2)
    cards = page.locator("#results > li")
    expect(cards.nth(0)).to_contain_text("60 × 90 pixels")
    expect(cards.nth(0).locator(".blank")).to_contain_text("shows this picture turned, not upright as it was judged")
    expect(cards.nth(0).locator(".frame img")).to_have_count(0)
    expect(cards.nth(1).locator(".frame img")).to_be_visible()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_stands_still_at_the_frame_that_was_judged(page: Page, kind: str) -> None:
    buffer = io.BytesIO()
    colours = [(255, 0, 0), (0, 0, 255), (0, 0, 255)]
    first, *others = (Image.new("RGB", (96, 64), colour) for colour in colours)
    first.save(buffer, kind, save_all=True, append_images=others, duration=20, lossless=True)
    choose(page, file("moves", buffer.getvalue()))
    done(page, 1)
    canvas = page.locator(".frame canvas")
    expect(canvas).to_have_count(1)
    expect(page.locator(".frame img")).to_have_count(0)
    assert canvas.evaluate("element => [...element.getContext('2d').getImageData(48, 32, 1, 1).data]") == [
        255,
        0,
        0,
        255,
    ]


def test_which_of_several_pictures_in_a_file_was_judged_is_told(page: Page) -> None:
    show_unsure(page, probability=0.5, warnings=[], stability=[], format="ICO", frames=3)
    expect(page.locator("#results")).to_contain_text("3 pictures in the file, only the largest is scored")


def test_one_part_that_is_the_whole_picture_is_no_map(page: Page) -> None:
    tiles = [{"left": 0, "top": 0, "size": 160, "probability": 0.5}]
    facts = {"probability": 0.5, "warnings": [], "stability": [], "tiles": tiles}
    show_unsure(page, width=60, height=60, **facts)
    expect(page.get_by_role("button", name="Show the score of each part")).to_have_count(0)
    page.unroute("**/v1/detect")
    page.get_by_role("button", name="Clear all").click()
    show_unsure(page, width=300, height=200, **facts)
    page.get_by_role("button", name="Show the score of each part").click()
    page.get_by_text("Scores as a table").click()
    expect(page.locator("caption", has_text="one part")).to_be_visible()


def test_high_contrast_keeps_the_colours_that_mean_something(browser: Browser, client: httpx.Client) -> None:
    for page in opened(browser, client, forced_colors="active"):
        choose(page, file("a.png", picture(255)))
        done(page, 1)
        toggle = page.get_by_role("button", name="Show the score of each part")
        colour = "element => getComputedStyle(element).backgroundColor"
        before = toggle.evaluate(colour)
        toggle.click()
        assert toggle.evaluate(colour) != before
        for place in (".scale", ".legend"):
            zones = page.locator(f"{place} .zone")
            assert len({zones.nth(index).evaluate(colour) for index in range(3)}) == 3
        assert page.locator(".cell").first.evaluate("element => getComputedStyle(element).forcedColorAdjust") == "none"


def test_a_picture_that_the_browser_cannot_show_still_has_its_findings(page: Page) -> None:
    choose(page, file("scan.tif", picture(255, kind="TIFF")))
    done(page, 1)
    expect(page.locator(".blank")).to_contain_text("cannot show")
    expect(page.locator(".verdict")).to_have_text("Looks AI-generated")


def show_unsure(page: Page, **facts: Any) -> None:
    show(page, verdict="unsure", **facts)


def show(page: Page, **facts: Any) -> None:
    """What the page makes of such a row for one picture."""
    row = {"path": "a.png", "width": 96, "height": 64, "frames": 1, "format": "PNG", "error": None}
    row |= {"tiles": [], "metadata": {}} | facts
    page.route("**/v1/detect", lambda route: route.fulfill(json={"detections": [row]}))
    choose(page, file("a.png", picture()))
    done(page, 1)


@pytest.mark.parametrize(
    ("size", "starts", "words"),
    [
        ((1000, 1000), (0, 420, 840), "Judged by 9 parts of 160 × 160 pixels, 23 % of the picture"),
        ((420, 3000), (0, 130, 260), "Judged by 9 parts of 160 × 160 pixels, 14 % of the picture"),  # they overlap
        ((300, 200), (20,), "Judged by one part of 160 × 160 pixels, 43 % of the picture"),
        ((170, 165), (0,), None),
    ],
)
def test_how_much_was_looked_at_is_told(
    page: Page, size: tuple[int, int], starts: tuple[int, ...], words: str | None
) -> None:
    tiles = [{"left": x, "top": y, "size": 160, "probability": 0.5} for y in starts for x in starts]
    show_unsure(page, probability=0.5, warnings=[], stability=[], width=size[0], height=size[1], tiles=tiles)
    if words is None:
        expect(page.locator("#results")).not_to_contain_text("Judged by")
    else:
        expect(page.locator("#results")).to_contain_text(words)


def test_a_verdict_withdrawn_for_instability_is_explained(page: Page) -> None:
    deliveries = [{"name": "JPEG 75", "probability": 0.2, "verdict": "real"}]
    show_unsure(page, probability=0.9, logit=2, warnings=["not stable"], stability=deliveries)
    expect(page.locator(".verdict")).to_have_text("Unsure")
    expect(page.locator("#results")).to_contain_text("By itself the probability says “Looks AI-generated”")
    expect(page.locator("#results")).to_contain_text("Warning: not stable")
    expect(page.locator("#results")).to_contain_text("0 of 1 re-deliveries agree")


def test_a_probability_that_does_not_stand_is_not_shown_as_one_that_does(page: Page) -> None:
    deliveries = [{"name": "JPEG 75", "probability": 0.2, "verdict": "real"}]
    show_unsure(page, probability=0.993, warnings=["not stable"], stability=deliveries)
    expect(page.locator("#results")).to_contain_text(
        "Probability of being AI-generated: 0.993, which does not stand here"
    )
    expect(page.locator(".scale")).to_have_accessible_name(re.compile("probability 0.993, which does not stand here;"))
    expect(page.locator(".scale.void")).to_have_count(1)
    expect(page.get_by_role("status")).to_have_text("a.png: Unsure. 1 of 1 pictures checked.")
    page.unroute("**/v1/detect")
    choose(page, file("b.png", picture(255)))
    done(page, 2)
    expect(page.get_by_text("which does not stand here")).to_have_count(1)
    expect(page.locator(".scale:not(.void)")).to_have_count(1)


@pytest.mark.parametrize(
    ("verdict", "probability", "others", "words"),
    [
        ("real", 0.1, (0.1, 0.9, 0.5), "By themselves 1 of 4 parts say “Looks AI-generated”."),  # a post with a picture
        ("generated", 0.9, (0.2, 0.2, 0.5), "By themselves 2 of 4 parts say “Looks like a photograph”."),
        ("generated", 0.9, (0.5, 0.9, 0.9), None),
        ("unsure", 0.5, (0.1, 0.9, 0.9), None),
    ],
)
def test_parts_that_say_the_opposite_of_the_verdict_are_told(
    page: Page, verdict: str, probability: float, others: tuple[float, ...], words: str | None
) -> None:
    tiles = [{"left": 0, "top": 0, "size": 9, "probability": share} for share in (probability, *others)]
    show(page, verdict=verdict, probability=probability, warnings=[], stability=[], tiles=tiles)
    if words is None:
        expect(page.locator("#results")).not_to_contain_text("By themselves")
    else:
        expect(page.locator("#results")).to_contain_text(f"{words} The verdict averages all parts")


def test_what_a_file_tells_of_a_generator_is_open_at_once(page: Page) -> None:
    found = {"generator": "ComfyUI", "generator_parameters": "a cat in space"}
    show_unsure(page, probability=0.5, warnings=[], stability=[], metadata=found)
    expect(page.locator("summary", has_text="Metadata")).to_have_text(
        "Metadata: 2 findings, the file names an image generator"
    )
    expect(page.get_by_role("row", name="generator parameters a cat in space")).to_be_visible()


def test_a_camera_in_the_metadata_stays_folded(page: Page) -> None:
    show_unsure(page, probability=0.5, warnings=[], stability=[], metadata={"camera": "Apple iPhone 15"})
    expect(page.locator("summary", has_text="Metadata")).to_have_text("Metadata: 1 finding")
    expect(page.get_by_role("cell", name="Apple iPhone 15")).to_be_hidden()


@pytest.mark.parametrize("warning", ["no colour: none", "small: 96 x 64 pixels"])
def test_a_picture_that_gets_no_verdict_is_not_called_unstable(page: Page, warning: str) -> None:
    show_unsure(page, probability=0.03, warnings=[warning], stability=[])
    expect(page.locator("#results")).to_contain_text("it says nothing of this picture, so there is no verdict")
    expect(page.locator("#results")).not_to_contain_text("once more")


def test_an_error_rate_is_not_sold_as_the_chance_of_an_error(page: Page) -> None:
    choose(page, file("a.png", picture(255)), file("b.png", picture(0)), file("c.png", picture(128)))
    done(page, 3)
    sentence = page.get_by_text("That is not the chance that this verdict is wrong")
    expect(sentence).to_have_count(2)  # of both verdicts, not of `unsure`


def test_an_explanation_is_made_on_request_then_shown_and_hidden(browser: Browser) -> None:
    explainer = FakeExplainer()
    explainer.gate.clear()
    with running(FakeDetector(), explainer) as client:
        for page in opened(browser, client):
            choose(page, file(HOSTILE, picture(204)), file("b.png", picture(0)))
            done(page, 2)
            card = page.locator("#results > li").first
            button = card.get_by_role("button", name="Explain")
            expect(page.locator(".panels")).to_have_count(0)
            button.focus()
            page.keyboard.press("Enter")
            expect(page.get_by_role("status")).to_contain_text(f"Explaining {HOSTILE}")
            button = card.get_by_role("button", name="Explaining …")
            expect(button).to_be_focused()
            button.press("Enter")  # asks no second time
            explainer.gate.set()
            expect(page.get_by_role("status")).to_contain_text(f"{HOSTILE} is explained.")
            expect(page.locator(".panels figure")).to_have_count(1)
            image = page.get_by_role("img", name="<b>spatial</b> branch")
            assert image.evaluate("image => image.complete && image.naturalWidth") == 8
            expect(page.locator(".panels figcaption")).to_have_text("<b>spatial</b> branch Bright: <i>here</i>.")
            expect(page.locator(".panels .ends span")).to_have_text(["0", "evidence", "1"])
            card.locator("summary", has_text="Bands: 1").click()
            expect(card.get_by_role("cell", name="0 to 0.4", exact=True)).to_be_visible()
            expect(card.get_by_role("cell", name="+0.50", exact=True).first).to_be_visible()  # the effect on the logit
            expect(card.locator("caption", has_text="Frequencies")).to_contain_text(
                "part of 8 pixels at left 0, top 0."
            )
            hide = card.get_by_role("button", name="Hide the explanation")
            expect(hide).to_have_attribute("aria-expanded", "true")
            hide.click()
            expect(image).to_be_hidden()
            card.get_by_role("button", name="Explain").click()
            expect(image).to_be_visible()
            assert page.title() == "apn: AI-generated or photograph?"
            page.emulate_media(media="print")  # no page of paper ends between a picture and its words
            assert page.locator(".panels figure").evaluate("one => getComputedStyle(one).breakInside") == "avoid"
    assert len(explainer.calls) == 1


def test_without_explanations_there_is_no_button(page: Page) -> None:
    choose(page, file("a.png", picture(255)))
    done(page, 1)
    expect(page.get_by_role("button", name="Show the score of each part")).to_be_visible()
    expect(page.get_by_role("button", name="Explain")).to_have_count(0)


def test_an_explanation_that_fails_is_told_and_can_be_asked_for_again(browser: Browser) -> None:
    with running(FakeDetector(), FakeExplainer()) as client:
        for page in opened(browser, client):
            choose(page, file("a.png", picture(255)))
            done(page, 1)
            page.route("**/v1/explain", lambda route: route.fulfill(status=500, json={"detail": "a bug"}))
            page.get_by_role("button", name="Explain").click()
            expect(page.get_by_role("status")).to_contain_text("a.png could not be explained: a bug")
            expect(page.locator("#results")).to_contain_text("Could not be explained: a bug")  # where it was asked for
            page.unroute("**/v1/explain")
            page.get_by_role("button", name="Explain").click()
            expect(page.locator(".panels figure")).to_have_count(1)


def luminance(colour: str) -> float:
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(browser: Browser, client: httpx.Client, scheme: str) -> None:
    for page in opened(browser, client, color_scheme=scheme):
        choose(page, *(file(f"{red}.png", picture(red)) for red in (255, 128, 0)))
        done(page, 3)
        ground = luminance(page.locator(".card").first.evaluate("element => getComputedStyle(element).backgroundColor"))
        assert (ground < 0.1) == (scheme == "dark")
        for element in page.locator(".verdict, h3, .quiet:visible, main p:visible").all():
            ink = luminance(element.evaluate("element => getComputedStyle(element).color"))
            assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 4.5, element.text_content()  # WCAG 2.2 AA
