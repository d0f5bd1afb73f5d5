"""Explanations on request: what is answered, what is remembered, and that detection never waits for them."""

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from serving import FakeDetector, FakeExplainer, answers, part, picture, running, wait_until

from apn.image import ImageError, load_image
from apn.server import explainer as explaining
from apn.server.answers import ExplanationAnswer
from apn.server.explainer import Explanations, LazyExplainer, missing_for_explanations
from apn.server.metrics import Metrics
from apn.server.queue import QueueFullError
from apn.server.settings import ServerSettings

WEIGHTS = Path(explaining.__file__).parents[1] / "weights" / "apn-mini"


@pytest.fixture
def explainer() -> FakeExplainer:
    return FakeExplainer()


@pytest.fixture
def client(explainer: FakeExplainer) -> Iterator[httpx.Client]:
    with running(FakeDetector(), explainer, explain_queue=2, retry_after_s=7) as client:
        yield client


def post(client: httpx.Client, red: int = 200, **options: object) -> httpx.Response:
    return client.post("/v1/explain", files=[part(picture(red), f"{red}.png")], **options)  # type: ignore[arg-type]


def test_a_parameter_is_422_and_not_passed_over(client: httpx.Client) -> None:
    """`target=real` would be answered with the evidence for generated."""
    answer = post(client, params={"target": "real"})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "query.target: no such parameter; /docs lists those there are"


def test_one_picture_is_explained_in_the_terms_that_are_described(client: httpx.Client) -> None:
    answer = post(client, 102)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    found = ExplanationAnswer.model_validate(answer.json())
    assert found.model.name == "fake"
    assert found.bands[0].intervals[0].high == pytest.approx(0.2)
    assert client.get("/v1/model").json()["explanations"] == {"available": True, "reason": None}


def test_without_an_explainer_it_is_501_before_the_body_and_the_model_says_why() -> None:
    with running(FakeDetector(), "no PyTorch here") as client:
        assert client.get("/v1/model").json()["explanations"] == {"available": False, "reason": "no PyTorch here"}
        answer = client.post("/v1/explain", content=b"nonsense")
        assert (answer.status_code, answer.json()["detail"]) == (501, "no PyTorch here")
        assert client.post("/v1/detect", files=[part(picture())]).status_code == 200


def test_the_same_file_is_explained_once(client: httpx.Client, explainer: FakeExplainer) -> None:
    first, again, other = post(client, 10), post(client, 10), post(client, 20)
    assert first.json() == again.json() != other.json()
    assert len(explainer.calls) == 2
    lines = client.get("/metrics").text.splitlines()
    assert 'apn_explanations_total{source="made"} 2.0' in lines
    assert 'apn_explanations_total{source="remembered"} 1.0' in lines


def test_the_same_file_asked_for_twice_at_once_is_explained_once(
    client: httpx.Client, explainer: FakeExplainer
) -> None:
    explainer.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(post, client, 5) for _ in range(2)]
        wait_until(lambda: explainer.calls)
        explainer.gate.set()
        assert answers[0].result().json() == answers[1].result().json()
    assert len(explainer.calls) == 1


def test_limits_are_those_of_detection_and_one_file() -> None:
    limits = {"max_upload_bytes": 20_000, "max_request_bytes": 50_000, "max_pixels": 10_000}
    with running(FakeDetector(), FakeExplainer(), **limits) as client:
        answer = client.post("/v1/explain", files=[part(picture())] * 2)
        assert (answer.status_code, answer.json()["detail"]) == (413, "expected at most 1 file a request, found more")
        assert client.post("/v1/explain", files=[part(bytes(20_001))]).status_code == 413
        assert (
            client.post("/v1/explain", content=b"{}", headers={"Content-Type": "application/json"}).status_code == 415
        )
        answer = client.post("/v1/explain", files=[part(picture(size=(101, 100)), "<b>.png")])
        assert answer.status_code == 422
        assert "pixels" in answer.json()["detail"]
        assert answer.json()["detections"][0]["path"] == "<b>.png"
        assert client.post("/v1/explain", files=[part(b"no picture")]).status_code == 422


def test_the_token_is_asked_for() -> None:
    with running(FakeDetector(), FakeExplainer(), token="open-sesame") as client:
        assert post(client).status_code == 401
        assert post(client, headers={"Authorization": "Bearer open-sesame"}).status_code == 200


