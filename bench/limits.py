"""What a detector's thresholds are worth on leave-out folds, by group: the numbers of docs/model-card.md.

    python bench/limits.py runs/leaveout/apn-mini.parquet [--calibration apn/weights/apn-mini] [--figure AUC.png]

The table is one of bench/compare.py: each image scored by the network that never saw its generator or source, its
`subset` the fold. A generator is told from the real images of its fold. Thresholds are the calibration's, which has
seen these scores; at the end each fold is judged by calibrations of the other folds alone. A table without subsets, as
`apn score` leaves it of held-out images, is taken as one fold.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from apn.calibration import Calibration, Method, expected_calibration_error, fit_calibration, read_calibration
from apn.metrics import auc
from apn.report.build import estimate_metrics, protocols
from apn.report.canvas import save_figure
from apn.report.figures import Dots, dot_figure
from apn.report.results import Threshold
from apn.scoretable import Scores, read_scores

ROOT = Path(__file__).parent.parent
HALF = Threshold(0.5, "probability", "0.5")
CALIBRATIONS: tuple[Method, ...] = ("temperature", "isotonic")
MANY = 20  # images that a group needs to be held against a goal


class Told(NamedTuple):
    """How well one generator is told from the real images of its fold."""

    generator: str
    images: int
    auc: float


def by_generator(scores: Scores) -> Iterator[Told]:
    for fold in scores.subset.present() or [""]:
        inside = scores.subset.where(fold)
        real = inside & (scores.labels == 0)
        for generator in scores.generator.present(inside & (scores.labels == 1)):
            made = inside & scores.generator.where(generator)
            both = real | made
            yield Told(generator, int(made.sum()), auc(scores.labels[both], scores.logits[both]))


def lines(scores: Scores, calibration: Calibration) -> Iterator[str]:
    """Of one protocol."""
    told = list(by_generator(scores))
    many = sorted((one for one in told if one.images >= MANY), key=lambda one: one.auc)
    yield f"- mean AUC over {len(told)} generators {np.mean([one.auc for one in told]):.3f}"
    yield f"- {sum(one.auc < 0.8 for one in many)} of {len(many)} with {MANY} images or more under 0.80: " + ", ".join(
        f"{one.generator} {one.auc:.3f}" for one in many
    )
    verdicts = np.array([calibration.verdict(calibration.probability(logit)) for logit in scores.logits])
    for label, name in enumerate(("real", "generated")):
        of = scores.labels == label
        shares = [f"{word} {np.mean(verdicts[of] == word):.1%}" for word in ("generated", "unsure", "real")]
        yield f"- {int(of.sum())} {name} images are called: {', '.join(shares)}"
    real = scores.labels == 0
    sources = {name: real & scores.source.where(name) for name in scores.source.present(real)}
    yield "- real ones called generated, by source, and their AUC: " + ", ".join(
        f"{name} {np.mean(verdicts[of] == 'generated'):.1%} of {int(of.sum())}, {_auc_of_real(scores, of):.3f}"
        for name, of in sources.items()
    )


def _auc_of_real(scores: Scores, real: np.ndarray) -> float:
    """How well real images (N,) are told from all generated ones of their fold."""
    both = real | ((scores.labels == 1) & np.isin(scores.subset.codes, scores.subset.codes[real]))
    return auc(scores.labels[both], scores.logits[both])


def crossed(scores: Scores) -> Iterator[str]:
    """What a calibration is worth on generators and sources that it has not seen either: fitted on the other folds."""
    for method in CALIBRATIONS:
        probabilities, verdicts = np.empty(len(scores.logits)), np.empty(len(scores.logits), object)
        for fold in scores.subset.present():
            inside = scores.subset.where(fold)
            fitted = fit_calibration(scores.logits[~inside], scores.labels[~inside], method=method, fitted_on=fold)
            probabilities[inside] = [fitted.probability(logit) for logit in scores.logits[inside]]
            verdicts[inside] = [fitted.verdict(one) for one in probabilities[inside]]
        called = [np.mean(verdicts[scores.labels == label] == "generated") for label in (0, 1)]
        ece = expected_calibration_error(probabilities, scores.labels)
        yield f"- {method}: ECE {ece:.3f}; called generated: real {called[0]:.1%}, generated {called[1]:.1%}"


def figure(scores: Scores, title: str) -> Figure:
    """AUC of each generator against the real images of its fold with its interval, a series a protocol, worst first."""
    first, *_ = titles = protocols(scores)
    told = sorted(by_generator(scores.take(scores.protocol.where(first))), key=lambda row: row.auc)
    order, series = [row.generator for row in told], []
    for protocol in titles:
        one = scores.take(scores.protocol.where(protocol))
        found, _ = estimate_metrics(
            one, [np.ones(len(one.labels), bool), *(_against(one, name) for name in order)], HALF
        )
        series.append(Dots(protocol, [metrics.auc for metrics in found[1:]]))
    return dot_figure([f"{row.generator} ({row.images})" for row in told], series, title)


def _against(scores: Scores, generator: str) -> np.ndarray:
    """(N,): this generator, and the real images of its fold."""
    made = scores.generator.where(generator) & (scores.labels == 1)
    (fold,) = scores.subset.present(made)
    return made | (scores.subset.where(fold) & (scores.labels == 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path)
    parser.add_argument("--calibration", type=Path, default=ROOT / "apn" / "weights" / "apn-mini")
    parser.add_argument("--figure", type=Path, help="PNG or SVG of the AUC by generator")
    options = parser.parse_args()
    (scores,) = read_scores([options.scores])
    scores = scores.take(~scores.failed)
    calibration = read_calibration(options.calibration)
    for title in protocols(scores):
        print(f"\n{title}\n")
        print("\n".join(lines(scores.take(scores.protocol.where(title)), calibration)))
    if scores.subset.present():
        print("\nby calibrations of the other folds, all protocols\n")
        print("\n".join(crossed(scores)))
    if options.figure:
        save_figure(figure(scores, "Generators that training never saw (images)"), options.figure)


if __name__ == "__main__":
    main()
