"""What the tests of the server share: a detector that computes from pixels, pictures, and a server on a thread.

Run as a program (`python serving.py PORT [DELAY_S]`) it serves the fake until a signal says stop.
"""

import base64
import io
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import uvicorn
from PIL import Image

from apn.detection import Delivery, Detection, Tile, Verdict
from apn.image import LoadedImage
from apn.server import ServerSettings, create_app, serve


class FakeDetector:
    """probability = mean red / 255. `calls` holds (number of images, stability) of each call.

    While `gate` is cleared the detector waits; a picture whose mean green is 255 makes it fail.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.calls: list[tuple[int, bool]] = []
        self.gate = threading.Event()
        self.gate.set()

    def describe(self) -> dict[str, Any]:
        return {
            "name": "fake",
            "version": "1",
            "sha256": "0" * 64,
            "backend": "numpy",
            "thresholds": {"real_below": 0.3, "generated_from": 0.7, "target_fpr": 0.05, "target_fnr": 0.1},
            "checked_thresholds": {"real_below": 0.3, "generated_from": 0.7, "target_fpr": 0.02, "target_fnr": 0.1},
            "calibration": {"method": "none"},
        }

    def detect_many(
        self, images: Iterable[LoadedImage], *, names: Iterable[str], stability: bool = True
    ) -> Iterator[Detection]:
        pairs = list(zip(images, names, strict=True))
        self.calls.append((len(pairs), stability))
        assert self.gate.wait(30), "the test never opened the gate"
        time.sleep(self.delay_s)
        return (self._row(image, name, stability) for image, name in pairs)

    def _row(self, image: LoadedImage, name: str, stability: bool) -> Detection:
        pixels = np.asarray(image.pixels, dtype=np.float64) / 255
        if pixels[..., 1].mean() == 1:
            raise RuntimeError("green breaks the fake")
        height, width = pixels.shape[:2]
        probability, size = float(pixels[..., 0].mean()), min(height, width)
        corners = [(0, 0), (width - size, height - size)]
        deliveries = [("JPEG quality 75", 0.95), ("half size", 0.6)] if stability else []
        return Detection(
            path=name,
            verdict=verdict(probability),
            probability=probability,
            logit=0.0,
            width=width,
            height=height,
            format=image.format,
            frames=image.frames,
            warnings=("low resolution: fewer crops than usual",) if size < 64 else (),
            stability=tuple(
                Delivery(title, probability * factor, 0.0, verdict(probability * factor))
                for title, factor in deliveries
            ),
            tiles=tuple(
                Tile(left, top, size, float(pixels[top : top + size, left : left + size, 0].mean()))
                for left, top in corners
            ),
            metadata={"Software": "fake <b>generator</b>"} if probability > 0.5 else {},
        )


class FakeExplainer:
    """One panel of the picture's mean colour and one band at mean red / 510 cycles per pixel. `calls` holds the sizes.

    While `gate` is cleared it waits; a picture whose mean green is 255 makes it fail.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, image: LoadedImage) -> dict[str, Any]:
        self.calls.append((image.width, image.height))
        assert self.gate.wait(30), "the test never opened the gate"
        red, green, blue = (int(value) for value in image.pixels.mean(axis=(0, 1)))
        if green == 255:
            raise RuntimeError("green breaks the fake")
        scale = {"low": 0, "high": 1, "label": "evidence", "colours": ["#000000", f"#{red:02x}{green:02x}{blue:02x}"]}
        picture_uri = f"data:image/png;base64,{base64.b64encode(picture(red, (8, 8))).decode()}"
        panel = {"title": "<b>spatial</b> branch", "meaning": "Bright: <i>here</i>.", "width": 8, "height": 8}
        interval = {"axis": "horizontal", "colour": "red", "mirrored": True, "low": 0, "high": red / 510, "void": False}
        return {
            "target": "generated",
            "panels": [{"name": "heat-map", "image": picture_uri, "scale": scale, **panel}],
            "tile": {"left": 0, "top": 0, "size": 8},
            "unit": "cycles per pixel",
            "bands": [
                {"number": 1, "weight": 0.25, "effect": 0.5, "intervals": [{"component": "amplitude", **interval}]}
            ],
        }


def verdict(probability: float) -> Verdict:
    return "generated" if probability >= 0.7 else "real" if probability < 0.3 else "unsure"


def picture(red: int = 200, size: tuple[int, int] = (96, 64), kind: str = "PNG", green: int = 40) -> bytes:
    """A picture of one colour; the fake's probability for it is red / 255."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (red, green, 60)).save(buffer, kind)
    return buffer.getvalue()


def part(content: bytes, name: str = "picture.png") -> tuple[str, tuple[str, bytes, str]]:
    """One file part for httpx."""
    return ("files", (name, content, "image/png"))


@contextmanager
def running(detector: Any, explainer: Any = "the fake explains nothing", **settings: Any) -> Iterator[httpx.Client]:
    """A client of a real uvicorn server on a free port; stopped gracefully afterwards."""
    app = create_app(detector, ServerSettings(port=0, **settings), explainer)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    """Poll until `condition()` holds; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition did not hold within {seconds} s"
        time.sleep(0.005)


def answers(client: httpx.Client) -> bool:
    """Whether the server is up."""
    try:
        return client.get("/healthz").status_code == 200
    except httpx.ConnectError:
        return False


if __name__ == "__main__":
    serve(
        FakeDetector(float(sys.argv[2]) if len(sys.argv) > 2 else 0.0),  # type: ignore[arg-type]
        ServerSettings(port=int(sys.argv[1])),
    )
