"""From logit to probability to verdict: fitted on held-out data, saved beside the weights.

Applying a calibration needs numpy alone; fitting one needs scikit-learn (extra `evaluate`).
Dimensions: N images. Labels: 0 real, 1 generated.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from apn.detection import Verdict
from apn.wholefile import write_whole

FILE = "calibration.json"
Method = Literal["none", "temperature", "isotonic"]
ECE_BINS = 15


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The verdict is `real` under `real_below`, `generated` from `generated_from` on, else `unsure`.

    target_fpr, target_fnr: the share of real images called generated, and of generated ones called real, that they were
    chosen for on held-out images; None if unknown.
    """

    real_below: float = 0.5
    generated_from: float = 0.5
    target_fpr: float | None = None
    target_fnr: float | None = None

    def verdict(self, probability: float) -> Verdict:
        if probability >= self.generated_from:
            return "generated"
        return "real" if probability < self.real_below else "unsure"


@dataclass(frozen=True, slots=True)
class Calibration:
    """probability = sigmoid(logit / temperature), or a step-wise linear map through (knots_logit, knots_probability).

    real_below, generated_from, target_fpr, target_fnr: the thresholds of one score. checked: those of the stability
    check, which the image and all its re-deliveries have to pass; None where they were not chosen: then those of one
    score. ece: expected calibration error, cross-fitted, None if unknown. least_colour: a picture with less colour
    (`apn.doubts.colourfulness`, 0 to 255) than the calibration was fitted for is `unsure`, whatever its probability,
    and so is one of which more than most_flat is of one colour with what is beside it (`flatness` there, 0 to 1).
    weights_sha256: of the weights whose logits it was fitted to, and which alone it is for; None if unknown.
    """

    method: Method = "none"
    temperature: float = 1.0
    knots_logit: tuple[float, ...] = ()
    knots_probability: tuple[float, ...] = ()
    real_below: float = 0.5
    generated_from: float = 0.5
    target_fpr: float | None = None
    target_fnr: float | None = None
    checked: Thresholds | None = None
    ece: float | None = None
    least_colour: float = 0.0
    most_flat: float = 1.0
    real_images: int = 0
    generated_images: int = 0
    fitted_on: str = "nothing: softmax of the logits, verdict at 0.5"
    weights_sha256: str | None = None

    def probability(self, logit: float) -> float:
        """Calibrated probability of generated, in [0, 1]; finite for any finite logit."""
        if self.method == "isotonic":
            return float(np.interp(logit, self.knots_logit, self.knots_probability))
        return sigmoid(logit / self.temperature)

    def thresholds(self, *, checked: bool = False) -> Thresholds:
        """Those of one score, or with `checked` those of the stability check."""
        if checked and self.checked is not None:
            return self.checked
        return Thresholds(self.real_below, self.generated_from, self.target_fpr, self.target_fnr)

    def verdict(self, probability: float) -> Verdict:
        """That of one score."""
        return self.thresholds().verdict(probability)

    def describe(self) -> dict[str, Any]:
        """For people and programs that ask what a score is worth; without the map's knots, and the weights it is of."""
        facts = asdict(self)
        del facts["knots_logit"], facts["knots_probability"], facts["weights_sha256"]
        return facts


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)) without overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1 + odds)


def read_calibration(folder: Path, *, required: bool = False) -> Calibration:
    """The calibration of a weights folder or a file; softmax and 0.5 where the folder has none, unless one is required.

    Raises ValueError that names the file and what is wrong with it.
    """
    path = folder / FILE if folder.is_dir() else folder
    if not path.exists() and folder.is_dir():
        if required:
            raise ValueError(
                f"no calibration in {folder}: expected {FILE} there, or the name of a file that `apn calibrate` wrote"
            )
        return Calibration()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        checked = values.get("checked")
        calibration = Calibration(**_tuples(values) | {"checked": None if checked is None else Thresholds(**checked)})
        problem = _problem(calibration)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a calibration: expected JSON as `apn calibrate` writes it ({error})"
        ) from error
    if problem:
        raise ValueError(f"{path}: expected {problem}, found {values}")
    return calibration


