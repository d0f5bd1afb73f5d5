"""Scores that the shipped calibration is fitted on: of pictures as they are, aligned, and as a web page delivers them.

    python bench/delivered.py runs/leaveout/apn-mini runs/leaveout/apn-mini.parquet --out runs/calibration.jsonl

The first is the folder of the leave-out runs, a fold each; the second their table of scores, native and aligned. To
these come the same images of both classes, scaled to half (to no less than a crop) and saved as JPEG of quality 85:
photographs that were scaled are sharper than those of the corpus, and the threshold has to hold for them too. Of some
images of each fold and label (--checked), drawn without regard to anything else, re-deliveries are scored as well, for
the thresholds of the stability check. Written are logit and label, and lowest and highest logit where re-deliveries
were scored, for `apn calibrate`; printed is what share of each kind is then called generated, and the mean over the
folds of the AUC.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apn.calibration import Calibration, fit_calibration
from apn.crops import CROP_SIZE, Pixels
from apn.data.samples import GENERATED, REAL, Sample, read_samples
from apn.data.select import draw
from apn.data.transforms import align, jpeg, resize
from apn.detector import Detector, load
from apn.image import load_image
from apn.metrics import auc
from apn.protocols import Protocol
from apn.scores import labelled_logits
from apn.scoretable import read_scores

QUALITY = 85
DELIVERED = "scaled to half, JPEG 85"
NATIVE, ALIGNED = Protocol("native").title, Protocol("aligned").title


def halved(pixels: Pixels, least: int) -> Pixels:
    """Scaled to half, but to no less than `least` pixels of the shorter side: a smaller crop would be repeated."""
    factor = max(0.5, least / min(pixels.shape[:2]))
    return resize(pixels, (round(pixels.shape[0] * factor), round(pixels.shape[1] * factor)))


def delivered(pixels: Pixels, size: int) -> Pixels:
    """As a web page delivers it; its centre, which has one crop of `size`."""
    found = jpeg(halved(pixels, size), QUALITY)
    top, left = (max(n - CROP_SIZE, 0) // 2 for n in found.shape[:2])
    return found[top : top + CROP_SIZE, left : left + CROP_SIZE]


def scored(detector: Detector, samples: Sequence[Sample], *, checked: bool) -> list[dict[str, Any]]:
    """Rows of these images, delivered: logit of generated less that of real, and label. checked: as they are and
    aligned, too; all with lowest and highest logit of the stability check."""
    rows = []
    for sample in samples:
        pixels = load_image(sample.path).pixels
        ways = {DELIVERED: delivered(pixels, detector.crop_size)}
        if checked:
            ways |= {NATIVE: pixels, ALIGNED: align(pixels)}
        for kind, found in zip(ways, detector.detect_many(ways.values(), stability=checked), strict=True):
            assert found.logit is not None, found.error
            row = {"kind": kind, "logit": found.logit, "label": sample.label}
            if checked:
                logits = [found.logit, *(one.logit for one in found.stability)]
                row |= {"lowest": min(logits), "highest": max(logits)}
            rows.append(row)
    return rows


def mean_auc(rows: Sequence[dict[str, Any]]) -> float:
    """Mean over the folds of the AUC of these rows' logits."""
    folds = sorted({row["fold"] for row in rows})
    parts = [[row for row in rows if row["fold"] == fold] for fold in folds]
    return float(np.mean([auc([row["label"] for row in part], [row["logit"] for row in part]) for part in parts]))


def no_images() -> Detector:
    raise AssertionError("these are scores already")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the folds' runs")
    parser.add_argument("scores", type=Path, help="table of their scores")
    parser.add_argument("--checked", type=int, default=40, help="images of each fold and label with re-deliveries")
    parser.add_argument("--out", type=Path, required=True, help="JSONL to write")
    options = parser.parse_args()
    table = read_scores([options.scores])[0]
    rows, elsewhere = [], set()  # rows to write; paths of the images that have theirs with re-deliveries
    for run in sorted(options.runs.glob("*/run")):
        detector, samples = load(run / "last", backend="torch"), read_samples(run / "test.jsonl")
        detector.calibration = Calibration()  # one threshold: nothing is `unsure` before its re-deliveries are scored
        of = {label: [sample for sample in samples if sample.label == label] for label in (REAL, GENERATED)}
        drawn = [sample for some in of.values() for sample in draw(some, options.checked)]
        elsewhere |= {str(sample.path) for sample in drawn}
        others = [sample for sample in samples if str(sample.path) not in elsewhere]
        for some, checked in ((drawn, True), (others, False)):
            rows += [row | {"fold": run.parent.name} for row in scored(detector, some, checked=checked)]
    for path, title, fold, logit, label in zip(
        table.paths.to_pylist(), table.protocol.codes, table.subset.codes, table.logits, table.labels, strict=True
    ):
        if path not in elsewhere:
            row = {"kind": table.protocol.names[title], "logit": float(logit), "label": int(label)}
            rows.append(row | {"fold": table.subset.names[fold]})
    with options.out.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    found = labelled_logits(str(options.out), no_images)
    fitted = fit_calibration(found.logits, found.labels, extremes=found.extremes, fitted_on=str(options.out))
    print("| pictures | real called generated | generated called so | AUC |\n|---|---|---|---|")
    for kind in (*table.protocol.names, DELIVERED):
        some = [row for row in rows if row["kind"] == kind]
        called = {label: [] for label in (REAL, GENERATED)}
        for row in some:
            called[row["label"]].append(fitted.verdict(fitted.probability(row["logit"])) == "generated")
        shares = " | ".join(f"{np.mean(called[label]):.1%}" for label in (REAL, GENERATED))
        print(f"| {kind} | {shares} | {mean_auc(some):.3f} |")


if __name__ == "__main__":
    main()