def test_a_full_queue_is_503_and_detection_goes_on(client: httpx.Client, explainer: FakeExplainer) -> None:
    explainer.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(post, client, red) for red in (1, 2)]
        wait_until(lambda: explainer.calls)
        wait_until(lambda: post(client, 3).status_code == 503)
        refused = post(client, 3)
        assert refused.headers["retry-after"] == "7"
        for _ in range(3):
            assert client.post("/v1/detect", files=[part(picture())], timeout=5).status_code == 200
        explainer.gate.set()
        assert [answer.result().status_code for answer in taken] == [200, 200]
    assert post(client, 3).status_code == 200
    assert len(explainer.calls) == 3


def test_a_client_that_leaves_frees_its_place(client: httpx.Client, explainer: FakeExplainer) -> None:
    explainer.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, client, 1)
        wait_until(lambda: explainer.calls)
        for red in (2, 3):  # a full queue would answer the second with 503
            with pytest.raises(httpx.ReadTimeout):
                post(client, red, timeout=httpx.Timeout(5, read=1))
            wait_until(lambda: "apn_explain_images 1.0" in client.get("/metrics").text)  # the server has seen it leave
        explainer.gate.set()
        assert first.result().status_code == 200
    assert post(client, 4).status_code == 200
    assert len(explainer.calls) == 2


def test_too_slow_an_explanation_is_503(explainer: FakeExplainer) -> None:
    explainer.gate.clear()
    with running(FakeDetector(), explainer, timeout_s=0.3) as client:
        answer = post(client)
        assert answer.status_code == 503
        assert "send the same file again" in answer.json()["detail"]
        assert "retry-after" in answer.headers
        explainer.gate.set()
        wait_until(lambda: post(client).status_code == 200)  # made in the meantime, and remembered
    assert len(explainer.calls) == 1


