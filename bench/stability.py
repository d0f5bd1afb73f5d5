"""What `apn detect` says of generators and cameras that were left out, stability check included: a table of
docs/results.md.

    python bench/stability.py runs/leaveout/apn-mini runs/calibration.jsonl [--images 60]

Of each fold, as many photographs and as many generated images at most, drawn without regard to anything else. Each is
judged as it is, and after three deliveries of the whole file: saved as JPEG 75, as WebP 80, and scaled by 0.75. A
verdict flips where it is another one afterwards. The folder holds a run a fold, as bench/compare.py leaves them;
thresholds are the shipped ones, which have seen the scores of these images. A second table has thresholds of the check
for other rates, chosen on the scores of bench/delivered.py. Intervals: 95 %, bootstrap over split groups.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from delivered import no_images

from apn.calibration import Calibration, Thresholds, fit_calibration, read_calibration
from apn.crops import Pixels
from apn.data.samples import Sample, read_samples
from apn.data.select import draw
from apn.data.transforms import align
from apn.deliveries import DELIVERIES
from apn.detector import Detector, load
from apn.doubts import colourfulness, flatness
from apn.image import load_image
from apn.plots.averages import mean_interval
from apn.scores import labelled_logits

ROOT = Path(__file__).parent.parent
WAYS = ("JPEG 75", "WebP 80", "resize x0.75")  # of DELIVERIES, those that the project has a goal for
PROTOCOLS: dict[str, Callable[[Pixels], Pixels]] = {"as they are": lambda pixels: pixels, "aligned": align}
RATES = (
    (0.05, 0.05), (0.05, 0.02), (0.02, 0.01), (0.05, 0.005), (0.03, 0.005), (0.02, 0.005), (0.05, 0.002), (0.03, 0.002),
    (0.02, 0.002), (0.01, 0.002), (0.005, 0.002),
)  # fmt: skip


class Judged(NamedTuple):
    """Logits of one image, as it is and after each of WAYS: alone, and the lowest and highest of the check.

    colour, flat: `colourfulness` and `flatness` of all of it, as it is.
    """

    label: int
    group: str
    colour: float
    flat: float
    alone: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]


def judge(detector: Detector, sample: Sample, protocol: Callable[[Pixels], Pixels]) -> Judged:
    pixels = protocol(load_image(sample.path).pixels)
    rows = detector.detect_many([pixels, *(DELIVERIES[way](pixels) for way in WAYS)])
    # What scaling left smaller than a crop is not re-delivered: `unsure`, as nan is, which reaches no threshold.
    small = [np.nan] * (1 + len(DELIVERIES))
    logits = [[row.logit, *(one.logit for one in row.stability)] if row.stability else small for row in rows]
    found = np.array(logits, float)  # (1 + WAYS, 1 + re-deliveries)
    parts = (found[:, 0], found.min(axis=1), found.max(axis=1))
    return Judged(
        sample.label,
        sample.split_group,
        colourfulness(pixels),
        flatness(pixels),
        *(tuple(part.tolist()) for part in parts),
    )


def words(lowest: np.ndarray, highest: np.ndarray, calibration: Calibration, thresholds: Thresholds) -> np.ndarray:
    """Verdicts, of logits of any shape: `generated` where the lowest is, `real` where the highest is, else `unsure`."""
    low, high = (np.vectorize(calibration.probability)(logits) for logits in (lowest, highest))
    return np.where(
        low >= thresholds.generated_from, "generated", np.where(high < thresholds.real_below, "real", "unsure")
    )


class Images:
    """Those of one protocol (N)."""

    def __init__(self, judged: Sequence[Judged]) -> None:
        self.labels, self.groups = np.array([one.label for one in judged]), np.array([one.group for one in judged])
        self.colour = np.array([one.colour for one in judged])
        self.flat = np.array([one.flat for one in judged])
        self.logits = {
            name: np.array([getattr(one, name) for one in judged]) for name in ("alone", "lowest", "highest")
        }

    def alone(self, calibration: Calibration) -> np.ndarray:
        """Verdicts (N, 1 + WAYS) without the check."""
        found = words(self.logits["alone"], self.logits["alone"], calibration, calibration.thresholds())
        return self._withheld(found, calibration)

    def checked(self, calibration: Calibration) -> np.ndarray:
        """Verdicts (N, 1 + WAYS) with it."""
        thresholds = calibration.thresholds(checked=True)
        return self._withheld(
            words(self.logits["lowest"], self.logits["highest"], calibration, thresholds), calibration
        )

    def _withheld(self, verdicts: np.ndarray, calibration: Calibration) -> np.ndarray:
        silent = (self.colour < calibration.least_colour) | (self.flat > calibration.most_flat)
        return np.where(silent[:, None], "unsure", verdicts)

    def rows(self, calibration: Calibration) -> list[list[str]]:
        """What is called what, then what flips; each without the check and with it."""
        kinds, found = (self.alone(calibration), self.checked(calibration)), []
        for label, name in enumerate(("photographs", "generated images")):
            of = self.labels == label
            for word in ("generated", "unsure", "real"):
                shares = [self._share(kind[:, 0] == word, of) for kind in kinds]
                found.append([f"{int(of.sum())} {name} called {word}", *shares])
        for place, way in enumerate(WAYS, 1):
            found.append([f"verdict flips, {way}", *(self._share(kind[:, place] != kind[:, 0]) for kind in kinds)])
        return found

    def _share(self, values: np.ndarray, of: np.ndarray | slice = slice(None)) -> str:
        low, high = mean_interval(values[of].astype(float)[:, None], self.groups[of])
        return f"{values[of].mean():.1%} ({low[0]:.1%} to {high[0]:.1%})"

    def summary(self, calibration: Calibration) -> list[float]:
        """With the check: photographs called generated and real, generated images called so, flips of each of WAYS."""
        kind = self.checked(calibration)
        real, made = (kind[self.labels == label, 0] for label in (0, 1))
        flips = (kind[:, 1:] != kind[:, :1]).mean(axis=0)
        return [np.mean(real == "generated"), np.mean(real == "real"), np.mean(made == "generated"),
                np.mean(made == "real"), *flips]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the folds' runs")
    parser.add_argument("scores", type=Path, help="their scores, of bench/delivered.py")
    parser.add_argument("--images", type=int, default=60, help="of each fold and label")
    parser.add_argument("--calibration", type=Path, default=ROOT / "apn" / "weights" / "apn-mini")
    options = parser.parse_args()
    found = labelled_logits(str(options.scores), no_images)
    judged: dict[str, list[Judged]] = {name: [] for name in PROTOCOLS}
    for run in sorted(options.runs.glob("*/run")):
        detector = load(run / "last", backend="torch")
        detector.calibration = Calibration()  # one threshold: nothing is `unsure` before its re-deliveries are scored
        samples = read_samples(run / "test.jsonl")
        for label in (0, 1):
            for sample in draw([one for one in samples if one.label == label], options.images):
                for name, protocol in PROTOCOLS.items():
                    judged[name].append(judge(detector, sample, protocol))
    calibration, images = read_calibration(options.calibration), {name: Images(ones) for name, ones in judged.items()}
    for name, ones in images.items():
        print(f"\n| {name} | without the check | with it |\n|---|---|---|")
        print("\n".join(f"| {' | '.join(row)} |" for row in ones.rows(calibration)))
    heads = ["photographs called generated", "photographs called real", "generated called so", "generated called real"]
    print("\n| rates of the check, " + " / ".join(images) + " | " + " | ".join([*heads, *WAYS]) + " |")
    print("|---" * (1 + len(heads) + len(WAYS)) + "|")
    for fpr, fnr in RATES:
        other = fit_calibration(
            found.logits, found.labels, method=calibration.method, extremes=found.extremes,
            checked_fpr=fpr, checked_fnr=fnr, least_colour=calibration.least_colour,
            most_flat=calibration.most_flat, fitted_on="",
        )  # fmt: skip
        cells = zip(*(ones.summary(other) for ones in images.values()), strict=True)
        shares = [" / ".join(f"{100 * one:.1f}" for one in cell) + " %" for cell in cells]
        print(f"| {fpr:.1%}, {fnr:.1%} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
