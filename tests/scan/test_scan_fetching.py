"""Images and tables that other machines hold: what is tried again, and what becomes of those that do not come."""

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NoReturn

import aiohttp
import fsspec
import pytest
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.memory import MemoryFileSystem
from scanning import here, picture, plan_of, rows_of, scan_with

from apn.image import ImageError
from apn.scan import fetching
from apn.scan.entries import File, Member, Rows
from apn.scan.files import Store, open_address
from apn.scan.images import images_in
from apn.scan.sources import Source, find_sources, list_entries

RED = picture(255)
REFUSED = "127.0.0.1:1"  # nobody listens on port 1


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSES_S", (0.0, 0.0, 0.0))


class Server(ThreadingHTTPServer):
    """GET /503/2/x.png: 503 for the first two requests, then a picture; HEAD always finds it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.requests: Counter[str] = Counter()
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._send(200)

    def do_GET(self) -> None:
        _, status, times, _ = self.path.split("/")
        self.server.requests[self.path] += 1
        failing = self.server.requests[self.path] <= int(times)
        cut = status == "cut"  # the connection ends before the picture does
        self._send(int(status) if failing and not cut else 200)
        if cut or not failing:
            self.wfile.write(RED[:20] if failing else RED)

    def _send(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(RED) if status == 200 else 0))
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """The tests' own output says enough."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("status", ["429", "500", "503", "cut"])
def test_what_may_pass_is_tried_again(server, status):
    (image,) = images_in([File(f"{server.address}/{status}/2/x.png")])
    assert image.load(digest=True).pixels[0, 0, 0] == 255
    assert (set(server.requests.values()), len(image.sha256)) == ({3}, 64)


@pytest.mark.parametrize(
    ("status", "requests", "message"),
    [
        ("403", 1, r"^cannot be fetched \(HTTP 403 Forbidden\)$"),
        ("404", 1, "^no such file$"),
        ("429", 4, r"^cannot be fetched \(HTTP 429 Too Many Requests\)$"),
        ("503", 4, r"^cannot be fetched \(HTTP 503 Service Unavailable\)$"),
        ("cut", 4, r"^cannot be fetched \(Response payload is not completed: "),
    ],
)
def test_what_does_not_pass_is_said_and_only_what_may_pass_is_asked_for_again(server, status, requests, message):
    (image,) = images_in([File(f"{server.address}/{status}/99/x.png")])
    with pytest.raises(ImageError, match=message):
        image.load()
    assert list(server.requests.values()) == [requests]


@pytest.mark.parametrize("protocol", ["ftp", "http"])
def test_a_host_that_cannot_be_reached_costs_its_images_only(tmp_path, protocol):
    """FTP connects when its file system is made, HTTP when a file is read."""
    (tmp_path / "a.png").write_bytes(RED)
    (tmp_path / "list.txt").write_text(f"a.png\n{protocol}://{REFUSED}/x.png\n{protocol}://{REFUSED}/x.tar\na.png\n")
    summary = scan_with(here, tmp_path / "list.txt", plan_of(tmp_path / "out", tmp_path / "openings"))
    errors = [row["error"] for row in rows_of(tmp_path / "out")]
    assert (summary.images, summary.failed, errors[0], errors[-1]) == (4, 2, None, None)
    assert errors[1].startswith("cannot be fetched (")
    assert "refused" in errors[1] or "Connect call failed" in errors[1]
    assert "/x.tar cannot be read: " in errors[2]


def test_members_of_a_tar_that_cannot_be_reached_and_protocols_without_a_package_are_rows():
    member = Member(f"ftp://{REFUSED}/x.tar", "a.png", 512, 10)
    images = list(images_in([member, File("nothing://bucket/a.png")]))
    assert images[0].name == f"ftp://{REFUSED}/x.tar#a.png"
    assert "refused" in images[0].error
    assert "expected a path, or an address whose package is installed" in images[1].error


def test_a_table_whose_server_fails_midway_is_a_row_for_each_of_its_rows(server):
    """Its error is aiohttp's, which is no OSError."""
    images = list(images_in([Rows(f"{server.address}/503/99/t.parquet", "image", 0, 2)]))
    assert len(images) == 2
    assert all("cannot be read: 503" in image.error for image in images)


def test_a_source_that_cannot_be_reached_is_a_users_error():
    with pytest.raises(ValueError, match=rf"'ftp://{REFUSED}/x.jpg' cannot be reached: .*refused"):
        open_address(f"ftp://{REFUSED}/x.jpg")


class Closed(MemoryFileSystem):
    """An object store that lets nobody in; its error is its package's own, and `exists` keeps it to itself."""

    protocol = "closed"

    def _refuse(self, *arguments: object, **options: object) -> NoReturn:
        raise RuntimeError("Unable to locate credentials")

    def exists(self, path: str, **options: object) -> bool:
        return False

    info = ls = cat_file = pipe_file = rm_file = mv = open = _refuse


def test_a_store_that_lets_nobody_in_is_named_with_its_reason():
    fsspec.register_implementation("closed", Closed, clobber=True)
    store = Store("closed://bucket/out")
    attempts = {
        "bucket/list.parquet": lambda: find_sources(["closed://bucket/list.parquet"]),
        "bucket/x": lambda: list(list_entries([Source("list", Closed(), "/bucket/x")])),
        "bucket/out/a": lambda: store.write("a", b""),
        "bucket/out/b": lambda: store.read("b"),
        "bucket/out/c": lambda: store.open("c"),
        "bucket/out/d": lambda: store.remove("d"),
        "bucket/out/e": lambda: store.names("e"),
        "bucket/out/g": lambda: store.rename("f", "g"),
    }
    for place, attempt in attempts.items():
        with pytest.raises(ValueError, match=rf"^'?closed://.*{place}'? cannot be (reached|read): Unable to locate"):
            attempt()


@pytest.mark.parametrize("error", [TimeoutError(), FSTimeoutError(), aiohttp.ServerTimeoutError()])
def test_who_does_not_answer_in_time_is_not_waited_for_again(error):
    """After 30 s to connect, or 5 minutes: four times that for each address of a dead host would end no scan."""
    tries = 0

    def get() -> bytes:
        nonlocal tries
        tries += 1
        raise error

    with pytest.raises(ImageError, match=r"^cannot be fetched \(no answer in time\)$"):
        fetching.patiently(get)
    assert tries == 1
