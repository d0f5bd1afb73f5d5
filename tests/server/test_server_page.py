"""The web page in headless Chromium: what a person can do with it, and that it talks to nobody else.

Run as a program (`python tests/server/test_server_page.py docs/images-of-page [apn-mini]`) it takes the screenshots of
the documentation, with the named weights or else with the fake detector.
"""

import io
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import FakeDetector, FakeExplainer, part, picture, running, wait_until

from apn.words import printable, probability_words

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Debian's chromium at {CHROMIUM}")
HOSTILE = "<img src=x onerror=document.title='broken'>.png"


def launch(playwright: Any) -> Browser:
    # Debian's package brings no sandbox that works as root, and the page under test is ours.
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    return playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(FakeDetector(), max_upload_bytes=2**20, max_request_bytes=2**21) as client:
        yield client


@pytest.fixture
def page(browser: Browser, client: httpx.Client) -> Iterator[Page]:
    yield from opened(browser, client)


def opened(browser: Browser, client: httpx.Client, **context: Any) -> Iterator[Page]:
    """The page; afterwards: no request went elsewhere, no script failed, no policy was violated."""
    home = str(client.base_url)
    with browser.new_context(**context) as tab:
        page = tab.new_page()
        page.set_default_timeout(10_000)
        requests: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Policy" in message.text else None)
        page.goto(home)
        yield page
        assert not errors
        assert {url for url in requests if not url.startswith((f"{home}/", f"blob:{home}/", "data:"))} == set()


def file(name: str, content: bytes) -> Any:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def choose(page: Page, *files: Any) -> None:
    page.locator("#files").set_input_files(list(files))


def done(page: Page, number: int) -> None:
    expect(page.get_by_role("status")).to_contain_text(f"{number} of {number} pictures checked.")


def test_limits_are_told_before_anything_is_sent(page: Page) -> None:
    expect(page.locator("#limits")).to_have_text("Up to 1 MB and 64 megapixels each.")
    expect(page.get_by_role("heading", name="What a verdict does not mean")).to_be_visible()
    expect(page.locator("#model")).to_contain_text("Model fake 1, weights sha256 000")


def test_several_pictures_get_a_card_each_in_their_order(page: Page) -> None:
    choose(
        page, file("a.png", picture(255)), file("b.png", picture(128)), file("c.png", picture(0)), file("d.txt", b"x")
    )
    done(page, 4)
    cards = page.locator("#results > li")
    for index, text in enumerate(["Looks AI-generated", "Unsure", "Looks like a photograph", "No verdict"]):
        expect(cards.nth(index).locator(".verdict")).to_have_text(text)
    expect(cards.nth(0)).to_contain_text("Probability of being AI-generated: >0.999")
    expect(cards.nth(0)).to_contain_text("at most 2 % of real photographs are called generated")
    expect(cards.nth(2)).to_contain_text(
        "At this threshold (0.3) at most 10 % of generated pictures are called photographs"
    )
    expect(cards.nth(0).locator("summary", has_text="Stability")).to_contain_text("1 of 2 re-deliveries agree")
    expect(cards.nth(0)).to_contain_text("fake <b>generator</b>", use_inner_text=False)
    shapes = {cards.nth(index).locator(".verdict path").get_attribute("d") for index in range(4)}
    assert len(shapes) == 4  # a shape each, never colour alone
    marker = cards.nth(1).locator(".marker").bounding_box()
    scale = cards.nth(1).locator(".scale").bounding_box()
    assert marker["x"] + 1.5 == pytest.approx(scale["x"] + 128 / 255 * scale["width"], abs=2)
    expect(page.locator("#progress")).to_have_attribute("max", "4")
    page.get_by_role("button", name="Clear all").click()
    expect(cards).to_have_count(0)
    expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()


def test_progress_moves_while_pictures_are_checked(browser: Browser) -> None:
    detector = FakeDetector()
    detector.gate.clear()
    with running(detector) as client:
        for page in opened(browser, client):
            choose(page, *(file(f"{index}.png", picture(index)) for index in range(5)))
            expect(page.get_by_role("status")).to_have_text("0 of 5 pictures checked.")
            expect(page.locator("[aria-busy=true]")).to_have_count(2)
            detector.gate.set()
            done(page, 5)
            expect(page.locator("[aria-busy=true]")).to_have_count(0)


def test_a_file_name_stays_text(page: Page) -> None:
    choose(page, file(HOSTILE, picture(200)))
    done(page, 1)
    expect(page.locator("#results h3")).to_have_text(HOSTILE)
    assert page.locator("#results h3 *").count() == 0
    assert page.title() == "apn: AI-generated or photograph?"


