"""What `apn detect` says of generators and cameras that were left out, stability check included: a table of
docs/results.md.

    python bench/stability.py runs/leaveout/apn-mini [--images 60]

Of each fold, as many photographs and as many generated images at most, drawn without regard to anything else. Each is
judged as it is, and after three deliveries of the whole file: saved as JPEG 75, as WebP 80, and scaled by 0.75. A
verdict flips where it is another one afterwards. The folder holds a run a fold, as bench/compare.py leaves them;
thresholds are the shipped ones, which have seen the scores of these images. Intervals: 95 %, bootstrap over split
groups.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apn.crops import Pixels
from apn.data.samples import Sample, read_samples
from apn.data.select import draw
from apn.data.transforms import align
from apn.deliveries import DELIVERIES
from apn.detection import Detection
from apn.detector import Detector, load
from apn.image import load_image
from apn.plots.averages import mean_interval

ROOT = Path(__file__).parent.parent
WAYS = ("JPEG 75", "WebP 80", "resize x0.75")  # of DELIVERIES, those that the project has a goal for
PROTOCOLS: dict[str, Callable[[Pixels], Pixels]] = {"as they are": lambda pixels: pixels, "aligned": align}


class Judged(NamedTuple):
    """Verdicts of one image: as it is and after each of WAYS; without the check, and with it."""

    label: int
    group: str
    plain: tuple[str, ...]
    checked: tuple[str, ...]


def judge(detector: Detector, sample: Sample, protocol: Callable[[Pixels], Pixels]) -> Judged:
    pixels = protocol(load_image(sample.path).pixels)
    rows = list(detector.detect_many([pixels, *(DELIVERIES[way](pixels) for way in WAYS)]))
    plain = [detector.calibration.verdict(_probability(row)) for row in rows]
    return Judged(sample.label, sample.split_group, tuple(plain), tuple(row.verdict for row in rows if row.verdict))


def _probability(row: Detection) -> float:
    assert row.probability is not None, row.error
    return row.probability


def share(values: np.ndarray, groups: np.ndarray) -> str:
    low, high = mean_interval(values.astype(float)[:, None], groups)
    return f"{values.mean():.1%} ({low[0]:.1%} to {high[0]:.1%})"


def rows(judged: list[Judged]) -> list[list[str]]:
    """Of one protocol: what is called what, then what flips; each without the check and with it."""
    labels, groups = np.array([one.label for one in judged]), np.array([one.group for one in judged])
    verdicts = [np.array([getattr(one, kind) for one in judged]) for kind in ("plain", "checked")]  # (N, 1 + WAYS)
    found = []
    for label, name in enumerate(("photographs", "generated images")):
        of = labels == label
        for word in ("generated", "unsure", "real"):
            shares = [share(kind[of, 0] == word, groups[of]) for kind in verdicts]
            found.append([f"{int(of.sum())} {name} called {word}", *shares])
    for place, way in enumerate(WAYS, 1):
        found.append([f"verdict flips, {way}", *(share(kind[:, place] != kind[:, 0], groups) for kind in verdicts)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the folds' runs")
    parser.add_argument("--images", type=int, default=60, help="of each fold and label")
    parser.add_argument("--calibration", type=Path, default=ROOT / "apn" / "weights" / "apn-mini")
    options = parser.parse_args()
    judged: dict[str, list[Judged]] = {name: [] for name in PROTOCOLS}
    for run in sorted(options.runs.glob("*/run")):
        detector = load(run / "last", backend="torch", calibration=options.calibration)
        samples = read_samples(run / "test.jsonl")
        for label in (0, 1):
            for sample in draw([one for one in samples if one.label == label], options.images):
                for name, protocol in PROTOCOLS.items():
                    judged[name].append(judge(detector, sample, protocol))
    for name, ones in judged.items():
        print(f"\n| {name} | without the check | with it |\n|---|---|---|")
        print("\n".join(f"| {' | '.join(row)} |" for row in rows(ones)))


if __name__ == "__main__":
    main()
