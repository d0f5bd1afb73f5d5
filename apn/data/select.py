"""A part of a data set: one split, some generators with the real images they are compared with, some scenes."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from apn.data.listing import shorten
from apn.data.names import genimage_generator, suggestion
from apn.data.samples import GENERATED, REAL, Sample


class Filters(NamedTuple):
    """What `select` keeps; nothing named keeps all."""

    split: str = ""
    generators: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()


def select(
    samples: Sequence[Sample], split: str = "", generators: Collection[str] = (), scenes: Collection[str] = ()
) -> list[Sample]:
    """The samples of a split, of scenes, and of generators with the real images paired with them, in their order.

    Generators by the name that the samples have, or by any spelling of a GenImage generator.
    ValueError for a name that no sample has; it lists those that there are.
    """
    chosen = list(samples)
    if split:
        _require_known("split", (split,), {sample.split for sample in chosen})
        chosen = [sample for sample in chosen if sample.split == split]
    if scenes:
        _require_known("scene", scenes, {sample.scene for sample in chosen})
        chosen = [sample for sample in chosen if sample.scene in scenes]
    if generators:
        known = {sample.generator for sample in chosen if sample.label == GENERATED}
        names = {name if name in known else genimage_generator(name) or name for name in generators}
        _require_known("generator", names, known)
        kept = _serving(chosen, {sample.subset for sample in chosen if sample.generator in names})
        chosen = [s for s in chosen if (s.generator in names if s.label == GENERATED else s.subset in kept)]
    return chosen


def paired_reals(samples: Iterable[Sample], generator: str) -> list[Sample]:
    """The real samples that images of this generator are compared with: those of its subsets and those of none, or all
    where there is neither."""
    samples = list(samples)
    subsets = {sample.subset for sample in samples if sample.label == GENERATED and sample.generator == generator}
    kept = _serving(samples, subsets)
    return [sample for sample in samples if sample.label == REAL and sample.subset in kept]


def draw(samples: Sequence[Sample], limit: int | None, seed: int = 0) -> list[Sample]:
    """At most `limit` samples, each equally likely, in the order given; a function of samples, limit and seed."""
    if limit is None or limit >= len(samples):
        return list(samples)
    chosen = np.sort(np.random.default_rng(seed).choice(len(samples), limit, replace=False))
    return [samples[i] for i in chosen]


def _serving(samples: Iterable[Sample], subsets: Collection[str]) -> set[str]:
    """The subsets of real samples that serve generated ones of these subsets, as reports compare them."""
    there = {sample.subset for sample in samples if sample.label == REAL}
    return there & {"", *subsets} or there


def _require_known(kind: str, wanted: Iterable[str], known: Collection[str]) -> None:
    named = sorted(name for name in known if name)
    for name in sorted(wanted):
        if not named:
            raise ValueError(f"no {kind} {name!r} in the data: no sample says its {kind}")
        if name not in named:
            listed = shorten(named, 30)
            raise ValueError(f"no {kind} {name!r} in the data: expected one of {listed}{suggestion(name, named)}")
