"""What apn-mini says of photographs that were saved otherwise than those of the corpus: a table of docs/results.md.

    python bench/photographs.py runs/leaveout/apn-mini

Nearly all photographs of the corpus were JPEGs, most with halved colour. Here those that each leave-out run never saw
are scaled to half, which takes that history away, or get noise before or after the JPEG of the aligned protocol;
generated images stay aligned. One crop an image. AUC: mean over the folds. Called generated: above the threshold that
5 % of the fold's aligned photographs reach. The folder holds a run a fold, as bench/compare.py leaves them.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from delivered import halved

from apn.crops import Pixels, center_crop
from apn.data.samples import REAL, read_samples
from apn.data.transforms import align, noise
from apn.detector import Detector, load
from apn.image import load_image
from apn.metrics import auc

SIZE = 160  # of a crop: a scaled photograph is aligned at it, for at 224 pixels it would be repeated and have a seam
FALSE_ALARMS = 0.05
Saved = Callable[[Pixels, np.random.Generator], Pixels]
SAVED: dict[str, Saved] = {
    "aligned": lambda pixels, _: align(pixels),
    "scaled to half, then aligned": lambda pixels, _: align(halved(pixels, SIZE), SIZE),
    "noise of 2 grey values, then aligned": lambda pixels, rng: align(noise(pixels, 2, rng)),
    "noise of 5 grey values, then aligned": lambda pixels, rng: align(noise(pixels, 5, rng)),
    "aligned, then noise of 1 grey value": lambda pixels, rng: noise(align(pixels), 1, rng),
    "aligned, then noise of 2 grey values": lambda pixels, rng: noise(align(pixels), 2, rng),
}


def logits(detector: Detector, pixels: Pixels, ways: list[Saved]) -> np.ndarray:
    """Logit of generated less that of real of the centre of a picture, saved in each of these ways (ways,)."""
    return detector.tile_logits(np.stack([center_crop(way(pixels, np.random.default_rng(0)), SIZE) for way in ways]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the folds' runs")
    options = parser.parse_args()
    aucs, alarms = [], []
    for run in sorted(options.runs.glob("*/run")):
        detector = load(run / "last", backend="torch")
        assert detector.crop_size == SIZE
        real, generated = [], []
        for sample in read_samples(run / "test.jsonl"):
            pixels = load_image(sample.path).pixels
            if sample.label == REAL:
                real.append(logits(detector, pixels, list(SAVED.values())))
            else:
                generated.extend(logits(detector, pixels, [SAVED["aligned"]]))
        photographs = np.array(real)  # (N, ways)
        labels = np.repeat([0, 1], [len(photographs), len(generated)])
        aucs.append([auc(labels, np.concatenate([one, generated])) for one in photographs.T])
        threshold = np.quantile(photographs[:, 0], 1 - FALSE_ALARMS)
        alarms.append((photographs > threshold).mean(axis=0))
    print("| photographs | AUC | called generated |\n|---|---|---|")
    for name, area, share in zip(SAVED, np.mean(aucs, axis=0), np.mean(alarms, axis=0), strict=True):
        print(f"| {name} | {area:.3f} | {share:.1%} |")


if __name__ == "__main__":
    main()
