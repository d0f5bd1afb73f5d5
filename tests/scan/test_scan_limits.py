"""One file of a scan cannot take all memory: those in tars, in tables and at addresses have a limit."""

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from scanning import here, manifest_of, picture, plan_of, rows_of, scan_with
from test_scan_sources import listed, write_tar

from apn.image import ImageError
from apn.scan import fetching
from apn.scan.entries import File
from apn.scan.files import Store
from apn.scan.images import Image, images_in
from apn.scan.manifest import claim
from apn.scan.sample import draw_sample
from apn.scan.worker import Reading

RED = picture(255)
LARGE = RED + bytes(1000)  # a picture all the same: what follows its end is ignored
LIMIT = len(RED) + 100


class Endless(BaseHTTPRequestHandler):
    """/endless never ends and has no length, /turn leads to itself, anything else is RED. Ranges are not known."""

    def do_GET(self) -> None:
        turn = self.path == "/turn"
        self.send_response(302 if turn else 200)
        self.send_header("Location", self.path) if turn else None
        self.end_headers()
        try:
            self.wfile.write(RED)
            while self.path == "/endless":
                self.wfile.write(bytes(1 << 16))
        except OSError:
            self.server.left.set()  # type: ignore[attr-defined]

    def log_message(self, format: str, *arguments: object) -> None:
        """The tests' own output says enough."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as running:
        running.left = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def outcome(image: Image) -> str:
    try:
        image.load()
    except ImageError as error:
        return str(error)
    return "loaded"


TOO_LARGE = f"the file has {len(LARGE):,} bytes, more than the limit of {LIMIT:,} (--max-bytes)"
TOO_LONG = f"the file has more than the limit of {LIMIT:,} bytes (--max-bytes)"


def test_a_large_member_is_a_row_and_those_beside_it_are_read(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"0.png": RED, "1.png": LARGE, "2.png": RED})
    expected = ["loaded", TOO_LARGE, "loaded"]
    assert [outcome(image) for image in images_in(listed(tar), LIMIT)] == expected
    drawn = sorted(draw_sample(listed(tar), 3, seed=0).entries)
    assert [outcome(image) for image in images_in(drawn, LIMIT)] == expected


def test_a_sparse_member_that_says_it_is_huge_is_not_unpacked(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("0.png")
        info.size = 512
        info.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.name": "0.png",
            "GNU.sparse.map": "0,512",
            "GNU.sparse.size": str(1 << 40),
        }
        tar.addfile(info, io.BytesIO(bytes(512)))
    (image,) = images_in(listed(tmp_path / "a.tar"))
    assert image.error == "the file has 1,099,511,627,776 bytes, more than the limit of 134,217,728 (--max-bytes)"


def test_a_large_cell_is_a_row(tmp_path):
    pq.write_table(pa.table({"image": [RED, LARGE, None]}), tmp_path / "t.parquet")
    found = [outcome(image) for image in images_in(listed(tmp_path / "t.parquet"), LIMIT)]
    assert found == ["loaded", TOO_LARGE, "expected an image, found an empty cell"]


def test_a_large_file_at_an_address_is_a_row_and_one_of_this_machine_is_read(tmp_path):
    file_system = fsspec.filesystem("memory")
    file_system.pipe_file("/limits/a.png", LARGE)
    (tmp_path / "a.png").write_bytes(LARGE)
    entries = [File("memory://limits/a.png"), File(str(tmp_path / "a.png")), File(f"file://{tmp_path}/a.png")]
    assert [outcome(image) for image in images_in(entries, LIMIT)] == [TOO_LONG, "loaded", "loaded"]


def test_an_answer_without_an_end_is_left_and_one_that_turns_in_circles_says_so(server):
    address = f"http://127.0.0.1:{server.server_port}"
    entries = [File(f"{address}/{name}") for name in ("endless", "a.png", "turn")]
    endless, image, turn = (outcome(image) for image in images_in(entries, LIMIT))
    assert (endless, image) == (TOO_LONG, "loaded")
    assert turn.startswith("cannot be fetched (redirected 1")
    assert server.left.wait(10), "the connection is closed, not read on"


def test_an_empty_object_of_a_store_that_refuses_ranges_of_it_is_empty():
    class Refusing(MemoryFileSystem):
        cachable = False

        def cat_file(self, path, start=None, end=None, **kwargs):
            raise OSError(22, "The requested range is not satisfiable")

    file_system = Refusing()
    file_system.pipe_file("/limits/empty.png", b"")
    file_system.pipe_file("/limits/full.png", RED)
    assert fetching.start_of(file_system, "/limits/empty.png", LIMIT) == b""
    with pytest.raises(OSError, match="not satisfiable"):
        fetching.start_of(file_system, "/limits/full.png", LIMIT)


def test_a_scan_goes_on_behind_a_large_file(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"0.png": LARGE, "1.png": RED})
    plan = plan_of(tmp_path / "out", tmp_path / "openings", reading=Reading(max_bytes=LIMIT))
    summary = scan_with(here, tar, plan)
    assert summary.errors == {"the file has N bytes, more than the limit of N (--max-bytes)": 1}
    assert [row["error"] for row in rows_of(tmp_path / "out")] == [TOO_LARGE, None]


def test_a_scan_that_was_begun_before_there_was_the_limit_may_go_on(tmp_path):
    store, ours = Store(str(tmp_path)), manifest_of(["/a"])
    claim(store, ours, resume=False)
    earlier = json.loads(store.read("scan.json") or b"")
    del earlier["max_bytes"]
    store.write("scan.json", json.dumps(earlier).encode())
    store.write("shards/000000.jsonl", b"")
    claim(store, ours, resume=True)
    with pytest.raises(ValueError, match="max_bytes: expected 1, found 134217728"):
        claim(store, ours.model_copy(update={"max_bytes": 1}), resume=True)
