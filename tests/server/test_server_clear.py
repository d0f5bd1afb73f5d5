"""Clearing the web page, and having back what was cleared by mistake."""

from browsing import choose, done, file, needs_chromium, opened
from playwright.sync_api import Browser, Page, Route, expect
from serving import FakeDetector, FakeExplainer, picture, running

pytestmark = needs_chromium


def clear(page: Page) -> None:
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#results > li")).to_have_count(0)


def test_what_was_cleared_comes_back_as_it_was(browser: Browser) -> None:
    with running(FakeDetector(), FakeExplainer()) as client:
        for page in opened(browser, client):
            choose(page, file("a.png", picture(255)), file("b.png", picture(0)), file("c.txt", b"x"))
            done(page, 3, failed=1)
            page.get_by_role("button", name="Explain a.png").click()
            expect(page.locator(".panels figure")).to_have_count(1)
            page.locator("#kinds").get_by_role("button", name="Looks AI-generated").click()
            before = page.locator("#results").inner_html()
            clear(page)
            expect(page.locator("#kinds")).to_be_hidden()
            expect(page.get_by_role("status")).to_have_text(
                "3 pictures cleared. For 30 seconds, or until others are added, this can be undone."
            )
            expect(page.get_by_role("button", name="Undo")).to_be_focused()
            page.keyboard.press("Enter")
            assert page.locator("#results").inner_html() == before
            expect(page.locator("#results h3").filter(visible=True)).to_have_text(["a.png"])
            expect(page.locator("#kinds button")).to_have_text(
                ["All 3", "Looks AI-generated 1", "Looks like a photograph 1", "Unsure 0", "Not checked 1"]
            )
            expect(page.get_by_role("status")).to_have_text("2 of 3 pictures checked, 1 could not be.")
            expect(page.get_by_role("button", name="Clear all")).to_be_focused()
            expect(page.get_by_role("button", name="Undo")).to_be_hidden()
            expect(page.locator(".frame img").first).to_have_js_property("naturalWidth", 96)


def test_what_was_under_way_goes_on_when_it_comes_back(page: Page) -> None:
    asked: list[Route] = []
    page.route("**/v1/detect", lambda route: asked.append(route))
    choose(page, *(file(f"{name}.png", picture(255)) for name in "abcd"))
    expect(page.locator("[aria-busy=true]")).to_have_count(2)
    page.wait_for_timeout(100)
    clear(page)
    asked[0].continue_()  # answered meanwhile
    asked[1].fulfill(status=503, headers={"Retry-After": "0.01"}, json={"detail": "busy"})
    page.wait_for_timeout(300)
    assert len(asked) == 2  # of what was cleared nothing is asked for
    page.unroute("**/v1/detect")
    page.get_by_role("button", name="Undo").click()
    done(page, 4)
    expect(page.locator("#results h3")).to_have_text([f"{name}.png" for name in "abcd"])
    expect(page.locator(".verdict")).to_have_count(4)
    expect(page.locator("[aria-busy=true]")).to_have_count(0)


def test_what_was_cleared_is_forgotten_after_half_a_minute(page: Page) -> None:
    page.clock.install()
    page.reload()
    page.evaluate("() => { window.revoked = []; URL.revokeObjectURL = (url) => revoked.push(url); }")
    choose(page, file("a.png", picture(255)))
    done(page, 1)
    clear(page)
    undo = page.get_by_role("button", name="Undo")
    page.clock.run_for(29_000)
    expect(undo).to_be_focused()
    expect(page.get_by_role("status")).to_contain_text("1 picture cleared.")
    assert page.evaluate("revoked") == []
    page.clock.run_for(2_000)
    expect(undo).to_be_hidden()
    expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()
    expect(page.get_by_role("status")).to_be_empty()
    assert len(page.evaluate("revoked")) == 1


def test_other_pictures_end_the_undoing(page: Page) -> None:
    choose(page, file("a.png", picture(255)), file("b.png", picture(0)))
    done(page, 2)
    clear(page)
    choose(page, file("c.png", picture(255)))
    done(page, 1)
    expect(page.get_by_role("button", name="Undo")).to_be_hidden()
    expect(page.locator("#results h3")).to_have_text(["c.png"])


def test_an_answer_that_comes_after_all_was_forgotten_changes_nothing(page: Page) -> None:
    asked: list[Route] = []
    page.route("**/v1/detect", lambda route: asked.append(route), times=1)
    with page.expect_request("**/v1/detect"):
        choose(page, file("a.png", picture(255)))
    clear(page)
    choose(page, file("b.png", picture(0)))
    done(page, 1)
    asked[0].continue_()
    page.wait_for_timeout(300)
    done(page, 1)
    expect(page.locator("#results h3")).to_have_text(["b.png"])
