"""Batching, order, back pressure, time limits, leaving clients, and the graceful stop."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fastapi import HTTPException, Request
from serving import FakeDetector, answers, part, picture, running, wait_until

from apn.server.metrics import Metrics
from apn.server.queue import Batcher, QueueFullError
from apn.server.settings import ServerSettings
from apn.server.uploads import Upload, UploadReader, _Form


def queue_images(client: httpx.Client) -> float:
    """The gauge of images that wait."""
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("apn_queue_images "))


def post(client: httpx.Client, *reds: int, **options: object) -> httpx.Response:
    return client.post("/v1/detect", files=[part(picture(red), f"{red}.png") for red in reds], **options)  # type: ignore[arg-type]


def test_requests_share_batches() -> None:
    detector = FakeDetector()
    detector.gate.clear()
    with running(detector, batch_images=4) as client, ThreadPoolExecutor(9) as pool:
        first = pool.submit(post, client, 1)
        wait_until(lambda: detector.calls)
        others = [pool.submit(post, client, red) for red in range(2, 10)]
        wait_until(lambda: queue_images(client) == 8)
        detector.gate.set()
        assert {future.result().status_code for future in (first, *others)} == {200}
    assert [size for size, _ in detector.calls] == [1, 4, 4]


def test_a_batch_has_one_stability_setting() -> None:
    detector = FakeDetector()
    with running(detector, batch_wait_s=0.3) as client, ThreadPoolExecutor(4) as pool:
        settings = (True, False, True, False)
        answers = list(pool.map(lambda value: post(client, 9, params={"stability": value}).json(), settings))
    assert sorted(detector.calls) == [(2, False), (2, True)]
    assert [bool(answer["detections"][0]["stability"]) for answer in answers] == list(settings)


def test_rows_keep_their_order_and_their_file_under_concurrency() -> None:
    def ask(offset: int) -> None:
        reds = [(offset * 37 + step * 11) % 256 for step in range(offset % 5 + 1)]
        files = [part(picture(red) if red % 7 else b"bad", f"{red}.png") for red in reds]
        answer = client.post("/v1/detect", files=files)
        assert answer.status_code == (422 if reds == [0] or (len(reds) == 1 and reds[0] % 7 == 0) else 200)
        for red, row in zip(reds, answer.json()["detections"], strict=True):
            assert row["path"] == f"{red}.png"
            assert row["probability"] == (pytest.approx(red / 255) if red % 7 else None)

    detector = FakeDetector()
    with running(detector, queue_images=600) as client, ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, range(120)))
    assert max(size for size, _ in detector.calls) > 1


def test_an_image_that_breaks_the_detector_costs_only_its_own_request() -> None:
    with running(FakeDetector(), batch_wait_s=0.3) as client, ThreadPoolExecutor(3) as pool:
        futures = [
            pool.submit(client.post, "/v1/detect", files=[part(picture(9, green=green))]) for green in (0, 255, 0)
        ]
        assert [future.result().status_code for future in futures] == [200, 500, 200]


def test_a_full_queue_is_503_with_retry_after_and_takes_all_or_nothing() -> None:
    detector = FakeDetector()
    detector.gate.clear()
    with running(detector, queue_images=3, max_files=3, batch_images=1, retry_after_s=7) as client:
        with ThreadPoolExecutor(2) as pool:
            begun = pool.submit(post, client, 1)
            wait_until(lambda: detector.calls)
            waiting = pool.submit(post, client, 2, 3)
            wait_until(lambda: queue_images(client) == 2)
            refused = post(client, 4, 5)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "7")
            assert queue_images(client) == 2
            detector.gate.set()
            assert begun.result().status_code == waiting.result().status_code == 200
        assert post(client, 4, 5).status_code == 200
    assert sum(size for size, _ in detector.calls) == 5


def test_a_full_queue_refuses_before_the_body() -> None:
    detector = FakeDetector()
    detector.gate.clear()
    with running(detector, queue_images=1, max_files=1, batch_images=1) as client, ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(post, client, 1)]
        wait_until(lambda: detector.calls)
        futures.append(pool.submit(post, client, 2))
        wait_until(lambda: queue_images(client) == 1)
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=10) as connection:
            connection.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
            assert b" 503 " in connection.recv(4096)
        detector.gate.set()
        assert [future.result().status_code for future in futures] == [200, 200]


def test_uploads_held_in_memory_are_bounded() -> None:
    detector = FakeDetector()
    detector.gate.clear()
    content = picture(8, size=(100, 100), kind="BMP")  # 30,054 bytes
    limits = {"max_upload_bytes": 40_000, "max_request_bytes": 40_000, "max_held_bytes": 50_000}
    with running(detector, **limits) as client, ThreadPoolExecutor(1) as pool:
        held = pool.submit(client.post, "/v1/detect", files=[part(content)])
        wait_until(lambda: detector.calls)
        assert client.post("/v1/detect", files=[part(content)]).status_code == 503
        detector.gate.set()
        assert held.result().status_code == 200
        assert client.post("/v1/detect", files=[part(content)]).status_code == 200
        assert "apn_held_bytes 0.0" in client.get("/metrics").text


@pytest.mark.parametrize("end", [b"--x--\r\n", b""])
def test_uploads_are_forgotten_at_the_end_of_the_request(monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    """At once: the garbage collector, for which the form would wait otherwise, may come minutes later."""
    forms: list[_Form] = []
    finish = _Form.finish
    monkeypatch.setattr(_Form, "finish", lambda form: (forms.append(form), finish(form))[1])
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + bytes(999) + b"\r\n" + end

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def read() -> None:
        headers = [(b"content-type", b"multipart/form-data; boundary=x")]
        async with reader.read(Request({"type": "http", "headers": headers}, receive)) as uploads:
            assert [len(upload.content) for upload in uploads] == [999]
            assert reader.held == len(body)

    reader = UploadReader(ServerSettings())
    with suppress(HTTPException):  # of the body without an end
        asyncio.run(read())
    assert (forms[0].uploads, forms[0].content, reader.held) == ([], b"", 0)


def test_too_slow_an_answer_is_503_and_its_waiting_images_are_dropped() -> None:
    detector = FakeDetector()
    detector.gate.clear()
    with running(detector, timeout_s=0.3, batch_images=1) as client:
        refused = post(client, 1, 2, 3)
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert queue_images(client) == 0
        detector.gate.set()
        assert post(client, 4).status_code == 200
    assert len(detector.calls) == 2  # the one that had begun, and the last


def test_too_slow_a_request_is_408() -> None:
    with running(FakeDetector(), timeout_s=0.2) as client:
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=10) as connection:
            connection.sendall(
                b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            )
            assert b" 408 " in connection.recv(4096)
        assert "apn_held_bytes 0.0" in client.get("/metrics").text


def test_a_client_that_leaves_takes_its_waiting_images_along() -> None:
    detector = FakeDetector()
    detector.gate.clear()
    with running(detector, batch_images=1) as client, ThreadPoolExecutor(1) as pool:
        begun = pool.submit(post, client, 1)
        wait_until(lambda: detector.calls)
        with pytest.raises(httpx.ReadTimeout):
            post(client, 2, 3, timeout=httpx.Timeout(5, read=0.2))
        wait_until(lambda: queue_images(client) == 0)
        wait_until(lambda: 'route="/v1/detect",status="499"' in client.get("/metrics").text)
        detector.gate.set()
        assert begun.result().status_code == 200
    assert len(detector.calls) == 1


def test_close_scores_what_was_taken_and_takes_no_more() -> None:
    detector = FakeDetector()
    detector.gate.clear()
    batcher = Batcher(detector, ServerSettings(batch_images=2), Metrics())  # type: ignore[arg-type]
    batcher.start()
    futures = batcher.submit([Upload(str(red), picture(red)) for red in range(5)], stability=False)
    closer = threading.Thread(target=batcher.close)
    closer.start()
    wait_until(lambda: not batcher.alive)
    with pytest.raises(QueueFullError):
        batcher.submit([Upload("late", picture())], stability=False)
    detector.gate.set()
    closer.join(10)
    assert [future.result(0).path for future in futures] == ["0", "1", "2", "3", "4"]


def test_a_cancelled_company_does_not_stop_the_thread() -> None:
    detector = FakeDetector()
    batcher = Batcher(detector, ServerSettings(batch_wait_s=0.1), Metrics())  # type: ignore[arg-type]
    batcher.start()
    (dropped,) = batcher.submit([Upload("dropped", picture())], stability=False)
    assert dropped.cancel()
    time.sleep(0.2)
    (kept,) = batcher.submit([Upload("kept", picture())], stability=False)
    assert kept.result(10).path == "kept"
    batcher.close()
    assert detector.calls == [(1, False)]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_finish_and_ends_with_0(stop: signal.Signals) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = [sys.executable, str(Path(__file__).with_name("serving.py")), str(port), "0.4"]
    with (
        subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
        ThreadPoolExecutor(6) as pool,
    ):
        wait_until(lambda: server.poll() is not None or answers(client), 20)
        futures = [pool.submit(post, client, red) for red in range(6)]  # two batches
        wait_until(lambda: queue_images(client) > 0)
        server.send_signal(stop)
        assert [future.result().status_code for future in futures] == [200] * 6
        assert server.wait(10) == 0
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()
