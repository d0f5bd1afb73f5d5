"""Many pictures on the web page: counts, one kind alone, whose a button is, and patience with a busy server."""

import re
from pathlib import Path

from browsing import choose, done, file, needs_chromium, opened
from playwright.sync_api import Browser, Dialog, Locator, Page, Route, expect
from serving import FakeDetector, FakeExplainer, picture, running

pytestmark = needs_chromium


def kind(page: Page, words: str) -> Locator:
    return page.get_by_role("group", name="Show only").get_by_role("button", name=words)


def shown(page: Page) -> Locator:
    return page.locator("#results h3").filter(visible=True)


def test_each_kind_is_counted_and_can_be_shown_alone(page: Page) -> None:
    reds = {"a": 255, "b": 0, "c": 128, "d": 250}
    choose(page, *(file(f"{name}.png", picture(red)) for name, red in reds.items()), file("e.txt", b"x"))
    done(page, 5, failed=1)
    words = ["All 5", "Looks AI-generated 2", "Looks like a photograph 1", "Unsure 1", "Not checked 1"]
    expect(page.locator("#kinds button")).to_have_text(words)
    for text, names in (
        ("Looks AI-generated", ["a.png", "d.png"]),
        ("Looks like a photograph", ["b.png"]),
        ("Unsure", ["c.png"]),
        ("Not checked", ["e.txt"]),
        ("All", ["a.png", "b.png", "c.png", "d.png", "e.txt"]),
    ):
        kind(page, text).click()
        expect(kind(page, text)).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#kinds [aria-pressed=true]")).to_have_count(1)
        expect(shown(page)).to_have_text(names)


def test_what_comes_while_one_kind_is_shown_is_counted_and_joins_its_kind(page: Page) -> None:
    choose(page, file("a.png", picture(255)), file("b.png", picture(0)))
    done(page, 2)
    expect(kind(page, "Unsure")).to_be_hidden()  # a button that shows nothing
    kind(page, "Looks AI-generated").click()
    choose(page, file("c.png", picture(255)), file("d.png", picture(128)))
    done(page, 4)
    expect(shown(page)).to_have_text(["a.png", "c.png"])
    expect(kind(page, "Unsure")).to_have_text("Unsure 1")
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#kinds")).to_be_hidden()
    choose(page, file("e.png", picture(0)))
    done(page, 1)
    expect(page.locator("#kinds")).to_be_hidden()  # of one picture the card says it all
    expect(shown(page)).to_have_text(["e.png"])


def test_a_card_that_is_checked_once_more_keeps_the_focus_whatever_is_shown(page: Page) -> None:
    page.route("**/v1/detect", lambda route: route.fulfill(status=500, json={}))
    choose(page, file("a.png", picture(255)), file("b.png", picture(255)))
    done(page, 2, failed=2)
    page.unroute("**/v1/detect")
    kind(page, "Not checked").click()
    page.get_by_role("button", name="Try again a.png").press("Enter")
    done(page, 2, failed=1)
    card = page.locator("#results > li").first
    expect(card).to_be_focused()
    expect(card).to_contain_text("Looks AI-generated")
    expect(kind(page, "Not checked")).to_have_text("Not checked 1")
    page.get_by_role("button", name="Try again b.png").focus()
    expect(shown(page)).to_have_text(["b.png"])


def test_one_kind_is_printed_with_how_many_there_are_of_all(page: Page) -> None:
    choose(page, *(file(f"{red}.png", picture(red)) for red in (255, 0, 128)))
    done(page, 3)
    kind(page, "Unsure").click()
    page.emulate_media(media="print")
    expect(shown(page)).to_have_text(["128.png"])
    expect(kind(page, "All")).to_have_text("All 3")
    expect(page.get_by_role("button", name="Show the score of each part")).to_have_count(0)


def test_the_first_of_a_kind_is_in_sight_from_far_below(page: Page) -> None:
    choose(page, *(file(f"{index}.png", picture(255 * (index % 2))) for index in range(12)))
    done(page, 12)
    page.locator("#results > li").last.scroll_into_view_if_needed()
    kinds = page.locator("#kinds").bounding_box()
    assert kinds["y"] == 0  # stays where it can be reached
    kind(page, "Looks AI-generated").click()
    first = shown(page).first.bounding_box()
    assert kinds["height"] < first["y"] < 200


def test_buttons_that_are_alike_say_of_which_picture_they_are(browser: Browser) -> None:
    with running(FakeDetector(), FakeExplainer()) as client:
        for page in opened(browser, client):
            size = (900, 200)  # wide enough to scroll
            choose(page, *(file(f"{name}.png", picture(255, size)) for name in "ab"), file("c.txt", b"x"))
            done(page, 3, failed=1)
            for name in "ab":
                page.get_by_role("button", name=f"Explain {name}.png").click()
            expect(page.locator("summary", has_text="Bands")).to_have_count(2)
            for toggle in page.get_by_role("button", name="Show the score of each part").all():
                toggle.click()
            names = reached(page)
            assert len(set(names)) == len(names)
            of_a = sorted(name.removesuffix(" a.png") for name in names if name.endswith(" a.png"))
            assert [words.split(":")[0] for words in of_a] == [
                "Bands",
                "Hide the explanation",
                "Metadata",
                "Picture, scrolls sideways where its parts are shown",
                "Scores as a table",
                "Show the score of each part",
                "Stability",
            ]
            assert of_a == sorted(name.removesuffix(" b.png") for name in names if name.endswith(" b.png"))