def test_names_are_shown_as_everywhere_else(page: Page) -> None:
    names = ["café 日本 😀.jpg", "9.41\u202fPM\u00a0.png", "photo\u202egpj.exe", "a\u2066b\u200bc\ufeffd\u3164e.png"]
    names += ["a\x1b[31m\n\r\t\x85\u2028.png", "a\U000e0041\\.png"]
    assert page.evaluate("names => names.map(printable)", names) == [printable(name) for name in names]
    choose(page, file("photo\u202egpj.exe", b"no picture"))
    done(page, 1)
    expect(page.locator("#results h3")).to_have_text(r"photo\u202egpj.exe")


def test_probabilities_are_written_as_everywhere_else(page: Page) -> None:
    some = [0, 0.00049, 0.0005, 0.5, 0.9994, 0.9995, 1]
    assert page.evaluate("some => some.map(score)", some) == [probability_words(one) for one in some]


def test_too_large_a_file_is_told_without_being_sent(page: Page) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    choose(page, file("large.png", bytes(2**20 + 1)))
    done(page, 1)
    expect(page.locator("#results")).to_contain_text("The file is larger than the 1 MB that this server takes.")
    assert "POST" not in sent


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_can_be_dropped_and_pasted(page: Page, way: str) -> None:
    page.evaluate(
        """([way, bytes]) => {
            const data = new DataTransfer();
            for (const name of ["one.png", "two.png"]) {
                data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            }
            const event = way === "drop"
                ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
            document.getElementById("drop").dispatchEvent(event);
        }""",
        [way, list(picture(250))],
    )
    done(page, 2)
    expect(page.locator("#results h3")).to_have_text(["one.png", "two.png"])


def test_everything_is_reached_with_the_keyboard(page: Page) -> None:
    page.on("filechooser", lambda chooser: None)  # turns interception on before the key is pressed
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([file("a.png", picture(255))])
    done(page, 1)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Clear all")).to_be_focused()
    page.keyboard.press("Tab")
    toggle = page.get_by_role("button", name="Show the score of each part")
    expect(toggle).to_be_focused()
    assert toggle.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    for name in ("Scores as a table", "Stability", "Metadata"):
        page.keyboard.press("Tab")
        summary = page.locator("summary", has_text=name)
        expect(summary).to_be_focused()
        page.keyboard.press("Enter")
        expect(summary.locator("..").get_by_role("table")).to_be_visible()
    expect(page.get_by_role("cell", name="JPEG quality 75")).to_be_visible()


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


def test_a_picture_that_the_browser_cannot_show_still_has_its_findings(page: Page) -> None:
    choose(page, file("scan.tif", picture(255, kind="TIFF")))
    done(page, 1)
    expect(page.locator(".blank")).to_contain_text("cannot show")
    expect(page.locator(".verdict")).to_have_text("Looks AI-generated")


def show_unsure(page: Page, **facts: Any) -> None:
    """What the page makes of such a row for one picture."""
    row = {"path": "a.png", "verdict": "unsure", "width": 96, "height": 64, "frames": 1, "format": "PNG", "error": None}
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


def test_what_is_no_file_is_told_and_wipes_no_message(page: Page) -> None:
    page.evaluate(
        "document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: new DataTransfer(), bubbles: true }))"
    )
    status = page.get_by_role("status")
    expect(status).to_contain_text("not a file")
    page.evaluate(
        "document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: new DataTransfer(), bubbles: true }))"
    )
    expect(status).to_contain_text("not a file")


def test_a_file_that_cannot_be_sent_is_told_in_plain_words(page: Page) -> None:
    page.route("**/v1/detect", lambda route: route.abort())
    choose(page, file("a.png", picture()))
    done(page, 1)
    expect(page.locator("#results")).to_contain_text("the server cannot be reached, or the file cannot be read")


def test_a_server_that_comes_back_checks_what_waits(page: Page) -> None:
    page.route("**/v1/model", lambda route: route.abort(), times=1)
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("Trying again")
    choose(page, file("a.png", picture()))
    done(page, 1)


def test_small_limits_are_no_zeros(browser: Browser) -> None:
    limits = {"max_upload_bytes": 500 * 2**10, "max_pixels": 500_000}
    with running(FakeDetector(), **limits) as client:
        for page in opened(browser, client):
            expect(page.locator("#limits")).to_have_text("Up to 500 kB and 0.5 megapixels each.")


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


