"""By what points are coloured and averages are taken: label, generator, scene or source, a few names at most.

Dimensions: N images, G groups.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from apn.report.canvas import MARKERS, SERIES
from apn.scoretable import Category, Scores

Colour = Literal["label", "generator", "scene", "source"]
COLOURS: tuple[Colour, ...] = get_args(Colour)
MOST = 12  # names; with more no legend can be read
OTHER_COLOUR = "#a4a8ad"
UNSAID = "(not said)"
REAL, GENERATED = "real", "generated"


class Groups(NamedTuple):
    """Image i is of the group names[codes[i]]; `other` is the index of the one that stands for many, -1 for none."""

    codes: np.ndarray  # (N,) int
    names: tuple[str, ...]
    other: int

    def style(self, group: int) -> dict[str, Any]:
        """Colour and marker of a group; no two of 24 alike, and no generator has the colour of real images."""
        if group == self.other:
            return {"color": OTHER_COLOUR, "marker": "."}
        first = int(self.names[0] == REAL and group > 0)
        colours, markers, place = SERIES[first:], MARKERS[first:], group - first
        turn, column = divmod(place, len(colours))
        return {"color": colours[column], "marker": markers[(column + turn) % len(markers)]}

    def take(self, index: np.ndarray) -> "Groups":
        """Those of some images."""
        return self._replace(codes=self.codes[index])


def group(scores: Scores, by: Colour) -> Groups:
    """The groups of all images, at most MOST with names of their own, the largest first; real ones before generators.

    Raises ValueError where no image says what is asked for.
    """
    if by == "label":
        return Groups(scores.labels.astype(int), (REAL, GENERATED), -1)
    column: Category = getattr(scores, by)
    if not column.present():
        raise ValueError(f"no image of the table says its {by}: expected --colour of another kind, or data that does")
    texts = [column.names[code] or UNSAID for code in column.codes]
    if by == "generator":
        texts = [text if label else REAL for text, label in zip(texts, scores.labels, strict=True)]
    return _largest(texts, first=REAL if by == "generator" else "", rest=f"other {by}s")


def _largest(texts: Sequence[str], first: str, rest: str) -> Groups:
    counts = Counter(texts)
    names = sorted(counts, key=lambda name: (name != first, -counts[name], name))
    kept = names if len(names) <= MOST else [*names[: MOST - 1], rest]
    places = {name: place for place, name in enumerate(kept)}
    codes = np.array([places.get(text, len(kept) - 1) for text in texts], int)
    return Groups(codes, tuple(kept), len(kept) - 1 if len(names) > MOST else -1)
