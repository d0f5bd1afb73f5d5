"""Explanations on request: a thread of their own, a short queue, and a memory of those already made.

PyTorch and the checkpoint are opened by the first request, in that thread, so that neither the start of the server nor
detection waits for them; without them the server works as before and says why there are none.
"""

import hashlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apn.backends import usable_cores
from apn.image import LoadedImage, load_image
from apn.server.metrics import Metrics
from apn.server.queue import QueueFullError
from apn.server.settings import ServerSettings

if TYPE_CHECKING:
    from apn.detector import Detector
    from apn.models.apn import APN

log = logging.getLogger("apn.server")

GRACE_S = 5.0  # how long the end of the server waits for an explanation, which nobody else does by then
PACKAGES = ("torch", "timm", "safetensors", "pytorch_grad_cam", "matplotlib")
Explainer = Callable[[LoadedImage], dict[str, Any]]  # the fields of `panels.explanation_panels`


def missing_for_explanations(folder: Path) -> str | None:
    """Why this weights folder cannot be explained here, None where it can; nothing heavy is imported."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        listed = ", ".join(missing)
        return f'explanations need {listed}, which this server does not have: pip install "apn[explain]"'
    if not (folder / "model.safetensors").is_file():
        return "explanations need the checkpoint (model.safetensors), these weights are a graph alone"
    architecture = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model"].get("architecture", "apn")
    return None if architecture == "apn" else f"explanations are for an APN, these weights are {architecture!r}"


class LazyExplainer:
    """Explains images with the checkpoint of `folder`, opened by the first call. One call at a time."""

    def __init__(self, folder: Path, detector: "Detector") -> None:
        self.folder, self.detector = folder, detector
        self._model: APN | None = None

    def __call__(self, image: LoadedImage) -> dict[str, Any]:
        from apn.explanations import explain
        from apn.server.panels import explanation_panels

        explanation = explain(self._open(), image, detector=self.detector, stability=False)
        return explanation_panels(explanation)

    def _open(self) -> "APN":
        if self._model is None:
            import torch

            from apn.checkpoint import load_model
            from apn.models.apn import APN

            if self.detector.backend_name != "torch":  # else detection would be slowed down too
                torch.set_num_threads(max(1, usable_cores() // 2))
            model = load_model(self.folder)
            assert isinstance(model, APN)
            self._model = model
        return self._model


class Explanations:
    """Owns the thread, the queue and the memory: `submit` from any thread, `close` at the end."""

    def __init__(self, explainer: Explainer, settings: ServerSettings, metrics: Metrics, **fields: Any) -> None:
        """fields: JSON values that every answer carries."""
        self.explainer, self.settings, self.metrics, self.fields = explainer, settings, metrics, fields
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="apn-explain")
        self._lock = threading.Condition()  # guards what follows; told when `pending` falls
        self.pending = 0  # pictures being explained or waiting for it
        self._made: OrderedDict[str, bytes] = OrderedDict()  # by the SHA-256 of the file, the oldest use first

    def close(self) -> None:
        """Take nothing more, finish what was taken, then return; after GRACE_S in any case, with `pending` above 0."""
        self._pool.shutdown(wait=False)
        with self._lock:
            self._lock.wait_for(lambda: not self.pending, GRACE_S)

    @property
    def full(self) -> bool:
        """Whether a picture that is not remembered would be refused."""
        return self.pending >= self.settings.explain_queue

    def submit(self, content: bytes) -> Future[bytes]:
        """The JSON of one image file, at once where it was made before. Raises QueueFullError.

        The future raises ImageError for a file that cannot be read.
        """
        key = hashlib.sha256(content).hexdigest()
        known = self._recall(key)
        if known is not None:
            self.metrics.explanations.labels("remembered").inc()
            answer: Future[bytes] = Future()
            answer.set_result(known)
            return answer
        with self._lock:
            if self.full:
                raise QueueFullError
            self.pending += 1
        # The pool keeps a cancelled call until its thread comes to it. The file is in a list, to be taken out before.
        upload = [content]
        answer = self._pool.submit(self._explain, key, upload)
        answer.add_done_callback(lambda _: self._leave(upload))
        return answer

    def _leave(self, upload: list[bytes]) -> None:  # also where it was cancelled before it began
        upload.clear()
        with self._lock:
            self.pending -= 1
            self._lock.notify_all()

    def _explain(self, key: str, upload: list[bytes]) -> bytes:
        """upload: the file, which is taken out of the list once it is needed."""
        known = self._recall(key)  # made while this request waited
        if known is not None:
            self.metrics.explanations.labels("remembered").inc()
            return known
        image = load_image(upload.pop(), max_pixels=self.settings.max_pixels)
        try:
            with self.metrics.explain_seconds.time():
                body = json.dumps(self.fields | self.explainer(image)).encode()
        except Exception:
            log.exception("explaining failed")
            raise
        self.metrics.explanations.labels("made").inc()
        self._remember(key, body)
        return body

    def _recall(self, key: str) -> bytes | None:
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
            return self._made.get(key)

    def _remember(self, key: str, body: bytes) -> None:
        with self._lock:
            self._made[key] = body
            while self.held > self.settings.explain_cache_bytes:
                self._made.popitem(last=False)

    @property
    def held(self) -> int:
        """Bytes remembered."""
        return sum(map(len, self._made.values()))