def test_a_phone_never_scrolls_sideways(browser: Browser, client: httpx.Client) -> None:
    for page in opened(browser, client, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True):
        choose(
            page, file("x" * 120 + ".png", picture(255, size=(900, 600))), file("tall.png", picture(9, size=(50, 900)))
        )
        done(page, 2)
        for button in page.get_by_role("button", name="Show the score of each part").all():
            button.tap()
        for summary in page.locator("summary").all():
            summary.tap()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        for button in page.get_by_role("button").all():
            assert button.bounding_box()["height"] >= 44  # a finger's width


def test_a_locked_server_asks_for_its_token(browser: Browser) -> None:
    with running(FakeDetector(), token="open-sesame") as client:
        for page in opened(browser, client):
            expect(page.get_by_label("Access token")).to_be_focused()
            choose(page, file("early.png", picture(255)))
            page.get_by_label("Access token").fill("wrong")
            page.keyboard.press("Enter")
            expect(page.locator("#door-text")).to_contain_text("did not accept")
            page.get_by_label("Access token").fill("open-sesame")
            page.get_by_role("button", name="Use token").click()
            done(page, 1)
            expect(page.get_by_label("Access token")).to_be_hidden()


def test_an_accepted_token_is_not_asked_for_any_more(browser: Browser) -> None:
    with running(FakeDetector(), token="open-sesame") as client:
        for page in opened(browser, client):
            expect(page.get_by_role("status")).to_have_text("Please enter the access token.")
            page.get_by_label("Access token").fill("open-sesame")
            page.keyboard.press("Enter")
            expect(page.get_by_label("Access token")).to_be_hidden()
            expect(page.get_by_role("status")).to_have_text("")


def test_a_full_queue_is_asked_again(browser: Browser) -> None:
    detector = FakeDetector()
    detector.gate.clear()
    with running(detector, queue_images=1, max_files=1, batch_images=1, retry_after_s=1) as client:
        filler = threading.Thread(target=client.post, args=["/v1/detect"], kwargs={"files": [part(picture())]})
        filler.start()
        wait_until(lambda: detector.calls)
        for page in opened(browser, client):
            with page.expect_response(lambda response: response.status == 503):
                choose(page, *(file(f"{index}.png", picture(255)) for index in range(3)))
            detector.gate.set()
            done(page, 3)
            assert page.locator(".verdict.generated").count() == 3
        filler.join()


def screenshots(folder: Path, weights: str | None) -> None:
    """Desktop in light and dark, and a phone, of pictures that scikit-image carries."""
    import skimage.data
    from PIL import Image

    detector: Any = FakeDetector()
    explainer: Any = FakeExplainer()
    if weights:
        import apn
        from apn.backends import find_weights
        from apn.server.explainer import LazyExplainer

        detector = apn.load(weights=weights, device="cpu")
        explainer = LazyExplainer(find_weights(weights), detector)
    folder.mkdir(parents=True, exist_ok=True)
    uploads = []
    for name in ("astronaut", "coffee", "rocket"):
        buffer = io.BytesIO()
        Image.fromarray(getattr(skimage.data, name)()).save(buffer, "JPEG", quality=92)
        uploads.append({"name": f"{name}.jpg", "mimeType": "image/jpeg", "buffer": buffer.getvalue()})
    desktop = {"width": 1100, "height": 900}
    views: dict[str, tuple[int, dict[str, Any]]] = {  # name -> pictures, how the browser is set up
        "desktop": (3, {"viewport": desktop}),
        "explained": (1, {"viewport": desktop}),
        "dark": (2, {"viewport": desktop, "color_scheme": "dark"}),
        "phone": (1, {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "device_scale_factor": 1.5}),
    }
    with running(detector, explainer) as client, sync_playwright() as playwright:
        browser = launch(playwright)
        for view, (number, context) in views.items():
            for page in opened(browser, client, **context):
                choose(page, *uploads[:number])
                expect(page.get_by_role("status")).to_contain_text(f"{number} of {number} pictures", timeout=60_000)
                if view == "explained":
                    page.get_by_role("button", name="Explain").click()
                    expect(page.get_by_role("status")).to_contain_text("is explained", timeout=120_000)
                else:
                    page.get_by_role("button", name="Show the score of each part").first.click()
                page.locator("summary", has_text=re.compile("Stability|Metadata")).first.click()
                image = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
                image.save(folder / f"{view}.webp", quality=90, method=6)  # a quarter of a PNG; 256 colours are too few
        browser.close()


if __name__ == "__main__":
    screenshots(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
