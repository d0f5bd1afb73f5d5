"""Every metric of many sets of images, on the same bootstrap resamples, for tables of up to millions of rows.

Whole groups are resampled, so that near copies stay together (Efron & Tibshirani 1993; Field & Welsh 2007 for groups).
A resample is a weight per group. All a metric needs is linear in these weights: how many real and generated images have
each score, and a few sums. So one sparse matrix product gives these for many resamples, and cumulative sums the rest.
Tables with more than `EXACT` distinct scores are counted in that many bins of equally many images, and of more than
`POISSON` groups each weight is drawn by itself (Poisson bootstrap, Chamandy et al. 2012): neither moves an interval
by anything that 1,000 resamples could show.

Dimensions: N images, G groups, S sets, K scores or bins of them (ascending), R resamples. Labels: 0 real, 1 generated.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.stats import poisson

from apn.calibration import ECE_BINS
from apn.metrics import FALSE_ALARMS, Metrics, negative_log_likelihood

EXACT = 8192
POISSON = 10_000
_AT_ONCE = 64  # resamples: weights of a million groups take 256 MB
_SUMS = 4 + ECE_BINS  # right at 0.5, right at the frozen threshold, -log likelihood, squared error, gap of each ECE bin


class Images(NamedTuple):
    """What metrics and resampling need of scored images; arrays of N."""

    labels: np.ndarray  # int, 0 or 1
    logits: np.ndarray
    probabilities: np.ndarray
    called: np.ndarray  # bool: generated at the frozen threshold
    groups: np.ndarray  # int codes of 0 .. G - 1, of which some may have no image; images of one are drawn together


class _Cell(NamedTuple):
    """Images of one label that are in the same sets."""

    label: int
    member: np.ndarray  # (S,) bool: the sets that these images are in
    groups: np.ndarray  # codes of those with an image here, G'
    places: sparse.csr_matrix  # (K, G') images at each score
    sums: np.ndarray  # (_SUMS, G') float32


class _Counts(NamedTuple):
    """One set on R resamples."""

    real: np.ndarray  # (K, R) images at each score
    generated: np.ndarray
    real_sums: np.ndarray  # (_SUMS, R)
    generated_sums: np.ndarray


def bootstrap(
    images: Images, sets: Sequence[np.ndarray], *, resamples: int = 1000, seed: int = 0
) -> Metrics[np.ndarray]:
    """Each metric (R, S) of each set, a bool mask (N,), on `resamples` resamples of all groups; nan where undefined.

    All sets share the resamples, so that means and differences over sets can be taken resample by resample; the same
    groups and seed give the same resamples for another detector. A set with a single group of a class is nan throughout
    (but for resamples=0): resamples that hold this group only as it is cannot show how its values vary. Binning may
    move the middle of a large table's values by up to 1e-4; compare with `bootstrap(..., resamples=0)`, one row of the
    undisturbed images.
    """
    cells, bins = _cells(images, sets)
    count = int(images.groups.max()) + 1 if len(images.groups) else 0
    parts: list[list[Metrics[np.ndarray]]] = []
    for weights in _weights(count, resamples, seed):
        totals = [_totals(cell, weights) for cell in cells]
        parts.append([_metrics(_counts(cells, totals, s, bins, weights.shape[1])) for s in range(len(sets))])
    found = Metrics(
        *(
            np.concatenate([np.stack([values[i] for values in part], axis=1) for part in parts])
            for i in range(len(Metrics._fields))
        )
    )
    single = np.array([_has_single_group(cells, s) for s in range(len(sets))], bool)
    return Metrics(*(np.where(single & (resamples > 0), np.nan, values) for values in found))


def interval(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over resamples (R, ...); nan where no resample has a value."""
    found = np.isfinite(values).any(axis=0)
    low, high = np.nanpercentile(np.where(found, values, 0), [50 * (1 - level), 50 * (1 + level)], axis=0)
    return np.where(found, low, np.nan), np.where(found, high, np.nan)


