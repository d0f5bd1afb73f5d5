"""What a data set holds: how many of each, and how the files of the two classes differ.

Labels: 0 real, 1 generated.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from apn.data.facts import Facts, facts_of
from apn.data.samples import GENERATED, REAL, Sample
from apn.data.select import draw

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
CLASS_NAMES = ("real", "generated")  # by label
_MEASURED = ("width", "height", "aspect", "bytes", "bytes_per_pixel", "quality")
_COUNTED = ("format", "mode", "subsampling", "progressive")


class Row(NamedTuple):
    """How many images there are of one kind."""

    label: str  # of CLASS_NAMES
    origin: str  # the generator; of a real one the subset it is paired with, else its source
    scene: str
    split: str
    images: int


class ClassFacts(NamedTuple):
    """The files of one class. `counts`: files by value of a fact; `quantiles`: values at QUANTILES, by fact.

    A file without a fact (the JPEG quality of a PNG) is in none of its counts and quantiles.
    """

    files: int
    counts: dict[str, dict[str, int]]
    quantiles: dict[str, tuple[float, ...]]


class Summary(NamedTuple):
    """`rows` count all samples; `facts`, by class name, and `unreadable` only the `measured` ones."""

    rows: tuple[Row, ...]
    measured: int
    facts: dict[str, ClassFacts]
    unreadable: tuple[tuple[str, str], ...]  # path and reason

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "images": sum(row.images for row in self.rows),
            "rows": [row._asdict() for row in self.rows],
            "measured": self.measured,
            "quantiles_at": QUANTILES,
            "facts": {name: facts._asdict() for name, facts in self.facts.items()},
            "unreadable": [{"path": path, "reason": reason} for path, reason in self.unreadable],
        }


def summarise(
    samples: Sequence[Sample],
    *,
    limit: int | None = None,
    seed: int = 0,
    workers: int = 8,
    advance: Callable[[], None] = lambda: None,
) -> Summary:
    """Count all samples, and read the headers of `limit` of them (drawn by `seed`); of all where it is None.

    `advance` is called after each header.
    """
    chosen = draw(samples, limit, seed)
    by_class: dict[int, list[Facts]] = {REAL: [], GENERATED: []}
    unreadable = []
    for sample, facts in zip(chosen, facts_of(chosen, workers=workers, advance=advance), strict=True):
        if isinstance(facts, Facts):
            by_class[sample.label].append(facts)
        else:
            unreadable.append((str(sample.path), facts))
    facts_by_name = {CLASS_NAMES[label]: _class_facts(facts) for label, facts in by_class.items()}
    return Summary(_rows(samples), len(chosen), facts_by_name, tuple(unreadable))


def _rows(samples: Sequence[Sample]) -> tuple[Row, ...]:
    kinds = Counter((s.label, s.generator or s.subset or s.source, s.scene, s.split) for s in samples)
    return tuple(Row(CLASS_NAMES[kind[0]], *kind[1:], images) for kind, images in sorted(kinds.items()))


def _class_facts(facts: Sequence[Facts]) -> ClassFacts:
    values = {name: [v for file in facts if (v := getattr(file, name)) is not None] for name in _COUNTED + _MEASURED}
    return ClassFacts(
        len(facts),
        {name: {str(value): n for value, n in Counter(values[name]).most_common()} for name in _COUNTED},
        {name: tuple(np.quantile(values[name], QUANTILES).tolist()) for name in _MEASURED if values[name]},
    )
