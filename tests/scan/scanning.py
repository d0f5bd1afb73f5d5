"""What the tests of scans share: a detector that computes from pixels, small pictures, what came out of a scan.

Run as a program (`python scanning.py FOLDER OUT DELAY_S`) it scans with two processes until it is done, or killed.
"""

import io
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from apn.detection import Delivery, Detection
from apn.image import ImageError, LoadedImage
from apn.scan.files import Store
from apn.scan.local import run_local
from apn.scan.manifest import Manifest
from apn.scan.run import Runner, Summary, scan
from apn.scan.shards import follow
from apn.scan.sources import find_sources
from apn.scan.worker import Outcome, Reading, Worker, WorkerPlan

DEADLY = (0, 255, 0)  # a picture of this colour kills the process that looks at it


class FakeDetector:
    """probability = mean red / 255, as in the server's tests; a picture of DEADLY kills the process."""

    sha256 = "f" * 64

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s

    def describe(self) -> dict[str, Any]:
        return {
            "name": "fake",
            "version": "1",
            "thresholds": {"target_fpr": 0.05, "target_fnr": 0.1},
            "checked_thresholds": {"target_fpr": 0.02, "target_fnr": 0.1},
        }

    def detect_many(
        self,
        images: Iterable[Callable[[], LoadedImage]],
        *,
        stability: bool,
        brief: bool,
        batch_size: int,
        workers: int,
    ) -> Iterator[Detection]:
        for number, load in enumerate(images):
            time.sleep(self.delay_s)
            try:
                yield self._row(load(), stability)
            except ImageError as error:
                yield Detection(path=f"image {number}", error=str(error))

    def _row(self, image: LoadedImage, stability: bool) -> Detection:
        if tuple(image.pixels[0, 0]) == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        probability = float(image.pixels[..., 0].mean()) / 255
        verdict = "generated" if probability >= 0.7 else "real" if probability < 0.3 else "unsure"
        return Detection(
            path="the scan's own name counts",
            verdict=verdict,
            probability=probability,
            logit=probability - 0.5,
            width=image.width,
            height=image.height,
            format=image.format,
            warnings=("strongly compressed: traces may be lost",),
            stability=(Delivery("half size", probability, 0.0, verdict),) if stability and verdict != "unsure" else (),
        )


class OpenFake(NamedTuple):
    """Leaves a file named after its process in `folder`."""

    folder: Path
    delay_s: float = 0.0

    def __call__(self) -> FakeDetector:
        (self.folder / f"{os.getpid()}").touch()
        return FakeDetector(self.delay_s)


def picture(red: int = 200, kind: str = "PNG", colour: tuple[int, int, int] | None = None) -> bytes:
    """A picture of one colour; the fake's probability for it is red / 255."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour or (red, 40, 60)).save(buffer, kind)
    return buffer.getvalue()


def folder_of_pictures(folder: Path, count: int) -> dict[str, int]:
    """`count` pictures in a few folders; red by path."""
    reds = {}
    for number in range(count):
        path = folder / f"{number % 3}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        reds[str(path)] = number * 7 % 256
        path.write_bytes(picture(reds[str(path)]))
    return reds


def plan_of(out: Path | str, openings: Path, delay_s: float = 0.0, reading: Reading | None = None) -> WorkerPlan:
    openings.mkdir(exist_ok=True)
    return WorkerPlan(Store(str(out)), OpenFake(openings, delay_s), reading or Reading())


def manifest_of(sources: Iterable[str], **settings: Any) -> Manifest:
    return Manifest(sources=tuple(sources), model=FakeDetector().describe(), **settings)


def scan_with(
    runner: Runner, source: Path | str, plan: WorkerPlan, *, resume: bool = False, **settings: Any
) -> Summary:
    """Scans one source, in shards of at most 8 images where nothing else is said."""
    sources = find_sources([str(source)])
    manifest = manifest_of([one.address for one in sources], **{"shard_images": 8, **settings})
    return scan(sources, manifest, plan, runner, resume=resume)


def local(workers: int = 2) -> Runner:
    return lambda plan, done: run_local(plan, done, workers)


def here(plan: WorkerPlan, done: frozenset[int]) -> Iterator[Outcome]:
    """A runner without processes, for what does not depend on them."""
    worker = Worker(plan)
    for number in follow(plan.store, done):
        if number is None:
            time.sleep(0.001)
        else:
            yield worker(number)


def rows_of(out: Path) -> list[dict[str, Any]]:
    """All rows, in the order of the parts."""
    parts = sorted((out / "parts").glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts]).to_pylist() if parts else []


def assert_each_once(out: Path, reds: dict[str, int]) -> None:
    """Every picture is one row, with its own score, and nothing unfinished is left."""
    rows = rows_of(out)
    assert Counter(row["path"] for row in rows) == Counter(list(reds))
    for row in rows:
        assert row["error"] is None
        assert np.isclose(row["probability"], reds[row["path"]] / 255)
    assert not list((out / "parts").glob(".*"))


def kill_a_worker(openings: Path) -> None:
    """The youngest of those that have opened their detector and live."""
    living = [one for one in openings.iterdir() if Path("/proc", one.name).exists()]
    os.kill(int(max(living, key=lambda one: one.stat().st_mtime_ns).name), signal.SIGKILL)


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Poll until `condition()` holds; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition did not hold within {seconds} s"
        time.sleep(0.01)


if __name__ == "__main__":
    scan_with(local(), sys.argv[1], plan_of(sys.argv[2], Path(sys.argv[2] + "-openings"), float(sys.argv[3])))
