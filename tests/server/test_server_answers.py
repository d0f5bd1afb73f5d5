"""What the server answers: rows, refusals with their status, and nothing of a request left behind."""

import json
import logging
import socket
import tempfile
from collections.abc import Iterator

import httpx
import pytest
from serving import FakeDetector, part, picture, running

from apn.detection import Detection
from apn.server import ServerSettings, create_app

LIMITS = {"max_upload_bytes": 20_000, "max_request_bytes": 50_000, "max_files": 3, "max_pixels": 10_000}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(FakeDetector(), **LIMITS) as client:
        yield client


def test_one_file_gives_the_fields_of_a_detection(client: httpx.Client) -> None:
    answer = client.post("/v1/detect", files=[part(picture(204), "Straße 1.png")])
    assert answer.status_code == 200
    assert answer.json()["model"] == {"name": "fake", "version": "1", "sha256": "0" * 64}
    (row,) = answer.json()["detections"]
    assert list(row) == list(Detection("x").to_dict())
    assert (row["path"], row["verdict"], row["width"], row["height"]) == ("Straße 1.png", "generated", 96, 64)
    assert row["probability"] == pytest.approx(0.8)
    assert [tile["left"] for tile in row["tiles"]] == [0, 32]


def test_stability_can_be_left_out(client: httpx.Client) -> None:
    with_it, without = (
        client.post("/v1/detect", params={"stability": value}, files=[part(picture())]).json()["detections"][0]
        for value in ("true", "false")
    )
    assert len(with_it["stability"]) == 2
    assert without["stability"] == []


def test_a_bad_file_among_good_ones_has_its_error_in_its_row(client: httpx.Client) -> None:
    files = [part(picture(51), "same.png"), part(b"no picture", "same.png"), part(picture(255), "same.png")]
    answer = client.post("/v1/detect", files=files)
    assert answer.status_code == 200
    first, bad, last = answer.json()["detections"]
    assert (first["probability"], last["probability"]) == (pytest.approx(0.2), pytest.approx(1.0))
    assert bad["verdict"] is None
    assert bad["probability"] is None
    assert bad["error"]


@pytest.mark.parametrize(
    ("content", "why"), [(picture(size=(101, 100)), "pixels"), (b"no picture", ""), (b"", ""), (picture()[:60], "")]
)
def test_a_single_unreadable_file_is_422_with_its_row(client: httpx.Client, content: bytes, why: str) -> None:
    answer = client.post("/v1/detect", files=[part(content)])
    assert answer.status_code == 422
    assert answer.json()["detail"] == answer.json()["detections"][0]["error"]
    assert why in answer.json()["detail"]


def test_exactly_the_pixel_limit_is_scored(client: httpx.Client) -> None:
    assert client.post("/v1/detect", files=[part(picture(size=(100, 100)))]).status_code == 200


@pytest.mark.parametrize(("size", "status"), [(20_000, 422), (20_001, 413)])
def test_file_size_limit_is_exact(client: httpx.Client, size: int, status: int) -> None:
    assert client.post("/v1/detect", files=[part(bytes(size))]).status_code == status


def test_request_size_and_number_of_files_are_limited(client: httpx.Client) -> None:
    assert client.post("/v1/detect", files=[part(bytes(18_000))] * 3).status_code == 413
    assert client.post("/v1/detect", files=[part(picture())] * 3).status_code == 200
    answer = client.post("/v1/detect", files=[part(picture())] * 4)
    assert (answer.status_code, answer.json()["detail"]) == (413, "expected at most 3 files a request, found more")