def _problem(calibration: Calibration) -> str | None:
    if calibration.method not in get_args(Method):
        return f"a method of {', '.join(get_args(Method))}"
    both = calibration.thresholds(), calibration.thresholds(checked=True)
    if (
        any(not 0 <= one.real_below <= one.generated_from <= 1 for one in both)
        or not 0 < calibration.temperature < math.inf
    ):
        return "0 <= real_below <= generated_from <= 1 and a finite temperature > 0"
    if not 0 <= calibration.least_colour <= 255:
        return "least_colour between 0 and 255"
    if not 0 <= calibration.most_flat <= 1:
        return "most_flat between 0 and 1"
    knots = len(calibration.knots_logit), len(calibration.knots_probability)
    if calibration.method == "isotonic" and not 0 < knots[0] == knots[1]:
        return "as many knots_logit as knots_probability"
    if not (_rise(calibration.knots_logit, -math.inf, math.inf) and _rise(calibration.knots_probability, 0, 1)):
        return "finite knots_logit that rise, and knots_probability that rise from 0 to 1"
    return None


def _rise(values: tuple[float, ...], least: float, most: float) -> bool:
    return bool(np.isfinite(values).all()) and all(a <= b for a, b in pairwise((least, *values, most)))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def write_calibration(calibration: Calibration, path: Path) -> None:
    """As a whole: a detector that is opened meanwhile reads the old one or the new one."""
    write_whole(path, (json.dumps(asdict(calibration), indent=2) + "\n").encode())


def fit_calibration(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    method: Method = "temperature",
    target_fpr: float = 0.05,
    target_fnr: float = 0.05,
    extremes: ArrayLike | None = None,
    checked_fpr: float | None = None,
    checked_fnr: float | None = None,
    least_colour: float = 0.0,
    most_flat: float = 1.0,
    fitted_on: str,
    weights_sha256: str | None = None,
) -> Calibration:
    """Fits the map and the thresholds to logits (N,) and labels (N,) of held-out images.

    extremes: (N, 2), the lowest and the highest logit of an image and its re-deliveries, NaN where they were not
    scored: thresholds of the stability check are chosen on these, for the rates checked_fpr and checked_fnr (default:
    the same rates). With the check an image is called generated where its lowest logit is above the threshold, real
    where its highest is below. least_colour, most_flat, weights_sha256: as in `Calibration`, not fitted.

    The thresholds are conformal quantiles: for a new real image like the held-out ones, the chance to reach
    `generated_from` is at most target_fpr, whatever the detector (Vovk et al. 2005; Angelopoulos & Bates 2023).
    Where the two thresholds cross, which a good detector's do, both become the upper one's place: no unsure band.
    Raises ValueError for fewer than 20 images of a class, rates outside (0, 1), or rates of the check without extremes.
    """
    logits, labels = np.asarray(logits, float), np.asarray(labels, int)
    real, generated = logits[labels == 0], logits[labels == 1]
    require_both(len(real), len(generated), "to calibrate on")
    if extremes is None and (checked_fpr, checked_fnr) != (None, None):
        raise ValueError("expected logits of re-deliveries to choose thresholds of the stability check on, found none")
    checked_fpr, checked_fnr = (
        rate if own is None else own for rate, own in ((target_fpr, checked_fpr), (target_fnr, checked_fnr))
    )
    require_fitting(target_fpr=target_fpr, target_fnr=target_fnr, checked_fpr=checked_fpr, checked_fnr=checked_fnr)
    fitted = _fit_map(logits, labels, method)
    alone = _thresholds(fitted, real, generated, target_fpr, target_fnr)
    checked = None
    if extremes is not None:
        lowest, highest = np.asarray(extremes, float)[labels == 0, 0], np.asarray(extremes, float)[labels == 1, 1]
        lowest, highest = lowest[np.isfinite(lowest)], highest[np.isfinite(highest)]
        require_both(len(lowest), len(highest), "with re-deliveries")
        checked = _thresholds(fitted, lowest, highest, checked_fpr, checked_fnr)
    return replace(
        fitted,
        **asdict(alone),
        checked=checked,
        ece=_cross_fitted_ece(logits, labels, method),
        least_colour=least_colour,
        most_flat=most_flat,
        real_images=len(real),
        generated_images=len(generated),
        fitted_on=fitted_on,
        weights_sha256=weights_sha256,
    )


