"""What the tests of the web page share: the page in headless Chromium, and pictures chosen in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
from playwright.sync_api import Browser, Page, expect  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Debian's chromium at {CHROMIUM}")
HOSTILE = "<img src=x onerror=document.title='broken'>.png"


def launch(playwright: Any) -> Browser:
    # Debian's package brings no sandbox that works as root, and the page under test is ours.
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    return playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)


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


def done(page: Page, number: int, failed: int = 0) -> None:
    lost = f", {failed} could not be" if failed else ""
    expect(page.get_by_role("status")).to_contain_text(f"{number - failed} of {number} pictures checked{lost}.")