def raw_request(client: httpx.Client, head: str, *chunks: bytes) -> bytes:
    """What the server answers to bytes sent by hand, while the request may still be incomplete."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=10) as connection:
        connection.sendall(f"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
        for chunk in chunks:
            connection.sendall(chunk)
        return connection.recv(65536)


def test_413_comes_before_the_body_is_complete(client: httpx.Client) -> None:
    form = "Content-Type: multipart/form-data; boundary=x"
    assert b" 413 " in raw_request(client, f"{form}\r\nContent-Length: 50001")  # not a byte of the body sent
    begin = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    chunk = begin + bytes(20_001)
    # Neither a length nor an end: the answer can only come from counting.
    answer = raw_request(client, f"{form}\r\nTransfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(chunk), chunk))
    assert b" 413 " in answer


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("", b"", 415),
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=" + "y" * 500, b"", 400),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"nonsense", 400),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\na\r\n--x--',
            400,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\na\r\n--x--',
            400,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nno end',
            400,
        ),
        ("multipart/form-data; boundary=x", b"--x\r\nX-Long: " + b"a" * 30_000, 400),
    ],
)
def test_broken_requests_are_refused(client: httpx.Client, content_type: str, body: bytes, status: int) -> None:
    answer = client.post("/v1/detect", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_a_part_without_a_plain_file_name_says_what_is_missing(client: httpx.Client) -> None:
    body = b"--x\r\nContent-Disposition: form-data; name=\"files\"; filename*=utf-8''a.png\r\n\r\na\r\n--x--"
    answer = client.post("/v1/detect", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, answer.json()["detail"]) == (
        400,
        "expected file parts named 'files', found one without filename= (RFC 7578 knows no filename*=)",
    )


@pytest.mark.parametrize(
    "name",
    [
        "<img src=x onerror=alert(1)>.png",
        "../../etc/passwd",
        "a'b;c=d.png",
        "ü" * 200,
        "\udcff".encode("utf-8", "replace").decode(),
    ],
)
def test_hostile_names_come_back_as_text(client: httpx.Client, name: str) -> None:
    assert client.post("/v1/detect", files=[part(picture(), name)]).json()["detections"][0]["path"] == name


def test_a_bad_parameter_is_422(client: httpx.Client) -> None:
    answer = client.post("/v1/detect", params={"stability": "maybe"}, files=[part(picture())])
    assert answer.status_code == 422
    assert "stability" in answer.json()["detail"]


def test_a_misspelt_parameter_is_422_not_the_default(client: httpx.Client) -> None:
    answer = client.post("/v1/detect", params={"stabilty": "false"}, files=[part(picture())])
    assert answer.status_code == 422
    assert answer.json()["detail"] == "query.stabilty: no such parameter; /docs lists those there are"


def test_the_model_tells_its_thresholds_and_the_limits(client: httpx.Client) -> None:
    model = client.get("/v1/model").json()
    assert model["thresholds"] == {"real_below": 0.3, "generated_from": 0.7, "target_fpr": 0.05, "target_fnr": 0.1}
    assert model["checked_thresholds"] == model["thresholds"] | {"target_fpr": 0.02}
    assert model["limits"] == LIMITS
    assert model["backend"] == "numpy"


def test_health_page_and_docs_need_nobody_else(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    for path in ("/", "/docs"):
        answer = client.get(path)
        assert "https://" not in answer.text.replace("https://www.w3.org", "")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
    assert "POST /v1/detect" in client.get("/docs").text


@pytest.mark.parametrize("path", ["/healthz", "/", "/v1/model", "/v1/detect", "/nowhere"])
def test_head_is_the_head_of_get(client: httpx.Client, path: str) -> None:
    """What monitors, load balancers and `curl -I` ask."""
    asked, got = client.head(path), client.get(path)
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    assert {**asked.headers, "date": ""} == {**got.headers, "date": ""}


def test_every_answer_is_hardened(client: httpx.Client) -> None:
    for path in ("/", "/v1/model", "/healthz", "/nowhere", "/metrics"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


def test_metrics_count_requests_images_and_errors() -> None:
    with running(FakeDetector()) as client:
        client.post("/v1/detect", files=[part(picture(255)), part(picture(0)), part(b"bad")])
        client.post("/v1/detect", files=[part(b"bad")])
        client.get("/secret-path-1")
        text = client.get("/metrics").text
    for line in (
        'apn_requests_total{route="/v1/detect",status="200"} 1.0',
        'apn_requests_total{route="/v1/detect",status="422"} 1.0',
        'apn_requests_total{route="other",status="404"} 1.0',
        'apn_images_total{verdict="generated"} 1.0',
        'apn_images_total{verdict="real"} 1.0',
        'apn_image_errors_total{reason="unreadable"} 2.0',
        "apn_batch_images_sum 2.0",
        "apn_decode_seconds_count 4.0",
        "apn_inference_seconds_count 1.0",
        "apn_queue_images 0.0",
        "apn_held_bytes 0.0",
    ):
        assert line in text.splitlines()
    assert "secret" not in text


def test_nothing_is_written_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a temporary file was asked for")

    for name in ("SpooledTemporaryFile", "TemporaryFile", "NamedTemporaryFile", "mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", refuse)
    large = picture(size=(2000, 1500), kind="BMP")  # 9 MB, far above the megabyte where Starlette would spool
    with running(FakeDetector()) as client:
        assert client.post("/v1/detect", files=[part(large)] * 2).status_code == 200


@pytest.mark.parametrize("asked", [False, True])
def test_file_names_are_logged_only_when_asked(caplog: pytest.LogCaptureFixture, asked: bool) -> None:
    caplog.set_level(logging.DEBUG, logger="apn.server")
    caplog.set_level(logging.DEBUG, logger="uvicorn")
    with running(FakeDetector(), log_file_names=asked) as client:
        for content in (picture(), b"bad", picture(green=255)):
            client.post("/v1/detect", files=[part(content, "source-x\n.png")])
        client.get("/source-x.png")
    assert ("source-x" in caplog.text) == asked
    assert "POST /v1/detect 200" in caplog.text


def test_a_detector_that_breaks_is_500_and_the_next_image_is_scored() -> None:
    with running(FakeDetector()) as client:
        answer = client.post("/v1/detect", files=[part(picture(green=255))])
        assert answer.status_code == 500
        assert "green" not in answer.text
        assert client.post("/v1/detect", files=[part(picture())]).status_code == 200


def test_a_detector_whose_description_lacks_a_field_is_refused_at_the_start() -> None:
    detector = FakeDetector()
    detector.describe = lambda: {"name": "fake"}  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="sha256"):
        create_app(detector, ServerSettings())  # type: ignore[arg-type]


def test_every_setting_is_described_and_unknown_ones_are_refused() -> None:
    assert all(field.description for field in ServerSettings.model_fields.values())
    with pytest.raises(ValueError, match="extra"):
        ServerSettings.model_validate(json.loads('{"prot": 1}'))
    with pytest.raises(ValueError, match="queue_images 2 is below max_files 16"):
        ServerSettings(queue_images=2)


@pytest.mark.parametrize("name", ["timeout_s", "batch_wait_s"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e6])
def test_times_are_finite(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        ServerSettings.model_validate({name: value})
