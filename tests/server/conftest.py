"""The web page, opened in a browser for each test."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import pytest
from serving import FakeDetector, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from browsing import launch, sync_api

    with sync_api.sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(FakeDetector(), max_upload_bytes=2**20, max_request_bytes=2**21) as client:
        yield client


@pytest.fixture
def page(browser: "Browser", client: httpx.Client) -> "Iterator[Page]":
    from browsing import opened

    yield from opened(browser, client)
