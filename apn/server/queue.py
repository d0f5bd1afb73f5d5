"""Micro-batching: a bounded queue, a small pool that decodes, one thread that runs the detector.

Requests submit images from the event loop and get one future each. The thread takes what has gathered after a few
milliseconds, decodes it and scores it in one call, so that the event loop never waits and the detector never competes
with itself. A future that is cancelled before its image began leaves the queue at once.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from apn.detection import Detection
from apn.image import ImageError, LoadedImage, load_image
from apn.server.metrics import Metrics
from apn.server.settings import ServerSettings
from apn.server.uploads import Upload

if TYPE_CHECKING:
    from apn.detector import Detector

log = logging.getLogger("apn.server")


class QueueFullError(Exception):
    """The images do not fit into the queue; none of them was taken."""


@dataclass(eq=False, slots=True)
class Job:
    """One image on its way to its row."""

    upload: Upload
    stability: bool
    answer: Future[Detection] = field(default_factory=Future)


class Batcher:
    """Owns the queue and its threads: `start`, `submit` any number of times from any thread, `close`."""

    def __init__(self, detector: "Detector", settings: ServerSettings, metrics: Metrics) -> None:
        self.detector, self.settings, self.metrics = detector, settings, metrics
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()  # guards _waiting and _closing; reentrant
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="apn-inference", daemon=True)

    @property
    def depth(self) -> int:
        """Images that wait and have not begun."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether submitted images will be scored."""
        return self._thread.is_alive() and not self._closing

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Take nothing more, score what was taken, then return."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def submit(self, uploads: Sequence[Upload], stability: bool) -> list[Future[Detection]]:
        """Queue all images or none; futures in the order of `uploads`. Raises QueueFullError."""
        jobs = [Job(upload, stability) for upload in uploads]
        with self._changed:
            if self._closing or self.depth + len(jobs) > self.settings.queue_images:
                raise QueueFullError
            self._waiting.extend(jobs)
            self._changed.notify_all()
        for job in jobs:
            job.answer.add_done_callback(lambda answer, job=job: self._forget(job))  # type: ignore[misc]
        return [job.answer for job in jobs]

    def _forget(self, job: Job) -> None:
        """Free the place of a job that nobody waits for any more."""
        with self._changed:
            if job.answer.cancelled() and job in self._waiting:
                self._waiting.remove(job)

    def _run(self) -> None:
        with ThreadPoolExecutor(self.settings.decode_workers, thread_name_prefix="apn-decode") as pool:
            while jobs := self._collect():
                for stability in (True, False):  # one call has one setting
                    self._score([job for job in jobs if job.stability is stability], pool)

    def _collect(self) -> list[Job]:
        """The next batch: up to `batch_images` that came within `batch_wait_s`. Empty only when closed and drained."""
        enough = self.settings.batch_images
        with self._changed:
            while True:  # what woke us may be cancelled while we wait for its company
                self._changed.wait_for(lambda: self._waiting or self._closing)
                self._changed.wait_for(lambda: self.depth >= enough or self._closing, self.settings.batch_wait_s)
                if self._waiting or self._closing:
                    return [self._waiting.popleft() for _ in range(min(enough, self.depth))]

    def _score(self, jobs: Sequence[Job], pool: ThreadPoolExecutor) -> None:
        begun = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
        decoded = zip(begun, pool.map(self._decode, begun), strict=True)
        ready = [(job, image) for job, image in decoded if image is not None]
        if ready:
            self.metrics.batch_images.observe(len(ready))
            self._infer(ready)

    def _decode(self, job: Job) -> LoadedImage | None:
        """The pixels, or None after the job got its answer."""
        try:
            with self.metrics.decode_seconds.time():
                return load_image(job.upload.content, max_pixels=self.settings.max_pixels)
        except ImageError as error:
            self._finish(job, Detection(path=job.upload.name, error=str(error)), "unreadable")
        except Exception as error:
            log.exception("decoding failed")
            self._fail(job, error)
        return None

    def _infer(self, ready: Sequence[tuple[Job, LoadedImage]]) -> None:
        try:
            with self.metrics.inference_seconds.time():
                rows = self._detect([image for _, image in ready], ready[0][0].stability)
        except Exception as error:
            if len(ready) > 1:  # let only the image at fault pay for it
                for pair in ready:
                    self._infer([pair])
                return
            log.exception("inference failed")
            self._fail(ready[0][0], error)
            return
        for (job, _), row in zip(ready, rows, strict=True):
            self._finish(job, replace(row, path=job.upload.name), "inference")

    def _detect(self, images: Sequence[LoadedImage], stability: bool) -> list[Detection]:
        """One row per image in order. The detector gets positions for names: file names stay out of its errors."""
        names = [str(position) for position in range(len(images))]
        rows: Iterable[Detection] = self.detector.detect_many(images, names=names, stability=stability)
        rows = list(rows)
        if [row.path for row in rows] != names:
            raise RuntimeError(f"expected the rows {names} from the detector, found {[row.path for row in rows]}")
        return rows

    def _finish(self, job: Job, row: Detection, reason: str) -> None:
        if row.verdict is None:
            self.metrics.errors.labels(reason).inc()
        else:
            self.metrics.images.labels(row.verdict).inc()
        job.answer.set_result(row)

    def _fail(self, job: Job, error: Exception) -> None:
        self.metrics.errors.labels("internal").inc()
        job.answer.set_exception(error)
