"""Tests between two detectors on the images that both have scored, under one protocol.

McNemar's test, exact, of their calls at the frozen thresholds; the bootstrap of the difference of their AUC, in which
both are resampled together (split groups whole). McNemar's test takes images for independent.
Dimensions: N images of a detector, C images that two have in common. Labels: 0 real, 1 generated.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import binomtest

from apn.bootstrap import Images, bootstrap, interval
from apn.metrics import auc
from apn.report.results import Estimate, PairedTest, Threshold
from apn.scoretable import Scores


class _Scored(NamedTuple):
    """The scored images of one detector under one protocol; arrays (N,), by ascending image."""

    image: np.ndarray  # codes that all detectors share
    labels: np.ndarray
    logits: np.ndarray
    called: np.ndarray  # generated at the frozen threshold
    groups: np.ndarray


def paired_tests(
    scores: Sequence[Scores], labels: Sequence[str], thresholds: Sequence[Threshold], *, resamples: int, seed: int
) -> Iterator[PairedTest]:
    """Each two detectors under each protocol that both have, in order; labels are their names.

    Raises ValueError where they give one image different labels.
    """
    titles = dict.fromkeys(name for one in scores for name in one.protocol.names)
    for protocol in titles if len(scores) > 1 else ():
        scored = _scored([one.take(one.protocol.where(protocol) & ~one.failed) for one in scores], thresholds)
        resampled: dict[tuple[int, bytes], np.ndarray] = {}
        for i, j in combinations(range(len(scores)), 2):
            common = np.intersect1d(scored[i].image, scored[j].image)
            if len(common):
                first, second = (_of(scored[k], common) for k in (i, j))
                _require_same_labels(first, second, labels[i], labels[j])
                second = second._replace(groups=first.groups)
                drawn = []
                for k, one in ((i, first), (j, second)):
                    key = k, common.tobytes() + one.groups.tobytes()
                    if key not in resampled:
                        resampled[key] = _resampled_auc(one, resamples, seed)
                    drawn.append(resampled[key])
                yield _test(first, second, drawn[0] - drawn[1], (labels[i], labels[j], protocol))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that the two are right equally often, from the images that only one got right."""
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def _test(first: _Scored, second: _Scored, differences: np.ndarray, names: tuple[str, str, str]) -> PairedTest:
    right = [one.called == (one.labels == 1) for one in (first, second)]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    low, high = interval(differences)
    return PairedTest(
        *names,
        images=len(first.labels),
        only_first_right=only_first,
        only_second_right=only_second,
        mcnemar=mcnemar(only_first, only_second),
        auc_difference=Estimate(
            auc(first.labels, first.logits) - auc(second.labels, second.logits), float(low), float(high)
        ),
    )


def _scored(scores: Sequence[Scores], thresholds: Sequence[Threshold]) -> list[_Scored]:
    paths = _codes(pa.concat_arrays([one.paths for one in scores]))
    cuts = np.cumsum([len(one.labels) for one in scores])[:-1]
    found = []
    for one, image, threshold in zip(scores, np.split(paths, cuts), thresholds, strict=True):
        ranked = one.probabilities if threshold.on == "probability" else one.logits
        columns = image, one.labels.astype(int), one.logits, ranked >= threshold.value, one.groups
        order = np.argsort(image)
        found.append(_Scored(*(column[order] for column in columns)))
    return found


def _codes(texts: pa.Array) -> np.ndarray:
    """The place of each text among the distinct ones in order, so that the order of a table's rows changes nothing."""
    encoded = texts.dictionary_encode()
    place = np.empty(len(encoded.dictionary), np.int64)
    place[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(place))
    return place[encoded.indices.to_numpy()]


def _of(one: _Scored, images: np.ndarray) -> _Scored:
    """The rows of these images (C,), with groups numbered by their first image, whoever's numbers they had."""
    rows = np.searchsorted(one.image, images)
    found = _Scored(*(column[rows] for column in one))
    _, first, inverse = np.unique(found.groups, return_index=True, return_inverse=True)
    return found._replace(groups=np.argsort(np.argsort(first))[inverse])


def _require_same_labels(first: _Scored, second: _Scored, *names: str) -> None:
    different = int((first.labels != second.labels).sum())
    if different:
        raise ValueError(
            f"expected one label an image, found {different} images labelled otherwise by {' than by '.join(names)}"
        )


def _resampled_auc(one: _Scored, resamples: int, seed: int) -> np.ndarray:
    images = Images(one.labels, one.logits, np.full(len(one.labels), 0.5), one.called, one.groups)
    return bootstrap(images, [np.ones(len(one.labels), bool)], resamples=resamples, seed=seed).auc[:, 0]
