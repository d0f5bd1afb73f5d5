"""Divide samples so that no split group (a prompt, a subject, a case) is ever cut.

Two kinds: a random held-out share for choosing when to stop, and leave-out folds that ask the real question, unseen
generators and cameras. scikit-learn's StratifiedGroupKFold can only hold out 1/k and balances one kind of class, so
the random split is done here: quotas per generator and source, filled group by group.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apn.data.samples import REAL, Sample

Stratum = tuple[int, str]  # label, then generator (generated) or source (real)


class Fold(NamedTuple):
    """What a leave-out fold keeps from training and tests on."""

    left_out_generators: tuple[str, ...]
    left_out_real_sources: tuple[str, ...]


def stratum(sample: Sample) -> Stratum:
    """The label with the origin that balance is kept over: the source of a real image, else the generator."""
    return sample.label, sample.source if sample.label == REAL else sample.generator


def split_by_group(samples: Sequence[Sample], held_out: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(train, held out): about the share `held_out`, in (0, 1), of each class, generator and real source.

    No split group is cut; shares are met as far as the groups allow. Depends on the seed and the set of samples, not
    on their order; both lists come sorted. ValueError where one side would stay empty.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"expected a held-out share between 0 and 1, found {held_out}")
    groups: dict[str, Counter[Stratum]] = defaultdict(Counter)
    for sample in samples:
        groups[sample.split_group][stratum(sample)] += 1
    room = _quotas(Counter(map(stratum, samples)), held_out)
    names = sorted(groups)
    chosen = set()
    for i in np.random.default_rng(seed).permutation(len(names)):
        counts = groups[names[i]]
        # Take the group where that brings the counts nearer to their quotas (in summed squares).
        if sum(count * (count - 2 * room[s]) for s, count in counts.items()) < 0:
            chosen.add(names[i])
            for s, count in counts.items():
                room[s] -= count
    parts = _divide(samples, chosen)
    if not all(parts):
        raise ValueError(
            f"cannot hold out a share of {held_out} of {len(samples)} samples in {len(groups)} split groups: "
            f"expected some on both sides, found {len(parts[0])} and {len(parts[1])}"
        )
    return parts


def leave_out(
    samples: Sequence[Sample], generators: Collection[str], real_sources: Collection[str]
) -> tuple[list[Sample], list[Sample]]:
    """(train, test): test is every image of these generators and these real sources, in the order given.

    Train is the rest, minus whatever shares a split group with test. ValueError for a name that no sample has.
    """
    left_out: set[Stratum] = {(1, name) for name in generators} | {(0, name) for name in real_sources}
    known = set(map(stratum, samples))
    if unknown := left_out - known:
        listed = "; ".join(
            f"{kind}: {', '.join(sorted(name for label, name in known if label == of)) or 'none'}"
            for kind, of in (("generators", 1), ("real sources", 0))
        )
        raise ValueError(f"expected names to leave out among {listed}; found {sorted(name for _, name in unknown)}")
    test = [sample for sample in samples if stratum(sample) in left_out]
    tested = {sample.split_group for sample in test}
    return [sample for sample in samples if sample.split_group not in tested], test


def read_folds(path: str | Path) -> dict[str, Fold]:
    """Leave-out folds by name, from JSON {name: {left_out_generators: [...], left_out_real_sources: [...]}}."""
    try:
        folds = json.loads(Path(path).read_text(encoding="utf-8"))
        return {
            name: Fold(**{field: tuple(fold.pop(field)) for field in Fold._fields}, **fold)
            for name, fold in folds.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        expected = "expected JSON {name: {left_out_generators: [...], left_out_real_sources: [...]}}"
        raise ValueError(f"cannot read folds from {path}: {expected}; found {error!r}") from error


def _quotas(sizes: Counter[Stratum], share: float) -> Counter[Stratum]:
    """Whole numbers near share * size that also add up per class: rounding carries over to the next stratum."""
    strata = sorted(sizes)
    totals = [0, *accumulate(sizes[s] for s in strata)]
    return Counter({s: round(share * b) - round(share * a) for s, (a, b) in zip(strata, pairwise(totals), strict=True)})


def _divide(samples: Sequence[Sample], chosen: Collection[str]) -> tuple[list[Sample], list[Sample]]:
    ordered = sorted(samples)
    return (
        [sample for sample in ordered if sample.split_group not in chosen],
        [sample for sample in ordered if sample.split_group in chosen],
    )
