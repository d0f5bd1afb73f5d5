"""From scores to a report: every number of it, nothing drawn.

Dimensions: N images, S sets of them (all, each generator, each scene), R resamples. Labels: 0 real, 1 generated.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from apn.bootstrap import Images, bootstrap, interval
from apn.calibration import conformal_quantile
from apn.metrics import Metrics, measure
from apn.protocols import PROTOCOLS
from apn.report.paired import paired_tests
from apn.report.results import (
    Detector,
    Estimate,
    Failure,
    Report,
    Row,
    ShortcutProbe,
    Table,
    Threshold,
)
from apn.scoretable import Scores

UNNAMED = "(unnamed)"  # generated images of which nobody said the generator
_SHOWN_FAILURES = 100
_ALL = 0  # the first set


class _Set(NamedTuple):
    """Images that a row is about."""

    name: str
    by: Literal["all", "generator", "scene"]
    member: np.ndarray  # (N,) bool


def build_report(
    scores: Sequence[Scores],
    *,
    thresholds: Sequence[Threshold] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Tables of each detector under each protocol, and tests between each two detectors.

    scores: one a detector, as `read_scores` gives them; degraded images are left out. thresholds: frozen ones, one a
    detector (default: those recorded with the weights). Raises ValueError where no image is without degradation, or
    two detectors were given different labels.
    """
    clean = [one.take(one.degradation.where("")) for one in scores]
    for one in clean:
        if not len(one.labels):
            raise ValueError(
                f"no scores of images as they are for {one.facts.weights}: expected some without degradation"
            )
    labels = _labels(scores)
    frozen = [recorded_threshold(one) for one in clean] if thresholds is None else list(thresholds)
    tables = [
        table
        for one, label, threshold in zip(clean, labels, frozen, strict=True)
        for protocol in protocols(one)
        for table in _tables(one.take(one.protocol.where(protocol)), label, threshold, protocol, resamples, seed)
    ]
    failures = [failure for one, label in zip(scores, labels, strict=True) for failure in _failures(one, label)]
    return Report(
        detectors=tuple(_detector(one, label) for one, label in zip(scores, labels, strict=True)),
        tables=tuple(tables),
        paired=tuple(paired_tests(clean, labels, frozen, resamples=resamples, seed=seed)),
        probes=_probes(scores),
        failed=sum(int(one.failed.sum()) for one in scores),
        failures=tuple(failures[:_SHOWN_FAILURES]),
        resamples=resamples,
        seed=seed,
    )


def recorded_threshold(scores: Scores) -> Threshold:
    """What the weights' calibration says `generated` from."""
    known = scores.facts.thresholds
    value = known.generated_from
    if known.target_fpr is None:
        return Threshold(value, "probability", f"{value:.3f}, the weights have no calibration")
    return Threshold(value, "probability", f"{value:.3f}, frozen with the weights at {100 * known.target_fpr:g} % FPR")


def validation_threshold(scores: Scores, validation: Sequence[Scores], target_fpr: float) -> Threshold:
    """The lowest logit that at most `target_fpr` of new real images like the validation's reach (conformal quantile).

    Scores under several protocols count together: the threshold is for all of them.
    Raises ValueError where the validation tables hold no or too few real images scored by the same detector.
    """
    if not 0 < target_fpr < 1:
        raise ValueError(f"expected a target FPR between 0 and 1, found {target_fpr}")
    facts = scores.facts
    same = [one for one in validation if (one.facts.sha256 or one.facts.weights) == (facts.sha256 or facts.weights)]
    real = [one.logits[(one.labels == 0) & ~one.failed & one.degradation.where("")] for one in same]
    logits = np.concatenate([*real, np.empty(0)])
    upper = conformal_quantile(logits, 1 - target_fpr)
    if not np.isfinite(upper):
        raise ValueError(
            f"expected at least {int(np.ceil(1 / target_fpr - 1 - 1e-9))} validation scores of real images by "
            f"{facts.weights} for an FPR of {target_fpr:.1%}, found {len(logits)}"
        )
    value = float(np.nextafter(upper, np.inf))
    origin = f"logit {value:.3f}, at {100 * target_fpr:g} % FPR on {len(logits)} validation scores of real images"
    return Threshold(value, "logit", origin)


def protocols(scores: Scores) -> list[str]:
    """Titles of the protocols in a table, native before aligned, then the others."""

    def place(title: str) -> tuple[int, str]:
        known = [number for number, name in enumerate(PROTOCOLS) if title.split(" ")[0] == name]
        return (*known, len(PROTOCOLS))[0], title

    present = {scores.protocol.names[code] for code in np.unique(scores.protocol.codes)}
    return sorted(present, key=place)


def called(scores: Scores, threshold: Threshold) -> np.ndarray:
    """Mask (N,) of the images called generated; failed ones are not."""
    ranked = scores.probabilities if threshold.on == "probability" else scores.logits
    return ranked >= threshold.value


