"""Is purification what its name says? What artifact and irrelevant embeddings know, and what they know in common.

Linear probes (Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2017) tell the
label, the generator of generated images and the source of photographs, on split groups that were not fitted. Two
estimators say how much information the two parts still share: CLUB, which training squeezes, fitted anew and read on
held-out images, and a k-nearest-neighbour one that training never saw (Kraskov, Stoegbauer, Grassberger, Phys. Rev. E
69, 2004, by the library infomeasure).
Dimensions: N images, D embedding size, P principal components, G split groups, C classes, R resamples.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from apn.bootstrap import interval
from apn.embeddings import Branch, Embeddings
from apn.markdown import table_row
from apn.models.club import CLUB
from apn.report.results import Estimate

TARGETS = ("label", "generator", "source")
PARTS = ("artifact", "irrelevant")
FOLDS = 5
REGULARISATION = 0.1  # C of the logistic regression: as many numbers as images would else be fitted by heart
COMPONENTS = 8  # nearest neighbours in more dimensions need more images than anyone has
NEIGHBOURS = 4
SHUFFLES = 5
CLUB_HIDDEN, CLUB_STEPS, CLUB_PATIENCE, CLUB_RATE = 64, 400, 60, 3e-3
_NAN = Estimate(float("nan"), float("nan"), float("nan"))

Folds = list[tuple[np.ndarray, np.ndarray]]


class Probe(NamedTuple):
    """Balanced accuracy, in [0, 1], of a linear probe on held-out groups; nan where fewer than two classes remain.

    chance: of knowing nothing, 1 / classes.
    """

    target: str
    part: str
    accuracy: Estimate
    chance: float
    classes: int
    images: int


class Shared(NamedTuple):
    """Information that artifact and irrelevant parts share, in nats, of their first COMPONENTS principal components.

    club: the bound of `apn.models.club`, mean over held-out folds. knn: the k-nearest-neighbour estimate. *_shuffled:
    the same of pairs that were torn apart, which share nothing: what the estimator says of nothing at all.
    """

    club: float
    club_shuffled: float
    knn: float
    knn_shuffled: float


class Purity(NamedTuple):
    """What was measured of one table of embeddings."""

    name: str
    branch: Branch
    probes: tuple[Probe, ...]  # TARGETS by PARTS
    shared: Shared

    def probe(self, target: str, part: str) -> Probe:
        (found,) = (one for one in self.probes if (one.target, one.part) == (target, part))
        return found


def table_names(tables: Sequence[Path]) -> list[str]:
    """A name for each table: that of its file, after those of as many folders as tell all apart (`run1/last`).

    Raises ValueError for a table that is given twice.
    """
    paths = [Path(os.path.abspath(table)).with_suffix("") for table in tables]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"expected each table of embeddings once, found {', '.join(map(str, tables))}")


def measure_purity(
    name: str, embeddings: Embeddings, *, branch: Branch = "mean", resamples: int = 1000, seed: int = 0
) -> Purity:
    """Probes and shared information of one table. Raises ValueError for fewer than 40 images or FOLDS split groups."""
    scores = embeddings.scores
    images, groups = len(scores.labels), len(np.unique(scores.groups))
    if images < 40 or groups < FOLDS:
        raise ValueError(
            f"expected at least 40 images in {FOLDS} split groups to measure purification on, found {images} in "
            f"{groups} of {name}"
        )
    parts = {part: embeddings.part(part, branch) for part in PARTS}
    rows = {"label": np.ones(len(scores.labels), bool), "generator": scores.labels == 1, "source": scores.labels == 0}
    targets = {"label": scores.labels, "generator": scores.generator.codes, "source": scores.source.codes}
    probes = []
    for target in TARGETS:
        own = rows[target]
        if target != "label":  # an image that does not say it is no class
            own = own & ~getattr(scores, target).where("")
        for part, features in parts.items():
            options = {"resamples": resamples, "seed": seed}
            found = linear_probe(features[own], targets[target][own], scores.groups[own], **options)
            probes.append(found._replace(target=target, part=part))
    shared = shared_information(parts["artifact"], parts["irrelevant"], scores.groups, seed=seed)
    return Purity(name, branch, tuple(probes), shared)


# Probes ---------------------------------------------------------------------------------------------------------------


def linear_probe(
    features: np.ndarray, targets: np.ndarray, groups: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> Probe:
    """Logistic regression on standardised features (N, D), cross-validated with groups (N,) kept together.

    targets: (N,), any values; a class with fewer than FOLDS groups is left out. The interval (95 %) is a bootstrap over
    groups of the held-out answers; it does not know that another sample would have fitted another probe.
    """
    kept = _in_enough_groups(targets, groups)
    features, groups = features[kept], np.unique(groups[kept], return_inverse=True)[1]
    names, classes = np.unique(targets[kept], return_inverse=True)
    if len(names) < 2:
        return Probe("", "", _NAN, float("nan"), len(names), len(classes))
    right = _held_out_answers(features, classes, groups, seed) == classes
    return Probe("", "", _balanced(right, classes, groups, resamples, seed), 1 / len(names), len(names), len(classes))


def _in_enough_groups(targets: np.ndarray, groups: np.ndarray) -> np.ndarray:
    enough = [name for name in np.unique(targets) if len(np.unique(groups[targets == name])) >= FOLDS]
    return np.isin(targets, enough)


def _held_out_answers(features: np.ndarray, classes: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    answers = np.empty_like(classes)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    with threadpool_limits(1):
        for train, test in splitter.split(features, classes, groups):
            linear = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=2000)
            answers[test] = (
                make_pipeline(StandardScaler(), linear).fit(features[train], classes[train]).predict(features[test])
            )
    return answers


def _balanced(right: np.ndarray, classes: np.ndarray, groups: np.ndarray, resamples: int, seed: int) -> Estimate:
    """Mean over classes of the share of right answers (N,), with its interval; groups are codes from 0."""
    shape = int(groups.max()) + 1, int(classes.max()) + 1
    found, total = np.zeros(shape), np.zeros(shape)
    np.add.at(found, (groups, classes), right)
    np.add.at(total, (groups, classes), 1)
    rng, even = np.random.default_rng(seed), np.full(shape[0], 1 / shape[0])
    shares = []  # (C,) a resample; one at a time, as R times G numbers of a million groups would not fit a machine
    with np.errstate(invalid="ignore"):  # a resample may lack a class
        for _ in range(resamples):
            drawn = rng.multinomial(shape[0], even).astype(float)
            shares.append((drawn @ found) / (drawn @ total))
    accuracies = np.nanmean(shares, axis=1)  # (R,)
    low, high = interval(accuracies[:, None])
    return Estimate(float((found.sum(axis=0) / total.sum(axis=0)).mean()), float(low[0]), float(high[0]))


# Information ----------------------------------------------------------------------------------------------------------


def shared_information(
    artifact: np.ndarray, irrelevant: np.ndarray, groups: np.ndarray, *, components: int = COMPONENTS, seed: int = 0
) -> Shared:
    """Both estimates for parts (N, D) each, and what they are for pairs torn apart (mean of SHUFFLES shuffles)."""
    parts = [whitened(part, components, seed) for part in (artifact, irrelevant)]
    kept = min(part.shape[1] for part in parts)
    if not kept:  # a part that never varies tells nothing of the other
        return Shared(0.0, 0.0, 0.0, 0.0)
    one, other = (part[:, :kept] for part in parts)
    rng = np.random.default_rng(seed)
    torn = [other[rng.permutation(len(other))] for _ in range(SHUFFLES)]
    return Shared(
        club=club_bound(one, other, groups, seed=seed),
        club_shuffled=float(np.mean([club_bound(one, pair, groups, seed=seed) for pair in torn])),
        knn=knn_information(one, other),
        knn_shuffled=float(np.mean([knn_information(one, pair) for pair in torn])),
    )


def whitened(values: np.ndarray, components: int = COMPONENTS, seed: int = 0) -> np.ndarray:
    """(N, D) -> (N, P): at most so many principal components, each of variance 1; those without variance are left out.

    Information is the same in any invertible coordinates, so that only what the left-out components know is lost.
    """
    from sklearn.decomposition import PCA

    if not np.ptp(values, axis=0).any():
        return np.empty((len(values), 0))
    found = PCA(min(components, *values.shape), random_state=seed).fit(np.asarray(values, np.float64))
    kept = found.explained_variance_ > 1e-9 * found.explained_variance_[0]
    return found.transform(values)[:, kept] / np.sqrt(found.explained_variance_[kept])


def knn_information(one: np.ndarray, other: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Nats shared by (N, P) and (N, Q), Kraskov's first estimator; biased towards 0 where much is shared or N small."""
    import infomeasure

    return float(infomeasure.mutual_information(one, other, approach="ksg", k=neighbours, noise_level=0, base="e"))


