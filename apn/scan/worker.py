"""A worker: opens the detector once, then turns shards into parts, one after the other."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from apn.image import LoadedImage
from apn.scan import journal
from apn.scan.fetching import MAX_BYTES
from apn.scan.files import Store
from apn.scan.images import Image, images_in
from apn.scan.parts import Row, to_row, write_part
from apn.scan.shards import read_shard
from apn.scan.tally import Tally

if TYPE_CHECKING:
    from apn.detector import Detector


class Reading(NamedTuple):
    """How images are read and scored."""

    stability: bool = True
    allow_truncated: bool = False
    max_pixels: int = 200_000_000
    max_bytes: int = MAX_BYTES  # of a file that is held in memory
    sha256: bool = False  # of each file too
    batch_size: int = 16
    threads: int = 1  # that decode


class WorkerPlan(NamedTuple):
    """All that a worker needs to start, wherever it is. open_detector must be importable there."""

    store: Store
    open_detector: "Callable[[], Detector]"
    reading: Reading


class Outcome(NamedTuple):
    """A shard that is done."""

    number: int
    tally: Tally


class Worker:
    """restarted: it replaces one that died, perhaps of an image."""

    def __init__(self, plan: WorkerPlan, *, restarted: bool = False) -> None:
        self._store, self._reading, self._restarted = plan.store, plan.reading, restarted
        self._detector = plan.open_detector()

    def __call__(self, number: int) -> Outcome:
        """Scores the images of a shard and writes its part."""
        entries, most = read_shard(self._store, number), self._reading.max_bytes
        if not self._restarted:
            return Outcome(number, write_part(self._store, number, self._rows(images_in(entries, most))))
        known = journal.begin(self._store, number)
        if known.careful:
            alone = journal.one_by_one(self._store, number, known, entries, most)
            rows: Iterator[Row] = (row for image in alone for row in self._rows([image]))
        else:
            rows = self._rows(images_in(entries, most))
        outcome = Outcome(number, write_part(self._store, number, rows))
        journal.end(self._store, number)
        return outcome

    def _rows(self, images: Iterable[Image]) -> Iterator[Row]:
        """A row an image, in order."""
        given: deque[Image] = deque()

        def loaders() -> "Iterator[Callable[[], LoadedImage]]":
            for image in images:
                given.append(image)
                yield partial(
                    image.load,
                    digest=self._reading.sha256,
                    max_pixels=self._reading.max_pixels,
                    allow_truncated=self._reading.allow_truncated,
                )

        found = self._detector.detect_many(
            loaders(),
            stability=self._reading.stability,
            brief=True,  # a row says whether the verdict stood, not what overturned it
            batch_size=self._reading.batch_size,
            workers=self._reading.threads,
        )
        for detection in found:
            image = given.popleft()
            yield to_row(image.name, detection, image.sha256, self._detector.sha256)