def require_fitting(**rates: float | None) -> None:
    """ValueError for what no scores can mend: a rate outside (0, 1), by its name (None is no rate); no scikit-learn."""
    if find_spec("sklearn") is None:
        raise ValueError('fitting a calibration needs scikit-learn: pip install "apn[evaluate]"')
    for name, rate in rates.items():
        if rate is not None and not 0 < rate < 1:
            raise ValueError(f"expected {name} between 0 and 1, found {rate}")


def require_both(real: int, generated: int, what: str) -> None:
    """ValueError for fewer images of a class than thresholds are chosen on. what: the words after `images`."""
    if min(real, generated) < 20:
        raise ValueError(f"expected at least 20 real and 20 generated images {what}, found {real} and {generated}")


def _thresholds(
    fitted: Calibration, real: np.ndarray, generated: np.ndarray, target_fpr: float, target_fnr: float
) -> Thresholds:
    """On the logits of real images that are called generated where these are high, and of generated ones alike."""
    # `generated` from just above the highest held-out real probability that may not be called so: above, because an
    # isotonic map gives one probability to many logits.
    upper = conformal_quantile(real, 1 - target_fpr)
    lower = -conformal_quantile(-generated, 1 - target_fnr)
    generated_from = min(float(np.nextafter(fitted.probability(upper), np.inf)), 1.0) if np.isfinite(upper) else 1.0
    real_below = min(fitted.probability(lower), generated_from) if np.isfinite(lower) else 0.0
    return Thresholds(real_below, generated_from, target_fpr, target_fnr)


def conformal_quantile(values: np.ndarray, level: float) -> float:
    """The ceil((N + 1) level)-th smallest of N values; infinite where N is too small to promise `level`."""
    rank = math.ceil((len(values) + 1) * level - 1e-9)
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else math.inf


def images_needed(rate: float) -> int:
    """The fewest images of a class whose conformal quantile promises a rate of errors: ceil(1 / rate) - 1."""
    return math.ceil(1 / rate - 1e-9) - 1


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = ECE_BINS) -> float:
    """|share generated - mean probability| over equal-width bins, weighted by their images (Guo et al. 2017)."""
    probabilities, labels = np.asarray(probabilities, float), np.asarray(labels, float)
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(place, labels - probabilities, bins)
    return float(np.abs(gaps).sum() / len(labels))


def _fit_map(logits: np.ndarray, labels: np.ndarray, method: Method) -> Calibration:
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    weight = np.where(labels == 1, 0.5 / (labels == 1).mean(), 0.5 / (labels == 0).mean())  # as if half were real
    if method == "isotonic":
        curve = IsotonicRegression(y_min=1e-3, y_max=1 - 1e-3, out_of_bounds="clip").fit(logits, labels, weight)
        # Oron and Flournoy, "Centered isotonic regression", 2017: a step becomes a point, so that no two logits between
        # the first and the last have the same probability, and a threshold can lie anywhere.
        steps, step = np.unique(curve.predict(logits), return_inverse=True)
        centers = np.bincount(step, weight * logits) / np.bincount(step, weight)
        return Calibration(method=method, knots_logit=tuple(centers.tolist()), knots_probability=tuple(steps.tolist()))
    if method == "none":
        return Calibration()
    slope = LogisticRegression(C=np.inf, fit_intercept=False).fit(logits[:, None], labels, weight).coef_[0, 0]
    if slope <= 0:
        raise ValueError("the logits rank real images above generated ones, so no temperature fits: wrong labels?")
    return Calibration(method=method, temperature=float(1 / slope))


def _cross_fitted_ece(logits: np.ndarray, labels: np.ndarray, method: Method, folds: int = 5) -> float:
    """ECE of every image under a map fitted without it, classes weighted as they come."""
    from sklearn.model_selection import StratifiedKFold

    probabilities = np.empty(len(logits))
    for fit, test in StratifiedKFold(folds, shuffle=True, random_state=0).split(logits, labels):
        curve = _fit_map(logits[fit], labels[fit], method)
        probabilities[test] = [curve.probability(logit) for logit in logits[test]]
    return expected_calibration_error(probabilities, labels)
