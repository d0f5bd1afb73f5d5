"""Speed and memory of detection, as a Markdown table. Run by `make bench`: python bench/detect.py [--images 1000]

Cold start is the whole process `apn detect ONE.jpg` against importing its three libraries, in turns. Throughput is the
whole process `apn detect FOLDER --json` on ImageNet-size JPEGs (500 x 375, quality 90) that the script makes; then of
`apn scan FOLDER`, whose check ends with the first re-delivery that overturns a verdict.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from apn.backends import find_weights, onnx_backend
from apn.detector import load
from apn.image import load_image

DEMO = Path(__file__).parent.parent / "demo" / "images"
IMAGENET_SIZE = (500, 375)
IMPORTS = "import onnxruntime, numpy, PIL.Image"


def make_images(folder: Path, count: int) -> list[Path]:
    """Photo-like JPEGs: random parts of the demo's pictures, resampled, with a little sensor noise."""
    rng = np.random.default_rng(0)
    pictures = [Image.open(path).convert("RGB") for path in sorted(DEMO.iterdir())]
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for path in paths:
        picture = pictures[rng.integers(len(pictures))]
        side = rng.uniform(0.5, 1) * min(picture.width / 4, picture.height / 3)
        left, top = rng.uniform(0, picture.width - 4 * side), rng.uniform(0, picture.height - 3 * side)
        part = picture.resize(IMAGENET_SIZE, Image.Resampling.BICUBIC, (left, top, left + 4 * side, top + 3 * side))
        noisy = np.asarray(part) + rng.normal(0, 4, (IMAGENET_SIZE[1], IMAGENET_SIZE[0], 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


def run(*command: str) -> tuple[float, float]:
    """Wall seconds and peak memory in MB of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed with status {status}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def cold_starts(commands: dict[str, list[str]], repeats: int = 15) -> list[tuple[str, str]]:
    """A row a command: median wall time, and its ratio to the first one's. In turns, so that noise meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            seconds[name].append(run(*command)[0])
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    base = next(iter(medians.values()))
    return [(name, f"{one:.3f} s, {one / base:.2f} x the imports") for name, one in medians.items()]


def crop_milliseconds(batch: int = 1, repeats: int = 20) -> float:
    """One crop through the shipped graph on one core, median."""
    backend = onnx_backend(find_weights("apn-mini") / "model.onnx", threads=1)
    side = load().crop_size
    crops = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    times = []
    for _ in range(repeats + 3):
        started = time.perf_counter()
        backend(crops)
        times.append((time.perf_counter() - started) * 1000 / batch)
    return statistics.median(times[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    count = parser.parse_args().images
    apn = str(Path(sys.executable).with_name("apn"))
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        paths = make_images(Path(name), count)
        commands = {f'python -c "{IMPORTS}"': [sys.executable, "-c", IMPORTS]}
        for path in (paths[0], DEMO / "photo-cat.jpg"):
            row = load().detect(path)
            about = f"{path.name}: {row.width} x {row.height}, {len(row.tiles)} crops, {row.verdict}"
            commands[f"apn detect ONE.jpg ({about})"] = [apn, "detect", str(path)]
            commands[f"apn detect --no-stability ONE.jpg ({about})"] = [apn, "detect", "--no-stability", str(path)]
        rows += cold_starts(commands)
        rows.append(("one crop, one core, decoding left out", f"{crop_milliseconds():.1f} ms"))
        started = time.perf_counter()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(lambda path: load_image(path).pixels.shape, paths):
                pass
        decode = time.perf_counter() - started
        rows.append((f"decoding {count} JPEGs, all cores, alone", f"{count / decode:.0f} images/s"))
        for label, options in {"": [], " --no-stability": ["--no-stability"]}.items():
            seconds, memory = run(apn, "detect", "--json", *options, name)
            rows.append(
                (
                    f"apn detect{label}, {count} JPEGs of 500 x 375, whole process",
                    f"{count / seconds:.1f} images/s; decoding alone would take {decode / seconds:.0%} of the time; "
                    f"peak memory {memory:.0f} MB",
                )
            )
            with tempfile.TemporaryDirectory() as out:
                seconds, _ = run(apn, "scan", *options, name, "--out", str(Path(out) / "scan"))
            rows.append((f"apn scan{label}, the same, whole process", f"{count / seconds:.1f} images/s"))
    print("| what | measured |\n|---|---|")
    for label, value in rows:
        print(f"| {label} | {value} |")


if __name__ == "__main__":
    main()
