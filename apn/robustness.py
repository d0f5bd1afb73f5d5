"""Robustness: the grid of degradations as conditions of `apn.evaluate`, so that one table of scores holds it.

The protocol comes first, the degradation after it: of an aligned crop all sizes and JPEG grids are alike in both
classes, and so they stay. The other way round, the phase of a picture's grid after the crop would tell its size.
"""

from collections.abc import Sequence
from functools import partial
from threading import Lock

from apn.data.samples import Sample
from apn.degradations import Cell, cells, degrade
from apn.evaluate import Condition, Shown
from apn.image import LoadedImage
from apn.protocols import Protocol

_KEPT = 4  # decoded images: a few threads read ahead, and all conditions of one image follow each other


def show_degraded(protocol: Protocol, only: Sequence[str] = ()) -> list[Shown]:
    """The protocol's own condition, then one a cell of the grid, or of the degradations named.

    ValueError for a name that is not in the grid.
    """
    decoded = _Decoded(protocol)
    return [
        Shown(Condition(protocol.title, cell.degradation, level_name(cell)), partial(_open, decoded, cell))
        for cell in cells(only)
    ]


def level_name(cell: Cell) -> str:
    """The level as the table of scores says it; "" for the image as it is."""
    return "" if cell.level is None else f"{cell.level:g}"


class _Decoded:
    """The last images that a protocol opened."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol, self.lock = protocol, Lock()
        self.images: dict[Sample, LoadedImage] = {}

    def open(self, sample: Sample) -> LoadedImage:
        """Raises ImageError where the file cannot be read. Two threads at the same file may decode it once each."""
        with self.lock:
            kept = self.images.get(sample)
        if kept is not None:
            return kept
        image = self.protocol.open(sample.path, sample.label)
        with self.lock:
            self.images[sample] = image
            while len(self.images) > _KEPT:
                del self.images[next(iter(self.images))]
        return image


def _open(decoded: _Decoded, cell: Cell, sample: Sample) -> LoadedImage:
    image = decoded.open(sample)
    if cell.level is None:
        return image
    # The place in the data set, not on the disk: the same noise on every machine.
    pixels = degrade(image.pixels, cell, f"{sample.split_group}/{sample.path.name}")
    # No quality, no metadata: what the file said of itself is no longer true.
    return LoadedImage(pixels, "pixels", 1, False, None, {})