def reached(page: Page) -> list[str]:
    """What a screen reader says of all that the Tab key stops at: name, then description."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    return [
        f"{node['name']['value']}{node.get('description', {}).get('value', '')}"
        for node in tree
        if node["role"]["value"] != "RootWebArea"
        and any(one["name"] == "focusable" and one["value"]["value"] for one in node.get("properties", []))
    ]


def test_a_busy_server_is_asked_for_minutes(browser: Browser) -> None:
    """The first explanation opens PyTorch, which may take longer than several answers are waited for."""
    asked: list[Route] = []

    def busy(route: Route) -> None:
        asked.append(route)
        if len(asked) <= 8:
            route.fulfill(status=503, headers={"Retry-After": "0.01"}, json={"detail": "busy"})
        else:
            route.continue_()

    with running(FakeDetector(), FakeExplainer()) as client:
        for page in opened(browser, client):
            choose(page, file("a.png", picture(255)))
            done(page, 1)
            page.route("**/v1/explain", busy)
            page.get_by_role("button", name="Explain").click()
            expect(page.locator(".panels figure")).to_have_count(1)
            assert len(asked) == 9


def test_a_picture_that_was_cleared_is_not_asked_for_again(page: Page) -> None:
    asked: list[Route] = []
    page.route("**/v1/detect", lambda route: asked.append(route))
    choose(page, file("a.png", picture(255)))
    expect(page.locator("[aria-busy=true]")).to_have_count(1)
    page.wait_for_timeout(100)
    page.get_by_role("button", name="Clear all").click()
    asked[0].fulfill(status=503, headers={"Retry-After": "0.01"}, json={"detail": "busy"})
    page.wait_for_timeout(200)
    assert len(asked) == 1


def test_of_many_pictures_a_screen_reader_tells_every_tenth_part(page: Page) -> None:
    page.evaluate(
        """() => {
            window.told = [];
            const status = document.getElementById("status");
            const note = () => told.push([status.ariaLive, status.textContent]);
            new MutationObserver(note).observe(status, { childList: true });
        }"""
    )
    choose(page, *(file(f"{index}.png", picture(index)) for index in range(40)))
    done(page, 40)
    said = page.evaluate("told")
    assert len(said) > 20
    heard = [re.search(r"(\d+) of 40", text)[1] for live, text in said if live == "polite"]  # type: ignore[index]
    assert heard[0] == "0"
    assert heard[-1] == "40"
    assert len(heard) <= 11
    page.evaluate("take([], 'dropped')")
    expect(page.get_by_role("status")).to_have_attribute("aria-live", "polite")


def drop(page: Page, *paths: Path) -> None:
    """As from a file manager: a DataTransfer made by a script holds no folders."""
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for step in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": step, "x": 200, "y": 150, "data": data})


def test_the_pictures_of_a_folder_are_checked_in_their_order(page: Page, tmp_path: Path) -> None:
    names = ["a/10.png", "a/2.png", "a/b/1.png", "a/.DS_Store", "a/c/d/1.png"] + [f"many/{i}.png" for i in range(101)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(255, size=(8, 8)))
    drop(page, tmp_path / "a", tmp_path / "a" / "2.png")
    done(page, 5)
    titles = page.locator("#results h3")
    expect(titles).to_have_text(["a/2.png", "a/10.png", "a/b/1.png", "a/c/d/1.png", "2.png"])
    (tmp_path / "empty").mkdir()
    drop(page, tmp_path / "empty")
    expect(page.get_by_role("status")).to_have_text("There is no file in this folder.")
    drop(page, tmp_path / "many")  # a browser tells of a hundred at a time
    expect(titles).to_have_count(5 + 101)


def test_many_results_are_not_lost_without_a_question(page: Page) -> None:
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", stay)
    choose(page, file("a.png", picture(255)))
    done(page, 1)
    page.reload()
    assert asked == []  # one picture is soon checked again
    choose(page, *(file(f"{index}.png", picture(index)) for index in range(11)))
    done(page, 11)
    page.mouse.click(5, 5)  # browsers ask only where the page was used
    page.reload()
    assert asked == ["beforeunload"]


def test_a_busy_proxy_that_gives_a_date_is_not_asked_without_pause(page: Page) -> None:
    asked: list[Route] = []

    def busy(route: Route) -> None:
        asked.append(route)
        date = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
        route.fulfill(status=503, headers=date, json={"detail": "busy"})

    page.route("**/v1/detect", busy)
    choose(page, file("a.png", picture(255)))
    page.wait_for_timeout(500)
    assert len(asked) == 1
    page.get_by_role("button", name="Clear all").click()
