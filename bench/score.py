"""Images per second of scoring labelled images against the bare network on the same crops, as a Markdown table.

python bench/score.py [--images 400] [--batch-size 16] [--weights apn-mini]

Both take ImageNet-size JPEGs (500 x 375, quality 90) that the script makes. Bare: the session alone, fed with crops
that were decoded before. Scored: files to Parquet, as `apn score` does once the weights are loaded; the shortcut probe,
which reads headers before, is left out. Processor seconds count all threads: where the network already keeps every core
busy, decoding can only be had in addition.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from detect import make_images

from apn.backends import find_weights, onnx_backend
from apn.crops import crop, tile_corners
from apn.data.samples import Sample
from apn.detector import TILES_PER_SIDE, load
from apn.evaluate import score_samples, show, table_facts
from apn.protocols import Protocol


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--weights", default="apn-mini")
    arguments = parser.parse_args()
    detector = load(arguments.weights)
    backend = onnx_backend(find_weights(arguments.weights) / "model.onnx")
    batch, size = arguments.batch_size, detector.crop_size
    print("| protocol | crops an image | bare, images/s | scored, images/s | share | bare, CPU s | scored, CPU s |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        paths = make_images(Path(folder), arguments.images)
        samples = [Sample(path, i % 2, "made" * (i % 2), "", "", str(i)) for i, path in enumerate(paths)]
        for protocol in (Protocol("aligned", size), Protocol("native")):
            images = [protocol.open(sample.path, sample.label).pixels for sample in samples]
            corners = [tile_corners(*image.shape[:2], size, TILES_PER_SIDE) for image in images]
            tiles = np.stack([crop(image, *at, size) for image, of in zip(images, corners, strict=True) for at in of])
            shown = [show(protocol)]
            facts = table_facts(detector, samples, shown, data=["made"])
            out = Path(folder) / f"{protocol.name}.parquet"

            def bare(tiles: np.ndarray = tiles) -> None:
                for start in range(0, len(tiles), batch):
                    backend(tiles[start : start + batch])

            def scored(shown: list = shown, facts: object = facts, out: Path = out) -> None:
                out.unlink(missing_ok=True)
                score_samples(detector, samples, shown, out, facts, batch_size=batch)

            bare(tiles[:batch])  # the first call of a session allocates
            runs = [(timed(bare), timed(scored)) for _ in range(3)]
            (bare_wall, bare_cpu), (wall, cpu) = (min(run[k] for run in runs) for k in (0, 1))
            count = len(samples)
            print(
                f"| {protocol.name} | {len(tiles) / count:.1f} | {count / bare_wall:.1f} | {count / wall:.1f} | "
                f"{bare_wall / wall:.0%} | {bare_cpu:.1f} | {cpu:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