def club_bound(one: np.ndarray, other: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> float:
    """Nats: CLUB of two (N, P) of variance 1, fitted on some groups and read on others, mean of all folds.

    An upper bound only as far as q fits; on held-out pairs a q that fits badly can fall below 0.
    """
    from sklearn.model_selection import GroupKFold

    pairs = tuple(torch.from_numpy(np.asarray(part, np.float32)) for part in (one, other))
    total = 0.0
    for number, (train, test) in enumerate(GroupKFold(FOLDS).split(one, groups=groups)):
        fitted = _fit_club(pairs[0][train], pairs[1][train], groups[train], seed + number)
        with torch.no_grad():
            total += len(test) * float(fitted(pairs[0][test], pairs[1][test]))
    return total / len(one)


def _fit_club(one: Tensor, other: Tensor, groups: np.ndarray, seed: int) -> CLUB:
    """Stopped where it fits a fifth of the groups best that it does not learn from."""
    from sklearn.model_selection import GroupShuffleSplit

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        club = CLUB(one.shape[1], CLUB_HIDDEN)
    (learn, watch), *_ = GroupShuffleSplit(1, test_size=0.2, random_state=seed).split(one, groups=groups)
    optimizer = torch.optim.Adam(club.parameters(), lr=CLUB_RATE)
    best, least, waited = {n: v.clone() for n, v in club.state_dict().items()}, float("inf"), 0
    for _ in range(CLUB_STEPS):
        optimizer.zero_grad()
        club.learning_loss(one[learn], other[learn]).backward()
        optimizer.step()
        with torch.no_grad():
            watched = float(club.learning_loss(one[watch], other[watch]))
        waited = 0 if watched < least else waited + 1
        if watched < least:
            best, least = {n: v.clone() for n, v in club.state_dict().items()}, watched
        if waited > CLUB_PATIENCE:
            break
    club.load_state_dict(best)
    return club


# The table ------------------------------------------------------------------------------------------------------------


def purity_table(found: Sequence[Purity]) -> str:
    """Markdown: a row a table of embeddings and branch."""
    columns = [f"{target}: {part}" for target in TARGETS for part in PARTS]
    lines = [
        table_row(["weights", "branch", *columns, "CLUB (torn apart)", "k-NN (torn apart)"]),
        "|---" * (len(columns) + 4) + "|",
    ]
    for one in found:
        cells = [_cell(one.probe(target, part)) for target in TARGETS for part in PARTS]
        shared = one.shared
        cells += [f"{shared.club:.2f} ({shared.club_shuffled:.2f})", f"{shared.knn:.2f} ({shared.knn_shuffled:.2f})"]
        lines.append(table_row([one.name, one.branch, *cells]))
    return "\n".join(lines) + "\n\n" + _legend(found) + "\n"


def _cell(probe: Probe) -> str:
    if np.isnan(probe.accuracy.value):
        return "–"
    return f"{probe.accuracy.value:.3f} ({probe.accuracy.low:.3f} to {probe.accuracy.high:.3f})"


def _legend(found: Sequence[Purity]) -> str:
    facts = dict.fromkeys(
        f"{probe.target}: {probe.images} images, {probe.classes} classes, chance {probe.chance:.3f}"
        for one in found
        for probe in one.probes
        if probe.classes > 1
    )
    untold = (
        f" –: fewer than two classes of {FOLDS} split groups."
        if any(probe.classes < 2 for one in found for probe in one.probes)
        else ""
    )
    return f"Balanced accuracy of linear probes (95 % interval); nats shared. {'; '.join(facts)}.{untold}"
