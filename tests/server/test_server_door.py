"""Who may ask: tokens, foreign hosts, foreign pages, and the start that is refused."""

import re
from collections.abc import Iterator
from urllib.parse import urljoin

import httpx
import pytest
from serving import FakeDetector, part, picture, running

from apn.server import ServerSettings

TOKEN = "correct-horse"


@pytest.fixture(scope="module")
def locked() -> Iterator[httpx.Client]:
    with running(FakeDetector(), token=TOKEN) as client:
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(FakeDetector()) as client:
        yield client


@pytest.mark.parametrize("given", [None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ü", ""])
def test_without_the_token_there_is_nothing_but_page_docs_and_health(locked: httpx.Client, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.encode()}
    for method, path in (("GET", "/v1/model"), ("GET", "/metrics"), ("POST", "/v1/detect"), ("GET", "/nowhere")):
        answer = locked.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/", "/docs", "/openapi.json", "/healthz"):
        assert locked.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_opens(locked: httpx.Client, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {TOKEN}"}
    assert locked.get("/v1/model", headers=headers).status_code == 200
    assert locked.get("/metrics", headers=headers).status_code == 200
    assert locked.post("/v1/detect", headers=headers, files=[part(picture())]).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[broken"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_foreign_page_cannot_post(client: httpx.Client, headers: dict[str, str]) -> None:
    assert client.post("/v1/detect", files=[part(picture())], headers=headers).status_code == 403


def test_our_own_page_can_post(client: httpx.Client) -> None:
    headers = {"Origin": f"http://{client.base_url.netloc.decode()}", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/detect", files=[part(picture())], headers=headers).status_code == 200


def test_pages_ask_for_what_lies_beside_them_so_that_a_proxy_may_put_them_under_a_path(client: httpx.Client) -> None:
    for page, least in (("/", 4), ("/docs", 2)):
        paths = re.findall(r'(?:href=|\bask\(|\bpost\()"(?!#|data:)([^"]*)"', client.get(page).text)
        assert len(paths) >= least
        for path in paths:
            before, _, rest = urljoin(f"https://newsroom.example/apn{page}", path).partition("/apn/")
            assert (before, client.get(f"/{rest}").status_code) in (
                ("https://newsroom.example", 200),
                ("https://newsroom.example", 405),
            )


def test_nothing_is_redirected(client: httpx.Client) -> None:
    """Behind a proxy that speaks HTTPS an address made here would send a client and its token to plain HTTP."""
    assert client.get("/v1/model/", follow_redirects=False).status_code == 404


def test_a_proxy_that_passes_no_host_on_is_told_of(client: httpx.Client) -> None:
    headers = {"Origin": "https://newsroom.example", "Host": "127.0.0.1:8000"}
    answer = client.post("/v1/detect", files=[part(picture())], headers=headers)
    assert (answer.status_code, "(a reverse proxy has to pass Host on)" in answer.json()["detail"]) == (403, True)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST", 200),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("[broken", 403),
        ("", 403),
    ],
)
def test_a_name_rebound_to_this_machine_is_refused(client: httpx.Client, host: str, status: int) -> None:
    assert client.get("/v1/model", headers={"Host": host}).status_code == status


def test_allowed_hosts_replace_the_loopback_names() -> None:
    with running(FakeDetector(), allowed_hosts=("Check.Newsroom.example",)) as client:
        assert client.get("/healthz", headers={"Host": "check.newsroom.example"}).status_code == 200
        assert client.get("/healthz").status_code == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "", "newsroom.example"])
def test_an_open_address_needs_a_token_or_insecure(host: str) -> None:
    with pytest.raises(ValueError, match=r"expected a token, found none.*--insecure"):
        ServerSettings(host=host)
    ServerSettings(host=host, token="secret")
    ServerSettings(host=host, insecure=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_loopback_address_needs_none(host: str) -> None:
    assert ServerSettings(host=host).token is None


def test_the_token_stays_out_of_repr_and_must_be_visible() -> None:
    assert TOKEN not in repr(ServerSettings(token=TOKEN))
    with pytest.raises(ValueError, match="queue_images") as refused:
        ServerSettings(token=TOKEN, queue_images=1)
    assert TOKEN not in str(refused.value)
    for bad in ("", "  ", "two words", "ü"):
        with pytest.raises(ValueError, match="printable ASCII"):
            ServerSettings(token=bad)