def estimate_metrics(
    scores: Scores, sets: Sequence[np.ndarray], threshold: Threshold, *, resamples: int = 1000, seed: int = 0
) -> tuple[list[Metrics[Estimate]], Metrics[Estimate]]:
    """Metrics of each set, a mask (N,), and of the mean over the sets after the first; failed images count nowhere.

    The sets share the resamples. An undefined value has no place in the mean.
    """
    scored = ~scores.failed
    one = scores.take(scored)
    images = Images(one.labels.astype(int), one.logits, one.probabilities, called(one, threshold), one.groups)
    members = [mask[scored] for mask in sets]
    values = [_measured(images, member) for member in members]
    binned, resampled = (bootstrap(images, members, resamples=count, seed=seed) for count in (0, resamples))
    estimates: list[list[Estimate]] = []
    for name, exact, middle, drawn in zip(Metrics._fields, zip(*values, strict=True), binned, resampled, strict=True):
        # Where a large table was counted in bins, the bins' own small error is taken out again.
        moved = np.clip(drawn + (np.array(exact) - middle[0]), 0, np.inf if name == "nll" else 1)
        # A resample that lacks one of the sets counts for none of the mean: that of the others is another number.
        defined = np.isfinite(exact)[1:]
        means = _nan_mean(np.array(exact)[None, 1:]), _nan_mean(moved[:, 1:])
        means[1][np.isnan(moved[:, 1:][:, defined]).any(axis=1)] = np.nan
        points, columns = np.append(exact, means[0]), np.column_stack([moved, means[1]])
        low, high = interval(columns) if len(columns) else (np.full(len(points), np.nan),) * 2
        estimates.append([Estimate(*map(float, three)) for three in zip(points, low, high, strict=True)])
    by_set = [Metrics(*metrics) for metrics in zip(*estimates, strict=True)]
    return by_set[:-1], by_set[-1]


def _measured(images: Images, member: np.ndarray) -> Metrics[float]:
    return measure(images.labels[member], images.logits[member], images.probabilities[member], images.called[member])


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean (R,) over the defined values of (R, S); nan where there is none."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=1) / defined.sum(axis=1)


# Tables ---------------------------------------------------------------------------------------------------------------


def _tables(
    scores: Scores, detector: str, threshold: Threshold, protocol: str, resamples: int, seed: int
) -> list[Table]:
    """By generator, and by scene where there are several."""
    tables: list[Table] = []
    for by, groups in (("generator", _generators(scores)), ("scene", _scenes(scores))):
        if by == "scene" and len(groups) < 2:
            continue
        sets = [_Set("all", "all", np.ones(len(scores.labels), bool)), *groups]
        each, mean = estimate_metrics(scores, [one.member for one in sets], threshold, resamples=resamples, seed=seed)
        rows = [_row(scores, one, metrics) for one, metrics in zip(sets, each, strict=True)]
        if groups:
            rows.append(rows[_ALL]._replace(name="mean", kind="mean", metrics=mean))
        title = f"{detector}, {protocol}, by {by}"
        tables.append(Table(title, detector, protocol, by, threshold, tuple(rows)))  # type: ignore[arg-type]
    return tables


def _row(scores: Scores, one: _Set, metrics: Metrics[Estimate]) -> Row:
    scored = one.member & ~scores.failed
    generated = int((scores.labels[scored] == 1).sum())
    failed = int((one.member & scores.failed).sum())
    kind: Literal["all", "group"] = "all" if one.by == "all" else "group"
    return Row(one.name, kind, int(scored.sum()) - generated, generated, failed, metrics)


def _generators(scores: Scores) -> list[_Set]:
    """Each generator's images, with the real ones they are compared with."""
    generated = scores.labels == 1
    names = scores.generator.present(generated)
    sets = [_Set(name, "generator", _compared(scores, generated & scores.generator.where(name))) for name in names]
    unnamed = generated & scores.generator.where("")
    if names and unnamed.any():
        sets.append(_Set(UNNAMED, "generator", _compared(scores, unnamed)))
    return sets


def _compared(scores: Scores, generated: np.ndarray) -> np.ndarray:
    """Generated images with the real ones of their subsets and of none; with all real ones where that leaves none."""
    real = scores.labels == 0
    subsets = {scores.subset.names[code] for code in np.unique(scores.subset.codes[generated])}
    paired = real & scores.subset.where("", *subsets)
    return generated | (paired if "" not in subsets and paired.any() else real)


def _scenes(scores: Scores) -> list[_Set]:
    return [_Set(name, "scene", scores.scene.where(name)) for name in scores.scene.present()]


# Facts ----------------------------------------------------------------------------------------------------------------


def _labels(scores: Sequence[Scores]) -> list[str]:
    """A name for each detector; the start of its sha256, its backend or its number where the name is another's too."""
    labels = [one.facts.weights for one in scores]
    for more in (lambda i: scores[i].facts.sha256[:8], lambda i: scores[i].facts.backend, lambda i: f"no. {i + 1}"):
        doubled = [label for label in labels if labels.count(label) > 1]
        labels = [f"{label} ({more(i)})" if label in doubled and more(i) else label for i, label in enumerate(labels)]
    return labels


def _detector(scores: Scores, label: str) -> Detector:
    facts = scores.facts
    return Detector(
        label, facts.weights, facts.sha256, facts.backend, facts.version, facts.command, facts.data, facts.seed
    )


def _probes(scores: Sequence[Scores]) -> tuple[ShortcutProbe, ...]:
    found = dict.fromkeys(shortcut for one in scores for shortcut in one.facts.shortcuts)
    return tuple(
        ShortcutProbe(
            one.data, one.protocol, Estimate(*(np.nan if v is None else v for v in (one.auc, one.low, one.high)))
        )
        for one in found
    )


def _failures(scores: Scores, label: str) -> list[Failure]:
    rows = np.flatnonzero(scores.failed)[:_SHOWN_FAILURES]
    titles = [scores.protocol.names[code] for code in scores.protocol.codes[rows]]
    return [
        Failure(label, title, scores.paths[int(row)].as_py(), scores.errors[int(row)].as_py())
        for row, title in zip(rows, titles, strict=True)
    ]
