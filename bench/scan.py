"""Scans, measured.

python bench/scan.py scaling [--images 400]         images per second of `apn scan` with 1, 2, ... workers
python bench/scan.py bookkeeping [--images 10000000]    the driver's memory while made paths pass a detector that looks
                                                    at no image
python bench/scan.py listing [--images 500000]      the driver's processor time for listing
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))  # for the workers, which import this file by its name
from detect import make_images

from apn.backends import usable_cores
from apn.detection import Detection
from apn.scan.files import Store
from apn.scan.local import run_local
from apn.scan.manifest import Manifest
from apn.scan.run import Runner, scan
from apn.scan.sample import draw_sample
from apn.scan.shards import Lister
from apn.scan.sources import find_sources, list_entries
from apn.scan.worker import Outcome, Reading, WorkerPlan

APN = str(Path(sys.executable).with_name("apn"))


def scaling(images: int, most: int, ray: bool) -> None:
    """A row a number of workers: the same folder, scanned anew by the whole process."""
    print("| engine | workers | whole process | while scanning | against one worker |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        folder.mkdir()
        make_images(folder, images)
        for engine in ["local", *(["ray"] if ray else [])]:
            alone = 0.0
            for workers in range(1, most + 1):
                seconds, rate = _scan_folder(folder, Path(name) / f"{engine}-{workers}", engine, workers)
                alone = alone or rate
                whole = f"{seconds:.1f} s, {images / seconds:.1f} images/s"
                print(f"| {engine} | {workers} | {whole} | {rate:.1f} images/s | {rate / alone:.2f} x |", flush=True)


def _scan_folder(folder: Path, out: Path, engine: str, workers: int) -> tuple[float, float]:
    """Seconds of the whole process, and images per second from the first shard on, as the summary has them."""
    command = [APN, "scan", str(folder), "--out", str(out), "--no-stability", "--workers", str(workers)]
    started = time.perf_counter()
    subprocess.run([*command, *(["--ray", "local"] if engine == "ray" else [])], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    return seconds, json.loads((out / "summary.json").read_text())["images_per_second"]


class StubDetector:
    """Makes up a score from an image's number, and looks at no image."""

    sha256 = "0" * 64

    def detect_many(self, images: Iterable[Callable[[], Any]], **_: Any) -> Iterator[Detection]:
        for number, _load in enumerate(images):
            score = blake2b(number.to_bytes(8, "little"), digest_size=2).digest()[0] / 255
            verdict = "generated" if score > 0.83 else "real" if score < 0.13 else "unsure"
            yield Detection("", verdict, score, 4 * score - 2, width=640, height=480, format="JPEG")


def bookkeeping(images: int, shard_images: int, ray: bool) -> None:
    """Prints a table of what is done, how fast, and what memory the driver holds."""
    with tempfile.TemporaryDirectory() as name:
        listing, out = Path(name) / "list.txt", Path(name) / "out"
        with listing.open("w") as file:
            file.writelines(f"/photos/{n // 1000:06d}/{n:010d}.jpg\n" for n in range(images))
        sources = find_sources([str(listing)])
        manifest = Manifest(sources=(sources[0].address,), shard_images=shard_images, model={"name": "stub"})
        plan = WorkerPlan(Store(str(out)), StubDetector, Reading())
        print("| rows done | seconds | rows/s | driver, resident |\n|---|---|---|---|")
        summary = scan(sources, manifest, plan, partial(_watched, run=_on_ray() if ray else _here, images=images))
        parts = list((out / "parts").iterdir())
        size = sum(part.stat().st_size for part in parts)
        lists = sum(path.stat().st_size for path in (out / "shards").iterdir())
        print(f"\n{summary.images:,} rows in {summary.seconds:.0f} s, {len(parts):,} parts")
        print(f"{size / images:.1f} bytes a row, {lists / images:.1f} bytes an image in the lists")


def _here(plan: WorkerPlan, done: frozenset[int]) -> Generator[Outcome, None, None]:
    return run_local(plan, done, 1)


def _on_ray() -> Runner:
    from apn.scan.cluster import Pool, connect, run_on_ray

    connect("local")
    return lambda plan, done: run_on_ray(plan, done, Pool(1))


def _watched(plan: WorkerPlan, done: frozenset[int], run: Runner, images: int) -> Generator[Outcome, None, None]:
    """One worker; a line each tenth of the way, and at the end what a shard costs the driver."""
    process, started, rows, told, shards, busy = psutil.Process(os.getpid()), time.perf_counter(), 0, 0, 0, 0.0
    for outcome in run(plan, done):
        busy = busy or time.process_time()  # from the first outcome on
        rows, shards = rows + outcome.tally.images, shards + 1
        if rows * 10 // images > told:
            told, seconds = rows * 10 // images, time.perf_counter() - started
            memory = process.memory_info().rss / 2**20
            print(f"| {rows:,} | {seconds:.0f} | {rows / seconds:,.0f} | {memory:.1f} MiB |", flush=True)
        yield outcome
    milliseconds = (time.process_time() - busy) / max(shards - 1, 1) * 1000
    print(f"\n{milliseconds:.2f} ms of the driver's processor time a shard, {rows / shards:.0f} rows each")


def listing(images: int) -> None:
    """Images per second of the driver's processor time: from a list file into shards, through a draw, from folders."""
    with tempfile.TemporaryDirectory() as name:
        paths, folder = Path(name) / "list.txt", Path(name) / "folder"
        with paths.open("w") as file:
            file.writelines(f"/photos/{n // 1000:06d}/{n:010d}.jpg\n" for n in range(images))
        for number in range(images // 5000):
            (folder / f"{number:03d}").mkdir(parents=True)
            for image in range(1000):
                (folder / f"{number:03d}" / f"{image:04d}.jpg").touch()
        found = find_sources([str(paths)])
        lister = Lister(Store(f"{name}/out"), list_entries(found), 4096)
        ways: dict[str, Callable[[], int]] = {
            "a list file, written as shards": lambda: lister.run().images or 0,
            "a list file, drawn from": lambda: (
                draw_sample(list_entries(find_sources([str(paths)])), 1000, 0).population
            ),
            "folders of 1,000, listed alone": lambda: sum(1 for _ in list_entries(find_sources([str(folder)]))),
        }
        for what, go in ways.items():
            started = time.process_time()
            print(f"{what}: {go() / (time.process_time() - started):,.0f} images/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scaling", "bookkeeping", "listing"))
    parser.add_argument("--images", type=int)
    parser.add_argument("--workers", type=int, default=usable_cores(), help="scaling: up to this many")
    parser.add_argument("--ray", action="store_true", help="scaling: on Ray too; bookkeeping: on Ray")
    parser.add_argument("--shard-images", type=int, default=4096, help="bookkeeping: at most, in a part")
    options = parser.parse_args()
    if options.what == "scaling":
        scaling(options.images or 400, options.workers, options.ray)
    elif options.what == "listing":
        listing(options.images or 500_000)
    else:
        bookkeeping(options.images or 10_000_000, options.shard_images, options.ray)


if __name__ == "__main__":
    main()
