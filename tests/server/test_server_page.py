"""The web page in headless Chromium: the ways in, what it says meanwhile, and that it talks to nobody else."""

import hashlib
import re
import threading

import httpx
import pytest
from browsing import choose, done, file, needs_chromium, opened
from playwright.sync_api import Browser, Page, Route, expect
from serving import FakeDetector, part, picture, running, wait_until

pytestmark = needs_chromium


def test_limits_are_told_before_anything_is_sent(page: Page) -> None:
    expect(page.locator("#limits")).to_have_text("Up to 1 MB and 64 megapixels each.")
    expect(page.get_by_role("heading", name="What a verdict does not mean")).to_be_visible()
    expect(page.locator("#model")).to_contain_text("Model fake 1, weights sha256 000")


def test_the_page_is_one_document(page: Page, client: httpx.Client) -> None:
    """Its style and scripts are files of the package, and stand in it."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(str(client.base_url))))
    page.reload()
    expect(page.locator("#model")).to_contain_text("weights sha256")
    assert asked == ["/", "/v1/model"]


def test_several_pictures_get_a_card_each_in_their_order(page: Page) -> None:
    choose(
        page, file("a.png", picture(255)), file("b.png", picture(128)), file("c.png", picture(0)), file("d.txt", b"x")
    )
    done(page, 4, failed=1)
    cards = page.locator("#results > li")
    for index, text in enumerate(["Looks AI-generated", "Unsure", "Looks like a photograph", "Not checked"]):
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
    expect(page.get_by_role("button", name="Undo")).to_be_focused()


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


def test_too_large_a_file_is_told_without_being_sent(page: Page) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    choose(page, file("large.png", bytes(2**20 + 1)))
    done(page, 1, failed=1)
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


def test_what_was_said_before_the_model_came_stays(page: Page) -> None:
    held: list[Route] = []
    page.route("**/v1/model", lambda route: held.append(route), times=1)
    with page.expect_request("**/v1/model"):
        page.reload()
    page.evaluate(
        "document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: new DataTransfer(), bubbles: true }))"
    )
    expect(page.get_by_role("status")).to_contain_text("not a file")
    held[0].continue_()
    expect(page.locator("#model")).to_contain_text("weights sha256")
    expect(page.get_by_role("status")).to_contain_text("not a file")


def test_a_file_that_cannot_be_sent_is_told_in_plain_words(page: Page) -> None:
    page.route("**/v1/detect", lambda route: route.abort())
    choose(page, file("a.png", picture()))
    done(page, 1, failed=1)
    expect(page.locator("#results")).to_contain_text("No answer: the server cannot be reached.")


def test_a_folder_is_told_from_a_server_that_is_gone(page: Page) -> None:
    page.evaluate(
        """() => {
            const folder = new File([], "holiday");
            folder.arrayBuffer = () => Promise.reject(new DOMException("", "NotReadableError"));  // as of a folder
            add([folder]);
        }"""
    )
    done(page, 1, failed=1)
    expect(page.locator("#results")).to_contain_text("it is a folder, or was moved or changed")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


def test_a_server_that_has_other_weights_since_is_asked_for_their_thresholds(page: Page, client: httpx.Client) -> None:
    older = client.get("/v1/model").json()
    older |= {"version": "0", "sha256": "1" * 64, "checked_thresholds": {"real_below": 0.1, "generated_from": 0.95}}
    page.route("**/v1/model", lambda route: route.fulfill(json=older), times=1)
    page.reload()
    expect(page.locator("#model")).to_contain_text("Model fake 0, weights sha256 111")
    choose(page, file("a.png", picture(204)))
    done(page, 1)
    expect(page.locator("#model")).to_contain_text("Model fake 1, weights sha256 000")
    expect(page.locator("#results")).to_contain_text("generated: from 0.7")
    expect(page.locator(".record")).to_contain_text("by fake 1, weights 000")


def test_what_was_said_can_be_kept(page: Page) -> None:
    content = picture(255)
    choose(page, file("a.png", content), file("d.txt", b"x"))
    done(page, 2, failed=1)
    records = page.locator(".record")
    for index, one in enumerate([content, b"x"]):
        expect(records.nth(index)).to_have_text(
            re.compile(
                r"Checked \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC by fake 1, weights 0{12}\. "
                rf"File of {len(one)} bytes, sha256 {hashlib.sha256(one).hexdigest()}\."
            )
        )


def test_a_printed_page_holds_what_is_folded_and_its_colours(page: Page) -> None:
    choose(page, file("a.png", picture(255)))
    done(page, 1)
    folded = page.locator("#results details")
    closed = folded.evaluate_all("all => all.map((one) => one.open)")
    assert not all(closed)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert all(folded.evaluate_all("all => all.map((one) => one.open)"))
    page.emulate_media(media="print", color_scheme="dark")
    for selector, style, value in (
        (":root", "colorScheme", "light only"),
        (".zone.generated", "printColorAdjust", "exact"),
        ("#results h3", "color", "rgb(29, 31, 33)"),
    ):
        assert page.locator(selector).first.evaluate(f"one => getComputedStyle(one).{style}") == value
    for button in page.get_by_role("button", include_hidden=True).all():
        expect(button).to_be_hidden()
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert folded.evaluate_all("all => all.map((one) => one.open)") == closed


@pytest.mark.parametrize(
    ("way", "name", "told"), [("paste", "image.png", 1), ("paste", "a.png", 0), ("drop", "image.png", 0)]
)
def test_a_copied_picture_is_said_to_be_no_original(page: Page, way: str, name: str, told: int) -> None:
    page.evaluate(
        """([way, name, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            document.body.dispatchEvent(way === "drop"
                ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
        }""",
        [way, name, list(picture(250))],
    )
    done(page, 1)
    expect(page.locator(".warning", has_text="Pasted: the browser saved the copied picture anew")).to_have_count(told)


def test_text_that_is_pasted_is_told_but_not_in_the_token(page: Page) -> None:
    paste = """id => document.getElementById(id).dispatchEvent(
        new ClipboardEvent("paste", { clipboardData: new DataTransfer(), bubbles: true }))"""
    page.evaluate(paste, "token")
    expect(page.get_by_role("status")).to_have_text("")
    page.evaluate(paste, "drop")
    expect(page.get_by_role("status")).to_contain_text("What was pasted is not a file")


def test_without_javascript_the_page_says_so(browser: Browser, client: httpx.Client) -> None:
    for page in opened(browser, client, java_script_enabled=False):
        expect(page.locator("noscript p")).to_be_visible()


@pytest.mark.parametrize("lost", [None, 500])
def test_a_picture_without_an_answer_can_be_checked_once_more(page: Page, lost: int | None) -> None:
    page.route("**/v1/detect", lambda route: route.fulfill(status=lost, json={}) if lost else route.abort())
    choose(page, file("a.png", picture(255)), file("large.png", bytes(2**20 + 1)))
    done(page, 2, failed=2)
    again = page.get_by_role("button", name="Try again")
    expect(again).to_have_count(1)  # a file that is too large stays so
    page.unroute("**/v1/detect")
    again.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#results > li").first).to_be_focused()
    done(page, 2, failed=1)
    expect(page.locator("#results > li").first).to_contain_text("Looks AI-generated")
    expect(again).to_have_count(0)


def test_a_server_that_comes_back_checks_what_waits(page: Page) -> None:
    page.route("**/v1/model", lambda route: route.abort(), times=1)
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("Trying again")
    choose(page, file("a.png", picture()))
    done(page, 1)


def test_pictures_wait_for_a_server_that_is_gone(page: Page) -> None:
    page.route("**/v1/*", lambda route: route.abort())
    choose(page, *(file(f"{index}.png", picture(255)) for index in range(6)))
    status, again = page.get_by_role("status"), page.get_by_role("button", name="Try again")
    expect(status).to_contain_text("4 of 6 pictures wait until it can. Trying again")
    expect(again).to_have_count(2)  # those that were under way
    page.unroute("**/v1/*")
    done(page, 6, failed=2)
    again.first.click()
    done(page, 6, failed=1)


def test_an_answer_that_comes_while_the_token_is_asked_for_is_shown(page: Page) -> None:
    held: list[Route] = []
    page.route("**/v1/detect", lambda route: held.append(route))
    choose(page, file("a.png", picture(255)), file("b.png", picture(255)))
    expect(page.locator("[aria-busy=true]")).to_have_count(2)
    page.wait_for_timeout(100)
    refused, answered = held  # of which picture each is, nobody promises: both are on their way at once
    refused.fulfill(status=401, json={})
    expect(page.get_by_label("Access token")).to_be_focused()
    answered.continue_()
    cards = page.locator("#results > li")
    expect(cards.filter(has_text="Looks AI-generated")).to_have_count(1)
    expect(cards.and_(page.locator("[aria-busy=true]"))).to_have_count(1)
    expect(page.get_by_role("status")).to_contain_text("1 of 2 pictures checked.")


def test_small_limits_are_no_zeros(browser: Browser) -> None:
    limits = {"max_upload_bytes": 500 * 2**10, "max_pixels": 500_000}
    with running(FakeDetector(), **limits) as client:
        for page in opened(browser, client):
            expect(page.locator("#limits")).to_have_text("Up to 500 kB and 0.5 megapixels each.")


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
