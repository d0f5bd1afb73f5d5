"""Makes a finished run the detector that ships, apn/weights/apn-mini. Run by `make weights`.

    python bench/ship.py runs/apn-mini runs/calibration.jsonl

The first is a run folder; the second has the scores that leave-out runs of the same recipe gave to generators and
cameras they never saw (bench/delivered.py): calibration and thresholds come from these, since that is what the detector
will meet. The logits of the demo's images go into tests/shipped_logits.json, where a test looks for them.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from apn.data.samples import read_samples, write_manifest
from apn.detector import load

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "apn" / "weights" / "apn-mini"
# Errors with the stability check: with more of either, more verdicts flip (the second table of bench/stability.py).
CHECKED_FPR, CHECKED_FNR = 0.03, 0.002
MOST_FLAT = 0.5  # so would be most screenshots: bench/screenshots.py
LEAST_COLOUR = 2  # nearly all looks are at colour: black-and-white pictures would be `real`, whatever made them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("scores", type=Path, help="scores of leave-out runs")
    options = parser.parse_args()
    for name in ("config.json", "training.json", "model.safetensors"):
        shutil.copyfile(options.run / "last" / name, SHIPPED / name)
    shutil.copyfile(options.run / "log.jsonl", SHIPPED / "log.jsonl")
    for name in ("train.jsonl", "validation.jsonl"):  # their paths are relative to where they lie
        write_manifest(read_samples(options.run / name), SHIPPED / name)
    apn = str(Path(sys.executable).with_name("apn"))
    for arguments in (
        ["export", str(SHIPPED), "--out", str(SHIPPED / "model.onnx")],
        ["calibrate", str(options.scores), "--method", "isotonic", "--checked-fpr", str(CHECKED_FPR),
         "--checked-fnr", str(CHECKED_FNR), "--least-colour", str(LEAST_COLOUR),
         "--most-flat", str(MOST_FLAT), "--out", str(SHIPPED / "calibration.json")],
    ):  # fmt: skip
        subprocess.run([apn, *arguments], check=True)
    detector = load(SHIPPED)
    rows = {path.name: detector.detect(path, stability=False) for path in sorted((ROOT / "demo" / "images").iterdir())}
    logits = {name: row.logit for name, row in rows.items()}
    text = json.dumps({"sha256": detector.sha256, "logits": logits}, indent=2) + "\n"
    (ROOT / "tests" / "shipped_logits.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
