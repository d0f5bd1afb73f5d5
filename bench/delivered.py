"""Scores that the shipped calibration is fitted on: of pictures as they are, aligned, and as a web page delivers them.

    python bench/delivered.py runs/leaveout/apn-mini runs/leaveout/apn-mini.parquet --out runs/calibration.jsonl

The first is the folder of the leave-out runs, a fold each; the second their table of scores, native and aligned. To
these come the same images of both classes, scaled to half (to no less than a crop) and saved as JPEG of quality 85:
photographs that were scaled are sharper than those of the corpus, and the threshold has to hold for them too. Written
are logit and label, for `apn calibrate`; printed is what share of each kind is then called generated.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from apn.calibration import fit_calibration
from apn.crops import Pixels, center_crop
from apn.data.samples import GENERATED, REAL, read_samples
from apn.data.transforms import jpeg, resize
from apn.detector import load
from apn.image import load_image
from apn.scoretable import read_scores

QUALITY = 85
DELIVERED = "scaled to half, JPEG 85"


def halved(pixels: Pixels, least: int) -> Pixels:
    """Scaled to half, but to no less than `least` pixels of the shorter side: a smaller crop would be repeated."""
    factor = max(0.5, least / min(pixels.shape[:2]))
    return resize(pixels, (round(pixels.shape[0] * factor), round(pixels.shape[1] * factor)))


def delivered_logits(run: Path) -> list[tuple[float, int]]:
    """Logit of generated less that of real, and label, of each test image of a run, delivered; one crop each."""
    detector = load(run / "last", backend="torch")
    size, rows = detector.crop_size, []
    for sample in read_samples(run / "test.jsonl"):
        crop = center_crop(jpeg(halved(load_image(sample.path).pixels, size), QUALITY), size)
        rows.append((float(detector.tile_logits(crop[None])[0]), sample.label))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the folds' runs")
    parser.add_argument("scores", type=Path, help="table of their scores")
    parser.add_argument("--out", type=Path, required=True, help="JSONL to write")
    options = parser.parse_args()
    table = read_scores([options.scores])[0]
    kinds = {
        title: (table.logits[table.protocol.where(title)], table.labels[table.protocol.where(title)])
        for title in table.protocol.names
    }
    found = [row for run in sorted(options.runs.glob("*/run")) for row in delivered_logits(run)]
    kinds[DELIVERED] = (np.array([logit for logit, _ in found]), np.array([label for _, label in found]))
    logits, labels = (np.concatenate(part) for part in zip(*kinds.values(), strict=True))
    with options.out.open("w", encoding="utf-8") as file:
        for logit, label in zip(logits.tolist(), labels.tolist(), strict=True):
            file.write(json.dumps({"logit": logit, "label": label}) + "\n")
    fitted = fit_calibration(logits, labels, fitted_on=str(options.out))
    print("| pictures | real called generated | generated called so |\n|---|---|---|")
    for kind, (some, of) in kinds.items():
        called = np.array([fitted.verdict(fitted.probability(logit)) == "generated" for logit in some])
        print(f"| {kind} | {called[of == REAL].mean():.1%} | {called[of == GENERATED].mean():.1%} |")


if __name__ == "__main__":
    main()