def bootstrap_interval(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the AUC; whole groups (N,), any values, are resampled."""
    labels, scores = np.asarray(labels), np.asarray(scores, float)
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    images = Images(labels, scores, np.full(len(labels), 0.5), np.zeros(len(labels), bool), codes)
    values = bootstrap(images, [np.ones(len(labels), bool)], resamples=resamples, seed=seed).auc
    low, high = interval(values[:, 0])
    return float(low), float(high)


# Counting -------------------------------------------------------------------------------------------------------------


def _weights(groups: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group is drawn, (G, at most _AT_ONCE) float32 at a time; all once where resamples is 0."""
    rng = np.random.default_rng(seed)
    if resamples == 0:
        yield np.ones((groups, 1), np.float32)
    for start in range(0, resamples, _AT_ONCE):
        count = min(_AT_ONCE, resamples - start)
        if groups > POISSON:
            # A 16-bit random number looked up in a table: ten times as fast as the generator's own Poisson numbers.
            yield _poisson_numbers()[rng.integers(2**16, size=(groups, count), dtype=np.uint16)]
        else:
            drawn = [np.bincount(rng.integers(groups, size=groups), minlength=groups) for _ in range(count)]
            yield np.stack(drawn, axis=1).astype(np.float32)


@cache
def _poisson_numbers() -> np.ndarray:
    """Quantiles (65536,) of the Poisson distribution of mean 1."""
    return poisson(1).ppf((np.arange(2**16) + 0.5) / 2**16).astype(np.float32)


def _cells(images: Images, sets: Sequence[np.ndarray]) -> tuple[list[_Cell], int]:
    """Images that no set tells apart are counted together, once, however many sets they are in. Also K."""
    places, bins = _places(images.logits)
    sums = _image_sums(images)
    code = images.labels.astype(np.int64)
    for mask in sets:
        code = 2 * code + mask
        if code.max(initial=0) > 2**60:
            code = np.unique(code, return_inverse=True)[1]
    cells = []
    for members in _members(code):
        first = members[0]
        member = np.array([mask[first] for mask in sets], bool)
        if member.any():
            groups, column = np.unique(images.groups[members], return_inverse=True)
            ones = np.ones(len(members), np.float32)
            shape = (bins, len(groups))
            counts = sparse.csr_matrix((ones, (places[members], column)), shape=shape)
            by_group = np.stack([np.bincount(column, row[members], len(groups)) for row in sums])
            cells.append(_Cell(int(images.labels[first]), member, groups, counts, by_group.astype(np.float32)))
    return cells, bins


def _members(code: np.ndarray) -> list[np.ndarray]:
    """Indices (n,) of the images of each code."""
    order = np.argsort(code, kind="stable")
    cuts = np.flatnonzero(np.diff(code[order])) + 1
    return [part for part in np.split(order, cuts) if len(part)]


def _places(logits: np.ndarray) -> tuple[np.ndarray, int]:
    """Index (N,) of each logit among the distinct ones, or of its bin of equally many images; and how many."""
    distinct, place = np.unique(logits, return_inverse=True)
    if len(distinct) > EXACT:
        edges = np.unique(np.quantile(logits, np.linspace(0, 1, EXACT + 1)[1:-1], method="inverted_cdf"))
        place = np.searchsorted(edges, logits, side="left")
        return place, len(edges) + 1
    return place, len(distinct)


def _image_sums(images: Images) -> np.ndarray:
    """(_SUMS, N): what each image adds to the sums of its set."""
    labels, probabilities = images.labels, images.probabilities
    sums = np.zeros((_SUMS, len(labels)), np.float32)
    sums[0] = (probabilities >= 0.5) == labels
    sums[1] = images.called == labels
    sums[2] = negative_log_likelihood(labels, probabilities)
    sums[3] = (probabilities - labels) ** 2
    bins = np.minimum((probabilities * ECE_BINS).astype(int), ECE_BINS - 1)
    sums[4 + bins, np.arange(len(labels))] = labels - probabilities
    return sums


def _has_single_group(cells: Sequence[_Cell], s: int) -> bool:
    """Whether all images of a class in a set are of one group."""
    groups = [[cell.groups for cell in cells if cell.member[s] and cell.label == label] for label in (0, 1)]
    return any(len(np.unique(np.concatenate(one))) == 1 for one in groups if one)


def _totals(cell: _Cell, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, R) images at each score and (_SUMS, R) sums of a cell, under weights (G, R)."""
    drawn = weights[cell.groups]
    return cell.places @ drawn, cell.sums @ drawn


def _counts(
    cells: Sequence[_Cell], totals: Sequence[tuple[np.ndarray, np.ndarray]], s: int, bins: int, resamples: int
) -> _Counts:
    found = _Counts(*(np.zeros((rows, resamples)) for rows in (bins, bins, _SUMS, _SUMS)))
    for cell, (places, sums) in zip(cells, totals, strict=True):
        if cell.member[s]:
            found[cell.label][...] += places
            found[2 + cell.label][...] += sums
    return found


# Metrics of counts ----------------------------------------------------------------------------------------------------


def _metrics(counts: _Counts) -> Metrics[np.ndarray]:
    """The definitions of `apn.metrics` for (R,) resamples at once; nan where a resample lacks a class."""
    false_alarms, found = (_from_the_top(part) for part in (counts.real, counts.generated))
    real, generated = false_alarms[-1], found[-1]  # (R,) images
    images, sums = real + generated, counts.real_sums + counts.generated_sums
    with np.errstate(invalid="ignore", divide="ignore"):
        fpr, tpr = false_alarms / real, found / generated  # (K + 1, R)
        precision = np.nan_to_num(found[1:] / (found[1:] + false_alarms[1:]))
        oracle = (found + real - false_alarms).max(axis=0) / images
        right = counts.real_sums[1] / real, counts.generated_sums[1] / generated
        return Metrics(
            auc=(np.diff(fpr, axis=0) * (tpr[1:] + tpr[:-1]) / 2).sum(axis=0),
            ap=(np.diff(tpr, axis=0) * precision).sum(axis=0) + 0 * real / real,
            accuracy=sums[0] / images,
            balanced_accuracy=(right[0] + right[1]) / 2,
            oracle_accuracy=oracle + 0 * (right[0] + right[1]),  # nan for one class
            tpr_at_1=_at(fpr, tpr, FALSE_ALARMS[0]),
            tpr_at_5=_at(fpr, tpr, FALSE_ALARMS[1]),
            eer=_equal_error_rate(fpr, tpr),
            nll=sums[2] / images,
            brier=sums[3] / images,
            ece=np.abs(sums[4:]).sum(axis=0) / images,
        )


def _from_the_top(counts: np.ndarray) -> np.ndarray:
    """(K + 1, R): how many images lie above each threshold, from a threshold above all scores down to the lowest."""
    above = np.zeros((max(len(counts), 1) + 1, counts.shape[1]))  # a curve has two ends, even where nothing was scored
    np.cumsum(counts[::-1], axis=0, out=above[1 : len(counts) + 1])
    return above


def _at(fpr: np.ndarray, tpr: np.ndarray, false_alarms: float) -> np.ndarray:
    """TPR (R,) where each ROC curve, straight between its points, reaches this FPR."""
    before = np.minimum((fpr <= false_alarms).sum(axis=0) - 1, len(fpr) - 2)
    return _between(fpr - false_alarms, tpr, before + 1)


def _equal_error_rate(fpr: np.ndarray, tpr: np.ndarray) -> np.ndarray:
    excess = fpr + tpr - 1  # rises from -1 to 1
    return _between(excess, fpr, np.maximum(np.argmax(excess >= 0, axis=0), 1))


def _between(zero: np.ndarray, value: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`value` (R,) where `zero`, straight from point after - 1 to point `after` (R,), is 0; both are (K + 1, R)."""
    column = np.arange(zero.shape[1])
    left, right = zero[after - 1, column], zero[after, column]
    return value[after - 1, column] - left / (right - left) * (value[after, column] - value[after - 1, column])