def test_a_failure_is_500_and_only_its_own(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    answer = client.post("/v1/explain", files=[part(picture(9, green=255), "secret.png")])
    assert (answer.status_code, answer.json()["detail"]) == (500, "internal error: the server's log says more")
    assert "green breaks the fake" in caplog.text
    assert "secret" not in caplog.text
    assert post(client).status_code == 200


@pytest.mark.parametrize("asked", [False, True])
def test_file_names_are_logged_only_when_asked(caplog: pytest.LogCaptureFixture, asked: bool) -> None:
    caplog.set_level(logging.INFO, logger="apn.server")
    with running(FakeDetector(), FakeExplainer(), log_file_names=asked) as client:
        client.post("/v1/explain", files=[part(picture(), "source-x.png")])
    assert ("source-x" in caplog.text) == asked


def explanations(explainer: FakeExplainer, **settings: int) -> Explanations:
    return Explanations(explainer, ServerSettings(**settings), Metrics())  # type: ignore[arg-type]


def test_memory_is_bounded_and_forgets_the_least_used(explainer: FakeExplainer) -> None:
    size = len(explanations(explainer).submit(picture(100)).result(5))
    explainer.calls.clear()
    owner = explanations(explainer, explain_cache_bytes=2 * size + size // 2)
    for red in (100, 101, 100, 102, 100, 101):  # 102 pushes out 101, then 101 comes anew
        owner.submit(picture(red)).result(5)
        assert owner.held <= 2 * size + size // 2
    assert len(explainer.calls) == 4
    nothing = explanations(explainer, explain_cache_bytes=0)
    for _ in range(2):
        nothing.submit(picture(100)).result(5)
    assert nothing.held == 0
    assert len(explainer.calls) == 6


class Life:
    """Ends with the object that has it: bytes themselves cannot be watched."""


class Upload(bytes):
    def __init__(self, content: bytes) -> None:
        self.life = Life()


def test_an_upload_is_forgotten_with_its_request_and_once_it_is_decoded(explainer: FakeExplainer) -> None:
    explainer.gate.clear()
    owner = explanations(explainer, explain_queue=2)
    begun, waiting = Upload(picture(1)), Upload(picture(2))
    held = [weakref.ref(upload.life) for upload in (begun, waiting)]
    made, answer = owner.submit(begun), owner.submit(waiting)
    del begun, waiting
    wait_until(lambda: explainer.calls)
    wait_until(lambda: held[0]() is None)
    assert held[1]() is not None
    assert answer.cancel()
    assert held[1]() is None
    assert owner.pending == 1
    explainer.gate.set()
    assert json.loads(made.result(10))["panels"]


def test_closing_finishes_what_was_taken(explainer: FakeExplainer) -> None:
    explainer.gate.clear()
    owner = explanations(explainer, explain_queue=2)
    answers = [owner.submit(picture(red)) for red in (1, 2)]
    with pytest.raises(QueueFullError):
        owner.submit(picture(3))
    closer = threading.Thread(target=owner.close)
    closer.start()
    explainer.gate.set()
    closer.join(10)
    assert all(json.loads(answer.result(0))["panels"] for answer in answers)


def test_closing_waits_for_some_seconds_only(explainer: FakeExplainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "GRACE_S", 0.2)
    explainer.gate.clear()
    owner = explanations(explainer)
    answer = owner.submit(picture(1))
    closer = threading.Thread(target=owner.close)
    closer.start()
    closer.join(5)
    assert (closer.is_alive(), answer.done(), owner.pending) == (False, False, 1)
    explainer.gate.set()
    assert json.loads(answer.result(10))["panels"]


@pytest.mark.parametrize("stops", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_an_explanation_that_nobody_waits_for_does_not_hold_up_the_end(stops: list[signal.Signals]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = f"""
import time
from serving import FakeDetector, ServerSettings, serve
from apn.server import explainer
explainer.GRACE_S = 0.5
serve(FakeDetector(), ServerSettings(port={port}, timeout_s=1), lambda image: time.sleep(60))
"""
    program = [sys.executable, "-c", code]
    with (
        subprocess.Popen(program, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parent) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        try:
            wait_until(lambda: server.poll() is not None or answers(client), 20)
            assert post(client).status_code == 503  # too late; the work goes on
            for stop in stops:
                server.send_signal(stop)
                time.sleep(0.1)
            assert server.wait(10) == 0
        finally:
            server.kill()
        assert server.stderr is not None
        assert "an explanation was still being made: given up" in server.stderr.read()


def test_a_broken_file_is_told_and_not_remembered(explainer: FakeExplainer) -> None:
    owner = explanations(explainer)
    for _ in range(2):
        with pytest.raises(ImageError):
            owner.submit(b"no picture").result(5)
    assert (owner.held, explainer.calls) == (0, [])


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_for_explanations(WEIGHTS) is None
    (tmp_path / "config.json").write_text(json.dumps({"model": {"architecture": "npr"}}))
    assert "graph alone" in str(missing_for_explanations(tmp_path))
    (tmp_path / "model.safetensors").touch()
    assert "'npr'" in str(missing_for_explanations(tmp_path))
    monkeypatch.setattr(explaining, "find_spec", lambda name: None if name == "torch" else object())
    reason = str(missing_for_explanations(WEIGHTS))
    assert "need torch," in reason
    assert 'pip install "apn[explain]"' in reason


def test_the_shipped_weights_explain_a_picture() -> None:
    import apn

    detector = apn.load()
    explain = LazyExplainer(WEIGHTS, detector)
    found = explain(load_image(picture(size=(900, 400))))
    names = [panel["name"] for panel in found["panels"]]
    assert names[:4] == ["evidence-map", "heat-map", "frequency-heat-map", "spectrum"]
    assert names[4:] == ["amplitude-bands", "phase-bands"] + [
        f"{k}-{n}" for n in (1, 2, 3) for k in ("purified", "residual")
    ]
    ExplanationAnswer.model_validate({"model": {"name": "a", "version": "1", "sha256": "0"}, **found})
    for panel in found["panels"]:
        assert panel["image"].startswith("data:image/")
        assert max(panel["width"], panel["height"]) <= 800
    assert len(json.dumps(found)) < 3_000_000


def test_starting_the_server_imports_no_torch() -> None:
    import subprocess

    code = (
        "import sys; from apn.server.explainer import LazyExplainer, missing_for_explanations; import apn.server; "
        f"missing_for_explanations(__import__('pathlib').Path({str(WEIGHTS)!r})); "
        "print(sorted({'torch', 'matplotlib', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
